//! Saving the index: snapshots, and the check that comes before one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::files::{remove_file, rows_of, sync_removals};
use super::{CompactionSystem, RebuildReport};
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::core::slab::AccountView;
use crate::cache::tier::cold::core::snapshot::write_snapshot;
use crate::cache::tier::cold::ledger::{in_blocks, snapshot_bytes};
use crate::cache::tier::cold::message::MaintenanceRequest;
use crate::cache::tier::cold::metadata_index::{EntryId, Location, PARTITIONS};
use crate::cache::tier::cold::serialization::edit::{Edit, SnapshotEntry};
use crate::cache::tier::cold::shared::Shared;
use crate::clock::Clock;
use crate::error::Result;
use crate::io::Disk;

/// Kept snapshots may take this share of the live bytes; beyond it only one is kept.
const SNAPSHOT_SHARE_MAX: f64 = 0.12;
/// By themselves, the tasks save the index only if that writes at most this share of what segments took meanwhile; twice
/// as much where two snapshots are kept. What waits for it can be moved instead, at less than that.
const COVERING_SHARE_MAX: f64 = 0.05;
/// Bytes of a snapshot, an entry.
pub(super) const SNAPSHOT_ENTRY_BYTES: u64 = 12;
/// Segments whose index entries are checked in one pass over the index.
pub(super) const REBUILD_SEGMENTS: usize = 32;

impl CompactionSystem {
    /// Brings every kept snapshot up to now.
    pub(super) fn cover_all<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        self.write_snapshot(shared, false)?;
        if self.keeps_two(shared) && !self.reserve.is_given_up() {
            self.write_snapshot(shared, true)?;
        }
        Ok(())
    }

    /// Saves the index if snapshots may have been lost. A record is *first* or *outlasts* what is older because a
    /// snapshot covered what lay between. When that snapshot is gone, nothing but the record in between keeps the older
    /// one away, and it must not be dropped as replaced without raising W: so a new snapshot covers it first.
    pub(super) fn cover_what_was_lost<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        if self.must_cover {
            self.cover_all(shared)?;
            self.must_cover = false;
        }
        Ok(())
    }

    /// Brings every kept snapshot up to now, unless too little was written since the last one.
    pub(super) fn cover_if_cheap<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        let written =
            shared.counters.segment_bytes_written.load(Ordering::Relaxed) - self.written_at_snapshot;
        let entries = shared.index.entries();
        if (entries * SNAPSHOT_ENTRY_BYTES) as f64 <= COVERING_SHARE_MAX * written as f64 {
            self.cover_all(shared)?;
        }
        Ok(())
    }

    pub(super) fn keeps_two<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> bool {
        let entries = shared.index.entries();
        let live: u64 = shared.slab.accounts().iter().map(AccountView::live_bytes).sum();
        (2 * entries * SNAPSHOT_ENTRY_BYTES) as f64 <= SNAPSHOT_SHARE_MAX * live as f64
    }

    /// Saves the index. The snapshot before it stays as a spare, if there is room for two. Returns the new one's bytes.
    pub(in crate::cache::tier::cold) fn save_index<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
    ) -> Result<u64> {
        self.write_snapshot(shared, self.keeps_two(shared))
    }

    /// Writes a snapshot of the index; with `keep_one`, the newest older one stays beside it. Returns its bytes.
    fn write_snapshot<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, keep_one: bool) -> Result<u64> {
        self.ask(|reply| MaintenanceRequest::HandOver { reply })?;
        let mut snapshot = SnapshotEntry {
            id: shared.take_file_id(),
            covers: shared.processed_sequence.load(Ordering::SeqCst),
            covers_edit: self.finished_edit,
            file_bytes: 0,
        };
        let dir = &shared.config.dir;
        let expected = in_blocks(snapshot_bytes(shared.index.entries()));
        shared.ledger.enter(expected);
        let written =
            write_snapshot(&shared.disk, dir, shared.store_id, &snapshot, &shared.index, &shared.slab);
        // In one step: what is struck out in between, a caller could take.
        shared.ledger.resize(expected, written.as_ref().map_or(0, |file_bytes| *file_bytes));
        snapshot.file_bytes = written?;
        let keep: Vec<u64> = self.snapshots.iter().rev().take(keep_one.into()).map(|kept| kept.id).collect();
        // The writer makes everything it has appended durable before the edit: all that the snapshot points at.
        let committed = self.commit(Edit::AddSnapshot { snapshot, keep: keep.clone() });
        if let Err(error) = committed {
            if !error.is_read_only() && !error.is_closed() {
                remove_file(shared, &names::snapshot(dir, snapshot.id));
            }
            return Err(error);
        }
        let (kept, gone): (Vec<SnapshotEntry>, Vec<SnapshotEntry>) =
            std::mem::take(&mut self.snapshots).into_iter().partition(|known| keep.contains(&known.id));
        self.snapshots = kept;
        self.snapshots.push(snapshot);
        for old in gone {
            remove_file(shared, &names::snapshot(dir, old.id));
        }
        sync_removals(shared);
        let bytes = self.snapshots.iter().map(|snapshot| snapshot.file_bytes).sum();
        shared.counters.snapshot_bytes.store(bytes, Ordering::Relaxed);
        self.written_at_snapshot = shared.counters.segment_bytes_written.load(Ordering::Relaxed);
        Ok(snapshot.file_bytes)
    }
}

/// Checks the index entries of a few segments against their rows.
pub(super) fn check_batch<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    batch: &[AccountView],
    report: &mut RebuildReport,
) -> Result<()> {
    let mut rows: HashMap<Location, EntryId> = HashMap::new();
    let mut checked = HashSet::new();
    for account in batch {
        // What cannot be read now says nothing about the entries in it: readers have the segment open.
        let Some(found) = rows_of(shared, account)? else { continue };
        checked.insert(account.slot);
        report.segments_checked += 1;
        report.rows_checked += found.rows.len() as u64;
        report.footers_damaged += u64::from(found.from_records);
        rows.extend(
            found
                .rows
                .iter()
                .map(|row| (Location { slot: account.slot, offset: row.offset }, EntryId::of(row.hash))),
        );
    }
    for number in 0..PARTITIONS {
        for (id, entry) in shared.index.partition(number as u16) {
            if checked.contains(&entry.location.slot)
                && rows.get(&entry.location) != Some(&id)
                && shared.index.replace_if(id, entry.location, None)
            {
                report.dangling_removed += 1;
            }
        }
    }
    Ok(())
}
