//! The byte budget of the write queue: what bounds the memory between callers and writer.
//!
//! The queue itself is an unbounded channel; a caller has to reserve its record's bytes here first, so that a full
//! queue refuses before anything has changed. The writer gives bytes back as records reach the kernel, and wakes
//! waiters through a channel whose sender it owns: if the writer dies, the channel closes and the waiters learn it.

use std::ops::{AddAssign, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::ledger::DiskLedger;
use crate::config::QueueFull;
use crate::error::{Error, ErrorKind, Result};

/// Wake-ups that may be under way; more waiters than that share them.
const WAKEUPS: usize = 1024;
/// A waiting caller looks again after this time.
const NAP: Duration = Duration::from_millis(2);
/// What a record costs in the queue besides its bytes.
const OVERHEAD_BYTES: u64 = 256;

/// What an accepted record takes until it is written. Zero for what the writer adds itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// Of the queue's memory.
    pub queue_bytes: u64,
    /// Of the room on the disk.
    pub disk_bytes: u64,
}

impl Charge {
    /// Of a record with so many bytes of key and value, as they are to be stored.
    pub(super) fn of(bytes: u64, ledger: &DiskLedger) -> Self {
        Self { queue_bytes: bytes + OVERHEAD_BYTES, disk_bytes: ledger.record_room(bytes) }
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Charge {
    fn add_assign(&mut self, other: Self) {
        self.queue_bytes += other.queue_bytes;
        self.disk_bytes += other.disk_bytes;
    }
}

impl Sub for Charge {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self {
            queue_bytes: self.queue_bytes - less.queue_bytes,
            disk_bytes: self.disk_bytes - less.disk_bytes,
        }
    }
}

/// The callers' side.
#[derive(Debug)]
pub(super) struct QueueBudget {
    bytes_max: u64,
    full: QueueFull,
    queued_bytes: AtomicU64,
    waiters: AtomicU64,
    /// Those of the waiters whose record is larger than the whole budget, and who wait for it. Such a record gets in when
    /// nothing is queued: as long as one waits, nothing else is let in.
    large_waiters: AtomicU64,
    freed: Receiver<()>,
}

/// What came of an attempt to reserve room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Reserved,
    QueueFull,
    DiskFull,
}

/// A caller before whom nobody is let in, while it holds on to that.
struct First<'a> {
    large_waiters: &'a AtomicU64,
    is_held: bool,
}

impl First<'_> {
    fn hold(&mut self, holds: bool) {
        if holds && !self.is_held {
            self.large_waiters.fetch_add(1, Ordering::SeqCst);
        } else if !holds && self.is_held {
            self.large_waiters.fetch_sub(1, Ordering::SeqCst);
        }
        self.is_held = holds;
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.hold(false);
    }
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
            large_waiters: AtomicU64::new(0),
            freed,
        };
        (budget, Waker(sender))
    }

    /// Whether a caller waits for room.
    pub(super) fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }

    /// Bytes accepted and not yet written.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Reserves room, here and with `on_disk`, which is asked again while the call waits and may end it with an error.
    /// One record larger than the whole budget is let through when nothing else is queued.
    pub(super) fn reserve(&self, bytes: u64, on_disk: impl Fn() -> Result<bool>) -> Result<()> {
        if self.try_reserve(bytes, &on_disk)? == Room::Reserved {
            return Ok(());
        }
        let deadline = match self.full {
            QueueFull::Wait => None,
            QueueFull::WaitFor(patience) => Some(Instant::now() + patience),
            QueueFull::Refuse => return Err(self.busy(bytes, Duration::ZERO)),
        };
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut first = First { large_waiters: &self.large_waiters, is_held: false };
        let outcome = self.wait(bytes, deadline, &mut first, &on_disk);
        drop(first);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn wait(
        &self,
        bytes: u64,
        deadline: Option<Instant>,
        first: &mut First<'_>,
        on_disk: &impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        // Looked at again after `waiters` was raised: whoever frees bytes later sees that somebody waits.
        loop {
            match self.try_reserve(bytes, on_disk)? {
                Room::Reserved => return Ok(()),
                full => first.hold(full == Room::QueueFull && self.is_large(bytes)),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(self.busy(bytes, started.elapsed()));
            }
            // The writer wakes who waits for the queue. Nobody does for the disk, and the store may become read-only.
            let nap = left.unwrap_or(NAP).min(NAP);
            if let Err(RecvTimeoutError::Disconnected) = self.freed.recv_timeout(nap) {
                return Err(Error::closed());
            }
        }
    }

    fn is_large(&self, bytes: u64) -> bool {
        bytes > self.bytes_max
    }

    fn try_reserve(&self, bytes: u64, on_disk: &impl Fn() -> Result<bool>) -> Result<Room> {
        if self.large_waiters.load(Ordering::SeqCst) > 0 && !self.is_large(bytes) {
            return Ok(Room::QueueFull);
        }
        let fits = |queued: u64| (queued == 0 || queued + bytes <= self.bytes_max).then(|| queued + bytes);
        if self.queued_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_err() {
            return Ok(Room::QueueFull);
        }
        let reserved = on_disk();
        if !matches!(reserved, Ok(true)) {
            self.give_back(bytes);
        }
        Ok(if reserved? { Room::Reserved } else { Room::DiskFull })
    }

    fn busy(&self, bytes: u64, waited: Duration) -> Error {
        let text = format!(
            "no room for {bytes} more bytes: {} of the write queue's {} are taken, or the disk is at its capacity and \
             eviction is behind (waited {} ms); nothing was changed",
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
