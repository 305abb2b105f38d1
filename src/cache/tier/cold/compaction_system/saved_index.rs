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

/// By themselves, the tasks save the index only if that writes at most this share of what segments took meanwhile. What
/// waits for it can be moved instead, at less than that.
const COVERING_SHARE_MAX: f64 = 0.05;
/// Bytes of a snapshot, an entry, parity included.
pub(super) const SNAPSHOT_ENTRY_BYTES: u64 = 10;
/// Segments whose index entries are checked in one pass over the index.
pub(super) const REBUILD_SEGMENTS: usize = 32;

impl CompactionSystem {
    /// Saves the index if a snapshot may have been lost. A record is *first* or *outlasts* what is older because a
    /// snapshot covered what lay between. When that snapshot is gone, nothing but the record in between keeps the older
    /// one away, and it must not be dropped as replaced without raising W: so a new snapshot covers it first.
    pub(super) fn cover_what_was_lost<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        if self.must_cover {
            self.save_index(shared)?;
            self.must_cover = false;
        }
        Ok(())
    }

    /// Saves the index, unless too little was written since the last time.
    pub(super) fn cover_if_cheap<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        let written =
            shared.counters.segment_bytes_written.load(Ordering::Relaxed) - self.written_at_snapshot;
        let entries = shared.index.entries();
        if (entries * SNAPSHOT_ENTRY_BYTES) as f64 <= COVERING_SHARE_MAX * written as f64 {
            self.save_index(shared)?;
        }
        Ok(())
    }

    /// Saves the index: a snapshot that takes the place of the one before. Returns its bytes.
    pub(in crate::cache::tier::cold) fn save_index<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
    ) -> Result<u64> {
        let losses = self.ask(|reply| MaintenanceRequest::HandOver { reply })?;
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
        // The writer makes everything it has appended durable before the edit: all that the snapshot points at.
        let committed = self.commit_if(Edit::AddSnapshot(snapshot), Some(losses));
        if let Err(error) = committed {
            if !error.is_read_only() && !error.is_closed() {
                remove_file(shared, &names::snapshot(dir, snapshot.id));
            }
            return Err(error);
        }
        (self.is_snapshot_worn, self.has_moved) = (false, false);
        if let Some(old) = self.snapshot.replace(snapshot) {
            remove_file(shared, &names::snapshot(dir, old.id));
        }
        sync_removals(shared);
        shared.counters.snapshot_bytes.store(snapshot.file_bytes, Ordering::Relaxed);
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
