//! Eviction: at capacity, what is worth least goes.
//!
//! Segments are emptied one round at a time by the protocol of a compaction. Of what is in force in them the most
//! valuable records are copied, as many as the copy budget allows, and the rest is evicted: a record's value is the
//! reads counted of it times the time it has left, for each of its bytes. What was never read since it was written or
//! moved is not copied. The constants are from a simulation of Zipf 0.9 requests at a tenth of the key space.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::policy::{Victim, choose_evictions, choose_round};
use super::relocation::Survivor;
use super::round::{Keep, Listed, RoundProgress, victim_bytes};
use super::{CompactionReport, CompactionSystem, Trigger};
use crate::cache::eviction::EvictionReason;
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::core::segment::{decode_record, read_record};
use crate::cache::tier::cold::ledger::snapshot_bytes;
use crate::cache::tier::cold::message::MaintenanceRequest;
use crate::cache::tier::cold::metadata_index::EntryId;
use crate::cache::tier::cold::serialization::segment::LogKind;
use crate::cache::tier::cold::shared::{Shared, count};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Disk;

/// Evictions copy at most this share of the bytes that are let in.
const COPY_SHARE: f64 = 0.19;
/// What was let in long ago and called for no copies allows no more than this many segments of them now.
const COPY_SEGMENTS_MAX: u64 = 4;
/// And never so much of a victim that hardly anything is gained.
const COPY_VICTIM_SHARE: f64 = 0.9;
/// A survivor was moved because it was read: to be moved again it must have been read this often, half of what was
/// counted before included.
const SURVIVOR_HITS: u8 = 2;

/// So many rounds in a row that give nothing back are given up.
const FRUITLESS_MAX: u32 = 16;

/// A record that is evicted.
pub(super) struct Evicted {
    survivor: Survivor,
    /// Its key is, because something older of it may be on disk.
    remembered: bool,
}

impl CompactionSystem {
    /// Evicts until callers can write, or have been given, so many bytes: what they take at once is not made for ever.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when nothing is left to evict and callers still have less room; whatever stopped a round.
    pub(in crate::cache::tier::cold) fn make_room<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        bytes: u64,
    ) -> Result<()> {
        let room = || shared.ledger.room(shared.index.entries());
        let mut given_back = 0;
        while room() < bytes && (given_back < bytes || shared.ledger.is_overfull(shared.index.entries())) {
            self.check_stop(shared)?;
            given_back += self.evict_round(shared)?.ok_or_else(|| shared.ledger.note_exhausted())?;
        }
        Ok(())
    }

    /// Reserves room for one round's outputs, or a snapshot, beyond what callers may fill. Evicts as long as there is
    /// none. To be struck out of the ledger when what is written is entered.
    pub(super) fn reserve_for_output<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        bytes: u64,
    ) -> Result<()> {
        if shared.ledger.try_reserve_for_maintenance(bytes) {
            return Ok(());
        }
        // Callers, who wait for room too, would take whatever is made.
        shared.ledger.claim_for_maintenance(bytes);
        let reserved = self.evict_for_output(shared, bytes);
        shared.ledger.claim_for_maintenance(0);
        reserved
    }

    fn evict_for_output<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, bytes: u64) -> Result<()> {
        while !shared.ledger.try_reserve_for_maintenance(bytes) {
            self.check_stop(shared)?;
            if self.evict_round(shared)?.is_none() {
                return Err(Error::new(
                    ErrorKind::Full,
                    "no room for a compaction's output below the capacity",
                ));
            }
        }
        Ok(())
    }

    /// Frees what costs least: what has expired, what is dead, then what is worth least. Returns the bytes
    /// given back; `None` if there is nothing left.
    fn evict_round<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<Option<u64>> {
        let expired = self.cleanup_expired_entries(shared, Trigger::Automatic)?.bytes_reclaimed;
        if expired > 0 {
            return Ok(Some(expired));
        }
        // Segments of nothing but shadows give nothing back until a snapshot covers them.
        if self.waiting_bytes(shared) > snapshot_bytes(shared.index.entries()) {
            self.save_index(shared)?;
        }
        let mut victims = self.choose_to_evict(shared);
        if victims.is_empty() {
            // The rest is in active segments.
            self.ask(|reply| MaintenanceRequest::Seal { reply })?;
            victims = self.choose_to_evict(shared);
        }
        if victims.is_empty() && self.waiting_bytes(shared) > 0 {
            self.save_index(shared)?;
            victims = self.choose_to_evict(shared);
        }
        if victims.is_empty() {
            return Ok(None);
        }
        let bytes = victims.iter().map(victim_bytes).sum();
        let aside = self.set_aside.len();
        let progress = RoundProgress { before: 0, bytes, total: bytes };
        let mut report = CompactionReport::default();
        let budget = self.copy_budget(shared);
        // Callers, who wait for the room that is being made, take none of the copies'.
        let copied = if shared.ledger.try_reserve_for_maintenance(budget) { budget } else { 0 };
        let outcome =
            self.compact_round(shared, &victims, Keep::Best { bytes: copied }, &progress, &mut report);
        shared.ledger.strike(copied);
        outcome?;
        tracing::debug!(segments = report.segments_removed, copied = report.entries_copied, "evicted");
        if self.set_aside.len() > aside {
            // The next round takes others.
            return Ok(Some(0));
        }
        // Whatever the reason: what gives nothing back time and again is not tried for ever.
        self.fruitless_evictions =
            if report.bytes_reclaimed > 0 { 0 } else { (self.fruitless_evictions + 1) % FRUITLESS_MAX };
        let goes_on =
            report.segments_removed > 0 && (report.bytes_reclaimed > 0 || self.fruitless_evictions != 0);
        Ok(goes_on.then_some(report.bytes_reclaimed.max(0) as u64))
    }

    /// Bytes of segments that hold nothing but what has to be remembered until a snapshot covers it.
    fn waiting_bytes<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> u64 {
        let circumstances = self.circumstances(shared);
        let accounts = self.accounts(shared);
        let waiting = accounts.iter().filter(|account| circumstances.is_waiting(account));
        waiting.map(|account| account.summary.record_bytes()).sum()
    }

    fn choose_to_evict<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> Vec<Victim> {
        let circumstances = self.circumstances(shared);
        let mut accounts = self.accounts(shared);
        accounts.retain(|account| !circumstances.is_waiting(account));
        let free = choose_round(&accounts, &circumstances);
        if free.iter().any(|victim| victim.account.live_records() == 0) {
            return free;
        }
        choose_evictions(&accounts, &circumstances)
    }

    /// Bytes that an eviction may copy now.
    fn copy_budget<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> u64 {
        if !shared.may_copy() {
            return 0;
        }
        let admitted = shared.counters.stored_bytes_inserted.load(Ordering::Relaxed);
        let allowed = (COPY_SHARE * admitted as f64) as u64;
        let most = COPY_SEGMENTS_MAX * shared.segment_bytes();
        self.copied_by_eviction = self.copied_by_eviction.max(allowed.saturating_sub(most));
        (allowed - self.copied_by_eviction.min(allowed)).min(shared.ledger.room_of_maintenance())
    }

    /// Sorts out, from what survives in the victims, what is evicted.
    pub(super) fn select_evicted<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        listed: &mut [Listed],
        copy_bytes: u64,
    ) {
        let chosen = self.most_valuable(shared, listed, copy_bytes);
        let covered = self.covered();
        for (at, victim) in listed.iter_mut().enumerate() {
            let survivors = std::mem::take(&mut victim.survivors);
            for (number, survivor) in survivors.into_iter().enumerate() {
                if survivor.shadow || chosen.contains(&(at, number)) {
                    victim.survivors.push(survivor);
                    continue;
                }
                let row = &survivor.row;
                // Something older may be on disk: then the key is remembered.
                let remembered = row.is_shadow() && row.sequence > covered;
                if remembered {
                    victim.survivors.push(Survivor { shadow: true, ..survivor });
                } else if row.is_shadow() {
                    victim.discarded_shadow = victim.discarded_shadow.max(row.sequence);
                }
                victim.evicted.push(Evicted { survivor, remembered });
            }
        }
    }

    /// The records that are copied, by victim and place in it.
    fn most_valuable<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        listed: &[Listed],
        copy_bytes: u64,
    ) -> HashSet<(usize, usize)> {
        let (now_ms, horizon_ms) = (shared.clock.now_ms(), self.turnover_ms(shared));
        let mut values = Vec::new();
        let bytes: u64 = listed.iter().map(|victim| victim_bytes(&victim.victim)).sum();
        let copy_bytes = copy_bytes.min((COPY_VICTIM_SHARE * bytes as f64) as u64);
        for (at, victim) in listed.iter().enumerate() {
            for (number, survivor) in victim.survivors.iter().enumerate().filter(|(_, kept)| !kept.shadow) {
                let hits = shared.index.hits(EntryId::of(survivor.row.hash), survivor.from).unwrap_or(0);
                let moved_before = victim.victim.account.identity.log == LogKind::Survivors;
                if moved_before && hits < SURVIVOR_HITS {
                    continue;
                }
                values.push((value_of(survivor, hits, now_ms, horizon_ms), survivor.bytes, (at, number)));
            }
        }
        values.retain(|(value, ..)| *value > 0.0);
        values.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut left = copy_bytes;
        let mut chosen = HashSet::new();
        for (_, bytes, place) in values {
            if bytes <= left {
                left -= bytes;
                chosen.insert(place);
            }
        }
        self.copied_by_eviction += copy_bytes - left;
        chosen
    }

    /// Time in which what is written fills the directory once: how far ahead an entry's remaining life counts.
    fn turnover_ms<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> f64 {
        let written = shared.counters.segment_bytes_written.load(Ordering::Relaxed);
        let elapsed_ms = shared.clock.now_ms().saturating_sub(self.opened_at_ms).max(1);
        shared.ledger.taken_bytes() as f64 * elapsed_ms as f64 / written.max(1) as f64
    }

    /// Takes what was evicted out of the index, counts it, and tells the listener. The commit has been made; the
    /// victims' files are still there.
    pub(super) fn forget_evicted<D: Disk, C: Clock>(&self, shared: &Shared<D, C>, listed: &[Listed]) {
        for victim in listed {
            let mut evicted = Vec::with_capacity(victim.evicted.len());
            for Evicted { survivor, remembered } in &victim.evicted {
                let id = EntryId::of(survivor.row.hash);
                // What was replaced meanwhile has not been evicted. A key that is remembered has moved on as a shadow.
                let gone = match remembered {
                    true => shared.index.get(id).is_none_or(|entry| entry.is_shadow()),
                    false => shared.index.replace_if(id, survivor.from, None),
                };
                if gone {
                    evicted.push(*survivor);
                }
            }
            count(&shared.counters.evicted, evicted.len() as u64);
            count(&shared.counters.evicted_bytes, evicted.iter().map(|survivor| survivor.bytes).sum());
            if shared.config.evictions.is_some() {
                tell(shared, victim, &evicted);
            }
        }
    }
}

/// Reads expected of a record in the time it has left, as far as the horizon, for each of its bytes.
fn value_of(survivor: &Survivor, hits: u8, now_ms: u64, horizon_ms: f64) -> f64 {
    let life = match survivor.row.expires_at_ms {
        0 => 1.0,
        at_ms => (at_ms.saturating_sub(now_ms) as f64 / horizon_ms).min(1.0),
    };
    f64::from(hits) * life / survivor.bytes as f64
}

/// Reads the evicted records' keys, which the index does not keep.
fn tell<D: Disk, C: Clock>(shared: &Shared<D, C>, victim: &Listed, evicted: &[Survivor]) {
    let identity = &victim.victim.account.identity;
    let file = shared.disk.open_read(&names::segment(&shared.config.dir, identity.segment_id));
    let (mut buffer, mut raw) = (Vec::new(), Vec::new());
    for survivor in evicted {
        let key = || {
            let (file, hint) = (file.as_ref().ok()?, survivor.bytes as usize);
            let offset = survivor.from.offset;
            let read = read_record(file, identity, offset, hint, &mut buffer, &shared.dictionaries);
            let meta = read.ok()?.meta;
            let end = meta.stored_range().end;
            decode_record(&meta, &mut buffer[..end], &shared.dictionaries, &mut raw).ok()?;
            Some(Bytes::copy_from_slice(&raw[..meta.key_len as usize]))
        };
        shared.tell_eviction(EvictionReason::Capacity, survivor.bytes, key);
    }
}
