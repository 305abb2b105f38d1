//! Letting others in: a thread that works through much at a time offers its processor to whoever waits for it.
//!
//! The scheduler lets a thread run for milliseconds once it runs, and one that has just been woken waits meanwhile: a reader
//! whom the disk has answered, say. So the store's threads, and callers who insert, offer their processor every few tens of
//! microseconds (`sched_yield`), which costs a system call where nobody waits.
//!
//! Beside threads that are always busy that alone would be fatal: each of them takes a whole slice of 3 ms for every offer.
//! So nobody offers again before having worked for as long as the last offer took: at least half of the time is its own.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    /// No offer before this.
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Offers this thread's processor, unless the last offer took longer than the thread has worked since.
pub fn let_others_in() {
    let began = Instant::now();
    if NEXT.get().is_some_and(|next| began < next) {
        return;
    }
    std::thread::yield_now();
    let now = Instant::now();
    NEXT.set(Some(now + (now - began)));
}
