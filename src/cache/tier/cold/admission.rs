//! Which inserts are let in: the frequency gate and the day's write budget.
//!
//! The gate remembers, in two Bloom filters that take turns, the keys offered lately. A key that was not offered before
//! is turned away and remembered: what comes once and never again is not written at all (a second-sight gate, as the
//! doorkeeper of Einziger, Friedman, Manes: "TinyLFU: A highly efficient cache admission policy", 2017, section 3.4.2).

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use super::shared::Shared;
use crate::cache::eviction::EvictionReason;
use crate::clock::Clock;
use crate::config::{Admission, ColdTierConfig};
use crate::io::Disk;

/// Bits of a filter for each key it is to remember: with three bits set a key, one unknown key in twenty passes.
const BITS_A_KEY: u64 = 8;
/// Bytes of an entry, for the size of the filters.
const ENTRY_BYTES: u64 = 1 << 10;
const KEYS_MIN: u64 = 1 << 16;
/// Keys remembered where there is no capacity to judge by.
const KEYS_WITHOUT_CAPACITY: u64 = 1 << 20;
/// The gate closes once this part of the room is left.
const NEARLY_FULL_DIVISOR: u64 = 8;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Bytes that may be written at once: an hour's worth.
const BURST_DIVISOR: u64 = 24;

/// The gate and the budget; `None` where the configuration asks for none.
pub(super) struct Admittance {
    gate: Option<SecondSight>,
    budget: Option<WriteBudget>,
}

impl Admittance {
    pub(super) fn new(config: &ColdTierConfig, now_ms: u64) -> Self {
        let keys = config.capacity_bytes.map_or(KEYS_WITHOUT_CAPACITY, |capacity| capacity / ENTRY_BYTES);
        Self {
            gate: (config.admission == Admission::Frequency).then(|| SecondSight::new(keys.max(KEYS_MIN))),
            budget: config.write_budget_bytes_per_day.map(|bytes| WriteBudget::new(bytes, now_ms)),
        }
    }
}

impl<D: Disk, C: Clock> Shared<D, C> {
    /// Why an insert is not let in; `None` if it is.
    pub(super) fn reject(&self, hash: u64, bytes: u64) -> Option<EvictionReason> {
        let Admittance { gate, budget } = &self.admittance;
        if let Some(gate) = gate
            && !gate.met_before(hash)
            && self.is_nearly_full(bytes)
        {
            return Some(EvictionReason::Admission);
        }
        let written = self.counters.segment_bytes_written.load(Ordering::Relaxed);
        let spent = budget.as_ref().is_some_and(|budget| !budget.allows(written, self.clock.now_ms()));
        spent.then_some(EvictionReason::WriteBudget)
    }

    fn is_nearly_full(&self, bytes: u64) -> bool {
        let capacity = self.ledger.capacity_bytes().unwrap_or(u64::MAX);
        self.ledger.room(self.index.entries()) < capacity / NEARLY_FULL_DIVISOR + bytes
    }

    /// Whether the day's write budget, if there is one, leaves something for copying.
    pub(super) fn may_copy(&self) -> bool {
        let written = self.counters.segment_bytes_written.load(Ordering::Relaxed);
        self.admittance.budget.as_ref().is_none_or(|budget| budget.allows(written, self.clock.now_ms()))
    }
}

/// Remembers which keys were offered lately.
struct SecondSight {
    filters: [Box<[AtomicU64]>; 2],
    /// The filter that learns; the other one only remembers.
    current: AtomicUsize,
    learned: AtomicU64,
    keys: u64,
}

impl SecondSight {
    fn new(keys: u64) -> Self {
        let words = (keys * BITS_A_KEY / 64) as usize;
        let filter = || (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { filters: [filter(), filter()], current: AtomicUsize::new(0), learned: AtomicU64::new(0), keys }
    }

    /// Whether the key was offered before; from now on it was.
    fn met_before(&self, hash: u64) -> bool {
        let word = ((u128::from(hash) * self.filters[0].len() as u128) >> 64) as usize;
        // Three bits of one word, chosen by bits of the hash that hardly choose the word.
        let bits = 1u64 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63);
        let current = self.current.load(Ordering::Relaxed);
        let before = self.filters[current][word].fetch_or(bits, Ordering::Relaxed);
        if before & bits == bits {
            return true;
        }
        if self.learned.fetch_add(1, Ordering::Relaxed) == self.keys {
            self.turn(current);
        }
        self.filters[1 - current][word].load(Ordering::Relaxed) & bits == bits
    }

    /// The filter that is full keeps what it knows; the other one forgets and learns from now on.
    fn turn(&self, full: usize) {
        self.filters[1 - full].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.current.store(1 - full, Ordering::Relaxed);
        self.learned.store(0, Ordering::Relaxed);
    }
}

/// A token bucket of bytes, filled evenly over the day and emptied by whatever is written to segments.
struct WriteBudget {
    bytes_per_day: u64,
    tokens: AtomicI64,
    filled_at_ms: AtomicU64,
    written_seen: AtomicU64,
}

impl WriteBudget {
    fn new(bytes_per_day: u64, now_ms: u64) -> Self {
        Self {
            bytes_per_day,
            tokens: AtomicI64::new((bytes_per_day / BURST_DIVISOR) as i64),
            filled_at_ms: AtomicU64::new(now_ms),
            written_seen: AtomicU64::new(0),
        }
    }

    /// Whole bytes gained since they were counted last; time that is too short for one is left for the next call.
    fn gain(&self, now_ms: u64) -> u128 {
        let mut gained = 0;
        let later = |filled_at_ms: u64| {
            let elapsed_ms = u128::from(now_ms.saturating_sub(filled_at_ms));
            gained = u128::from(self.bytes_per_day) * elapsed_ms / u128::from(DAY_MS);
            let paid_ms = (gained * u128::from(DAY_MS)).div_ceil(u128::from(self.bytes_per_day));
            (gained > 0).then(|| filled_at_ms + paid_ms.min(elapsed_ms) as u64)
        };
        let moved = self.filled_at_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        if moved.is_ok() { gained } else { 0 }
    }

    /// Whether there is something left, `written` bytes having been written since the store was opened.
    fn allows(&self, written: u64, now_ms: u64) -> bool {
        let spent = written.saturating_sub(self.written_seen.fetch_max(written, Ordering::SeqCst));
        let gained = self.gain(now_ms);
        let change = i64::try_from(gained).unwrap_or(i64::MAX).saturating_sub(spent as i64);
        let burst = (self.bytes_per_day / BURST_DIVISOR) as i64;
        let tokens = self.tokens.fetch_add(change, Ordering::SeqCst).saturating_add(change);
        if tokens > burst {
            self.tokens.fetch_min(burst, Ordering::SeqCst);
        }
        tokens > 0
    }
}
