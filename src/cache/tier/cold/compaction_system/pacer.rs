//! The pace of maintenance that runs by itself, as slow as space allows; and of writers, where that is not enough.
//!
//! Both follow the garbage, by its place between the low trigger and the high one. The collector's rate rises from a
//! trickle to everything the disk gives, so that it settles where as much is collected as is made. If that is past most
//! of the way, writers are let in at the rate at which compactions give back, and the fewer the nearer the high trigger
//! is. A deadline keeps a trickle from lasting for ever. What somebody waits for is not paced, nor is anything while
//! nobody uses the store: there is nobody to be held up.

use std::time::{Duration, Instant};

use super::policy::{Circumstances, Garbage};
use crate::cache::tier::cold::courtesy::let_others_in;

/// Bytes a second, read and written, at the low trigger,
const RATE_MIN: f64 = (16 << 20) as f64;
/// and just below this part of the way to the high one; from there on there is no limit.
const RATE_MAX: f64 = (1 << 30) as f64;
const UNLIMITED_FROM: f64 = 0.7;
/// From this part of the way on writers are held back. At `BRAKE_LEVEL` they may hand in just what compactions give back,
/// and so much more or less for each hundredth of the way,
const BRAKE_FROM: f64 = 0.75;
const BRAKE_LEVEL: f64 = 0.88;
const BRAKE_GAIN: f64 = 8.0;
/// but never less than this share of it.
const BRAKE_LEAST: f64 = 0.1;
/// What is worth collecting now is collected within this time.
const DEADLINE: Duration = Duration::from_secs(60);
/// Shorter waits than this are saved up: the clock and the scheduler cost as much.
const NAP_MIN: Duration = Duration::from_millis(1);
/// Longer ones are cut, to look whether somebody waits, and whether anybody uses the store.
const NAP_MAX: Duration = Duration::from_millis(5);
/// Nobody uses a store that has not been called for so long;
const IDLE_AFTER: Duration = Duration::from_millis(20);
/// then so many bytes go at once, before the next nap.
const IDLE_BYTES: u64 = 4 << 20;

/// Bytes a second for maintenance; `None` = no limit.
pub(super) fn rate_for(garbage: &Garbage, bytes: u64, circumstances: &Circumstances) -> Option<f64> {
    let urgency = way_to_high(garbage, circumstances) / UNLIMITED_FROM;
    if urgency >= 1.0 {
        return None;
    }
    let by_garbage = RATE_MIN * (RATE_MAX / RATE_MIN).powf(urgency.max(0.0));
    let by_deadline = garbage.worthwhile_share * bytes as f64 / DEADLINE.as_secs_f64();
    Some(by_garbage.max(by_deadline))
}

/// Stored bytes a second that writers may hand in, if compactions give back so many; `None` = as many as come.
pub(super) fn allowance(garbage: &Garbage, reclaim_rate: f64, circumstances: &Circumstances) -> Option<f64> {
    let way = way_to_high(garbage, circumstances);
    if way < BRAKE_FROM || reclaim_rate <= 0.0 {
        return None;
    }
    Some(reclaim_rate * (1.0 + BRAKE_GAIN * (BRAKE_LEVEL - way)).max(BRAKE_LEAST))
}

/// Where the garbage is on the way from the low trigger (0) to the high one (1).
fn way_to_high(garbage: &Garbage, circumstances: &Circumstances) -> f64 {
    let (low, high) = (circumstances.dead_ratio_max, circumstances.high_trigger());
    (garbage.share - low) / (high - low)
}

/// Bytes read or written after which threads that wait for the worker's processor are let in: some tens of microseconds.
const BYTES_IN_A_ROW: u64 = 32 << 10;
/// Likewise, rows or index entries gone through.
const ROWS_IN_A_ROW: usize = 256;

/// Goes through rows, and lets in who waits for the worker's processor again and again.
pub(super) fn letting_in<I: Iterator>(rows: I) -> impl Iterator<Item = I::Item> {
    rows.enumerate().map(|(number, row)| {
        if number % ROWS_IN_A_ROW == ROWS_IN_A_ROW - 1 {
            let_others_in();
        }
        row
    })
}

/// Keeps a task to its rate.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: Option<f64>,
    holds_writers: bool,
    started: Instant,
    bytes: u64,
    /// Bytes that are not waited for.
    free_bytes: u64,
    /// Bytes since it last asked whether anybody waits for its processor.
    bytes_in_a_row: u64,
    /// Calls to the store at the end of the last nap.
    calls: u64,
    /// For how long there had been none then.
    quiet: Duration,
    /// Time spent waiting.
    pub napped: Duration,
}

impl Pacer {
    /// A task that somebody waits for: no limit.
    pub(super) fn unlimited() -> Self {
        Self::new(None, false)
    }

    /// A compaction that begins now, at this rate in bytes a second; writers do not run ahead of it.
    pub(super) fn compaction(rate: Option<f64>) -> Self {
        Self::new(rate, true)
    }

    fn new(rate: Option<f64>, holds_writers: bool) -> Self {
        Self {
            rate,
            holds_writers,
            started: Instant::now(),
            bytes: 0,
            free_bytes: 0,
            bytes_in_a_row: 0,
            calls: 0,
            quiet: Duration::ZERO,
            napped: Duration::ZERO,
        }
    }

    /// Whether writers are held back for the task's sake, should it be necessary.
    pub(super) fn holds_writers(&self) -> bool {
        self.holds_writers
    }

    /// Takes note of bytes read or written, and waits for as long as they are early; ends early once `hurry` says that
    /// somebody waits, or `calls`, the calls to the store so far, that nobody uses it.
    pub(super) fn spend(&mut self, bytes: u64, hurry: impl Fn() -> bool, calls: impl Fn() -> u64) {
        self.bytes_in_a_row += bytes;
        if self.bytes_in_a_row >= BYTES_IN_A_ROW {
            self.bytes_in_a_row = 0;
            let_others_in();
        }
        let free_bytes = bytes.min(self.free_bytes);
        self.free_bytes -= free_bytes;
        self.bytes += bytes - free_bytes;
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate);
        loop {
            let early = due.saturating_sub(self.started.elapsed());
            if early < NAP_MIN || hurry() {
                return;
            }
            let began = Instant::now();
            std::thread::sleep(early.min(NAP_MAX));
            let nap = began.elapsed();
            self.napped += nap;
            let before = std::mem::replace(&mut self.calls, calls());
            self.quiet = if self.calls == before { self.quiet + nap } else { Duration::ZERO };
            if self.quiet >= IDLE_AFTER {
                (self.started, self.bytes, self.free_bytes) = (Instant::now(), 0, IDLE_BYTES);
                return;
            }
        }
    }
}
