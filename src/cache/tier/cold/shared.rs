//! What callers and workers look at together: the concurrent structures, and nothing else.
//!
//! Owned by the `ColdTier` (through its [`Crew`](super::crew::Crew)), borrowed by its workers. Everything that only
//! one thread needs belongs to that thread instead.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::admission::Admittance;
use super::brake::Brake;
use super::classes::{CLASSES, class_of};
use super::compression::CompressionParameters;
use super::core::slab::Slab;
use super::dictionary::DictionaryTable;
use super::hand_over::HandOver;
use super::in_flight::InFlight;
use super::ledger::DiskLedger;
use super::metadata_index::MetadataIndex;
use super::parameters::ParametersInForce;
use super::queue::{Charge, QueueBudget, Waker};
use super::state::CompactionState;
use crate::cache::eviction::{Eviction, EvictionReason};
use crate::cache::stats::RecoveryStats;
use crate::clock::{Clock, StoreClock};
use crate::config::ColdTierConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, Pieces};

pub(super) struct Shared<D: Disk, C: Clock> {
    pub config: ColdTierConfig,
    pub disk: D,
    /// Memory for the process and the kernel's cache of the files; `u64::MAX` = not known.
    pub memory_bytes: u64,
    pub clock: StoreClock<C>,
    pub store_id: u64,
    pub hash_seed: u64,
    pub index: MetadataIndex,
    pub in_flight: InFlight,
    pub slab: Slab<D::File>,
    pub dictionaries: DictionaryTable,
    /// How records of each class are compressed from now on ([`CompressionParameters::to_bits`]).
    pub parameters: [AtomicU32; CLASSES],
    /// What classes without a choice of their own follow; nothing is compressed by it directly.
    pub common_parameters: AtomicU32,
    /// Lowest number no segment or snapshot has.
    pub next_file_id: AtomicU64,
    /// Every operation up to this sequence number is in the index (the writer says so).
    pub processed_sequence: AtomicU64,
    pub budget: QueueBudget,
    pub ledger: DiskLedger,
    pub brake: Brake,
    pub admittance: Admittance,
    pub state: CompactionState,
    pub counters: Counters,
    pub condition: Condition,
    pub recovery: RecoveryStats,
}

impl<D: Disk, C: Clock> Shared<D, C> {
    /// How a record of this raw length is compressed from now on. One atomic load.
    pub fn parameters(&self, raw_len: usize) -> CompressionParameters {
        CompressionParameters::from_bits(self.parameters[class_of(raw_len)].load(Ordering::Acquire))
    }

    /// The parameters of all classes. Only the compaction worker changes them.
    pub fn parameters_in_force(&self) -> ParametersInForce {
        let read = |bits: &AtomicU32| CompressionParameters::from_bits(bits.load(Ordering::Acquire));
        ParametersInForce {
            common: read(&self.common_parameters),
            classes: std::array::from_fn(|class| read(&self.parameters[class])),
        }
    }

    /// Puts parameters into force. Their dictionaries must be durable and in the table (invariant D1).
    pub fn set_parameters(&self, parameters: &ParametersInForce) {
        self.common_parameters.store(parameters.common.to_bits(), Ordering::Release);
        for (bits, class) in self.parameters.iter().zip(parameters.classes) {
            bits.store(class.to_bits(), Ordering::Release);
        }
    }

    /// What a record goes through on its way to a segment, and from one to another.
    pub fn hand_over(&self) -> HandOver<'_, D::File> {
        HandOver { index: &self.index, in_flight: &self.in_flight, slab: &self.slab }
    }

    /// Size at which segments are sealed.
    pub fn segment_bytes(&self) -> u64 {
        self.ledger.segment_bytes()
    }

    /// In what pieces segments are written from now on.
    pub fn pieces(&self) -> Pieces {
        Pieces::for_files(self.ledger.taken_bytes(), self.memory_bytes)
    }

    /// Gives the queue's and the disk's bytes of a record back, once it is written or lost.
    pub fn release(&self, charge: Charge, waker: &Waker) {
        self.ledger.strike(charge.disk_bytes);
        self.budget.release(charge.queue_bytes, waker);
    }

    /// Tells the listener of an eviction, if there is one and its channel has room.
    pub fn tell_eviction(&self, reason: EvictionReason, bytes: u64, key: impl FnOnce() -> Option<Bytes>) {
        let Some(listener) = &self.config.evictions else { return };
        let told = key().is_some_and(|key| listener.try_send(Eviction { key, bytes, reason }).is_ok());
        if !told {
            count(&self.counters.evictions_untold, 1);
        }
    }

    pub fn take_file_id(&self) -> u64 {
        self.next_file_id.fetch_add(1, Ordering::SeqCst)
    }
}

/// What the store can still do.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// A worker has panicked or ended.
    pub failed: AtomicBool,
    /// A sync failed: no more writes until the store is reopened.
    pub read_only: AtomicBool,
    /// Which, and why.
    read_only_by: OnceLock<String>,
    /// The last write failed; the writer tries again by itself.
    pub stalled: AtomicBool,
    /// Why.
    pub stalled_by: Mutex<Option<Error>>,
    /// The disk is full, and maintenance lives on its reserve: the room is not for callers.
    pub reserve_in_use: AtomicBool,
    /// A read met an entry past its time since the clock was saved last.
    pub expiry_observed: AtomicBool,
    /// End without writing anything (crash tests).
    pub abandoned: AtomicBool,
}

impl Condition {
    /// Fails unless the store can answer.
    pub fn check_open(&self) -> Result<()> {
        if self.failed.load(Ordering::Relaxed) { Err(Error::closed()) } else { Ok(()) }
    }

    /// Fails unless the store accepts writes.
    pub fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.read_only.load(Ordering::Relaxed) {
            let cause = self.read_only_by.get().map_or("a sync failed", String::as_str);
            let text = format!(
                "nothing was changed: the store is read-only until it is reopened, because of this: {cause}"
            );
            return Err(Error::new(ErrorKind::ReadOnly, text));
        }
        if self.stalled.load(Ordering::Relaxed) {
            return Err(self.stall_error());
        }
        if self.reserve_in_use.load(Ordering::SeqCst) {
            let text = "nothing was changed, because the disk is full; maintenance is giving space back";
            return Err(Error::new(ErrorKind::Full, text));
        }
        Ok(())
    }

    fn stall_error(&self) -> Error {
        let cause = self.stalled_by.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = cause.as_ref().map_or(ErrorKind::Full, Error::kind);
        let cause = cause.as_ref().map(ToString::to_string).unwrap_or_default();
        Error::new(
            kind,
            format!("nothing was changed, because the last write failed; it is tried again: {cause}"),
        )
    }

    /// Refuses writes until the store is reopened. The first cause is the one that is told.
    pub fn make_read_only(&self, cause: &Error) {
        self.read_only_by.get_or_init(|| cause.to_string());
        self.read_only.store(true, Ordering::SeqCst);
    }

    /// Refuses writes until the writer has succeeded again.
    pub fn stall(&self, cause: &Error) {
        *self.stalled_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.echo());
        self.stalled.store(true, Ordering::SeqCst);
    }
}

/// Sets `failed` when its worker ends in a panic, so that nobody waits for it.
pub(super) struct PanicNotice<'a>(pub &'a Condition);

impl Drop for PanicNotice<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// Counters since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub inserts: AtomicU64,
    pub removes: AtomicU64,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub expired_misses: AtomicU64,
    pub damaged_misses: AtomicU64,
    pub collision_misses: AtomicU64,
    pub writes_lost: AtomicU64,
    pub raw_bytes_inserted: AtomicU64,
    pub stored_bytes_inserted: AtomicU64,
    pub segment_bytes_written: AtomicU64,
    pub expired_removed: AtomicU64,
    pub compactions: AtomicU64,
    pub bytes_reclaimed: AtomicU64,
    pub clock_jumps_refused: AtomicU64,
    pub snapshot_bytes: AtomicU64,
    pub evicted: AtomicU64,
    pub evicted_bytes: AtomicU64,
    pub rejected: AtomicU64,
    pub evictions_untold: AtomicU64,
}

impl Counters {
    /// Calls of the store's users.
    pub fn calls(&self) -> u64 {
        let all = [&self.inserts, &self.removes, &self.hits, &self.misses];
        all.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// What a byte of records as stored was when it was handed in.
    pub fn raw_per_stored_byte(&self) -> f64 {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed).max(1) as f64;
        read(&self.raw_bytes_inserted) / read(&self.stored_bytes_inserted)
    }
}

/// Adds to a counter that nothing is ordered by.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
