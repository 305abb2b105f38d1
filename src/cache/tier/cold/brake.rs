//! The brake on writers: engaged while garbage is made faster than it can be collected.
//!
//! Near the high trigger the compaction worker lets in about as many bytes a second as it gives back. Each caller waits
//! for its own bytes' turn, a little at each insert, so that no one stands still for long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No single insert waits longer for the brake, nor is what others could not be held up for remembered for longer.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// Bytes that are let in at once when the brake has been idle.
const BURST: Duration = Duration::from_millis(10);

/// Limits the bytes that callers hand in.
#[derive(Debug)]
pub struct Brake {
    started: Instant,
    /// Bytes a second; 0 = released.
    rate: AtomicU64,
    /// When the bytes let in so far are used up, in nanoseconds since `started`.
    used_up_ns: AtomicU64,
}

impl Default for Brake {
    fn default() -> Self {
        Self { started: Instant::now(), rate: AtomicU64::new(0), used_up_ns: AtomicU64::new(0) }
    }
}

impl Brake {
    /// Lets in this many bytes a second, as they are handed in, from now on; `None` = as many as come.
    pub fn set(&self, bytes_a_second: Option<u64>) {
        self.rate.store(bytes_a_second.map_or(0, |rate| rate.max(1)), Ordering::Relaxed);
    }

    /// Bytes a second that are let in; `None` = as many as come.
    pub fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate != 0)
    }

    /// Waits for the turn of so many bytes.
    pub fn wait(&self, bytes: u64) {
        let Some(rate) = self.rate() else { return };
        let now_ns = self.started.elapsed().as_nanos() as u64;
        let needs_ns = (bytes as f64 * 1e9 / rate as f64) as u64;
        let idle_since = now_ns.saturating_sub(BURST.as_nanos() as u64);
        let latest = now_ns + WAIT_MAX.as_nanos() as u64;
        let later = |used_up: u64| Some((used_up.max(idle_since) + needs_ns).min(latest));
        let before = self.used_up_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        let turn_ns = before.unwrap_or(0).max(idle_since) + needs_ns;
        let early = Duration::from_nanos(turn_ns.saturating_sub(now_ns)).min(WAIT_MAX);
        if !early.is_zero() {
            std::thread::sleep(early);
        }
    }
}
