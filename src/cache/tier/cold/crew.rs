//! Workers that borrow what their owner owns: the only module of the crate with `unsafe` code.
//!
//! The architecture forbids shared ownership (`Arc`), and a `ColdTier` has to be an ordinary owned value, so
//! `std::thread::scope` cannot serve. [`Crew`] owns a value on the heap and the threads that borrow it, and joins the
//! threads before it gives the value up.
//!
//! Why this is sound:
//! - The value lives behind a raw pointer from `Box::into_raw` (not in a `Box`, whose moves would assert unique
//!   access), so its address is stable and shared references to it may coexist wherever the `Crew` moves.
//! - Only shared references are made from the pointer while threads run; `S: Sync` makes that right across threads,
//!   `S: Send` lets whichever thread drops the crew drop the value.
//! - A thread's work is `for<'a> FnOnce(&'a S) + 'static`: it cannot keep the reference beyond its own call, whatever
//!   it captured. The thread ends when the call does.
//! - The box is taken back in `drop` only, after every thread has been joined; `join` needs no trust in the workers.
//!   If the crew is forgotten instead, the value is never freed: a leak in safe code, not a dangling reference. So it
//!   is if `drop` itself unwinds, because dropping what a thread panicked with panics: the box is taken back last.
//! - No worker can hold its own crew, and so wait for itself: what it captured was `'static` before it was spawned, and
//!   what it borrows is the value, which does not contain the crew.

#![expect(unsafe_code, reason = "lends a value to threads that are joined before it drops; argued above")]

use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::thread::{Builder, JoinHandle};

/// A value and the threads that borrow it.
pub(super) struct Crew<S> {
    shared: NonNull<S>,
    threads: Vec<JoinHandle<()>>,
    owns: PhantomData<S>,
}

/// The pointer on its way into a thread.
struct Lent<S>(NonNull<S>);

// SAFETY: it only ever becomes a `&S` in the new thread, which `S: Sync` allows.
unsafe impl<S: Sync> Send for Lent<S> {}

// SAFETY: a `Crew` is an owned `S` (as a `Box<S>` would be) and join handles; moving it to another thread moves the
// right to drop the `S` there, which `S: Send` allows, while its own threads keep shared references, which `S: Sync`
// allows.
unsafe impl<S: Send + Sync> Send for Crew<S> {}
// SAFETY: `&Crew<S>` gives out `&S` alone, and the join handles are only used through `&mut`.
unsafe impl<S: Send + Sync> Sync for Crew<S> {}

impl<S: Send + Sync + 'static> Crew<S> {
    /// Takes the value; no thread runs yet.
    pub(super) fn new(shared: S) -> Self {
        // SAFETY: `Box::into_raw` never returns null.
        let shared = unsafe { NonNull::new_unchecked(Box::into_raw(Box::new(shared))) };
        Self { shared, threads: Vec::new(), owns: PhantomData }
    }

    /// Starts a thread that borrows the value until `work` returns.
    pub(super) fn spawn<F>(&mut self, name: &str, work: F) -> io::Result<()>
    where
        F: for<'a> FnOnce(&'a S) + Send + 'static,
    {
        let lent = Lent(self.shared);
        let thread = Builder::new().name(name.into()).spawn(move || {
            let lent = lent;
            // SAFETY: the pointer comes from a box that is freed only after this thread has been joined.
            work(unsafe { lent.0.as_ref() });
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for all threads; false if one of them panicked.
    pub(super) fn join(&mut self) -> bool {
        let results: Vec<_> = self.threads.drain(..).map(JoinHandle::join).collect();
        results.iter().all(Result::is_ok)
    }
}

impl<S> Deref for Crew<S> {
    type Target = S;

    fn deref(&self) -> &S {
        // SAFETY: the value is alive until `drop`, and only shared references to it are made.
        unsafe { self.shared.as_ref() }
    }
}

impl<S> Drop for Crew<S> {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic was the worker's, and has been told through its channels; this only waits.
            drop(thread.join());
        }
        // SAFETY: the pointer came from `Box::into_raw`, every thread that borrowed from it has ended, and nobody else
        // can hold a reference: `&self` borrows end before `drop` runs.
        drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
    }
}
