//! One round of a compaction: list, copy, install, retire.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::eviction::Evicted;
use super::files::{Rows, remove_segment, rows_of, sweep_slots, sync_names, sync_removals};
use super::pacer::letting_in;
use super::policy::{Trigger, Victim, is_replaced};
use super::relocation::{Relocation, Survivor};
use super::survivor_groups::SurvivorGroups;
use super::{CompactionReport, CompactionSystem};
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::core::segment::row_bytes;
use crate::cache::tier::cold::core::slab::{AccountView, OpenSegment};
use crate::cache::tier::cold::courtesy::let_others_in;
use crate::cache::tier::cold::groups::{UNKNOWN_CLASS, group_of_survivors};
use crate::cache::tier::cold::ledger::BLOCK_BYTES;
use crate::cache::tier::cold::metadata_index::{EntryId, IndexEntry, Location, SizeClass};
use crate::cache::tier::cold::serialization::edit::Edit;
use crate::cache::tier::cold::serialization::footer::FooterRow;
use crate::cache::tier::cold::shared::{Shared, count};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Disk;

/// What survives of what is in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Keep {
    /// Everything, apart by how long it is likely to last.
    All,
    /// Everything, in as few segments as can be.
    Together,
    /// The most valuable records, up to so many bytes.
    Best {
        /// Bytes of records.
        bytes: u64,
    },
}

impl CompactionSystem {
    pub(super) fn compact_round<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        victims: &[Victim],
        keep: Keep,
        progress: &RoundProgress,
        report: &mut CompactionReport,
    ) -> Result<()> {
        self.cover_what_was_lost(shared)?;
        let before = (report.clone(), self.copied_by_eviction);
        let (mut listed, mut relocation) = self.relocate(shared, victims, keep, progress, report)?;
        if self.is_exposed(&relocation) {
            // What is lost may have kept something older away: a snapshot does so from now on (C10). The round starts
            // again behind it: a snapshot in the middle of a round would know some of what the round does not.
            relocation.discard();
            self.save_index(shared)?;
            (*report, self.copied_by_eviction) = before.clone();
            (listed, relocation) = self.relocate(shared, victims, keep, progress, report)?;
            if self.is_exposed(&relocation) {
                relocation.discard();
                (*report, self.copied_by_eviction) = before;
                let text = "records were damaged while a compaction looked at them; it is tried again later";
                return Err(Error::new(ErrorKind::Corruption, text));
            }
        }
        if listed.is_empty() {
            return Ok(());
        }
        shared.state.advance(progress.at(0.7));
        let watermark = listed.iter().map(|victim| victim.discarded_shadow).fold(self.watermark, u64::max);
        let watermark =
            relocation.damaged.iter().map(|survivor| survivor.row.sequence).fold(watermark, u64::max);
        let written = relocation.finished.iter().map(|finished| finished.allocated_bytes).sum();
        let edit = self.install(shared, &listed, relocation, watermark, report)?;
        shared.state.advance(progress.at(0.9));
        self.forget_evicted(shared, &listed);
        self.retire(shared, &listed, written, report);
        self.finished_edit = edit;
        self.has_moved = true;
        shared.state.advance(progress.at(1.0));
        Ok(())
    }

    /// Whether a damaged record may have kept something away that no snapshot covers.
    fn is_exposed<D: Disk, C: Clock>(&self, relocation: &Relocation<'_, D, C>) -> bool {
        relocation.damaged.iter().any(|survivor| survivor.row.sequence > self.covered())
    }

    /// Lists and copies. On an error nothing is left.
    fn relocate<'a, D: Disk, C: Clock>(
        &mut self,
        shared: &'a Shared<D, C>,
        victims: &[Victim],
        keep: Keep,
        progress: &RoundProgress,
        report: &mut CompactionReport,
    ) -> Result<(Vec<Listed>, Relocation<'a, D, C>)> {
        let mut listed = self.list_survivors(shared, victims, keep, report)?;
        let id = |victim: &Victim| victim.account.identity.segment_id;
        let covered = self.covered();
        for victim in victims.iter().filter(|victim| !listed.iter().any(|one| id(&one.victim) == id(victim)))
        {
            self.set_aside.insert(id(victim), covered);
        }
        if let Keep::Best { bytes } = keep {
            self.select_evicted(shared, &mut listed, bytes);
        }
        shared.state.advance(progress.at(0.3));
        let survivors = listed.iter().flat_map(|victim| &victim.survivors);
        let base_sequence = survivors.map(|survivor| survivor.row.sequence).min().unwrap_or(0);
        let survivors = listed.iter().flat_map(|victim| &victim.survivors);
        let groups = SurvivorGroups::new(survivors, shared.segment_bytes());
        let mut relocation = Relocation::new(shared, base_sequence, groups);
        if let Err(error) = self.copy_survivors(shared, &listed, &mut relocation, progress) {
            relocation.discard();
            return Err(error);
        }
        Ok((listed, relocation))
    }

    /// Lists, victim by victim, what has to survive. Expired entries leave the index here.
    fn list_survivors<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        victims: &[Victim],
        keep: Keep,
        report: &mut CompactionReport,
    ) -> Result<Vec<Listed>> {
        let now_ms = shared.clock.now_ms();
        let mut listed = Vec::with_capacity(victims.len());
        for victim in victims {
            self.check_stop(shared)?;
            // An eviction that made room for this round may have taken it, and its slot may be another segment's.
            let standing = shared.slab.account(victim.account.slot);
            if standing.is_none_or(|standing| standing.identity != victim.account.identity) {
                continue;
            }
            let hides = victim.account.summary.shadow_max > self.covered();
            let found = match rows_of(shared, &victim.account)? {
                Some(found) => found,
                // Nothing of it is needed: it need not be readable to go.
                None if is_replaced(&victim.account) && !hides => Rows::unknown(),
                None => continue,
            };
            if found.lost && hides {
                // What is lost may have been a deletion that no snapshot knows of: the segment has to wait for one.
                tracing::warn!(segment = victim.account.identity.segment_id, "damaged; left for later");
                continue;
            }
            // What is lost may have been its newest shadow; it is covered.
            let discarded_shadow =
                if found.lost { victim.account.summary.shadow_max.min(self.covered()) } else { 0 };
            let mut entry = Listed {
                victim: *victim,
                survivors: Vec::new(),
                evicted: Vec::new(),
                discarded_shadow,
                damaged: found.lost,
            };
            let group = match keep {
                // Put together, what is left takes the fewest segments.
                Keep::Together => UNKNOWN_CLASS,
                _ => {
                    let (group, summary) = (victim.account.identity.group, &victim.account.summary);
                    group_of_survivors(group, summary, shared.in_flight.next_sequence(), shared.index.len())
                }
            };
            for (at, row) in letting_in(found.rows.iter().enumerate()) {
                let bytes = row_bytes(&found.rows, at, found.records_end) as u64;
                self.list_row(shared, (row, bytes, group), now_ms, &mut entry, report);
            }
            listed.push(entry);
        }
        Ok(listed)
    }

    fn list_row<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        (row, bytes, group): (&FooterRow, u64, u8),
        now_ms: u64,
        entry: &mut Listed,
        report: &mut CompactionReport,
    ) {
        let from = Location { slot: entry.victim.account.slot, offset: row.offset };
        let id = EntryId::of(row.hash);
        if row.is_expired(now_ms) && self.expire_row(shared, row, from) {
            count(&shared.counters.expired_removed, 1);
            // The round may fail, and the victim stay.
            shared.slab.note_expired(from.slot, 1, bytes);
        }
        let covered = row.sequence <= self.covered();
        match shared.index.get(id) {
            Some(known) if known.location == from && known.is_shadow() && covered => {
                // The snapshot reflects it, so nothing older can come back (X1).
                shared.index.replace_if(id, from, None);
            }
            Some(known) if known.location == from => {
                let shadow = known.is_shadow();
                // Shadows lie together, as deletions do.
                let group = if shadow { UNKNOWN_CLASS } else { group };
                entry.survivors.push(Survivor { row: *row, from, bytes, group, shadow });
                return;
            }
            _ => {}
        }
        match row.is_expired(now_ms) {
            true => report.entries_expired += 1,
            false => report.entries_dead += u64::from(!row.tombstone),
        }
        if row.is_shadow() && covered {
            entry.discarded_shadow = entry.discarded_shadow.max(row.sequence);
        }
    }

    /// Takes an expired entry out of the index, if the row is its latest record. Where its disappearance could expose
    /// something older, it stays as a shadow. True if an entry was taken out.
    pub(super) fn expire_row<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        row: &FooterRow,
        at: Location,
    ) -> bool {
        if row.tombstone {
            return false;
        }
        let id = EntryId::of(row.hash);
        let Some(known) = shared.index.get(id) else { return false };
        if known.location != at {
            return false;
        }
        // The clock that says so has to be durable before anything is dropped on its word (T2).
        shared.condition.expiry_observed.store(true, Ordering::SeqCst);
        let gone = row.ends_its_key() || row.sequence <= self.covered();
        let shadow = IndexEntry { location: at, size: SizeClass::SHADOW };
        // The writer may have replaced it meanwhile: then the entry has been rewritten and stays.
        shared.index.replace_if(id, at, (!gone).then_some(shadow)) && !known.is_shadow()
    }

    fn copy_survivors<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        listed: &[Listed],
        relocation: &mut Relocation<'_, D, C>,
        progress: &RoundProgress,
    ) -> Result<()> {
        let mut before = 0;
        for victim in listed {
            let Victim { account, recompress } = victim.victim;
            let mut paced = 0;
            let quiet = Cell::new(self.quiet);
            // While nobody calls, storing anew may have a second processor.
            let threads = || {
                let mut seen = quiet.get();
                let is_idle = seen.look(shared.counters.calls());
                quiet.set(seen);
                if is_idle { 2 } else { 1 }
            };
            relocation.copy(&account.identity, &victim.survivors, recompress, threads, |offset| {
                let share = (before + offset) as f32 / progress.bytes.max(1) as f32;
                // To 0.65 with the bytes; sync and verification take the rest to 0.7.
                shared.state.advance(progress.at(0.3 + 0.35 * share.min(1.0)));
                let bytes = offset - std::mem::replace(&mut paced, offset);
                self.pause(shared, 2 * bytes)
            })?;
            self.quiet = quiet.get();
            before += victim_bytes(&victim.victim);
        }
        relocation.finish()
    }

    /// Names the outputs, commits, and repoints the index. On an error before the commit everything is undone.
    fn install<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        listed: &[Listed],
        relocation: Relocation<'_, D, C>,
        watermark: u64,
        report: &mut CompactionReport,
    ) -> Result<u64> {
        let dir = &shared.config.dir;
        let committed = self.publish(shared, &relocation).and_then(|()| {
            self.commit(Edit::Replace {
                add: relocation.finished.iter().map(|finished| finished.entry.clone()).collect(),
                drop: listed.iter().map(|victim| victim.victim.account.identity.segment_id).collect(),
                watermark,
            })
        });
        let edit = match committed {
            Ok(edit) => edit,
            // The commit may or may not be on disk: both sets of files stay for the next start to choose from.
            Err(error) if error.is_read_only() || error.is_closed() => return Err(error),
            Err(error) => {
                relocation.discard();
                return Err(error);
            }
        };
        self.watermark = watermark;
        for moved in letting_in(relocation.moved.iter()) {
            shared.hand_over().repoint(moved.id, moved.from, moved.to);
        }
        for survivor in &relocation.damaged {
            shared.index.replace_if(EntryId::of(survivor.row.hash), survivor.from, None);
        }
        report.entries_copied += relocation.moved.iter().filter(|moved| !moved.to.is_shadow()).count() as u64;
        report.entries_recompressed += relocation.recompressed;
        report.entries_damaged += relocation.damaged.len() as u64;
        report.segments_written += relocation.finished.len() as u64;
        report.bytes_after +=
            relocation.finished.iter().map(|finished| finished.allocated_bytes).sum::<u64>();
        tracing::debug!(dir = %dir.display(), edit, "compaction committed");
        Ok(edit)
    }

    /// Gives the outputs their names and opens them for readers; the index does not point at them yet.
    fn publish<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        relocation: &Relocation<'_, D, C>,
    ) -> Result<()> {
        let dir = &shared.config.dir;
        for finished in &relocation.finished {
            let identity = finished.entry.identity;
            let path = names::segment(dir, identity.segment_id);
            let temporary = names::temporary(&path);
            shared.disk.rename(&temporary, &path).map_err(|error| Error::io("rename", &temporary, error))?;
            let file = shared.disk.open_read(&path).map_err(|error| Error::io("open", &path, error))?;
            shared.slab.install(
                finished.entry.slot,
                OpenSegment::new(identity, file),
                finished.summary,
                finished.class_bytes,
                Some(shared.in_flight.next_sequence()),
            );
        }
        if relocation.finished.is_empty() {
            return Ok(());
        }
        sync_names(shared)
    }

    /// Closes and deletes the victims. What cannot be deleted is an orphan for the next start.
    fn retire<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        listed: &[Listed],
        written: u64,
        report: &mut CompactionReport,
    ) {
        let mut freed = 0;
        let damaged = listed.iter().filter(|victim| victim.damaged);
        sweep_slots(shared, &damaged.map(|victim| victim.victim.account.slot).collect::<Vec<_>>());
        for victim in listed {
            freed += remove_segment(shared, &victim.victim.account);
            // One file at a time: its blocks are given back while nothing else is held up.
            let_others_in();
        }
        sync_removals(shared);
        report.segments_removed += listed.len() as u64;
        report.bytes_before += freed;
        report.bytes_reclaimed = report.bytes_before as i64 - report.bytes_after as i64;
        let reclaimed = freed.saturating_sub(written);
        shared.state.add_reclaimed(reclaimed);
        count(&shared.counters.bytes_reclaimed, reclaimed);
    }

    /// Saves the index, if that lets the victims' shadows go: by itself only where it is cheap.
    pub(super) fn cover_shadows<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        rounds: &[Vec<Victim>],
        trigger: Trigger,
    ) -> Result<()> {
        let victims = || rounds.iter().flatten();
        let covered = self.covered();
        let hides = |account: &AccountView| account.summary.shadow_max > covered && !is_replaced(account);
        if !victims().any(|victim| hides(&victim.account)) {
            return Ok(());
        }
        match trigger {
            Trigger::Requested => self.save_index(shared).map(drop),
            Trigger::Automatic | Trigger::Awaited => self.cover_if_cheap(shared),
        }
    }
}

/// Where a round stands in the whole task.
pub(super) struct RoundProgress {
    pub before: u64,
    pub bytes: u64,
    pub total: u64,
}

impl RoundProgress {
    /// The task's progress when the round's own is `round`; the victims of all rounds were chosen at 0.1.
    fn at(&self, round: f32) -> f32 {
        let (before, bytes, total) = (self.before as f32, self.bytes as f32, self.total.max(1) as f32);
        if self.bytes >= self.total {
            return round;
        }
        0.1 + 0.9 * (before + bytes * round) / total
    }
}

/// A victim and what it holds.
pub(super) struct Listed {
    pub victim: Victim,
    pub survivors: Vec<Survivor>,
    /// What is in force and goes all the same.
    pub evicted: Vec<Evicted>,
    /// Highest covered shadow that is left behind.
    pub discarded_shadow: u64,
    damaged: bool,
}

pub(super) fn victim_bytes(victim: &Victim) -> u64 {
    victim.account.summary.record_bytes()
}

/// Bytes that what is live in a victim takes in an output, at most (its live bytes are known to a quarter), its rows and
/// its share of a block included.
pub(super) fn output_bytes(account: &AccountView) -> u64 {
    let live = account.live_bytes() + account.live_bytes() / 4;
    live.min(account.summary.record_bytes()) + 24 * u64::from(account.summary.records) + BLOCK_BYTES
}
