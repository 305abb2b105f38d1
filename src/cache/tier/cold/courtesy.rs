//! Letting others in: a thread that works through much at a time offers its processor to whoever waits for it.
//!
//! The scheduler lets a thread run for milliseconds once it runs, and one that has just been woken waits meanwhile: a reader
//! whom the disk has answered, say. So the store's threads, and callers who insert, offer their processor every few tens of
//! microseconds (`sched_yield`), which costs a system call where nobody waits.
//!
//! Beside threads that are always busy that alone would be fatal: each of them takes a whole slice of 3 ms for every offer.
//! So what is given away has to be earned: no more than the time between offers, and a little in advance.

use std::cell::Cell;
use std::time::Instant;

/// What may be saved up: an offer or two that are taken for a whole slice.
const SAVED_MAX_NS: i64 = 4_000_000;

thread_local! {
    /// When the last offer ended, and the nanoseconds that may be given away.
    static ACCOUNT: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
}

/// Offers this thread's processor, unless it has given away more than its share.
pub fn let_others_in() {
    let began = Instant::now();
    let (since, saved) = ACCOUNT.get().unwrap_or((began, SAVED_MAX_NS));
    let saved = (saved + (began - since).as_nanos() as i64).min(SAVED_MAX_NS);
    if saved < 0 {
        return ACCOUNT.set(Some((began, saved)));
    }
    std::thread::yield_now();
    let now = Instant::now();
    ACCOUNT.set(Some((now, saved - (now - began).as_nanos() as i64)));
}
