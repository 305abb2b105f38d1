//! The pace of maintenance that runs by itself: as slow as space allows.
//!
//! The rate follows the garbage: between the low trigger and the high one it rises from a trickle to everything the disk
//! gives, so that it settles where as much is collected as is made. A deadline keeps a trickle from lasting for ever.
//! What somebody waits for is not paced.

use std::time::{Duration, Instant};

use super::policy::{Circumstances, Garbage};

/// Bytes a second, read and written, at the low trigger,
const RATE_MIN: f64 = (16 << 20) as f64;
/// and just below the high one; beyond it there is no limit.
const RATE_MAX: f64 = (1 << 30) as f64;
/// What is worth collecting now is collected within this time.
const DEADLINE: Duration = Duration::from_secs(60);
/// Shorter waits than this are saved up: the clock and the scheduler cost as much.
const NAP_MIN: Duration = Duration::from_millis(1);
/// Longer ones are cut, to look whether somebody waits.
const NAP_MAX: Duration = Duration::from_millis(5);

/// Bytes a second for maintenance; `None` = no limit.
pub(super) fn rate_for(garbage: &Garbage, bytes: u64, circumstances: &Circumstances) -> Option<f64> {
    let (low, high) = (circumstances.dead_ratio_max, circumstances.high_trigger());
    let urgency = (garbage.share - low) / (high - low);
    if urgency >= 1.0 {
        return None;
    }
    let by_garbage = RATE_MIN * (RATE_MAX / RATE_MIN).powf(urgency.max(0.0));
    let by_deadline = garbage.worthwhile_share * bytes as f64 / DEADLINE.as_secs_f64();
    Some(by_garbage.max(by_deadline))
}

/// Keeps a task to its rate.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: Option<f64>,
    started: Instant,
    bytes: u64,
}

impl Pacer {
    /// No limit.
    pub(super) fn unlimited() -> Self {
        Self::new(None)
    }

    /// A task that begins now, at this rate in bytes a second.
    pub(super) fn new(rate: Option<f64>) -> Self {
        Self { rate, started: Instant::now(), bytes: 0 }
    }

    /// Takes note of bytes read or written, and waits for as long as they are early; ends early once `hurry` says that
    /// somebody waits.
    pub(super) fn spend(&mut self, bytes: u64, hurry: impl Fn() -> bool) {
        self.bytes += bytes;
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate);
        loop {
            let early = due.saturating_sub(self.started.elapsed());
            if early < NAP_MIN || hurry() {
                return;
            }
            std::thread::sleep(early.min(NAP_MAX));
        }
    }
}
