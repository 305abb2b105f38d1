//! When a store has settled, found the same way for all: the process is quiet, and the store says nothing else.
//!
//! What counts is when the quiet began, not when it had lasted for long enough to be believed.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::Counters;
use crate::peer::Peer;

/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the quiet has to last: longer than any store here waits between two looks for work.
const QUIET: Duration = Duration::from_millis(1500);
/// Share of a processor that still is quiet: housekeeping threads wake up.
const QUIET_CPU_SHARE: f64 = 0.02;
/// Bytes written, read or handed to the kernel during the quiet that still are quiet.
const QUIET_IO_BYTES: u64 = 1 << 20;
/// A look that came so late was of a process that did not run: it shows nothing.
const LATE: Duration = Duration::from_millis(500);
/// Then it is given up.
const LIMIT: Duration = Duration::from_secs(600);

/// How the waiting ended.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// When the quiet began.
    pub at: Instant,
    /// That it never became quiet.
    pub is_given_up: bool,
}

struct Look {
    at: Instant,
    cpu_seconds: f64,
    io_bytes: u64,
}

impl Look {
    fn now() -> Self {
        let counters = Counters::now();
        let io_bytes = counters.written_bytes + counters.handed_bytes + counters.read_bytes;
        Self { at: Instant::now(), cpu_seconds: counters.own_seconds, io_bytes }
    }

    fn is_quiet_since(&self, earlier: &Self) -> bool {
        let seconds = (self.at - earlier.at).as_secs_f64();
        self.cpu_seconds - earlier.cpu_seconds < seconds * QUIET_CPU_SHARE
            && self.io_bytes - earlier.io_bytes < QUIET_IO_BYTES
    }
}

/// Waits until the store has nothing more to do by itself.
pub fn settle(peer: &dyn Peer) -> Result<Settled> {
    let began = Instant::now();
    peer.begin_to_settle()?;
    let mut looks: VecDeque<Look> = VecDeque::new();
    while began.elapsed() < LIMIT {
        let look = Look::now();
        if peer.is_busy()? || looks.back().is_some_and(|last| look.at - last.at > LATE) {
            looks.clear();
        }
        // The youngest look that is old enough stays in front.
        while looks.get(1).is_some_and(|next| look.at - next.at >= QUIET) {
            looks.pop_front();
        }
        if let Some(first) = looks.front().filter(|first| look.at - first.at >= QUIET)
            && look.is_quiet_since(first)
        {
            return Ok(Settled { at: first.at, is_given_up: false });
        }
        looks.push_back(look);
        thread::sleep(LOOK_EVERY);
    }
    Ok(Settled { at: Instant::now(), is_given_up: true })
}
