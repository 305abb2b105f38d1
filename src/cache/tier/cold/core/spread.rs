//! Spreading work over the processors: that of an opening, and what is stored anew while nobody calls.
//!
//! Every thread owns the items it takes from the channel and a state of its own; what they look at together they borrow.
//! They are gone when the call returns. Small work stays on the caller's thread: then nothing about it depends on chance.

use std::panic::resume_unwind;
use std::thread::{Builder, ScopedJoinHandle, available_parallelism, scope};

use crossbeam_channel::unbounded;

/// Entries below which it does not pay to start threads.
const ENTRIES_MIN: usize = 20_000;
/// More read the same disk and wait for the same memory.
const THREADS_MAX: usize = 8;

/// Threads that are worth their start for so many entries.
pub fn threads_for(entries: usize) -> usize {
    if entries < ENTRIES_MIN { 1 } else { available_parallelism().map_or(1, usize::from).min(THREADS_MAX) }
}

/// Does `work` with every item, in no order, on so many threads: the caller's and others. Returns the threads' states, the
/// caller's first.
/// After an error nothing more is begun.
///
/// # Errors
/// One of those that `work` returned.
pub fn spread<T: Send, S: Send, E: Send>(
    items: impl IntoIterator<Item = T>,
    threads: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> Result<(), E> + Sync,
) -> Result<Vec<S>, E> {
    let (hand_out, to_do) = unbounded();
    for item in items {
        drop(hand_out.send(item));
    }
    drop(hand_out);
    let run = || {
        let mut state = state();
        let done = to_do.try_iter().try_for_each(|item| work(&mut state, item));
        if done.is_err() {
            // What is left is nobody's to do.
            to_do.try_iter().for_each(drop);
        }
        done.map(|()| state)
    };
    scope(|scope| {
        // Where no thread can be had, there is one that works less.
        let others: Vec<_> = (1..threads)
            .map_while(|_| Builder::new().name("larder-help".into()).spawn_scoped(scope, run).ok())
            .collect();
        let own = run();
        let join = |other: ScopedJoinHandle<'_, _>| other.join().unwrap_or_else(|panic| resume_unwind(panic));
        let ended: Vec<Result<S, E>> = others.into_iter().map(join).collect();
        std::iter::once(own).chain(ended).collect()
    })
}
