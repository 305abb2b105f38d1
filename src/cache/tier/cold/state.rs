//! What can be seen of a maintenance task while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::atomic::AtomicCell;

use super::report::CompactionTask;

/// The state of maintenance, readable at any time from any thread; the compaction worker alone sets it.
#[derive(Debug)]
pub struct CompactionState {
    is_compacting: AtomicBool,
    progress: AtomicCell<f32>,
    task: AtomicCell<Option<CompactionTask>>,
    last_duration_ns: AtomicU64,
    bytes_reclaimed: AtomicU64,
    cancelled: AtomicBool,
    closing: AtomicBool,
    /// Somebody has asked for something since the worker looked last.
    requested: AtomicBool,
    /// Bytes that the running task works on.
    total_bytes: AtomicU64,
    started: AtomicCell<Option<Instant>>,
}

impl Default for CompactionState {
    fn default() -> Self {
        Self {
            is_compacting: AtomicBool::new(false),
            progress: AtomicCell::new(0.0),
            task: AtomicCell::new(None),
            last_duration_ns: AtomicU64::new(0),
            bytes_reclaimed: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            requested: AtomicBool::new(false),
            total_bytes: AtomicU64::new(0),
            started: AtomicCell::new(None),
        }
    }
}

impl CompactionState {
    /// Whether a task is running.
    pub fn is_compacting(&self) -> bool {
        self.is_compacting.load(Ordering::Acquire)
    }

    /// How far the running task is, or how far the last one came: 0 to 1.
    ///
    /// Compaction: 0.1 victims chosen, 0.3 live entries listed, then with the bytes copied to 0.7 synced and verified,
    /// 0.9 committed and repointed, 1.0 old files gone. Cleanup: 0.2 to 1.0. Tuning: 0.4 to 1.0.
    pub fn progress(&self) -> f32 {
        self.progress.load()
    }

    /// The task that is running.
    pub fn task(&self) -> Option<CompactionTask> {
        self.task.load()
    }

    /// How long the last finished task took, in nanoseconds.
    pub fn last_duration_ns(&self) -> u64 {
        self.last_duration_ns.load(Ordering::Relaxed)
    }

    /// Bytes of segments that the running task has still to work through; 0 if none is running.
    pub fn bytes_to_go(&self) -> u64 {
        let left = 1.0 - self.progress().clamp(0.0, 1.0);
        (self.total_bytes.load(Ordering::Relaxed) as f64 * f64::from(left)) as u64
    }

    /// About how long the running task will still take, if it goes on as it has begun; `None` if none is running or it
    /// is too early to tell.
    pub fn time_left(&self) -> Option<Duration> {
        let progress = f64::from(self.progress());
        let elapsed = self.started.load()?.elapsed();
        (progress >= 0.05).then(|| elapsed.mul_f64((1.0 - progress).max(0.0) / progress))
    }

    /// Bytes given back to the file system since the store was opened.
    pub fn bytes_reclaimed(&self) -> u64 {
        self.bytes_reclaimed.load(Ordering::Relaxed)
    }

    /// A task runs until the returned value is dropped, in a panic too.
    pub(super) fn begin(&self, task: CompactionTask) -> RunningTask<'_> {
        self.cancelled.store(false, Ordering::SeqCst);
        self.progress.store(0.0);
        self.started.store(Some(Instant::now()));
        self.task.store(Some(task));
        self.is_compacting.store(true, Ordering::Release);
        RunningTask { state: self, started: Instant::now() }
    }

    pub(super) fn advance(&self, progress: f32) {
        // A part that is done a second time takes nothing back. Only the worker writes here.
        self.progress.store(self.progress.load().max(progress));
    }

    fn end(&self, took: Duration) {
        self.last_duration_ns.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.task.store(None);
        self.started.store(None);
        self.total_bytes.store(0, Ordering::Relaxed);
        self.is_compacting.store(false, Ordering::Release);
    }

    pub(super) fn add_reclaimed(&self, bytes: u64) {
        self.bytes_reclaimed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that the running task works on.
    pub(super) fn set_total(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Somebody is about to ask for something: what runs by itself need not be slow any more.
    pub(super) fn note_request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// The worker turns to what it is asked for.
    pub(super) fn take_request(&self) {
        self.requested.store(false, Ordering::SeqCst);
    }

    /// Whether somebody waits for the running task to end.
    pub(super) fn is_awaited(&self) -> bool {
        self.requested.load(Ordering::Relaxed) || self.should_stop()
    }

    /// Asks the running task to stop; it leaves nothing behind.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// What is done between tasks was not meant by a call that stopped one.
    pub(super) fn forget_cancel(&self) {
        self.cancelled.store(false, Ordering::SeqCst);
    }

    /// Asks every task to stop, also those that have not begun.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub(super) fn should_stop(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.is_closing()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

/// A task that is running.
pub(super) struct RunningTask<'a> {
    state: &'a CompactionState,
    started: Instant,
}

impl Drop for RunningTask<'_> {
    fn drop(&mut self) {
        self.state.end(self.started.elapsed());
    }
}
