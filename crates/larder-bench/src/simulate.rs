//! The driver: one thread that turns the clock, issues the operations, checks every answer against the oracle, has
//! maintenance run where the store is not to run it by itself, and takes the figures.
//!
//! Determinism: the store's threads work only while the driver waits for them or sends to the writer in one order; the
//! barrier before each round of maintenance makes what the round finds a function of the operations. What is random in
//! the store (its identity, the seed of its hashes) is drawn on this thread, which is seeded; nonces, drawn on others,
//! change bytes but no counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use larder::{
    Clock, ColdStats, ColdTier, CompactionTask, Disk, Maintenance, ManualClock, OsDisk, SystemClock,
};

use crate::disk::MemoryDisk;
use crate::fifo::FifoCache;
use crate::ledger::{Counted, FileKind, Gone, Step, Totals};
use crate::oracle::{Oracle, key_of, value_of};
use crate::workload::{Op, Options, Plan, Workload};
use crate::{Failure, Result};

/// Where the store lies on the memory disk.
const VIRTUAL_DIR: &str = "/larder-bench";
/// Where virtual time begins: 14 November 2023.
const START_MS: u64 = 1_700_000_000_000;
/// The index is measured so many times in a run: it costs a walk over its partitions.
const GAUGES: u64 = 1000;
/// What has expired may stay on disk for an eighth of its time to live, and for this time in any case.
pub const RECLAIM_MS: u64 = 2000;
/// By a real clock, a record this close to its expiry is neither expected nor missed.
const EXPIRY_DOUBT_MS: u64 = 100;

/// A clock that the driver can let run to a moment.
pub trait Pace: Clock {
    /// Time stands still but for `reach`: answers are exact, and maintenance is the driver's.
    const VIRTUAL: bool;
    /// Returns when `us` microseconds have passed since the clock began.
    fn reach(&self, us: u64);
}

impl Pace for ManualClock {
    const VIRTUAL: bool = true;

    fn reach(&self, us: u64) {
        self.advance((us / 1000).saturating_sub(self.monotonic_ms()));
    }
}

impl Pace for SystemClock {
    const VIRTUAL: bool = false;

    fn reach(&self, us: u64) {
        // Late is caught up with; early by less than the clock can tell is not.
        let left_ms = (us / 1000).saturating_sub(self.monotonic_ms());
        if left_ms > 1 {
            std::thread::sleep(Duration::from_millis(left_ms));
        }
    }
}

/// The disk and the oracle at one step, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Virtual time since the run began.
    pub at_ms: u64,
    /// Segments on disk before maintenance.
    pub before: u64,
    /// After it.
    pub after: u64,
    /// At most since the last step.
    pub peak: u64,
    /// Live records.
    pub live: u64,
    /// Segment files.
    pub segments: u64,
    /// Snapshots on disk.
    pub snapshots: u64,
    /// Everything on disk.
    pub disk: u64,
    /// At most since the last step, at any write, with what has no name any more and is still open.
    pub disk_peak: u64,
    /// Whether it counts.
    pub measured: bool,
}

/// The index at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauge {
    /// Virtual time since the run began.
    pub at_ms: u64,
    /// Its memory.
    pub bytes: u64,
    /// Its entries.
    pub entries: u64,
    /// Whether it counts.
    pub measured: bool,
}

/// How it stood at the end of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The phase.
    pub name: &'static str,
    /// Segment files.
    pub segments: u64,
    /// Live records, in bytes.
    pub live: u64,
    /// Everything on disk, in bytes.
    pub disk: u64,
}

/// What was asked, and what was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Inserts.
    pub puts: u64,
    /// Reads.
    pub gets: u64,
    /// Removals.
    pub removes: u64,
    /// Reads of a record that lives, answered with its value.
    pub hits: u64,
    /// Reads answered with a value that is not the record's, or with one that is expired, deleted or was never there.
    pub wrong: u64,
    /// Reads of a record that lives, answered with nothing, where the store has no leave to evict.
    pub lost: u64,
    /// Reads while the phase was measured.
    pub gets_measured: u64,
    /// Hits among them.
    pub hits_measured: u64,
    /// Of those reads, what the FIFO cache would have had.
    pub fifo_hits_measured: u64,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Outcome {
    /// Step by step.
    pub samples: Vec<Sample>,
    /// The index, now and then.
    pub gauges: Vec<Gauge>,
    /// Phase by phase.
    pub checkpoints: Vec<Checkpoint>,
    /// What was answered.
    pub answers: Answers,
    /// Bytes written to segments while measured.
    pub written: u64,
    /// Bytes of the records inserted meanwhile.
    pub inserted: u64,
    /// The store's count and the disk's of bytes written to segments differ by this.
    pub written_disagreement: u64,
    /// Bytes of records that expired while measured, by the milliseconds they stayed on disk after that.
    pub reclaimed: BTreeMap<u64, u64>,
    /// The same bytes, by that time as a share of what is allowed (the record's time to live over 8, but
    /// [`RECLAIM_MS`] at least), in thousandths, rounded up.
    pub reclaimed_of_allowed: BTreeMap<u64, u64>,
    /// The same bytes, by that time as a share of the record's time to live, in thousandths, rounded up.
    pub reclaimed_of_ttl: BTreeMap<u64, u64>,
    /// Those of them that were still there at the end, counted with the time they had stayed so far.
    pub unreclaimed_bytes: u64,
    /// Removed segments whose records could not be told.
    pub unreadable: u64,
    /// Record bytes read by maintenance rounds that wrote no segment.
    pub read_by_cleanup: u64,
    /// Record bytes read by the others.
    pub read_by_compaction: u64,
    /// The disk at the end.
    pub totals: Totals,
    /// The store at the end.
    pub stats: ColdStats,
    /// Time on the wall.
    pub wall: Duration,
}

/// Runs a workload on the virtual disk and clock.
///
/// # Errors
/// What the store refused.
pub fn simulate(workload: Workload, options: &Options) -> Result<Outcome> {
    let plan = Plan::new(workload, options, Path::new(VIRTUAL_DIR));
    drive(plan, options, MemoryDisk::default(), ManualClock::new(START_MS))
}

/// The simulator's counterpart of [`real`]: the same layout, by virtual time.
///
/// # Errors
/// What the store refused.
pub fn simulate_real(workload: Workload, options: &Options) -> Result<Outcome> {
    let mut plan = Plan::new(workload, &Options { real_time: true, ..*options }, Path::new(VIRTUAL_DIR));
    plan.config = plan.config.maintenance(Maintenance::Manual);
    drive(plan, options, MemoryDisk::default(), ManualClock::new(START_MS))
}

/// Runs a workload in a directory, by the machine's clock; the store maintains itself.
///
/// # Errors
/// What the store or the file system refused.
pub fn real(workload: Workload, options: &Options, dir: &Path) -> Result<Outcome> {
    let plan = Plan::new(workload, &Options { real_time: true, ..*options }, dir);
    drive(plan, options, OsDisk, SystemClock::default())
}

struct Driver<D: Disk, C: Pace> {
    cold: ColdTier<Counted<D>, C>,
    plan: Plan,
    rng: Rng,
    oracle: Oracle,
    fifo: Option<FifoCache>,
    key: Vec<u8>,
    value: Vec<u8>,
    answers: Answers,
    samples: Vec<Sample>,
    gauges: Vec<Gauge>,
    checkpoints: Vec<Checkpoint>,
    reclaimed: BTreeMap<u64, u64>,
    reclaimed_of_allowed: BTreeMap<u64, u64>,
    reclaimed_of_ttl: BTreeMap<u64, u64>,
    /// Times to live by sequence number, which the store gives in the order of the operations, from 1 on; 0 = none.
    ttls_ms: Vec<u32>,
    unreadable: u64,
    read_by_cleanup: u64,
    read_by_compaction: u64,
    /// Time since the clock began at which the run did, and since then.
    began_us: u64,
    passed_us: u64,
    /// The measured phase, and when it began.
    measured: bool,
    measured_since_ms: u64,
    steps_a_gauge: u64,
    last: Totals,
}

fn drive<D: Disk, C: Pace>(plan: Plan, options: &Options, disk: D, clock: C) -> Result<Outcome> {
    let started = Instant::now();
    // The store draws its identity and hash seed on this thread when it is created.
    fastrand::seed(options.seed);
    let cold = ColdTier::open_with(plan.config.clone(), Counted::new(disk), clock)?;
    let fifo = plan.capacity_bytes.map(|capacity| FifoCache::new(capacity, plan.segment_bytes));
    let steps: u64 = plan.phases.iter().map(|phase| phase.ops * phase.us_per_op / plan.step_us).sum();
    let mut driver = Driver {
        rng: Rng::with_seed(options.seed),
        oracle: Oracle::default(),
        fifo,
        key: Vec::new(),
        value: Vec::new(),
        answers: Answers::default(),
        samples: Vec::new(),
        gauges: Vec::new(),
        checkpoints: Vec::new(),
        reclaimed: BTreeMap::new(),
        reclaimed_of_allowed: BTreeMap::new(),
        reclaimed_of_ttl: BTreeMap::new(),
        ttls_ms: vec![0],
        unreadable: 0,
        read_by_cleanup: 0,
        read_by_compaction: 0,
        began_us: cold.clock().monotonic_ms() * 1000,
        passed_us: 0,
        measured: false,
        measured_since_ms: u64::MAX,
        steps_a_gauge: (steps / GAUGES).max(1),
        last: cold.disk().totals(),
        cold,
        plan,
    };
    driver.run(started)
}

impl<D: Disk, C: Pace> Driver<D, C> {
    fn now_ms(&self) -> u64 {
        self.cold.clock().wall_ms()
    }

    fn run(&mut self, started: Instant) -> Result<Outcome> {
        let mut before = (0, 0);
        for number in 0..self.plan.phases.len() {
            let phase = self.plan.phases[number];
            if phase.measured {
                self.settle();
                before = self.written();
                self.measured_since_ms = self.now_ms();
            }
            self.measured = phase.measured;
            for at in 0..phase.ops {
                let next_step_us = (self.passed_us / self.plan.step_us + 1) * self.plan.step_us;
                self.passed_us += phase.us_per_op;
                self.cold.clock().reach(self.began_us + self.passed_us);
                let op = self.plan.stream.next(number, at, &mut self.rng);
                self.perform(op)?;
                if self.passed_us >= next_step_us {
                    self.step(C::VIRTUAL)?;
                }
            }
            // Maintenance keeps to its times: the end of a phase is no moment to the store.
            self.step(false)?;
            self.check_point(phase.name);
        }
        self.finish(before, started)
    }

    /// Everything sent has been written, and shows in the store's accounts.
    fn settle(&self) {
        // A walk begins with a barrier, which is all that is wanted of it.
        drop(self.cold.iter());
    }

    fn written(&self) -> (u64, u64) {
        let stats = self.cold.stats();
        (self.cold.disk().totals().of(FileKind::Segment).written, stats.stored_bytes_inserted)
    }

    fn perform(&mut self, op: Op) -> Result<()> {
        self.oracle.expire(self.now_ms());
        match op {
            Op::Put { key, ttl_ms } => self.put(key, ttl_ms)?,
            Op::Get(key) => drop(self.get(key)?),
            Op::ReadThrough(key) => self.read_through(key)?,
            Op::WriteThrough(key) => {
                if let Some(fifo) = &mut self.fifo {
                    fifo.insert(key, self.plan.record_bytes_of(key));
                }
                self.put(key, 0)?;
            }
            Op::Remove(key) => {
                key_of(key, self.plan.key_bytes, &mut self.key);
                self.cold.remove(&self.key)?;
                self.oracle.remove(key);
                self.ttls_ms.push(0);
                self.answers.removes += 1;
            }
            Op::Compact => drop(self.cold.run(CompactionTask::CompactData)?),
            Op::Idle => {}
        }
        Ok(())
    }

    fn put(&mut self, key: u64, ttl_ms: u64) -> Result<()> {
        let value_bytes = self.plan.value_bytes_of(key);
        key_of(key, self.plan.key_bytes, &mut self.key);
        value_of(key, self.oracle.next_write(), value_bytes, &mut self.value);
        let expires_at_ms = if ttl_ms == 0 { u64::MAX } else { self.now_ms() + ttl_ms };
        match ttl_ms {
            0 => self.cold.insert(&self.key, &self.value)?,
            _ => self.cold.insert_with_ttl(&self.key, &self.value, Duration::from_millis(ttl_ms))?,
        }
        self.oracle.put(key, self.plan.key_bytes, value_bytes, expires_at_ms);
        self.ttls_ms.push(u32::try_from(ttl_ms).unwrap_or(u32::MAX));
        self.answers.puts += 1;
        Ok(())
    }

    /// Reads and checks; says whether there was a value.
    fn get(&mut self, key: u64) -> Result<bool> {
        key_of(key, self.plan.key_bytes, &mut self.key);
        let found = self.cold.get(&self.key)?;
        self.answers.gets += 1;
        self.answers.gets_measured += u64::from(self.measured);
        let expected = self.oracle.get(key).copied();
        let in_doubt = !C::VIRTUAL
            && expected.is_none_or(|live| live.expires_at_ms < self.now_ms() + EXPIRY_DOUBT_MS)
            && matches!(self.plan.workload, Workload::TtlOnly | Workload::TtlMixed | Workload::Year);
        match (&found, expected) {
            (Some(value), Some(live)) => {
                value_of(key, live.write, live.value_bytes, &mut self.value);
                let right = *value == self.value;
                self.answers.wrong += u64::from(!right);
                self.answers.hits += u64::from(right);
                self.answers.hits_measured += u64::from(right && self.measured);
            }
            (Some(_), None) => self.answers.wrong += u64::from(!in_doubt),
            (None, Some(_)) if self.plan.capacity_bytes.is_some() => self.oracle.remove(key),
            (None, Some(_)) => self.answers.lost += u64::from(!in_doubt),
            (None, None) => {}
        }
        Ok(found.is_some())
    }

    fn read_through(&mut self, key: u64) -> Result<()> {
        if let Some(fifo) = &mut self.fifo {
            let hit = fifo.contains(key);
            self.answers.fifo_hits_measured += u64::from(hit && self.measured);
            if !hit {
                fifo.insert(key, self.plan.record_bytes_of(key));
            }
        }
        if !self.plan.supported {
            // Only the FIFO cache can be measured: the reads are counted for it.
            self.answers.gets_measured += u64::from(self.measured);
            return Ok(());
        }
        if !self.get(key)? {
            self.put(key, 0)?;
        }
        Ok(())
    }

    /// A look at the disk, a round of maintenance, a second look.
    fn step(&mut self, maintain: bool) -> Result<()> {
        self.oracle.expire(self.now_ms());
        self.settle();
        let before = self.cold.disk().totals();
        let ran = if maintain { self.cold.run_due() } else { Ok(0) };
        let Step { totals, gone, unreadable, runaway } = self.cold.disk().take_step();
        if runaway {
            let (entries, shadows) = (self.cold.stats().entries, self.cold.stats().shadows);
            return Err(Failure(format!(
                "maintenance does not come to an end: over a hundred snapshots in one round, with {entries} entries \
                 and {shadows} shadows, {} ms after the start",
                self.passed_us / 1000
            )));
        }
        ran?;
        let now_ms = self.now_ms();
        for record in gone {
            self.note_reclaimed(&record, now_ms);
        }
        self.unreadable += unreadable;
        let read = totals.maintenance_record_bytes_read - self.last.maintenance_record_bytes_read;
        if totals.segments_rewritten == self.last.segments_rewritten {
            self.read_by_cleanup += read;
        } else {
            self.read_by_compaction += read;
        }
        self.last = totals;
        let segments = totals.of(FileKind::Segment);
        let at_ms = self.passed_us / 1000;
        self.samples.push(Sample {
            at_ms,
            before: before.of(FileKind::Segment).allocated,
            after: segments.allocated,
            peak: segments.allocated_peak,
            live: self.live_bytes(),
            segments: segments.files,
            snapshots: totals.of(FileKind::Snapshot).allocated,
            disk: totals.allocated(),
            disk_peak: totals.allocated_peak,
            measured: self.measured,
        });
        if (self.samples.len() as u64).is_multiple_of(self.steps_a_gauge) {
            let stats = self.cold.stats();
            let (bytes, entries) = (stats.index_bytes, stats.entries);
            self.gauges.push(Gauge { at_ms, bytes, entries, measured: self.measured });
        }
        Ok(())
    }

    /// Of what the store has evicted the oracle learns when it is read: there, the store's own count has to do.
    fn live_bytes(&self) -> u64 {
        match self.plan.capacity_bytes {
            Some(_) => self.cold.stats().live_bytes,
            None => self.oracle.live_bytes(),
        }
    }

    fn note_reclaimed(&mut self, record: &Gone, now_ms: u64) -> bool {
        let Gone { sequence, expires_at_ms, bytes } = *record;
        if expires_at_ms == 0 || !(self.measured_since_ms..=now_ms).contains(&expires_at_ms) {
            return false;
        }
        let delay_ms = now_ms - expires_at_ms;
        *self.reclaimed.entry(delay_ms).or_default() += bytes;
        let ttl_ms = u64::from(self.ttls_ms.get(sequence as usize).copied().unwrap_or(0)).max(1);
        // By a real clock the eighth counts alone: times to live are as short as the clock is made fast.
        let allowed_ms = if C::VIRTUAL { (ttl_ms / 8).max(RECLAIM_MS) } else { (ttl_ms / 8).max(1) };
        *self.reclaimed_of_allowed.entry((delay_ms * 1000).div_ceil(allowed_ms)).or_default() += bytes;
        *self.reclaimed_of_ttl.entry((delay_ms * 1000).div_ceil(ttl_ms)).or_default() += bytes;
        true
    }

    fn check_point(&mut self, name: &'static str) {
        let totals = self.cold.disk().totals();
        self.checkpoints.push(Checkpoint {
            name,
            segments: totals.of(FileKind::Segment).files,
            live: self.oracle.live_bytes(),
            disk: totals.allocated(),
        });
    }

    /// Reads back everything that ought to be there, and adds up.
    fn finish(&mut self, before: (u64, u64), started: Instant) -> Result<Outcome> {
        self.settle();
        let after = self.written();
        let now_ms = self.now_ms();
        let mut unreclaimed_bytes = 0;
        for record in self.cold.disk().records()? {
            if self.note_reclaimed(&record, now_ms) {
                unreclaimed_bytes += record.bytes;
            }
        }
        self.measured = false;
        if self.plan.supported {
            let mut keys: Vec<u64> = self.oracle.keys().collect();
            keys.sort_unstable();
            for key in keys {
                self.get(key)?;
            }
        }
        let stats = self.cold.stats();
        let totals = self.cold.disk().totals();
        let counted = totals.of(FileKind::Segment).written;
        Ok(Outcome {
            samples: std::mem::take(&mut self.samples),
            gauges: std::mem::take(&mut self.gauges),
            checkpoints: std::mem::take(&mut self.checkpoints),
            answers: self.answers,
            written: after.0 - before.0,
            inserted: after.1 - before.1,
            written_disagreement: counted.abs_diff(stats.segment_bytes_written),
            reclaimed: std::mem::take(&mut self.reclaimed),
            reclaimed_of_allowed: std::mem::take(&mut self.reclaimed_of_allowed),
            reclaimed_of_ttl: std::mem::take(&mut self.reclaimed_of_ttl),
            unreclaimed_bytes,
            unreadable: self.unreadable,
            read_by_cleanup: self.read_by_cleanup,
            read_by_compaction: self.read_by_compaction,
            totals,
            stats,
            wall: started.elapsed(),
        })
    }
}
