//! The compaction worker: runs the tasks that are asked for, and in between those that are due.
//!
//! It owns policy and scheduling; it waits for the writer, and the writer never for it.

use std::error::Error as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::compaction_system::CompactionSystem;
use super::compaction_system::policy::{Due, Garbage, Pulse, Trigger, choose_task, wants_quiet};
use super::message::TaskRequest;
use super::report::{CompactionReport, CompactionTask, TaskReport};
use super::shared::{PanicNotice, Shared};
use super::view::add_accounts;
use crate::cache::stats::ColdStats;
use crate::clock::Clock;
use crate::config::{Compression, Maintenance};
use crate::error::{ErrorKind, Result};
use crate::io::Disk;

/// A store that has never been tuned and holds fewer entries gets a brief look first, if it is tuned by itself.
const BRIEF_ENTRIES_MAX: u64 = 50_000;
/// Outdated segments measured at one look: some 5 ms each.
const MEASURED_AT_ONCE: usize = 16;
/// Time between two looks at whether anybody uses the store, while there is something to do for when nobody does.
const QUIET_LOOK: Duration = Duration::from_millis(100);
/// While the store is used, tuning by itself takes one part in this many of the time at most.
const TUNING_SHARE: u32 = 10;

pub(super) struct CompactionWorker {
    system: CompactionSystem,
    requests: Receiver<TaskRequest>,
    /// Raw bytes inserted when the last tuning ran.
    tuned_at_bytes: u64,
    /// A brief tuning has run; the thorough one is still to come.
    is_provisional: bool,
    /// There is something to do once nobody uses the store.
    awaits_quiet: bool,
    /// No tuning by itself before, unless nobody uses the store.
    tuning_rests_until: Instant,
    /// Highest sequence number when the index was saved last.
    saved_at_sequence: u64,
    /// What the last automatic compaction could not give back.
    stuck_share: f64,
    /// Compactions that ran by themselves since another task did.
    compactions_in_a_row: u32,
    /// The last task that ran by itself was a cleanup.
    is_after_cleanup: bool,
}

impl CompactionWorker {
    pub(super) fn new(system: CompactionSystem, requests: Receiver<TaskRequest>) -> Self {
        Self {
            saved_at_sequence: system.covered(),
            system,
            requests,
            tuned_at_bytes: 0,
            is_provisional: false,
            awaits_quiet: false,
            tuning_rests_until: Instant::now(),
            stuck_share: 0.0,
            compactions_in_a_row: 0,
            is_after_cleanup: false,
        }
    }

    /// Works until `Close`, or until every sender is gone.
    pub(super) fn run<D: Disk, C: Clock>(mut self, shared: &Shared<D, C>) {
        let _notice = PanicNotice(&shared.condition);
        self.system.find_reserve(shared);
        self.system.keep_reserve(shared);
        loop {
            let request = self.requests.recv_timeout(self.until_next_look(shared));
            shared.state.take_request();
            match request {
                Ok(TaskRequest::Run { task, reply }) => {
                    // Dropped before `reply`: whoever learns of a panic by it finds the store closed.
                    let _notice = PanicNotice(&shared.condition);
                    let result = self.run_task(shared, task, Trigger::Requested);
                    match reply {
                        // A caller that gave up waiting has no use for the answer.
                        Some(reply) => drop(reply.send(result)),
                        None => log_failure(task, result.err()),
                    }
                }
                Ok(TaskRequest::Relieve) => drop(self.relieve(shared)),
                Ok(TaskRequest::FitCapacity { reply }) => {
                    let _notice = PanicNotice(&shared.condition);
                    drop(reply.send(self.relieve(shared)));
                }
                Ok(TaskRequest::RunDue { reply }) => {
                    let _notice = PanicNotice(&shared.condition);
                    drop(reply.send(self.run_due(shared, Trigger::Awaited)));
                }
                Ok(TaskRequest::LookAround) => drop(self.run_due(shared, Trigger::Automatic)),
                Ok(TaskRequest::Close { reply }) => {
                    drop(reply.send(self.close(shared)));
                    return;
                }
                Err(RecvTimeoutError::Timeout) if shared.config.maintenance == Maintenance::Manual => {}
                Err(RecvTimeoutError::Timeout) => {
                    // Reported by `run_task`. Not again at once: what stands in the way is likely to stand there still.
                    drop(self.run_due(shared, Trigger::Automatic));
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What waits for the store to be left alone is looked after more often than what has a time of its own.
    fn until_next_look<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> Duration {
        let interval = shared.config.maintenance_interval;
        if self.awaits_quiet { interval.min(QUIET_LOOK) } else { interval }
    }

    fn run_task<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        task: CompactionTask,
        trigger: Trigger,
    ) -> Result<TaskReport> {
        shared.condition.check_open()?;
        let _running = shared.state.begin(task);
        let mut result = self.attempt(shared, task, trigger);
        let frees_space = task != CompactionTask::OptimizeCompression;
        if frees_space
            && result.as_ref().is_err_and(crate::error::Error::is_full)
            && self.system.give_up_reserve(shared)
        {
            result = self.attempt(shared, task, trigger);
        }
        self.system.end_pace();
        if trigger == Trigger::Requested {
            shared.brake.set(None);
        }
        self.system.keep_reserve(shared);
        if let Err(error) = &result
            && error.is_read_only()
        {
            shared.condition.make_read_only(error);
        }
        result
    }

    fn attempt<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        task: CompactionTask,
        trigger: Trigger,
    ) -> Result<TaskReport> {
        let system = &mut self.system;
        match task {
            CompactionTask::CompactData => {
                system.compact_data_file(shared, trigger).map(TaskReport::CompactData)
            }
            CompactionTask::CleanupExpired => {
                system.cleanup_expired_entries(shared, trigger).map(TaskReport::CleanupExpired)
            }
            CompactionTask::OptimizeCompression => {
                let bytes = shared.counters.raw_bytes_inserted.load(Ordering::Relaxed);
                // Once: what follows a brief look is a thorough one, however few entries there are by then.
                let is_brief = trigger == Trigger::Automatic
                    && !system.is_tuned()
                    && !self.is_provisional
                    && shared.index.len() < BRIEF_ENTRIES_MAX;
                let report = system.optimize_compression_parameters(shared, is_brief);
                if let Ok(report) = &report {
                    self.tuned_at_bytes = bytes;
                    self.is_provisional = is_brief;
                    self.tuning_rests_until = Instant::now() + TUNING_SHARE * report.duration;
                }
                report.map(TaskReport::OptimizeCompression)
            }
            CompactionTask::RebuildIndex => {
                let sequence = shared.processed_sequence.load(Ordering::SeqCst);
                let report = system.rebuild_index_file(shared, trigger);
                if report.is_ok() {
                    self.saved_at_sequence = sequence;
                }
                report.map(TaskReport::RebuildIndex)
            }
        }
    }

    /// Does what is due, most urgent first, until nothing is or somebody asks for something. Returns the tasks run.
    fn run_due<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, trigger: Trigger) -> Result<u64> {
        let mut tasks = 0;
        // Logged; what is due is due all the same.
        drop(self.relieve(shared));
        while self.requests.is_empty() && !shared.state.is_closing() {
            let Some(due) = self.due(shared, trigger) else { break };
            let task = match due {
                Due::Expiry => CompactionTask::CleanupExpired,
                Due::Compaction => CompactionTask::CompactData,
                Due::Tuning => CompactionTask::OptimizeCompression,
                Due::Snapshot => CompactionTask::RebuildIndex,
            };
            let result = self.run_task(shared, task, trigger);
            if due == Due::Compaction {
                let report = match &result {
                    Ok(TaskReport::CompactData(report)) => report.clone(),
                    _ => CompactionReport::default(),
                };
                self.steer(shared, &report);
            }
            if let Err(error) = result {
                log_failure(task, Some(error.echo()));
                // Nothing is collected for a while: nobody is held up for its sake.
                shared.brake.set(None);
                return Err(error);
            }
            self.is_after_cleanup = due == Due::Expiry;
            self.compactions_in_a_row = match due {
                Due::Compaction => self.compactions_in_a_row + 1,
                Due::Tuning | Due::Snapshot => 0,
                Due::Expiry => self.compactions_in_a_row,
            };
            tasks += 1;
        }
        shared.brake.set(None);
        // The store may have grown without any task.
        self.system.keep_reserve(shared);
        Ok(tasks)
    }

    /// Learns from a compaction that ran by itself: whether it can give anything back, and whether writers are ahead.
    fn steer<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, report: &CompactionReport) {
        let circumstances = self.system.circumstances(shared);
        let garbage = Garbage::of(&self.system.accounts(shared), &circumstances);
        if report.bytes_reclaimed <= 0 {
            self.stuck_share = garbage.any_share();
            return;
        }
        self.stuck_share = 0.0;
        self.system.set_brake(shared, &garbage);
    }

    fn due<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, trigger: Trigger) -> Option<Due> {
        if trigger == Trigger::Automatic {
            self.system.look_at_calls(shared);
        }
        let segments_max = if trigger == Trigger::Automatic { MEASURED_AT_ONCE } else { usize::MAX };
        if let Err(error) = self.system.measure_outdated(shared, segments_max) {
            tracing::warn!(%error, "segments could not be measured; they are left as they are for now");
        }
        let accounts = self.system.accounts(shared);
        let circumstances = self.system.circumstances(shared);
        self.stuck_share = self.stuck_share.min(Garbage::of(&accounts, &circumstances).any_share());
        let mut stats = ColdStats::default();
        add_accounts(&mut stats, &accounts);
        let inserted = shared.counters.raw_bytes_inserted.load(Ordering::Relaxed);
        let sequence = shared.processed_sequence.load(Ordering::SeqCst);
        let is_tuned = shared.config.compression == Compression::Tuned;
        let is_pressed = trigger == Trigger::Automatic && !circumstances.is_idle;
        let pulse = Pulse {
            circumstances,
            entries: shared.index.len(),
            shadows: shared.index.shadows(),
            raw_bytes_since_tuning: inserted - self.tuned_at_bytes,
            live_raw_bytes: stats.live_raw_bytes,
            retune_ratio: is_tuned.then_some(shared.config.retune_ratio),
            is_provisional: self.is_provisional,
            tuning_rests: is_pressed && Instant::now() < self.tuning_rests_until,
            records_since_snapshot: sequence.saturating_sub(self.saved_at_sequence),
            snapshot_bytes: shared.counters.snapshot_bytes.load(Ordering::Relaxed),
            is_snapshot_worn: self.system.is_snapshot_worn(),
            compactions_in_a_row: self.compactions_in_a_row,
            is_after_cleanup: self.is_after_cleanup,
            stuck_share: self.stuck_share,
        };
        self.awaits_quiet = wants_quiet(&accounts, &pulse);
        choose_task(&accounts, &pulse)
    }

    /// Evicts until callers have room again.
    fn relieve<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        // `cancel` was for a task, which is over: callers who wait for room must not wait for the next one.
        shared.state.forget_cancel();
        let wanted = shared.ledger.begin_relief();
        let mut result = self.system.make_room(shared, wanted);
        // The disk's own word, not the ledger's: a capacity that is exhausted is not what the reserve is for.
        let is_disk_full = |error: &crate::error::Error| error.is_full() && error.source().is_some();
        if result.as_ref().is_err_and(is_disk_full) && self.system.give_up_reserve(shared) {
            result = self.system.make_room(shared, wanted);
        }
        if self.system.lives_on_reserve() {
            self.system.keep_reserve(shared);
        }
        if let Err(error) = &result {
            tracing::warn!(%error, "no room could be made");
        }
        result
    }

    /// Saves the index, so that the next start need not replay what was written or moved since.
    fn close<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        if shared.condition.abandoned.load(Ordering::SeqCst)
            || shared.condition.read_only.load(Ordering::SeqCst)
            || shared.condition.stalled.load(Ordering::SeqCst)
        {
            return Ok(());
        }
        // What was accepted may not be in the index yet.
        self.system.wait_for_writer()?;
        let written = shared.in_flight.next_sequence() - 1 > self.saved_at_sequence;
        let is_stale = written || self.system.has_moved() || self.system.is_snapshot_worn();
        if !is_stale || shared.index.entries() == 0 {
            return Ok(());
        }
        self.system.save_index(shared).map(|_| ())
    }
}

fn log_failure(task: CompactionTask, error: Option<crate::error::Error>) {
    match error {
        None => {}
        Some(error) if error.kind() == ErrorKind::Cancelled => tracing::debug!(?task, "cancelled"),
        Some(error) => tracing::warn!(?task, %error, "maintenance failed; it will be tried again"),
    }
}
