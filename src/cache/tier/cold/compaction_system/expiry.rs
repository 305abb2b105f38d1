//! Expiry: what is past its time leaves the index, and whole segments leave the disk.

use super::files::{remove_segment, rows_of, sweep_segment, sync_removals};
use super::pacer::letting_in;
use super::{CleanupReport, CompactionSystem};
use crate::cache::tier::cold::core::segment::row_bytes;
use crate::cache::tier::cold::core::slab::AccountView;
use crate::cache::tier::cold::message::MaintenanceRequest;
use crate::cache::tier::cold::metadata_index::Location;
use crate::cache::tier::cold::serialization::edit::Edit;
use crate::cache::tier::cold::shared::{Shared, count};
use crate::clock::Clock;
use crate::error::Result;
use crate::io::Disk;

/// An unreadable segment is looked at again after this time.
const UNREADABLE_RETRY_MS: u64 = 60_000;

/// A segment in which everything has expired.
pub(super) struct Emptied {
    pub account: AccountView,
    /// Index entries may still name it: shadows, or what its damaged footer does not tell.
    pub sweep: bool,
}

/// What a cleanup found in a segment.
pub(super) struct Expired {
    pub removed: u64,
    /// Its footer is damaged and records are lost.
    pub lost: bool,
}

impl CompactionSystem {
    /// Takes a sealed segment's expired entries out; `None` if it cannot be read: it is looked at again later.
    pub(super) fn expire_sealed<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        account: &AccountView,
        now_ms: u64,
    ) -> Result<Option<Expired>> {
        let Some(found) = rows_of(shared, account)? else {
            shared.slab.set_next_expiry(account.slot, now_ms + UNREADABLE_RETRY_MS);
            return Ok(None);
        };
        let mut next_expiry_ms = u64::MAX;
        let (mut removed, mut bytes) = (0, 0);
        for (at, row) in letting_in(found.rows.iter().enumerate()) {
            let location = Location { slot: account.slot, offset: row.offset };
            if !row.is_expired(now_ms) {
                if row.expires_at_ms != 0 {
                    next_expiry_ms = next_expiry_ms.min(row.expires_at_ms);
                }
            } else if self.expire_row(shared, row, location) {
                removed += 1;
                bytes += row_bytes(&found.rows, at, found.records_end) as u64;
            }
        }
        shared.slab.note_expired(account.slot, removed, bytes);
        shared.slab.set_next_expiry(account.slot, next_expiry_ms);
        Ok(Some(Expired { removed, lost: found.lost }))
    }

    pub(super) fn expire_active<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        slot: u32,
        now_ms: u64,
    ) -> Result<u64> {
        let Some(rows) = self.ask(|reply| MaintenanceRequest::ExpiredRows { slot, now_ms, reply })? else {
            // Sealed meanwhile: its turn comes with the next cleanup.
            return Ok(0);
        };
        let (mut removed, mut bytes) = (0, 0);
        for (row, row_bytes) in letting_in(rows.iter()) {
            let location = Location { slot, offset: row.offset };
            if self.expire_row(shared, row, location) {
                removed += 1;
                bytes += row_bytes;
            }
        }
        shared.slab.note_expired(slot, removed, bytes);
        Ok(removed)
    }

    /// Drops segments in which everything has expired: edit first, files after it.
    pub(super) fn drop_emptied<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        emptied: &[Emptied],
        report: &mut CleanupReport,
    ) -> Result<()> {
        if !emptied.is_empty() {
            self.cover_what_was_lost(shared)?;
        }
        if emptied.iter().any(|empty| empty.account.summary.exposing_max > self.covered()) {
            self.cover_if_cheap(shared)?;
        }
        let covered = self.covered();
        let ready: Vec<&Emptied> =
            emptied.iter().filter(|empty| empty.account.summary.exposing_max <= covered).collect();
        if ready.len() < emptied.len() {
            tracing::debug!(segments = emptied.len() - ready.len(), "expired segments wait for a snapshot");
        }
        shared.state.advance(0.85);
        if ready.is_empty() {
            return Ok(());
        }
        // Entries that had to be remembered are covered now. Where nothing was replaced, none were.
        ready.iter().filter(|empty| empty.sweep).for_each(|empty| sweep_segment(shared, &empty.account));
        let watermark =
            ready.iter().map(|empty| empty.account.summary.exposing_max).fold(self.watermark, u64::max);
        let drop = ready.iter().map(|empty| empty.account.identity.segment_id).collect();
        let edit = self.commit(Edit::Replace { add: Vec::new(), drop, watermark })?;
        self.watermark = watermark;
        shared.state.advance(0.9);
        for empty in &ready {
            report.bytes_reclaimed += remove_segment(shared, &empty.account);
        }
        sync_removals(shared);
        self.finished_edit = edit;
        report.segments_dropped = ready.len() as u64;
        shared.state.add_reclaimed(report.bytes_reclaimed);
        count(&shared.counters.bytes_reclaimed, report.bytes_reclaimed);
        Ok(())
    }
}
