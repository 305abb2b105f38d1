//! A scripted run: seeded random operations on a store over a recording disk, with every task, reopening and a turned
//! clock; its outcome is the log of what the disk saw and the history of every key.
//!
//! One thread drives the store and marks in the log where it stands, so that for each prefix of the log it is known
//! what had begun and what had been acknowledged.

use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use fastrand::Rng;
use larder::{
    Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, Disk, Durability, Maintenance, ManualClock,
};

use crate::contents::{Contents, Present, expect_contents, look_up, read_all};
use crate::fault::{Fault, FaultKind};
use crate::history::{History, Window};
use crate::memory::{DIR, Files, Memory, MemoryDisk};
use crate::pieces;
use crate::recording::{Event, Mark, MarkKind, RecordingDisk};
use crate::values::{key, value};

/// When every scripted run begins, in unix milliseconds.
pub const START_MS: u64 = 1_760_000_000_000;
/// Keys of a run; the first ones are used most.
const KEYS: u64 = 140;
const KEYS_HOT: u64 = 24;
const STEPS: u64 = 230;
/// Of a run that fills its capacity, so that the store evicts and its manifest, which may not grow then, is rolled.
const KEYS_EVICTING: u64 = 400;
const CAPACITY_BYTES: u64 = 5 << 20;

/// How a run of that seed sets up its store.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub durability: Durability,
    pub segment_bytes: u64,
    /// Whether it is a run in pieces (`pieces.rs`).
    pub in_pieces: bool,
    /// What the disk says that there is of memory: with little of it, small pieces are written.
    pub memory_bytes: Option<u64>,
    pub compression: Compression,
    /// Whether somebody had made the directory before, or the store makes it.
    pub dir_exists: bool,
    /// Whether the store has less room than its entries need.
    pub evicts: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let durability = match seed % 4 {
            0 => Durability::Never,
            1 => Durability::Interval(Duration::from_millis(1)),
            2 => Durability::Interval(Duration::from_secs(1)),
            _ => Durability::Always,
        };
        let compression = match seed / 4 % 4 {
            0 | 1 => Compression::Tuned,
            2 => Compression::Fixed(Codec::Zstd(1)),
            _ => Compression::Fixed(Codec::None),
        };
        let evicts = seed % 5 == 4;
        let in_pieces = seed % 5 == 2;
        let memory_bytes = (seed % 5 == 1).then_some(256 << 10);
        let segment_bytes = match in_pieces {
            true => pieces::SEGMENT_BYTES,
            false if (seed / 2).is_multiple_of(2) || evicts => 64 << 10,
            false => 150 << 10,
        };
        let dir_exists = !seed.is_multiple_of(3);
        Self { seed, durability, segment_bytes, in_pieces, memory_bytes, compression, dir_exists, evicts }
    }

    pub fn config(&self) -> ColdTierConfig {
        let config = ColdTierConfig::new(DIR)
            .durability(self.durability)
            .segment_bytes(self.segment_bytes)
            .compression(self.compression)
            .maintenance(Maintenance::Manual);
        if self.evicts { config.capacity_bytes(CAPACITY_BYTES) } else { config }
    }

    fn keys(&self) -> u64 {
        if self.evicts { KEYS_EVICTING } else { KEYS }
    }

    fn hot_key(&self, rng: &mut Rng) -> u64 {
        if rng.u32(..10) < 6 { rng.u64(..KEYS_HOT) } else { rng.u64(..self.keys()) }
    }

    fn value_len(&self, rng: &mut Rng) -> usize {
        if self.evicts || self.in_pieces { pieces::value_len(rng) } else { value_len(rng) }
    }
}

/// What a run left behind: the log, and the history of every key.
pub struct Trace {
    pub events: Vec<Event>,
    pub history: History,
}

/// Runs the script of that plan on a new store.
pub fn record(plan: Plan) -> Result<Trace, Fault> {
    let memory = Memory::holding(plan.dir_exists.then(Files::new).as_ref());
    let history = History { evicts: plan.evicts, ..History::default() };
    let mut script = Script::open(plan, &memory, START_MS, 0, history)?;
    let mut rng = Rng::with_seed(plan.seed);
    for number in 0..plan.keys() {
        script.insert(number, &mut rng)?;
    }
    let mut tunings = 0;
    for _ in 0..STEPS {
        match rng.u32(..100) {
            0..48 => script.insert(plan.hot_key(&mut rng), &mut rng)?,
            48..60 => script.remove(plan.hot_key(&mut rng))?,
            60..70 => script.advance(rng.u64(1..=900)),
            70..77 => script.flush()?,
            77..82 => script.settle(),
            82..85 => script = script.reopen()?,
            85..90 => script.check()?,
            step => {
                let task = match step {
                    90..94 => CompactionTask::CompactData,
                    94..96 => CompactionTask::CleanupExpired,
                    96..98 => CompactionTask::RebuildIndex,
                    _ if tunings < 2 => CompactionTask::OptimizeCompression,
                    _ => CompactionTask::CompactData,
                };
                tunings += u32::from(task == CompactionTask::OptimizeCompression);
                let beside = if rng.bool() { rng.u64(1..12) } else { 0 };
                script.run(task, beside, &mut rng)?;
            }
        }
    }
    let evicted = script.evicted + script.cold.stats().evicted;
    let trace = script.close()?;
    // With `Always` each record is waited for, and written alone.
    if plan.in_pieces && plan.durability != Durability::Always && !is_in_pieces(&trace.events) {
        return Err(Fault::failed("the script", "no piece was written"));
    }
    let is_roll = |event: &&Event| matches!(event, Event::Rename { to, .. } if to == "CURRENT");
    // The first one makes the store.
    let rolls = trace.events.iter().filter(is_roll).count() - 1;
    if plan.evicts && (evicted == 0 || rolls == 0) {
        return Err(Fault::failed(
            "the script",
            format!("{evicted} entries evicted, {rolls} manifest rolls"),
        ));
    }
    Ok(trace)
}

/// What a recovered store is put through while its disk is recorded: the second part of a pair of crashes.
/// `window` says what the first crash left open; `history` ends with it.
pub fn record_recovery(
    plan: Plan,
    memory: &Memory,
    window: Window,
    history: &History,
    rng: &mut Rng,
) -> Result<Trace, Fault> {
    let (op, now_ms) = (window.ceiling + 1, window.now_max_ms);
    let mut script = Script::open(plan, memory, now_ms, op, history.clone())?;
    let contents = read_all(&script.cold, history.keys.keys(), Some(now_ms))?;
    history.judge(window, &contents)?;
    script.history.note_recovery(op, window.ceiling, &contents);
    if rng.bool() {
        script.flush()?;
    }
    for _ in 0..rng.u32(4..16) {
        match rng.u32(..10) {
            0..6 => script.insert(plan.hot_key(rng), rng)?,
            6..8 => script.remove(plan.hot_key(rng))?,
            8 => script.advance(rng.u64(1..=900)),
            _ => script.flush()?,
        }
    }
    let mut tasks =
        [CompactionTask::CompactData, CompactionTask::CleanupExpired, CompactionTask::RebuildIndex];
    rng.shuffle(&mut tasks);
    for task in tasks {
        script.run(task, rng.u64(..3), rng)?;
    }
    script.check()?;
    script.close()
}

struct Script<'a> {
    cold: Recorded,
    plan: Plan,
    memory: &'a Memory,
    log: Sender<Event>,
    events: Receiver<Event>,
    /// Number of the last operation begun.
    op: u64,
    now_ms: u64,
    /// How often the store was opened.
    opened: u64,
    /// Entries evicted before it was opened the last time.
    evicted: u64,
    history: History,
}

type Recorded = ColdTier<RecordingDisk<MemoryDisk>, ManualClock>;

impl<'a> Script<'a> {
    fn open(plan: Plan, memory: &'a Memory, now_ms: u64, op: u64, history: History) -> Result<Self, Fault> {
        let (log, events) = unbounded();
        mark(&log, MarkKind::Started, op, now_ms);
        // The handles of a recovery are not those of the run before it: both may be in one file system's model.
        let opened = (op + 1) << 8;
        let cold = open_store(plan, memory, &log, opened, now_ms)?;
        Ok(Self { cold, plan, memory, log, events, op, now_ms, opened, evicted: 0, history })
    }

    fn mark(&self, kind: MarkKind) {
        mark(&self.log, kind, self.op, self.now_ms);
    }

    fn begin(&mut self) {
        self.op += 1;
        self.mark(MarkKind::Started);
    }

    /// After a write that was accepted. It need not have come to the disk: a removal of what is not there does not.
    fn accepted(&self) {
        if self.plan.durability == Durability::Always {
            self.mark(MarkKind::Durable);
        }
    }

    fn insert(&mut self, number: u64, rng: &mut Rng) -> Result<(), Fault> {
        let (key, len) = (key(number), self.plan.value_len(rng));
        let ttl_ms = ttl_ms(rng);
        self.begin();
        let value = value(self.op, len, rng.u32(..10) < 6 && !self.plan.evicts);
        let present = Present { value, expires_at_ms: ttl_ms.map(|ttl_ms| self.now_ms + ttl_ms) };
        let inserted = match ttl_ms {
            Some(ttl_ms) => self.cold.insert_with_ttl(&key, &present.value, Duration::from_millis(ttl_ms)),
            None => self.cold.insert(&key, &present.value),
        };
        self.history.note(self.op, &key, Some(present));
        inserted.map_err(|error| Fault::failed("insert", error))?;
        self.accepted();
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), Fault> {
        let key = key(number);
        self.begin();
        self.history.note(self.op, &key, None);
        self.cold.remove(&key).map_err(|error| Fault::failed("remove", error))?;
        self.accepted();
        Ok(())
    }

    fn advance(&mut self, ms: u64) {
        // The mark comes first: whatever the store writes with the new time stands behind it in the log.
        self.now_ms += ms;
        self.begin();
        self.cold.clock().advance(ms);
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.begin();
        self.cold.flush().map_err(|error| Fault::failed("flush", error))?;
        self.mark(MarkKind::DurableWithClock);
        Ok(())
    }

    /// Waits until everything accepted has been handed to the kernel, where that happens soon.
    fn settle(&mut self) {
        let began = Instant::now();
        while self.cold.stats().queued_bytes > 0 {
            if began.elapsed() > Duration::from_secs(1) {
                return;
            }
            std::thread::yield_now();
        }
        self.mark(MarkKind::HandedOver);
    }

    /// Runs a task, and meanwhile that many inserts.
    fn run(&mut self, task: CompactionTask, beside: u64, rng: &mut Rng) -> Result<(), Fault> {
        self.begin();
        let failed = |error| Fault::failed(&format!("{task:?}"), error);
        if beside == 0 {
            return self.cold.run(task).map(drop).map_err(failed);
        }
        // The store is borrowed by the other thread, and this one goes on noting what it does.
        let (log, plan, now_ms) = (&self.log, self.plan, self.now_ms);
        let (op, history, cold) = (&mut self.op, &mut self.history, &self.cold);
        std::thread::scope(|scope| {
            let running = scope.spawn(move || cold.run(task));
            for _ in 0..beside {
                *op += 1;
                mark(log, MarkKind::Started, *op, now_ms);
                let (key, len) = (key(plan.hot_key(rng)), plan.value_len(rng));
                let value = value(*op, len, rng.bool());
                let ttl_ms = ttl_ms(rng);
                let inserted = match ttl_ms {
                    Some(ttl_ms) => cold.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)),
                    None => cold.insert(&key, &value),
                };
                let expires_at_ms = ttl_ms.map(|ttl_ms| now_ms + ttl_ms);
                history.note(*op, &key, Some(Present { value, expires_at_ms }));
                inserted.map_err(|error| Fault::failed("insert", error))?;
                if plan.durability == Durability::Always {
                    mark(log, MarkKind::Durable, *op, now_ms);
                }
            }
            match running.join() {
                Ok(report) => report.map(drop).map_err(failed),
                Err(_) => Err(Fault { kind: FaultKind::Panicked, text: format!("{task:?}") }),
            }
        })
    }

    /// The running store holds exactly the last state of every key.
    fn check(&self) -> Result<(), Fault> {
        let window =
            Window { floor: self.op, ceiling: self.op, now_min_ms: self.now_ms, now_max_ms: self.now_ms };
        self.plan.let_evictions_end(&self.cold)?;
        let contents = read_all(&self.cold, self.history.keys.keys(), Some(self.now_ms))?;
        self.history.judge(window, &contents)
    }

    fn reopen(mut self) -> Result<Self, Fault> {
        self.begin();
        let Self { cold, plan, memory, log, events, op, now_ms, opened, mut evicted, history } = self;
        evicted += cold.stats().evicted;
        cold.close().map_err(|error| Fault::failed("close", error))?;
        mark(&log, MarkKind::DurableWithClock, op, now_ms);
        let opened = opened + 1;
        let cold = open_store(plan, memory, &log, opened, now_ms)?;
        let script = Self { cold, plan, memory, log, events, op, now_ms, opened, evicted, history };
        script.check().map_err(|fault| fault.when("after a clean reopen"))?;
        Ok(script)
    }

    fn close(mut self) -> Result<Trace, Fault> {
        self.begin();
        self.cold.close().map_err(|error| Fault::failed("close", error))?;
        mark(&self.log, MarkKind::DurableWithClock, self.op, self.now_ms);
        drop(self.log);
        Ok(Trace { events: self.events.iter().collect(), history: self.history })
    }
}

fn mark(log: &Sender<Event>, kind: MarkKind, op: u64, now_ms: u64) {
    log.send(Event::Mark(Mark { kind, op, now_ms })).expect("the script holds the receiver");
}

/// Whether the writer, and not a compaction alone, has written a piece of a segment.
fn is_in_pieces(events: &[Event]) -> bool {
    let is_output = |of: u64| {
        let made = |event: &Event| matches!(event, Event::Create { handle, name } if *handle == of && name.ends_with(".tmp"));
        events.iter().any(made)
    };
    events.iter().any(|event| match event {
        Event::Write { handle, offset, bytes } => {
            (offset + bytes.len() as u64).is_multiple_of(pieces::PIECE_BYTES) && !is_output(*handle)
        }
        _ => false,
    })
}

fn open_store(
    plan: Plan,
    memory: &Memory,
    log: &Sender<Event>,
    opened: u64,
    now_ms: u64,
) -> Result<Recorded, Fault> {
    let disk =
        RecordingDisk::new(memory.disk(), Path::new(DIR), log.clone(), opened).with_memory(plan.memory_bytes);
    ColdTier::open_with(plan.config(), disk, ManualClock::new(now_ms))
        .map_err(|error| Fault::failed("open", error))
}

/// Times to live of several classes, so that the versions of a key lie in segments of their own, and times that make
/// a class of their own or stretch one.
fn ttl_ms(rng: &mut Rng) -> Option<u64> {
    match rng.u32(..20) {
        0 | 1 => Some(rng.u64(1..=50)),
        2 | 3 => Some(700),
        4 | 5 => Some(2500),
        6 => Some(rng.u64(1..=4000)),
        7 | 8 => Some(20_000),
        9 => Some(3_600_000),
        _ => None,
    }
}

fn value_len(rng: &mut Rng) -> usize {
    match rng.u32(..100) {
        0..5 => 0,
        5..15 => rng.usize(1..=16),
        15..70 => rng.usize(17..=800),
        70..96 => rng.usize(801..=3000),
        _ => rng.usize(3001..=30_000),
    }
}

impl Plan {
    /// Evictions go on by themselves, and a look at a store needs it to stand still: the worker does one thing after
    /// the other.
    pub fn let_evictions_end<D: Disk>(&self, cold: &ColdTier<D, ManualClock>) -> Result<(), Fault> {
        if !self.evicts {
            return Ok(());
        }
        cold.run(CompactionTask::CleanupExpired).map(drop).map_err(|error| Fault::failed("cleanup", error))
    }
}

/// A recovered store that is put to work: writes, every task that moves or drops records, a clean restart; after each
/// step it must hold exactly what it should.
pub struct Work<'a> {
    pub plan: Plan,
    pub memory: &'a Memory,
    pub history: &'a History,
    /// The clock it was opened at.
    pub wall_ms: u64,
    /// The store's time, where known.
    pub now_ms: Option<u64>,
}

type Reopened = ColdTier<MemoryDisk, ManualClock>;

impl Work<'_> {
    pub fn go_on(mut self, cold: Reopened, contents: Contents, rng: &mut Rng) -> Result<(), Fault> {
        let mut expected = contents;
        let fresh = b"written after recovery".to_vec();
        let keys: Vec<Vec<u8>> = self.history.keys.keys().cloned().chain([fresh.clone()]).collect();
        self.write(&cold, fresh, &mut expected, rng)?;
        if !self.plan.evicts {
            look_up(&cold, keys.iter(), &expected, self.now_ms)
                .map_err(|fault| fault.when("after new writes"))?;
        }
        cold.flush().map_err(|error| failed("flush", error))?;
        // Listing a store costs more than all the rest: it is done after one of the steps, the others are looked up.
        let listed = rng.usize(..4);
        self.check(&cold, &keys, &mut expected, listed == 3).map_err(|fault| fault.when("after a flush"))?;
        let mut tasks =
            [CompactionTask::CompactData, CompactionTask::CleanupExpired, CompactionTask::RebuildIndex];
        rng.shuffle(&mut tasks);
        for (step, task) in tasks.into_iter().enumerate() {
            cold.run(task).map_err(|error| failed(&format!("{task:?}"), error))?;
            self.check(&cold, &keys, &mut expected, listed == step)
                .map_err(|fault| fault.when(&format!("after {task:?} of {tasks:?}")))?;
            let (len, live) = (cold.len(), expected.len() as u64);
            if task == CompactionTask::CleanupExpired && len != live {
                let text = format!("after a cleanup: len {len} with {live} entries");
                return Err(Fault { kind: FaultKind::Wrong, text });
            }
        }
        cold.close().map_err(|error| failed("close", error))?;
        let clock = ManualClock::new(self.wall_ms.max(self.now_ms.unwrap_or(0)));
        let cold = ColdTier::open_with(self.plan.config(), self.memory.disk(), clock)
            .map_err(|error| failed("reopen", error))?;
        self.check(&cold, &keys, &mut expected, true)
            .map_err(|fault| fault.when("after a second restart"))?;
        cold.close().map_err(|error| failed("second close", error))
    }

    fn write(
        &mut self,
        cold: &Reopened,
        fresh: Vec<u8>,
        expected: &mut Contents,
        rng: &mut Rng,
    ) -> Result<(), Fault> {
        let rewritten = key(self.plan.hot_key(rng));
        for (nth, key) in [fresh, rewritten].into_iter().enumerate() {
            let value = value(u64::MAX - nth as u64, self.plan.value_len(rng), rng.bool());
            cold.insert(&key, &value).map_err(|error| failed("insert", error))?;
            expected.insert(key, Present { value, expires_at_ms: None });
        }
        let removed = key(self.plan.hot_key(rng));
        cold.remove(&removed).map_err(|error| failed("remove", error))?;
        expected.remove(&removed);
        if let (Some(now), true) = (self.now_ms, rng.u32(..3) == 0) {
            let later_ms = now + rng.u64(1..=2000);
            cold.clock().advance(later_ms - now);
            expected.retain(|_, present| present.expires_at_ms.is_none_or(|at| at > later_ms));
            self.now_ms = Some(later_ms);
        }
        Ok(())
    }

    /// The store holds what is expected, of which it may have evicted some if it does that.
    fn check(
        &self,
        cold: &Reopened,
        keys: &[Vec<u8>],
        expected: &mut Contents,
        listed: bool,
    ) -> Result<(), Fault> {
        if !listed && !self.plan.evicts {
            return look_up(cold, keys.iter(), expected, self.now_ms);
        }
        self.plan.let_evictions_end(cold)?;
        let read = read_all(cold, keys.iter(), self.now_ms)?;
        if self.plan.evicts {
            expected.retain(|key, _| read.contains_key(key));
        }
        expect_contents(expected, &read)
    }
}

fn failed(call: &str, error: larder::Error) -> Fault {
    Fault::failed(call, error).when("after recovery")
}
