//! The byte budget of the write queue: what bounds the memory between callers and writer.
//!
//! The queue itself is an unbounded channel; a caller has to reserve its record's bytes here first, so that a full
//! queue refuses before anything has changed. The writer gives bytes back as records reach the kernel, and wakes
//! waiters through a channel whose sender it owns: if the writer dies, the channel closes and the waiters learn it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::config::QueueFull;
use crate::error::{Error, ErrorKind, Result};

/// Wake-ups that may be under way; more waiters than that share them.
const WAKEUPS: usize = 1024;

/// The callers' side.
#[derive(Debug)]
pub(super) struct QueueBudget {
    bytes_max: u64,
    full: QueueFull,
    queued_bytes: AtomicU64,
    waiters: AtomicU64,
    freed: Receiver<()>,
}

/// The writer's side: wakes who waits for room.
#[derive(Debug)]
pub(super) struct Waker(Sender<()>);

impl QueueBudget {
    pub(super) fn new(bytes_max: usize, full: QueueFull) -> (Self, Waker) {
        let (sender, freed) = bounded(WAKEUPS);
        let budget = Self {
            bytes_max: bytes_max as u64,
            full,
            queued_bytes: AtomicU64::new(0),
            waiters: AtomicU64::new(0),
            freed,
        };
        (budget, Waker(sender))
    }

    /// Bytes accepted and not yet written.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Reserves room. One record larger than the whole budget is let through when nothing else is queued.
    pub(super) fn reserve(&self, bytes: u64) -> Result<()> {
        if self.try_reserve(bytes) {
            return Ok(());
        }
        let deadline = match self.full {
            QueueFull::Wait => None,
            QueueFull::WaitFor(patience) => Some(Instant::now() + patience),
            QueueFull::Refuse => return Err(self.busy(bytes, Duration::ZERO)),
        };
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let outcome = self.wait(bytes, deadline);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn wait(&self, bytes: u64, deadline: Option<Instant>) -> Result<()> {
        let started = Instant::now();
        // Looked at again after `waiters` was raised: whoever frees bytes later sees that somebody waits.
        while !self.try_reserve(bytes) {
            let woken = match deadline {
                None => self.freed.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self.freed.recv_deadline(deadline),
            };
            match woken {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.busy(bytes, started.elapsed())),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::closed()),
            }
        }
        Ok(())
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        let fits = |queued: u64| (queued == 0 || queued + bytes <= self.bytes_max).then(|| queued + bytes);
        self.queued_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    fn busy(&self, bytes: u64, waited: Duration) -> Error {
        let text = format!(
            "the write queue has no room for {bytes} more bytes ({} of {} taken, waited {} ms); nothing was changed",
            self.queued_bytes(),
            self.bytes_max,
            waited.as_millis(),
        );
        Error::new(ErrorKind::Busy, text)
    }

    /// Gives back a part of what the same caller has just reserved. Wakes nobody: the writer will.
    pub(super) fn give_back(&self, bytes: u64) {
        self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Gives bytes back once their records are written, and wakes who waits.
    pub(super) fn release(&self, bytes: u64, waker: &Waker) {
        self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
        for _ in 0..self.waiters.load(Ordering::SeqCst) {
            if let Err(TrySendError::Full(())) = waker.0.try_send(()) {
                break;
            }
        }
    }
}
