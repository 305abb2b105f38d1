//! The maintenance of the cold tier: its four tasks, each as decide, act, report.
//!
//! Owner: the compaction worker, which runs one task at a time. It never writes a segment that readers know, nor the
//! manifest: it prepares files and asks the writer to commit. Order of a compaction (C1 to C9, `docs/INVARIANTS.md`):
//! copy, verify, sync, name, commit, repoint, retire. A crash before *commit* leaves orphans that recovery deletes; one
//! after it leaves victims that recovery deletes; no crash leaves an index entry without its record.
//!
//! The parts: `policy` decides, `round` and `relocation` compact, `expiry` cleans up, `saved_index` saves the index,
//! `sampling`, `tuning` and `recompression` measure, `files` holds what they share, `reserve` keeps
//! room for them.

mod eviction;
mod expiry;
mod files;
mod pacer;
pub(super) mod policy;
mod recompression;
mod relocation;
mod reserve;
mod round;
mod sampling;
mod saved_index;
mod survivor_groups;
mod tuning;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use self::expiry::Emptied;
use self::files::is_due;
use self::pacer::{Pacer, allowance, rate_for};
use self::policy::{
    Circumstances, Garbage, Trigger, choose_all, choose_merger, choose_round, cleanup_due_ms,
};
use self::reserve::Reserve;
use self::round::{Keep, RoundProgress, output_bytes, victim_bytes};
use self::saved_index::{REBUILD_SEGMENTS, check_batch};
use super::core::slab::AccountView;
use super::ledger::snapshot_bytes;
use super::message::{Committed, MaintenanceRequest, ToWriter, WriteRequest};
use super::report::{CleanupReport, CompactionReport, RebuildReport, TuningReport};
use super::serialization::edit::{DictionaryEntry, Edit, ManifestState, ParametersEntry, SnapshotEntry};
use super::shared::{Shared, count};
use crate::clock::Clock;
use crate::config::{Compression, Maintenance};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Disk;

/// Nobody uses a store that has not been called for so long: what pays is done, though it is not pressing.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// Since when nobody has been seen to call the store.
#[derive(Clone, Copy)]
struct Quiet {
    calls: u64,
    since: Instant,
}

impl Quiet {
    /// Looks at the number of calls so far; whether nobody uses the store.
    fn look(&mut self, calls: u64) -> bool {
        if calls != self.calls {
            *self = Self { calls, since: Instant::now() };
        }
        self.since.elapsed() >= IDLE_AFTER
    }
}

/// While a compaction runs, the brake on writers is looked after this often.
const BRAKE_INTERVAL: Duration = Duration::from_millis(50);

/// Where a compaction stood when the speed at which it gives space back was looked at last.
#[derive(Clone, Copy)]
struct Lesson {
    at: Instant,
    /// Time it had spent waiting by then.
    napped: Duration,
    reclaimed: i64,
}

/// The compaction worker's own state: what it decides by, and the part of the manifest that it alone changes.
pub(super) struct CompactionSystem {
    writer: ToWriter,
    snapshot: Option<SnapshotEntry>,
    /// Damage of the snapshot was made up for when it was read: it is to be written anew.
    is_snapshot_worn: bool,
    watermark: u64,
    dictionaries: BTreeMap<u8, DictionaryEntry>,
    parameters: ParametersEntry,
    /// Bytes written to segments when the index was saved last.
    written_at_snapshot: u64,
    /// Bytes that evictions have copied.
    copied_by_eviction: u64,
    /// Segments that could not be listed, with what the snapshot covered then: not tried again before they cover more.
    set_aside: BTreeMap<u64, u64>,
    /// Rounds of eviction in a row that gave nothing back.
    fruitless_evictions: u32,
    pacer: Pacer,
    /// Bytes a second that compactions gave back lately while they were not waiting; 0 = unknown.
    reclaim_rate: f64,
    braked_at: Instant,
    reserve: Reserve,
    /// Nobody used the store at the last look.
    is_idle: bool,
    quiet: Quiet,
    /// Store time when it was opened.
    opened_at_ms: u64,
    /// A snapshot may have been lost that records were judged by (`first`, `outlasts`): nothing is dropped before a new
    /// one has taken its place (R6).
    must_cover: bool,
    /// Entries were moved since the snapshot: a start has to find them again by their rows.
    has_moved: bool,
    /// Number of the last edit this worker has finished with (E0 of the next snapshot).
    finished_edit: u64,
}

impl CompactionSystem {
    pub(super) fn new(state: &ManifestState, writer: ToWriter, now_ms: u64, is_snapshot_worn: bool) -> Self {
        Self {
            writer,
            snapshot: state.snapshot,
            is_snapshot_worn,
            watermark: state.watermark,
            dictionaries: state.dictionaries.clone(),
            parameters: state.parameters,
            written_at_snapshot: 0,
            copied_by_eviction: 0,
            set_aside: BTreeMap::new(),
            fruitless_evictions: 0,
            pacer: Pacer::unlimited(),
            reclaim_rate: 0.0,
            braked_at: Instant::now(),
            reserve: Reserve::default(),
            is_idle: false,
            quiet: Quiet { calls: 0, since: Instant::now() },
            opened_at_ms: now_ms,
            must_cover: state.next_sequence > 1 && (state.snapshot.is_none() || state.damaged),
            has_moved: state.has_moved_since_snapshot(),
            finished_edit: state.edit,
        }
    }

    /// Looks whether anybody uses the store.
    pub(super) fn look_at_calls<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>) {
        self.is_idle = self.quiet.look(shared.counters.calls());
    }

    /// Sends a request to the writer, past its queue, and waits for its answer.
    fn ask<T>(&self, request: impl FnOnce(Sender<Result<T>>) -> MaintenanceRequest) -> Result<T> {
        let (reply, answer) = bounded(1);
        self.writer.maintenance.send(request(reply)).map_err(|_| Error::closed())?;
        answer.recv().map_err(|_| Error::closed())?
    }

    /// Waits until what was accepted before is in segments and in the index: as long as the queue is.
    pub(super) fn wait_for_writer(&self) -> Result<()> {
        let (reply, answer) = bounded(1);
        let barrier = WriteRequest::Barrier { sync: false, reply };
        self.writer.queue.send(barrier).map_err(|_| Error::closed())?;
        answer.recv().map_err(|_| Error::closed())?
    }

    fn commit(&self, edit: Edit) -> Result<u64> {
        self.commit_if(edit, None)
    }

    /// Likewise, but only if writes were lost so often and not once more.
    fn commit_if(&self, edit: Edit, if_losses: Option<u64>) -> Result<u64> {
        self.ask(|reply| MaintenanceRequest::Commit { edit, if_losses, reply }).map(|Committed { edit }| edit)
    }

    /// The sequence number up to which the snapshot reflects all operations; 0 without one.
    pub(super) fn covered(&self) -> u64 {
        self.snapshot.map_or(0, |snapshot| snapshot.covers)
    }

    /// Whether a start would find entries moved since the snapshot.
    pub(super) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Whether the snapshot should be written anew because it is damaged.
    pub(super) fn is_snapshot_worn(&self) -> bool {
        self.is_snapshot_worn
    }

    /// The segments that something can be done about.
    pub(super) fn accounts<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> Vec<AccountView> {
        let covered = self.covered();
        let mut accounts = shared.slab.accounts();
        let is_aside = |id: &u64| self.set_aside.get(id).is_some_and(|then| *then >= covered);
        accounts.retain(|account| !is_aside(&account.identity.segment_id));
        accounts
    }

    /// What the policy looks at besides the accounts.
    pub(super) fn circumstances<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> Circumstances {
        // A codec fixed by the configuration was not chosen for the data: nothing is stored anew for its sake.
        let is_tuned = shared.config.compression == Compression::Tuned;
        Circumstances {
            segment_bytes: shared.segment_bytes(),
            sequence: shared.in_flight.next_sequence(),
            now_ms: shared.clock.now_ms(),
            dead_ratio_max: shared.config.dead_ratio_max,
            covered: self.covered(),
            capacity_bytes: shared.ledger.capacity_bytes().unwrap_or(u64::MAX),
            parameters_since: if is_tuned { self.parameters.since_file_id } else { 0 },
            is_idle: self.is_idle,
        }
    }

    /// Rewrites segments that hold dead, expired or outdated bytes, round by round; each round is committed on its own.
    /// By itself, one round, so that whatever is more urgent comes next; asked for, all that pays.
    ///
    /// # Errors
    /// What stopped it. Rounds committed before stay; the one that failed is undone, its victims untouched.
    pub(super) fn compact_data_file<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        trigger: Trigger,
    ) -> Result<CompactionReport> {
        let started = Instant::now();
        let circumstances = self.circumstances(shared);
        let accounts = self.accounts(shared);
        // Garbage in the active segments counts too.
        if trigger == Trigger::Requested || policy::wants_roll(&accounts, &circumstances) {
            self.ask(|reply| MaintenanceRequest::Seal { reply })?;
        }
        if trigger == Trigger::Requested {
            self.measure_outdated(shared, usize::MAX)?;
        }
        let accounts = self.accounts(shared);
        let rounds = match trigger {
            Trigger::Requested => choose_all(&accounts, &circumstances),
            Trigger::Automatic | Trigger::Awaited => vec![choose_round(&accounts, &circumstances)],
        };
        let rounds = self.reserve.in_rounds(rounds);
        shared.state.advance(0.1);
        let total: u64 = rounds.iter().flatten().map(victim_bytes).sum();
        shared.state.set_total(total);
        let garbage = Garbage::of(&accounts, &circumstances);
        self.pacer = match trigger {
            Trigger::Automatic => {
                Pacer::compaction(rate_for(&garbage, file_bytes(&accounts), &circumstances))
            }
            // Nothing holds writers back in a store that is maintained by hand.
            Trigger::Requested if shared.config.maintenance == Maintenance::Automatic => {
                Pacer::compaction(None)
            }
            Trigger::Requested | Trigger::Awaited => Pacer::unlimited(),
        };
        self.cover_shadows(shared, &rounds, trigger)?;
        let mut report = CompactionReport::default();
        let keep = match trigger {
            Trigger::Requested => Keep::Together,
            Trigger::Automatic | Trigger::Awaited => Keep::All,
        };
        let (mut before, mut learned) = (0, Lesson { at: started, napped: Duration::ZERO, reclaimed: 0 });
        for round in rounds.iter().filter(|round| !round.is_empty()) {
            let bytes: u64 = round.iter().map(victim_bytes).sum();
            let progress = RoundProgress { before, bytes, total };
            if shared.ledger.is_relief_asked() {
                // Callers wait: their room comes first. Whether there is enough is theirs to learn.
                let wanted = shared.ledger.begin_relief();
                drop(self.make_room(shared, wanted));
            }
            let output = round.iter().map(|victim| output_bytes(&victim.account)).sum();
            self.reserve_for_output(shared, output)?;
            let outcome = self.compact_round(shared, round, keep, &progress, &mut report);
            shared.ledger.strike(output);
            outcome?;
            self.learn_reclaim_rate(&report, &mut learned);
            before += bytes;
        }
        if trigger == Trigger::Requested && !self.reserve.is_given_up() {
            self.merge_left_overs(shared, &mut report)?;
        }
        shared.state.advance(1.0);
        report.duration = started.elapsed();
        if report.segments_removed > 0 {
            count(&shared.counters.compactions, 1);
            tracing::info!(
                victims = report.segments_removed,
                copied = report.entries_copied,
                bytes_reclaimed = report.bytes_reclaimed,
                "compacted"
            );
        }
        Ok(report)
    }

    /// Puts together what the rounds of a compaction left part full.
    fn merge_left_overs<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        report: &mut CompactionReport,
    ) -> Result<()> {
        let victims = choose_merger(&self.accounts(shared), &self.circumstances(shared));
        if victims.is_empty() {
            return Ok(());
        }
        // All but done: what it moves is little beside what was moved before.
        let bytes = victims.iter().map(victim_bytes).sum();
        let progress = RoundProgress { before: 99 * bytes, bytes, total: 100 * bytes };
        let output = victims.iter().map(|victim| output_bytes(&victim.account)).sum();
        if !shared.ledger.try_reserve_for_maintenance(output) {
            return Ok(());
        }
        let outcome = self.compact_round(shared, &victims, Keep::Together, &progress, report);
        shared.ledger.strike(output);
        outcome
    }

    /// Takes every entry past its time out of the index and the accounts; drops segments that hold nothing else by
    /// their footers alone, records unread.
    pub(super) fn cleanup_expired_entries<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        trigger: Trigger,
    ) -> Result<CleanupReport> {
        let started = Instant::now();
        let now_ms = shared.clock.now_ms();
        let mut report = CleanupReport::default();
        let due = |account: &AccountView| match trigger {
            Trigger::Requested => is_due(account, now_ms),
            Trigger::Automatic | Trigger::Awaited => cleanup_due_ms(account) <= now_ms,
        };
        let accounts: Vec<AccountView> = shared.slab.accounts().into_iter().filter(due).collect();
        shared.state.advance(0.2);
        let mut emptied = Vec::new();
        for (at, account) in accounts.iter().enumerate() {
            self.check_stop(shared)?;
            report.segments_checked += 1;
            if !account.sealed {
                report.expired_removed += self.expire_active(shared, account.slot, now_ms)?;
            } else if let Some(expired) = self.expire_sealed(shared, account, now_ms)? {
                report.expired_removed += expired.removed;
                // Unexpiring records, shadows among them, keep a segment; so does any that dies later.
                if account.summary.unexpiring == 0 && account.summary.expiry_max_ms <= now_ms {
                    let sweep = expired.lost || account.summary.exposing_max > 0;
                    emptied.push(Emptied { account: *account, sweep });
                }
            }
            shared.state.advance(0.2 + 0.6 * (at + 1) as f32 / accounts.len() as f32);
        }
        self.drop_emptied(shared, &emptied, &mut report)?;
        count(&shared.counters.expired_removed, report.expired_removed);
        shared.state.advance(1.0);
        report.duration = started.elapsed();
        if report.segments_checked > 0 {
            tracing::info!(
                removed = report.expired_removed,
                segments_dropped = report.segments_dropped,
                "expired entries cleaned up"
            );
        }
        Ok(report)
    }

    /// Checks every sealed segment's footer against the live index, then saves the index. By itself it only saves it:
    /// that is for a short restart, and comes often; the check reads every footer and finds what is not to be expected.
    pub(super) fn rebuild_index_file<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        trigger: Trigger,
    ) -> Result<RebuildReport> {
        let started = Instant::now();
        let mut report = RebuildReport::default();
        let mut accounts = shared.slab.accounts();
        accounts.retain(|account| account.sealed && trigger == Trigger::Requested);
        let mut done = 0;
        for batch in accounts.chunks(REBUILD_SEGMENTS) {
            self.check_stop(shared)?;
            check_batch(shared, batch, &mut report)?;
            done += batch.len();
            shared.state.advance(0.8 * done as f32 / accounts.len() as f32);
        }
        // Room first: nothing is evicted while the index is being saved.
        let room = snapshot_bytes(shared.index.entries());
        self.reserve_for_output(shared, room)?;
        shared.ledger.strike(room);
        report.snapshot_bytes = self.save_index(shared)?;
        report.entries = shared.index.len();
        report.duration = started.elapsed();
        shared.state.advance(1.0);
        tracing::info!(entries = report.entries, snapshot_bytes = report.snapshot_bytes, "index saved");
        Ok(report)
    }

    /// Measures a sample of the live entries and chooses how later writes and compactions store them. A brief look is
    /// enough where a thorough one follows.
    ///
    /// # Errors
    /// What stopped it; then nothing has changed.
    pub(super) fn optimize_compression_parameters<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        is_brief: bool,
    ) -> Result<TuningReport> {
        let started = Instant::now();
        let calls = shared.counters.calls();
        let mut sampled = self.sample_entries(shared)?;
        sampled.is_brief = is_brief;
        // Nobody has called meanwhile: there may be a second processor.
        sampled.is_alone = shared.counters.calls() == calls;
        shared.state.advance(sampling::SAMPLED_AT);
        let mut analysis = self.analyze(shared, &sampled)?;
        if analysis.is_change() && self.is_tuned() {
            // One sample is one opinion: what was tuned before is given up only if a second sample says so too. What
            // that one decides is what counts.
            sampled = self.sample_entries(shared)?;
            analysis = self.analyze(shared, &sampled)?;
        }
        let report = self.apply(shared, &sampled, &analysis, started)?;
        self.drop_unused_dictionaries(shared)?;
        shared.state.advance(1.0);
        let common = &report.common;
        tracing::info!(
            chosen = %common.chosen,
            own = report.classes.iter().filter(|class| class.is_own).count(),
            changed = report.changed,
            reason = common.reason,
            "compression tuned"
        );
        Ok(report)
    }

    /// Whether the parameters in force are the outcome of a tuning that took its time.
    pub(super) fn is_tuned(&self) -> bool {
        self.parameters.expected_ratio > 0.0
    }

    /// What comes next is not paced.
    pub(super) fn end_pace(&mut self) {
        self.pacer = Pacer::unlimited();
    }

    /// Takes note of how fast a round of a compaction gave space back while it was not waiting.
    fn learn_reclaim_rate(&mut self, report: &CompactionReport, last: &mut Lesson) {
        let now = Lesson { at: Instant::now(), napped: self.pacer.napped, reclaimed: report.bytes_reclaimed };
        let last = std::mem::replace(last, now);
        let busy = (now.at - last.at).saturating_sub(now.napped - last.napped);
        if now.reclaimed > last.reclaimed {
            let rate = (now.reclaimed - last.reclaimed) as f64 / busy.as_secs_f64().max(1e-3);
            self.reclaim_rate =
                if self.reclaim_rate == 0.0 { rate } else { 0.8 * self.reclaim_rate + 0.2 * rate };
        }
    }

    /// Holds writers back, or lets them go, by the garbage there is.
    pub(super) fn set_brake<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, garbage: &Garbage) {
        self.braked_at = Instant::now();
        let allowed = allowance(garbage, self.reclaim_rate, &self.circumstances(shared));
        let raw_per_stored = shared.counters.raw_per_stored_byte();
        shared.brake.set(allowed.map(|stored| (stored * raw_per_stored) as u64));
    }

    /// Stops a cancelled task; otherwise keeps to the pace, so many bytes further on.
    fn pause<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, bytes: u64) -> Result<()> {
        self.check_stop(shared)?;
        let hurry = || shared.state.is_awaited() || shared.ledger.is_relief_asked();
        self.pacer.spend(bytes, hurry, || shared.counters.calls());
        // A round can take long where the machine has other things to do: writers do not run ahead meanwhile.
        if self.pacer.holds_writers() && self.braked_at.elapsed() >= BRAKE_INTERVAL {
            let garbage = Garbage::of(&self.accounts(shared), &self.circumstances(shared));
            self.set_brake(shared, &garbage);
        }
        Ok(())
    }

    fn check_stop<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> Result<()> {
        if shared.state.should_stop() {
            return Err(Error::new(ErrorKind::Cancelled, "the task was cancelled; nothing was lost"));
        }
        Ok(())
    }
}

fn file_bytes(accounts: &[AccountView]) -> u64 {
    accounts.iter().map(|account| account.summary.record_bytes()).sum()
}
