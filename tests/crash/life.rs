//! A store that lives through trouble: operations on a failing disk, of which each may be refused, and what it may
//! answer meanwhile and afterwards.
//!
//! What is known of each key is the set of states it may be in: one, unless a call on it failed, or a write that was
//! accepted may have been lost (P4). After a failed `flush` the store is read, and what it says stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use larder::{
    Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, Durability, ErrorKind, Maintenance,
    ManualClock,
};

use crate::contents::{Contents, Present, read_all};
use crate::fault::{Fault, FaultKind};
use crate::history::{History, Window};
use crate::memory::{DIR, Memory, MemoryDisk};
use crate::pieces;
use crate::values::{key, value};

const START_MS: u64 = 1_760_000_000_000;
const KEYS: u64 = 30;

type Store = ColdTier<MemoryDisk, ManualClock>;
type State = Option<Present>;

/// How the store is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    pub durability: Durability,
    pub compression: Compression,
    /// Whether it is a run in pieces (`pieces.rs`).
    pub in_pieces: bool,
}

impl Setup {
    pub fn of(seed: u64) -> Self {
        let durability = match seed % 3 {
            0 => Durability::Never,
            1 => Durability::Interval(Duration::from_millis(1)),
            _ => Durability::Always,
        };
        let codec = if (seed / 3).is_multiple_of(2) { Codec::Lz4 } else { Codec::Zstd(1) };
        Self { seed, durability, compression: Compression::Fixed(codec), in_pieces: seed % 5 == 2 }
    }

    fn config(&self) -> ColdTierConfig {
        ColdTierConfig::new(DIR)
            .segment_bytes(if self.in_pieces { pieces::SEGMENT_BYTES } else { 64 << 10 })
            .durability(self.durability)
            .compression(self.compression)
            .maintenance(Maintenance::Manual)
    }
}

pub struct Life<'a> {
    setup: Setup,
    memory: &'a Memory,
    cold: Store,
    rng: Rng,
    op: u64,
    now_ms: u64,
    possible: BTreeMap<Vec<u8>, Vec<State>>,
    /// Keys written since the last flush that was acknowledged, or whose failure was looked into.
    unsure: BTreeSet<Vec<u8>>,
    /// Every state that was asked for, with the number of the operation; even numbers are the misses that a lost write
    /// may have left.
    asked: Vec<(u64, Vec<u8>, State)>,
    /// Last operation that a flush has acknowledged.
    floor: u64,
    /// Errors that calls have returned.
    errors: u64,
}

impl<'a> Life<'a> {
    pub fn begin(setup: Setup, memory: &'a Memory) -> larder::Result<Self> {
        let cold = ColdTier::open_with(setup.config(), memory.disk(), ManualClock::new(START_MS))?;
        let possible = (0..KEYS).map(|number| (key(number), vec![None])).collect();
        Ok(Self {
            setup,
            memory,
            cold,
            rng: Rng::with_seed(setup.seed),
            op: 1,
            now_ms: START_MS,
            possible,
            unsure: BTreeSet::new(),
            asked: Vec::new(),
            floor: 0,
            errors: 0,
        })
    }

    pub fn store(&self) -> &Store {
        &self.cold
    }

    /// Some operations of every kind.
    pub fn go_on(&mut self, steps: u64) -> Result<(), Fault> {
        for _ in 0..steps {
            match self.rng.u32(..40) {
                0..24 => self.write(false)?,
                24..30 => self.write(true)?,
                30..32 => {
                    self.now_ms += 700;
                    self.cold.clock().advance(700);
                }
                32..35 => drop(self.flush()?),
                35 => drop(self.run(CompactionTask::CompactData)?),
                36 => drop(self.run(CompactionTask::CleanupExpired)?),
                37 => drop(self.run(CompactionTask::RebuildIndex)?),
                _ => self.check()?,
            }
        }
        Ok(())
    }

    fn write(&mut self, removes: bool) -> Result<(), Fault> {
        self.op += 2;
        let key = key(self.rng.u64(..KEYS));
        let ttl_ms = (self.rng.u32(..4) == 0).then(|| self.rng.u64(1..5000));
        let len = match self.rng.u32(..8) {
            _ if self.setup.in_pieces => pieces::value_len(&mut self.rng),
            0 => 12_000,
            _ => self.rng.usize(8..900),
        };
        let state = (!removes).then(|| Present {
            value: value(self.op, len, self.rng.bool()),
            expires_at_ms: ttl_ms.map(|ttl_ms| self.now_ms + ttl_ms),
        });
        let done = match (&state, ttl_ms) {
            (None, _) => self.cold.remove(&key),
            (Some(present), None) => self.cold.insert(&key, &present.value),
            (Some(present), Some(ttl_ms)) => {
                self.cold.insert_with_ttl(&key, &present.value, Duration::from_millis(ttl_ms))
            }
        };
        self.asked.push((self.op, key.clone(), state.clone()));
        self.unsure.insert(key.clone());
        let possible = self.possible.get_mut(&key).expect("one of the keys");
        match done {
            Ok(()) => *possible = vec![state],
            Err(error) => {
                possible.extend([state, None]);
                self.told(&error)?;
            }
        }
        Ok(())
    }

    /// A call was refused; a store that is closed has lost a worker.
    fn told(&mut self, error: &larder::Error) -> Result<(), Fault> {
        self.errors += 1;
        match error.kind() {
            ErrorKind::Closed => Err(Fault { kind: FaultKind::Panicked, text: error.to_string() }),
            _ => Ok(()),
        }
    }

    /// Whether it was acknowledged.
    pub fn flush(&mut self) -> Result<bool, Fault> {
        match self.cold.flush() {
            Ok(()) => {
                self.unsure.clear();
                self.check()?;
                // Calls that were refused have changed nothing, or something: now it shows.
                let open = self.possible.iter().filter(|(_, possible)| possible.len() > 1);
                self.unsure = open.map(|(key, _)| key.clone()).collect();
                self.settle()?;
                self.floor = self.op;
                Ok(true)
            }
            Err(error) => {
                self.told(&error)?;
                self.settle()?;
                Ok(false)
            }
        }
    }

    pub fn run(&mut self, task: CompactionTask) -> Result<bool, Fault> {
        match self.cold.run(task) {
            Ok(_) => Ok(true),
            Err(error) => self.told(&error).map(|()| false),
        }
    }

    fn read(&self) -> Result<Contents, Fault> {
        let keys: Vec<Vec<u8>> = self.possible.keys().cloned().collect();
        read_all(&self.cold, keys.iter(), Some(self.now_ms))
    }

    /// What is read is possible. While the disk has failed and nobody was told yet, a write may be lost already.
    pub fn check(&mut self) -> Result<(), Fault> {
        let read = self.read();
        let in_trouble = self.memory.struck().is_some();
        let contents = match read {
            // The disk may refuse a read; then it is an error, and no answer.
            Err(fault) if fault.kind == FaultKind::Failed && in_trouble => return Ok(()),
            read => read?,
        };
        for (key, possible) in &self.possible {
            let read = contents.get(key);
            let may_miss = in_trouble && self.unsure.contains(key);
            let is_it = |state: &State| match state {
                Some(present) if !present.is_expired(self.now_ms) => read == Some(present),
                _ => read.is_none(),
            };
            if possible.iter().any(is_it) || (may_miss && read.is_none()) {
                continue;
            }
            let asked = self.asked.iter().any(|(_, of, state)| of == key && state.as_ref() == read);
            let kind = match read {
                None => FaultKind::Lost,
                Some(_) if asked => FaultKind::Resurrected,
                Some(_) => FaultKind::Wrong,
            };
            let text = |state: Option<&Present>| state.map_or("nothing".to_string(), Present::to_string);
            let list: Vec<String> = possible.iter().map(|state| text(state.as_ref())).collect();
            return Err(Fault::new(kind, key, format!("read {}, possible {list:?}", text(read))));
        }
        Ok(())
    }

    /// What is read of the unsure keys is what is left of them.
    fn settle(&mut self) -> Result<(), Fault> {
        self.check()?;
        let Ok(contents) = self.read() else { return Ok(()) };
        self.op += 2;
        for key in std::mem::take(&mut self.unsure) {
            let found = contents.get(&key).cloned();
            self.asked.push((self.op, key.clone(), found.clone()));
            let possible = self.possible.get_mut(&key).expect("one of the keys");
            let is_expired = |state: &State| state.as_ref().is_some_and(|p| p.is_expired(self.now_ms));
            match found {
                None if possible.iter().any(is_expired) => possible.push(None),
                found => *possible = vec![found],
            }
        }
        Ok(())
    }

    /// Ends the store without order, as a kill does, and finds what a power cut leaves, of which nothing unsynced
    /// survives: no older than the last acknowledged flush.
    pub fn cut_power(self) -> Result<(), Fault> {
        let Self { setup, memory, cold, op, now_ms, possible, asked, floor, .. } = self;
        cold.abandon();
        let left = Memory::holding(Some(&memory.durable_files()));
        let cold = ColdTier::open_with(setup.config(), left.disk(), ManualClock::new(now_ms))
            .map_err(|error| Fault::failed("recovery", error))?;
        let mut history = History::default();
        for (op, key, state) in asked {
            history.note(op, &key, state);
            // If it was lost, a tombstone may have taken its place.
            history.note(op + 1, &key, None);
        }
        let contents = read_all(&cold, possible.keys(), Some(now_ms))?;
        let window = Window { floor, ceiling: op + 1, now_min_ms: now_ms, now_max_ms: now_ms };
        // Nothing was lost of what a flush acknowledged: there the miss is no state.
        for versions in history.keys.values_mut() {
            versions.retain(|version| version.op > floor + 1 || version.op == 0 || version.op % 2 == 1);
        }
        history
            .judge(window, &contents)
            .map_err(|fault| fault.when(&format!("after a power cut, recovery {:?}", cold.stats().recovery)))
    }

    /// Closes the store and opens it again: everything is as it was.
    pub fn restart(mut self) -> Result<Self, Fault> {
        let clock = ManualClock::new(self.now_ms);
        let (setup, memory) = (self.setup, self.memory);
        self.cold.close().map_err(|error| Fault::failed("close", error))?;
        self.cold = ColdTier::open_with(setup.config(), memory.disk(), clock)
            .map_err(|error| Fault::failed("reopen", error))?;
        self.check().map_err(|fault| fault.when("after a restart"))?;
        Ok(self)
    }
}
