//! The reserve: room on the disk that is kept for maintenance.
//!
//! Where others have filled the disk, a compaction could not write what it keeps, and so never give back what is
//! garbage. `RESERVE` is a file of nothing, allocated while there is room. A task that meets a full disk deletes it and
//! runs once more, in small rounds; then the reserve is made anew. Nobody else gets at its room in between: what the
//! writer was handed before is let go first, and callers are refused, as on a full disk they are anyway.
//!
//! Where the file system has gigabytes left, and somebody looks often enough to see them go, little is kept: against
//! limits that a file system does not tell of, quotas among them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::CompactionSystem;
use super::files::{remove_file, sync_removals};
use super::policy::Victim;
use super::round::output_bytes;
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::ledger::{in_blocks, snapshot_bytes};
use crate::cache::tier::cold::shared::Shared;
use crate::clock::Clock;
use crate::config::Maintenance;
use crate::io::{Disk, DiskFile};

/// At most this part of the directory,
const STORE_DIVISOR: u64 = 32;
/// or this where there is plenty of room,
const STORE_DIVISOR_IN_PLENTY: u64 = 256;
/// and none if that is less than this.
const RESERVE_BYTES_MIN: u64 = 256 << 10;
/// Free bytes that are plenty: more than what disks take in between two looks.
const PLENTY_BYTES: u64 = 4 << 30;
/// Looks that far apart see it go in time.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Edits of the manifest, and the seals of segments.
const EDITS_BYTES: u64 = 64 << 10;

/// What is kept, and what has been given up.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    bytes: u64,
    /// The disk had plenty of room at the last look.
    in_plenty: bool,
    /// It has been given up for the task that runs: this is what its outputs may take at a time.
    outputs_bytes: Option<u64>,
}

impl Reserve {
    /// Whether the task that runs lives on the reserve.
    pub(super) fn is_given_up(&self) -> bool {
        self.outputs_bytes.is_some()
    }

    /// The same victims; on a full disk in rounds whose outputs fit into the reserve, those that need least first.
    pub(super) fn in_rounds(&self, rounds: Vec<Vec<Victim>>) -> Vec<Vec<Victim>> {
        let Some(bytes_max) = self.outputs_bytes else { return rounds };
        let mut victims: Vec<Victim> = rounds.into_iter().flatten().collect();
        victims.sort_by_key(|victim| output_bytes(&victim.account));
        let mut small: Vec<Vec<Victim>> = Vec::new();
        let mut bytes = 0;
        for victim in victims {
            let output = output_bytes(&victim.account);
            match small.last_mut() {
                Some(round) if bytes + output <= bytes_max => {
                    round.push(victim);
                    bytes += output;
                }
                _ => {
                    small.push(vec![victim]);
                    bytes = output;
                }
            }
        }
        small
    }
}

impl CompactionSystem {
    /// Takes over the reserve that the last process has left. The ledger counts it already.
    pub(in crate::cache::tier::cold) fn find_reserve<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) {
        let found = shared.disk.open_read(&shared.config.dir.join(names::RESERVE));
        self.reserve.bytes = found.and_then(|file| file.len()).unwrap_or(0);
    }

    /// Bytes to keep: an output with its footer, a snapshot, some edits; but little beside what the store takes.
    fn wanted_reserve<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> u64 {
        let divisor = if self.reserve.in_plenty { STORE_DIVISOR_IN_PLENTY } else { STORE_DIVISOR };
        let segment_bytes = shared.segment_bytes();
        let wanted = segment_bytes + segment_bytes / 8 + snapshot_bytes(shared.index.entries()) + EDITS_BYTES;
        let store_bytes = shared.ledger.taken_bytes().saturating_sub(self.reserve.bytes);
        match wanted.min(store_bytes / divisor) {
            bytes if bytes < RESERVE_BYTES_MIN => 0,
            bytes => in_blocks(bytes),
        }
    }

    /// Whether there is plenty of room, and will be at the next look. Once there was, twice as much does not have to be.
    fn is_in_plenty<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> bool {
        let config = &shared.config;
        if config.maintenance == Maintenance::Manual || config.maintenance_interval > LOOK_INTERVAL_MAX {
            return false;
        }
        let plenty = if self.reserve.in_plenty { PLENTY_BYTES } else { 2 * PLENTY_BYTES };
        // What cannot be told may be little.
        shared.disk.free_bytes(&config.dir).ok().flatten().is_some_and(|free| free >= plenty)
    }

    /// Makes the reserve, or follows the store's size and the room on the disk, as far as there is any. Callers are let
    /// in again.
    pub(in crate::cache::tier::cold) fn keep_reserve<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) {
        self.reserve.in_plenty = self.is_in_plenty(shared);
        let wanted = self.wanted_reserve(shared);
        let is_near = wanted <= 2 * self.reserve.bytes && wanted >= self.reserve.bytes / 2;
        if !is_near && !shared.condition.read_only.load(Ordering::SeqCst) {
            self.make_reserve(shared, wanted);
        }
        self.reserve.outputs_bytes = None;
        shared.condition.reserve_in_use.store(false, Ordering::SeqCst);
    }

    fn make_reserve<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, wanted: u64) {
        let path = shared.config.dir.join(names::RESERVE);
        if wanted == 0 {
            self.reserve.bytes = 0;
            remove_file(shared, &path);
            return;
        }
        // Within a capacity, out of the callers' room: that for outputs is not there twice.
        if !shared.ledger.reserve(wanted, shared.index.entries()).unwrap_or(false) {
            return;
        }
        // The old one stays until the new one has its room.
        let temporary = names::temporary(&path);
        let made = shared.disk.create(&temporary).and_then(|file| {
            file.allocate(wanted)?;
            shared.disk.rename(&temporary, &path)
        });
        match made {
            Ok(()) => {
                shared.ledger.strike(in_blocks(self.reserve.bytes));
                self.reserve.bytes = wanted;
            }
            Err(error) => {
                tracing::debug!(%error, wanted, "no room for the reserve");
                drop(shared.disk.remove(&temporary));
                shared.ledger.strike(wanted);
            }
        }
    }

    /// Whether the reserve has been given up and not been made anew.
    pub(in crate::cache::tier::cold) fn lives_on_reserve(&self) -> bool {
        self.reserve.is_given_up()
    }

    /// Gives the reserve up for the task that has met a full disk; false if there is none.
    pub(in crate::cache::tier::cold) fn give_up_reserve<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
    ) -> bool {
        if self.reserve.bytes == 0 {
            return false;
        }
        shared.condition.reserve_in_use.store(true, Ordering::SeqCst);
        // What was accepted before meets the disk as it is.
        if self.wait_for_writer().is_err() {
            return false;
        }
        let removed = shared.disk.remove(&shared.config.dir.join(names::RESERVE));
        if removed.is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound) {
            return false;
        }
        sync_removals(shared);
        let bytes = std::mem::take(&mut self.reserve.bytes);
        shared.ledger.strike(in_blocks(bytes));
        let others = snapshot_bytes(shared.index.entries()) + EDITS_BYTES;
        self.reserve.outputs_bytes = Some(bytes.saturating_sub(others).max(bytes / 2));
        tracing::warn!(bytes, "the disk is full; maintenance goes on with its reserve");
        true
    }
}
