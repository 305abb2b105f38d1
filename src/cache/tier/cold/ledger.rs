//! The disk ledger: bytes that the store's directory takes, and how many it may take.
//!
//! Capacity is a promise about the directory as `du` counts it, at any moment: bytes are entered here before they are
//! written, and struck out after their file is gone. A caller reserves room for its record before the record is
//! accepted, so the writer never has to refuse what was accepted; the compaction worker keeps room free by evicting.
//!
//! Files count in blocks of 4 KiB. What a file system adds for its own maps of a file is covered by a slack.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::{ColdTierConfig, segment_bytes_at};
use crate::error::{Error, ErrorKind, Result};

/// Block in which file systems hand out space.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// What a file system takes beside the files' own blocks: this part of the capacity,
const SLACK_DIVISOR: u64 = 256;
/// and this for the directory, the pointer to the manifest and the headers of segments just opened.
const SLACK_BYTES: u64 = 256 << 10;
/// The manifest is written anew when it has grown to this part of the capacity; old and new exist side by side then.
const MANIFEST_DIVISOR: u64 = 256;
/// Below that part of the capacity (or two segments) of free room, the compaction worker is asked to make some.
const HEADROOM_DIVISOR: u64 = 64;
/// Beside its bytes, a record takes its header (26 at most), a row of the footer (24) and what it is aligned to,
const RECORD_OVERHEAD_BYTES: u64 = 64;
/// and its part of what a segment takes besides: header, the ends of its footer, and the rest of a block.
const SEGMENT_OVERHEAD_BYTES: u64 = BLOCK_BYTES + 512 + 64;
/// Bytes of an entry in a snapshot of the index, chunk heads and slot table included.
const SNAPSHOT_ENTRY_BYTES: u64 = 13;
const SNAPSHOT_BYTES_MIN: u64 = 160 << 10;

/// Bytes that a file of this length takes.
pub(super) fn in_blocks(file_bytes: u64) -> u64 {
    file_bytes.next_multiple_of(BLOCK_BYTES)
}

/// What is taken, and what may be.
#[derive(Debug)]
pub(super) struct DiskLedger {
    /// Largest size of a segment, whatever the capacity.
    segment_bytes_max: u64,
    /// `u64::MAX` = no bound.
    capacity_bytes: AtomicU64,
    /// Bytes of all files in the directory, and of what has been accepted and not been written.
    taken_bytes: AtomicU64,
    /// The compaction worker has been asked to make room, and has not begun.
    relief_asked: AtomicBool,
    /// The last attempt to make room found nothing left to evict.
    exhausted: AtomicBool,
    /// The largest record that found no room since it began last.
    wanted_bytes: AtomicU64,
    /// What the compaction worker is about to reserve: callers leave so much room.
    claimed_bytes: AtomicU64,
}

impl DiskLedger {
    /// A ledger of a directory that takes `taken_bytes`.
    pub(super) fn new(config: &ColdTierConfig, taken_bytes: u64) -> Self {
        Self {
            segment_bytes_max: config.segment_bytes,
            capacity_bytes: AtomicU64::new(config.capacity_bytes.unwrap_or(u64::MAX)),
            taken_bytes: AtomicU64::new(taken_bytes),
            relief_asked: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
            wanted_bytes: AtomicU64::new(0),
            claimed_bytes: AtomicU64::new(0),
        }
    }

    /// The capacity; `None` = no bound.
    pub(super) fn capacity_bytes(&self) -> Option<u64> {
        Some(self.capacity_bytes.load(Ordering::SeqCst)).filter(|bytes| *bytes != u64::MAX)
    }

    /// Sets the capacity; what is taken may exceed it until the compaction worker has evicted.
    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.capacity_bytes.store(bytes.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Bytes taken, what is accepted and not written included.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::SeqCst)
    }

    /// Size at which segments are sealed.
    pub(super) fn segment_bytes(&self) -> u64 {
        match self.capacity_bytes() {
            Some(capacity) => segment_bytes_at(capacity, self.segment_bytes_max),
            None => self.segment_bytes_max,
        }
    }

    /// Length at which the manifest is written anew.
    pub(super) fn manifest_bytes_max(&self, otherwise: u64) -> u64 {
        self.capacity_bytes().map_or(otherwise, |capacity| (capacity / MANIFEST_DIVISOR).min(otherwise))
    }

    /// What maintenance may fill up to; `u64::MAX` = no bound.
    fn limit(&self) -> u64 {
        let slack = |capacity: u64| capacity / SLACK_DIVISOR + SLACK_BYTES;
        self.capacity_bytes().map_or(u64::MAX, |capacity| capacity.saturating_sub(slack(capacity)))
    }

    /// What callers may fill up to: maintenance needs room for its outputs, a snapshot and a new manifest. `entries`
    /// are those of the index, shadows included.
    fn limit_of_callers(&self, entries: u64) -> u64 {
        let Some(capacity) = self.capacity_bytes() else { return u64::MAX };
        let manifest = 2 * capacity / MANIFEST_DIVISOR;
        let reserve = self.outputs_bytes() + snapshot_bytes(entries) + manifest;
        self.limit().saturating_sub(reserve.max(self.claimed_bytes.load(Ordering::SeqCst)))
    }

    /// Room kept for the outputs of one round of maintenance.
    pub(super) fn outputs_bytes(&self) -> u64 {
        2 * self.segment_bytes()
    }

    /// Refuses a record that would take an eighth of the capacity.
    pub(super) fn check_record(&self, bytes: u64) -> Result<()> {
        match self.capacity_bytes() {
            Some(capacity) if bytes > capacity / 8 => {
                let text = format!("{bytes} bytes, more than an eighth of the capacity of {capacity}");
                Err(Error::config("value", text))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that a record with so many bytes of key and value may come to take, before it has a place. Segments that are
    /// sealed because they are full are so by half at least: the record that seals one may be as large. Those that are
    /// sealed before are few at a time, and within the slack. The smallest size that the capacity may ever ask for counts:
    /// it may change while the record is queued.
    pub(super) fn record_room(&self, bytes: u64) -> u64 {
        let segment_bytes = segment_bytes_at(0, self.segment_bytes_max);
        let share = bytes * 2 * SEGMENT_OVERHEAD_BYTES;
        bytes + RECORD_OVERHEAD_BYTES + share.div_ceil(segment_bytes)
    }

    /// Reserves room for a record; false, and nothing changed, if there is none.
    fn try_reserve(&self, bytes: u64, entries: u64) -> bool {
        let limit = self.limit_of_callers(entries);
        let fits = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= limit);
        self.taken_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Reserves room for what maintenance is about to write, so that no caller takes it meanwhile; false, and nothing
    /// changed, if there is none.
    pub(super) fn try_reserve_for_maintenance(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let fits = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= limit);
        self.taken_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// From now on callers leave room for so many bytes of maintenance; 0 = for what they always do.
    pub(super) fn claim_for_maintenance(&self, bytes: u64) {
        self.claimed_bytes.store(bytes, Ordering::SeqCst);
    }

    /// Whether more is taken than callers may fill.
    pub(super) fn is_overfull(&self, entries: u64) -> bool {
        self.taken_bytes() > self.limit_of_callers(entries)
    }

    /// Bytes that callers can still reserve.
    pub(super) fn room(&self, entries: u64) -> u64 {
        self.limit_of_callers(entries).saturating_sub(self.taken_bytes())
    }

    /// Bytes that maintenance can still write.
    pub(super) fn room_of_maintenance(&self) -> u64 {
        self.limit().saturating_sub(self.taken_bytes())
    }

    /// Room that the compaction worker restores whenever it is asked to.
    fn headroom_bytes(&self) -> u64 {
        self.capacity_bytes()
            .map_or(0, |capacity| (capacity / HEADROOM_DIVISOR).max(2 * self.segment_bytes()))
    }

    /// Whether the compaction worker should be asked for room now, for a record of so many bytes: once, until it has
    /// begun.
    pub(super) fn asks_for_relief(&self, bytes: u64, entries: u64) -> bool {
        if self.capacity_bytes().is_none() || self.room(entries) >= bytes.max(self.headroom_bytes() / 2) {
            return false;
        }
        // Before the question: a worker that has been asked already and begins now takes it into account.
        self.wanted_bytes.fetch_max(bytes, Ordering::SeqCst);
        !self.relief_asked.swap(true, Ordering::SeqCst)
    }

    /// Whether the compaction worker has been asked for room, and has not begun.
    pub(super) fn is_relief_asked(&self) -> bool {
        self.relief_asked.load(Ordering::Relaxed)
    }

    /// The compaction worker begins to make room: returns how much.
    pub(super) fn begin_relief(&self) -> u64 {
        self.relief_asked.store(false, Ordering::SeqCst);
        self.exhausted.store(false, Ordering::SeqCst);
        self.headroom_bytes().max(2 * self.wanted_bytes.swap(0, Ordering::SeqCst))
    }

    /// There was nothing left to evict, and still not enough room.
    pub(super) fn note_exhausted(&self) -> Error {
        self.exhausted.store(true, Ordering::SeqCst);
        self.exhausted_error()
    }

    fn exhausted_error(&self) -> Error {
        let text = format!(
            "the capacity of {} bytes is taken by what cannot be evicted (files of others in the directory, or the \
             store's own manifest, snapshots and dictionaries): raise it, or move the other files away",
            self.capacity_bytes().unwrap_or(u64::MAX),
        );
        Error::new(ErrorKind::Full, text)
    }

    /// Reserves room for a record, as [`try_reserve`](Self::try_reserve) does.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when there is none and none can be made.
    pub(super) fn reserve(&self, bytes: u64, entries: u64) -> Result<bool> {
        let reserved = self.try_reserve(bytes, entries);
        if !reserved && self.exhausted.load(Ordering::SeqCst) {
            return Err(self.exhausted_error());
        }
        Ok(reserved)
    }

    /// Enters bytes that are about to be written.
    pub(super) fn enter(&self, bytes: u64) {
        self.taken_bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Strikes out bytes whose file is gone, or that were reserved and not needed.
    pub(super) fn strike(&self, bytes: u64) {
        let less = |taken: u64| Some(taken.saturating_sub(bytes));
        self.taken_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).expect("always some");
    }

    /// Follows a file that grows or shrinks from one length to another.
    pub(super) fn resize(&self, from: u64, to: u64) {
        let (from, to) = (in_blocks(from), in_blocks(to));
        if to >= from { self.enter(to - from) } else { self.strike(from - to) }
    }
}

/// Bytes that a snapshot of so many entries takes, at most.
pub(super) fn snapshot_bytes(entries: u64) -> u64 {
    SNAPSHOT_BYTES_MIN + entries * SNAPSHOT_ENTRY_BYTES
}
