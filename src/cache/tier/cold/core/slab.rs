//! The slab of open segments: a fixed array of slots that index entries point into, and each segment's account.
//!
//! A reader holds one slot's read lock for one positional read. Retiring a segment takes that lock exclusively, so it
//! waits for the readers and closes the file; later readers find the slot empty and look the index up again. A slot
//! number is given out again only when no index entry names it; `reuses` tells a reader that this happened between its
//! look at the index and its look at the slot (invariant S2).

use std::sync::{OnceLock, PoisonError};

use crate::cache::tier::cold::metadata_index::{IndexEntry, SLOT_LIMIT, SizeClass};
use crate::cache::tier::cold::serialization::segment::{SegmentIdentity, SegmentSummary};
use crate::io::DiskFile;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, scaled};

const CHUNK_SLOTS: usize = scaled(1024, 4);
/// Slots that can be given out; the last number means "nowhere" in recovery.
const SLOTS: usize = scaled(SLOT_LIMIT as usize - 1, 8);

/// A segment that can be read.
#[derive(Debug)]
pub struct OpenSegment<F> {
    /// Who it is.
    pub identity: SegmentIdentity,
    /// Its file, opened for reading.
    pub file: F,
}

impl<F: DiskFile> OpenSegment<F> {
    /// A segment whose records will be looked for by their keys. The kernel takes such reads for the beginning of a
    /// sequence now and then: it fetched twice as much of a cold disk as was asked for.
    pub fn new(identity: SegmentIdentity, file: F) -> Self {
        file.random_reads();
        Self { identity, file }
    }
}

/// What happened to a segment's records since they were written. Counts are exact; bytes of the dead are estimated
/// from size classes.
#[derive(Debug, Default)]
pub struct Account {
    summary: RwLock<SegmentSummary>,
    group: AtomicU8,
    sealed: AtomicBool,
    /// How far the store had come, in sequence numbers, when it was sealed.
    sealed_at: AtomicU64,
    /// What the size classes of all its values add up to: against it, those of the dead are measured.
    class_bytes: AtomicU64,
    dead_records: AtomicU64,
    dead_bytes: AtomicU64,
    expired_records: AtomicU64,
    expired_bytes: AtomicU64,
    /// Earliest expiry that no cleanup has dealt with; `u64::MAX` if there is none.
    next_expiry_ms: AtomicU64,
    /// Reads counted of its entries.
    hits: AtomicU64,
    /// [`AccountView::saving_percent`]; [`UNMEASURED`] = nobody has looked.
    saving_percent: AtomicU8,
}

const UNMEASURED: u8 = u8::MAX;

/// An [`Account`] as it stood when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountView {
    /// Slab slot.
    pub slot: u32,
    /// Who it is.
    pub identity: SegmentIdentity,
    /// Whether it is complete.
    pub sealed: bool,
    /// How far the store had come, in sequence numbers, when it was completed.
    pub sealed_at: u64,
    /// What was written to it.
    pub summary: SegmentSummary,
    /// Values overwritten or deleted since.
    pub dead_records: u64,
    /// Their bytes, estimated.
    pub dead_bytes: u64,
    /// Records that a cleanup found expired.
    pub expired_records: u64,
    /// Their bytes.
    pub expired_bytes: u64,
    /// Earliest expiry that no cleanup has dealt with; `u64::MAX` if there is none.
    pub next_expiry_ms: u64,
    /// Reads counted of its entries: up to seven of each, while a capacity is set.
    pub hits: u64,
    /// Share of its live bytes that storing them anew saves, measured; `None` if nobody has looked.
    pub saving_percent: Option<u8>,
}

impl AccountView {
    /// Values neither dead nor expired.
    pub fn live_records(&self) -> u64 {
        let gone = u64::from(self.summary.tombstones) + self.dead_records + self.expired_records;
        u64::from(self.summary.records).saturating_sub(gone)
    }

    /// Bytes that a compaction would give back once every shadow is covered, at most all of the records.
    pub fn reclaimable_bytes(&self) -> u64 {
        if self.live_records() == 0 {
            return self.summary.record_bytes();
        }
        let tombstones = u64::from(self.summary.tombstones) * SizeClass::SHADOW.bytes_estimate();
        (self.dead_bytes + self.expired_bytes + tombstones).min(self.summary.record_bytes())
    }

    /// Bytes of records neither dead nor expired, estimated.
    pub fn live_bytes(&self) -> u64 {
        self.summary.record_bytes() - self.reclaimable_bytes()
    }
}

#[derive(Debug)]
struct Slot<F> {
    segment: RwLock<Option<OpenSegment<F>>>,
    account: Account,
}

impl<F> Default for Slot<F> {
    fn default() -> Self {
        Self { segment: RwLock::new(None), account: Account::default() }
    }
}

type Chunk<F> = Box<[Slot<F>]>;

#[derive(Debug, Default)]
struct Free {
    /// Slots never used start here.
    next: u32,
    returned: Vec<u32>,
}

/// The slab.
#[derive(Debug)]
pub struct Slab<F> {
    chunks: Box<[OnceLock<Chunk<F>>]>,
    free: Mutex<Free>,
    reuses: AtomicU64,
}

impl<F> Default for Slab<F> {
    fn default() -> Self {
        let chunks = (0..SLOTS.div_ceil(CHUNK_SLOTS)).map(|_| OnceLock::new()).collect();
        Self { chunks, free: Mutex::new(Free::default()), reuses: AtomicU64::new(0) }
    }
}

impl<F> Slab<F> {
    fn slot(&self, slot: u32) -> Option<&Slot<F>> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK_SLOTS)?.get()?.get(slot % CHUNK_SLOTS)
    }

    fn slot_or_new(&self, slot: u32) -> &Slot<F> {
        assert!((slot as usize) < SLOTS, "slots are given out below the limit");
        let chunk = self.chunks[slot as usize / CHUNK_SLOTS]
            .get_or_init(|| (0..CHUNK_SLOTS).map(|_| Slot::default()).collect());
        &chunk[slot as usize % CHUNK_SLOTS]
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out a slot number; `None` when a quarter of a million segments are open.
    pub fn reserve(&self) -> Option<u32> {
        let mut free = self.free();
        if let Some(slot) = free.returned.pop() {
            self.reuses.fetch_add(1, Ordering::SeqCst);
            return Some(slot);
        }
        if free.next as usize >= SLOTS {
            return None;
        }
        free.next += 1;
        Some(free.next - 1)
    }

    /// Tells the slab, at recovery, which slots are taken; the others below the highest are free.
    pub fn adopt(&self, taken: impl Iterator<Item = u32>) {
        let taken: std::collections::BTreeSet<u32> = taken.collect();
        let mut free = self.free();
        free.next = taken.last().map_or(0, |last| last + 1);
        free.returned = (0..free.next).filter(|slot| !taken.contains(slot)).collect();
    }

    /// Takes a slot number back. Only when no index entry names it any more.
    pub fn release(&self, slot: u32) {
        self.free().returned.push(slot);
    }

    /// Times a slot number was given out again.
    pub fn reuses(&self) -> u64 {
        self.reuses.load(Ordering::SeqCst)
    }

    /// Puts a segment into its slot; `sealed_at` is how far the store had come when it was completed, if it is.
    pub fn install(
        &self,
        slot: u32,
        segment: OpenSegment<F>,
        summary: SegmentSummary,
        class_bytes: u64,
        sealed_at: Option<u64>,
    ) {
        let place = self.slot_or_new(slot);
        place.account.group.store(segment.identity.group, Ordering::Relaxed);
        place.account.reset(summary, class_bytes, sealed_at);
        *place.segment.write().unwrap_or_else(PoisonError::into_inner) = Some(segment);
    }

    /// Closes a segment, once nobody reads it. Its slot number is not free yet.
    pub fn retire(&self, slot: u32) {
        if let Some(place) = self.slot(slot) {
            let segment = place.segment.write().unwrap_or_else(PoisonError::into_inner).take();
            drop(segment);
        }
    }

    /// The segment in a slot, for one read; the guard holds `None` when it has been retired.
    pub fn read(&self, slot: u32) -> Option<RwLockReadGuard<'_, Option<OpenSegment<F>>>> {
        Some(self.slot(slot)?.segment.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note that nothing points at this record any more. Shadows do not count: tombstones never lived, and what
    /// has expired was counted then.
    pub fn note_dead(&self, entry: IndexEntry) {
        if entry.is_shadow() {
            return;
        }
        if let Some(place) = self.slot(entry.location.slot) {
            place.account.dead_records.fetch_add(1, Ordering::Relaxed);
            place.account.dead_bytes.fetch_add(entry.size.bytes_estimate(), Ordering::Relaxed);
        }
    }

    /// Takes back what [`note_dead`](Self::note_dead) noted of a record that came to nothing.
    pub fn forget_dead(&self, entry: IndexEntry) {
        if entry.is_shadow() {
            return;
        }
        if let Some(place) = self.slot(entry.location.slot) {
            place.account.dead_records.fetch_sub(1, Ordering::Relaxed);
            place.account.dead_bytes.fetch_sub(entry.size.bytes_estimate(), Ordering::Relaxed);
        }
    }

    /// Takes note of a read of one of the segment's entries.
    pub fn note_hit(&self, slot: u32) {
        if let Some(place) = self.slot(slot) {
            place.account.hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes note of records that a recovery found dead; `bytes` is what their size classes add up to.
    pub fn note_dead_bytes(&self, slot: u32, records: u64, bytes: u64) {
        if let Some(place) = self.slot(slot) {
            place.account.dead_records.fetch_add(records, Ordering::Relaxed);
            place.account.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Takes note of records that a cleanup found expired, and of the earliest expiry that is left.
    pub fn note_expired(&self, slot: u32, records: u64, bytes: u64) {
        if let Some(place) = self.slot(slot) {
            place.account.expired_records.fetch_add(records, Ordering::Relaxed);
            place.account.expired_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Sets the earliest expiry that no cleanup has dealt with.
    pub fn set_next_expiry(&self, slot: u32, next_expiry_ms: u64) {
        if let Some(place) = self.slot(slot) {
            place.account.next_expiry_ms.store(next_expiry_ms, Ordering::SeqCst);
        }
    }

    /// Publishes what an active segment holds by now; `expiry_min_ms` is that of the records added since.
    pub fn publish(&self, slot: u32, summary: SegmentSummary, class_bytes: u64, expiry_min_ms: u64) {
        if let Some(place) = self.slot(slot) {
            *place.account.summary.write().unwrap_or_else(PoisonError::into_inner) = summary;
            place.account.class_bytes.store(class_bytes, Ordering::Relaxed);
            place.account.next_expiry_ms.fetch_min(expiry_min_ms, Ordering::SeqCst);
        }
    }

    /// Publishes that a segment is complete. By its last record, and not by what has been accepted meanwhile: the same
    /// writes lead to the same decisions, however far the writer is behind its queue.
    pub fn seal(&self, slot: u32, summary: SegmentSummary) {
        if let Some(place) = self.slot(slot) {
            *place.account.summary.write().unwrap_or_else(PoisonError::into_inner) = summary;
            place.account.sealed_at.store(summary.sequence_max, Ordering::SeqCst);
            place.account.sealed.store(true, Ordering::SeqCst);
        }
    }

    /// Group of a segment, and what was written to it; `None` if the slot was never used.
    pub fn summary(&self, slot: u32) -> Option<(u8, SegmentSummary)> {
        let account = &self.slot(slot)?.account;
        let summary = *account.summary.read().unwrap_or_else(PoisonError::into_inner);
        Some((account.group.load(Ordering::Relaxed), summary))
    }

    /// Takes note of what storing a segment anew saves.
    pub fn note_saving(&self, slot: u32, percent: u8) {
        if let Some(place) = self.slot(slot) {
            place.account.saving_percent.store(percent.min(100), Ordering::Relaxed);
        }
    }

    /// Other parameters are in force: what was measured against the former ones says nothing any more.
    pub fn forget_savings(&self) {
        for place in (0..self.free().next).filter_map(|slot| self.slot(slot)) {
            place.account.saving_percent.store(UNMEASURED, Ordering::Relaxed);
        }
    }

    /// Sets what the size classes of a segment's values add up to.
    pub fn set_class_bytes(&self, slot: u32, class_bytes: u64) {
        if let Some(place) = self.slot(slot) {
            place.account.class_bytes.store(class_bytes, Ordering::Relaxed);
        }
    }

    /// One segment's account; `None` if the slot is empty.
    pub fn account(&self, slot: u32) -> Option<AccountView> {
        let place = self.slot(slot)?;
        let segment = place.segment.read().unwrap_or_else(PoisonError::into_inner);
        let identity = segment.as_ref()?.identity;
        Some(place.account.view(slot, identity))
    }

    /// All accounts, in the order of segment numbers.
    pub fn accounts(&self) -> Vec<AccountView> {
        let next = self.free().next;
        // Maintenance asks many times a second: no growing, step by step, while it collects.
        let mut accounts = Vec::with_capacity(next as usize);
        accounts.extend((0..next).filter_map(|slot| self.account(slot)));
        accounts.sort_unstable_by_key(|account| account.identity.segment_id);
        accounts
    }
}

impl Account {
    fn reset(&self, summary: SegmentSummary, class_bytes: u64, sealed_at: Option<u64>) {
        self.sealed_at.store(sealed_at.unwrap_or(0), Ordering::SeqCst);
        self.class_bytes.store(class_bytes, Ordering::SeqCst);
        let next_expiry_ms = if summary.expiry_min_ms == 0 { u64::MAX } else { summary.expiry_min_ms };
        *self.summary.write().unwrap_or_else(PoisonError::into_inner) = summary;
        self.sealed.store(sealed_at.is_some(), Ordering::SeqCst);
        self.next_expiry_ms.store(next_expiry_ms, Ordering::SeqCst);
        self.saving_percent.store(UNMEASURED, Ordering::SeqCst);
        for counter in
            [&self.hits, &self.dead_records, &self.dead_bytes, &self.expired_records, &self.expired_bytes]
        {
            counter.store(0, Ordering::SeqCst);
        }
    }

    /// Bytes of the dead: their share of the size classes, of the bytes that the values really take. So it is exact
    /// when all are dead, and when all are of one size.
    fn dead_bytes(&self, summary: &SegmentSummary) -> u64 {
        let dead = u128::from(self.dead_bytes.load(Ordering::Relaxed));
        let class_bytes = u128::from(self.class_bytes.load(Ordering::Relaxed));
        if class_bytes == 0 {
            return dead as u64;
        }
        let tombstones = u64::from(summary.tombstones) * SizeClass::SHADOW.bytes_estimate();
        let values = summary.record_bytes().saturating_sub(tombstones);
        (dead.min(class_bytes) * u128::from(values) / class_bytes) as u64
    }

    fn view(&self, slot: u32, identity: SegmentIdentity) -> AccountView {
        let summary = *self.summary.read().unwrap_or_else(PoisonError::into_inner);
        AccountView {
            slot,
            identity,
            sealed: self.sealed.load(Ordering::SeqCst),
            sealed_at: self.sealed_at.load(Ordering::SeqCst),
            summary,
            dead_records: self.dead_records.load(Ordering::Relaxed),
            dead_bytes: self.dead_bytes(&summary),
            expired_records: self.expired_records.load(Ordering::Relaxed),
            expired_bytes: self.expired_bytes.load(Ordering::Relaxed),
            next_expiry_ms: self.next_expiry_ms.load(Ordering::SeqCst),
            hits: self.hits.load(Ordering::Relaxed),
            saving_percent: match self.saving_percent.load(Ordering::Relaxed) {
                UNMEASURED => None,
                percent => Some(percent),
            },
        }
    }
}
