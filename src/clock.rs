//! Time, as an argument.
//!
//! [`StoreClock`] is the time the store lives by: unix milliseconds that never run backwards, not even across a
//! restart (invariant T1), so that an entry that has expired stays expired whatever happens to the wall clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time. The store reads it; it never sets it.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, in milliseconds since 1970. May jump.
    fn wall_ms(&self) -> u64;
    /// Milliseconds since some fixed moment. Never jumps, never goes back.
    fn monotonic_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine for its wall clock")]
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// A clock that stands still until it is turned: for tests and simulations. Reach it through `ColdTier::clock`.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `wall_ms` (milliseconds since 1970).
    pub fn new(wall_ms: u64) -> Self {
        Self { wall_ms: AtomicU64::new(wall_ms), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets `ms` milliseconds pass.
    pub fn advance(&self, ms: u64) {
        // In this order: whoever reads the wall clock first never finds it ahead of the other.
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock, as an administrator or a broken battery would; the monotonic clock goes on.
    pub fn set_wall(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

/// The store's time: `saved + monotonic time since`, pulled up to the wall clock, never down.
#[derive(Debug)]
pub(crate) struct StoreClock<C> {
    source: C,
    /// Store time minus monotonic time, in milliseconds; only ever raised.
    offset_ms: AtomicU64,
    jump_max_ms: u64,
}

/// A forward jump of the wall clock that was larger than the configured bound, and was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusedJump {
    pub by_ms: u64,
}

impl<C: Clock> StoreClock<C> {
    /// Starts at the wall clock, or at the saved time if that is later. `saved_ms` 0 means a new store.
    pub(crate) fn new(source: C, saved_ms: u64, jump_max_ms: u64) -> (Self, Option<RefusedJump>) {
        let start_ms = if saved_ms == 0 { source.wall_ms() } else { saved_ms };
        let offset_ms = AtomicU64::new(start_ms.saturating_sub(source.monotonic_ms()));
        let clock = Self { source, offset_ms, jump_max_ms };
        let refused = clock.follow_wall();
        (clock, refused)
    }

    /// Now, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.offset_ms.load(Ordering::Relaxed) + self.source.monotonic_ms()
    }

    /// Pulls the store's time up to the wall clock. A jump beyond the bound is refused and returned.
    pub(crate) fn follow_wall(&self) -> Option<RefusedJump> {
        // The wall first: what passes between the two looks must not count as a jump ahead.
        let wall_ms = self.source.wall_ms();
        let monotonic_ms = self.source.monotonic_ms();
        let ahead_ms = wall_ms.saturating_sub(self.offset_ms.load(Ordering::Relaxed) + monotonic_ms);
        if ahead_ms > self.jump_max_ms {
            return Some(RefusedJump { by_ms: ahead_ms });
        }
        self.offset_ms.fetch_max(wall_ms.saturating_sub(monotonic_ms), Ordering::Relaxed);
        None
    }

    pub(crate) fn source(&self) -> &C {
        &self.source
    }
}
