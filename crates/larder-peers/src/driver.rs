//! Operations on a store that is open: timed one by one, and every value that is read compared.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use larder_bench::zipf::Zipf;

use crate::contents::{Contents, mix};
use crate::measure::Tally;
use crate::peer::Peer;
use crate::plan::Plan;
use crate::{Failure, Result};

/// Every so many operations a thread looks at the time.
const TIME_CHECK_OPERATIONS: u64 = 64;
/// One in so many operations of a mixed workload is an overwrite.
const OVERWRITE_EVERY: u64 = 5;
/// Overwrites of one key before a kill, at most.
pub const OVERWRITES_BEFORE_KILL: u32 = 64;
/// Version of an entry that was never put, or was deleted.
pub const ABSENT: u32 = u32::MAX;

/// Which keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Each as often as any other.
    Uniform,
    /// By popularity, which has nothing to do with the order of loading.
    Zipf,
    /// Those that were never put.
    Missing,
}

/// Operates a store and knows what has to be in it.
pub struct Driver<'a> {
    peer: &'a dyn Peer,
    contents: &'a Contents,
    plan: &'a Plan,
    /// The version that each key has.
    versions: &'a [AtomicU32],
    /// How many versions newer a value may be than is known.
    ahead: u32,
}

/// Keys and values on their way, so that nothing is allocated while calls are timed.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
    wanted: Vec<u8>,
}

impl<'a> Driver<'a> {
    /// For a store that holds what `versions` say.
    pub fn new(
        peer: &'a dyn Peer,
        contents: &'a Contents,
        plan: &'a Plan,
        versions: &'a [AtomicU32],
    ) -> Self {
        // While a key is read another thread may put its next version, which it notes only afterwards.
        Self { peer, contents, plan, versions, ahead: 1 }
    }

    /// Of a store that was killed: newer versions are right too, as far as they can have come.
    pub fn after_a_kill(self) -> Self {
        Self { ahead: OVERWRITES_BEFORE_KILL, ..self }
    }

    /// Puts every entry once, one thread.
    pub fn load(&self, ttl_of: impl Fn(u64) -> Option<Duration>) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut buffers = Buffers::default();
        for id in 0..self.plan.entries {
            self.put(id, 0, ttl_of(id), &mut buffers, &mut tally)?;
        }
        Ok(tally)
    }

    /// Deletes the entries that `which` names, one thread.
    pub fn delete(&self, which: impl Fn(u64) -> bool) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut key = Vec::new();
        for id in (0..self.plan.entries).filter(|id| which(*id)) {
            self.contents.key(id, &mut key);
            let started = Instant::now();
            self.peer.delete(&key)?;
            tally.calls.saturating_record(started.elapsed().as_nanos() as u64);
            self.versions[id as usize].store(ABSENT, Ordering::Release);
        }
        Ok(tally)
    }

    /// Reads, on so many threads, for as long as the plan says.
    pub fn read(&self, draw: Draw, threads: u64) -> Result<Tally> {
        self.in_threads(threads, |thread| {
            let mut keys = Keys::new(self.plan, draw, thread);
            let mut tally = Tally::default();
            let mut buffers = Buffers::default();
            let started = Instant::now();
            while self.goes_on(&tally, started) {
                self.get(keys.draw(), &mut buffers, &mut tally)?;
            }
            Ok(tally)
        })
    }

    /// Reads by popularity, and overwrites likewise; each thread overwrites keys of its own.
    pub fn mixed(&self, threads: u64) -> Result<Tally> {
        self.in_threads(threads, |thread| {
            let mut keys = Keys::new(self.plan, Draw::Zipf, thread);
            let mut tally = Tally::default();
            let mut buffers = Buffers::default();
            let started = Instant::now();
            while self.goes_on(&tally, started) {
                let id = keys.draw();
                if !tally.calls.len().is_multiple_of(OVERWRITE_EVERY) {
                    let nanoseconds = self.get(id, &mut buffers, &mut tally)?;
                    tally.reads.saturating_record(nanoseconds);
                    continue;
                }
                let own = id - id % threads + thread;
                let id = if own < self.plan.entries { own } else { thread };
                let version = self.versions[id as usize].load(Ordering::Acquire).wrapping_add(1);
                self.put(id, version, None, &mut buffers, &mut tally)?;
            }
            Ok(tally)
        })
    }

    /// Reads so many keys drawn evenly, one thread.
    pub fn sample(&self, count: u64) -> Result<Tally> {
        let mut keys = Keys::new(self.plan, Draw::Uniform, 1 << 20);
        let mut tally = Tally::default();
        let mut buffers = Buffers::default();
        for _ in 0..count {
            self.get(keys.draw(), &mut buffers, &mut tally)?;
        }
        Ok(tally)
    }

    /// Puts the next version of one key after the other.
    pub fn overwrite_all(&self) -> Result<()> {
        let mut tally = Tally::default();
        let mut buffers = Buffers::default();
        for id in 0..self.plan.entries {
            let version = self.versions[id as usize].load(Ordering::Acquire).wrapping_add(1);
            self.put(id, version, None, &mut buffers, &mut tally)?;
        }
        Ok(())
    }

    fn goes_on(&self, tally: &Tally, started: Instant) -> bool {
        let done = tally.calls.len();
        done < self.plan.operations
            && (!done.is_multiple_of(TIME_CHECK_OPERATIONS) || started.elapsed() < self.plan.duration())
    }

    fn in_threads(&self, threads: u64, work: impl Fn(u64) -> Result<Tally> + Sync) -> Result<Tally> {
        thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            let mut all = Tally::default();
            for thread in running {
                all.add(&thread.join().map_err(|_| Failure("a thread panicked".to_owned()))??);
            }
            Ok(all)
        })
    }

    fn put(
        &self,
        id: u64,
        version: u32,
        ttl: Option<Duration>,
        buffers: &mut Buffers,
        tally: &mut Tally,
    ) -> Result<()> {
        self.contents.key(id, &mut buffers.key);
        self.contents.value(id, version, &mut buffers.value);
        let started = Instant::now();
        self.peer.put(&buffers.key, &buffers.value, ttl)?;
        tally.calls.saturating_record(started.elapsed().as_nanos() as u64);
        tally.put_bytes += (buffers.key.len() + buffers.value.len()) as u64;
        self.versions[id as usize].store(version, Ordering::Release);
        Ok(())
    }

    /// Reads a key, compares what is found, and says how many nanoseconds the call took.
    fn get(&self, id: u64, buffers: &mut Buffers, tally: &mut Tally) -> Result<u64> {
        self.contents.key(id, &mut buffers.key);
        buffers.value.clear();
        let version =
            || self.versions.get(id as usize).map_or(ABSENT, |version| version.load(Ordering::Acquire));
        let oldest = version();
        let started = Instant::now();
        let found = self.peer.get(&buffers.key, &mut buffers.value)?;
        let nanoseconds = started.elapsed().as_nanos() as u64;
        tally.calls.saturating_record(nanoseconds);
        tally.expected += u64::from(oldest != ABSENT);
        if !found {
            return Ok(nanoseconds);
        }
        tally.found += 1;
        tally.verified += 1;
        let newest = version().saturating_add(self.ahead);
        let is_right = oldest != ABSENT
            && (oldest..=newest).any(|version| {
                self.contents.value(id, version, &mut buffers.wanted);
                buffers.value == buffers.wanted
            });
        tally.wrong += u64::from(!is_right);
        Ok(nanoseconds)
    }
}

/// Draws keys; each thread its own.
struct Keys {
    rng: Rng,
    zipf: Zipf,
    draw: Draw,
    entries: u64,
}

impl Keys {
    fn new(plan: &Plan, draw: Draw, thread: u64) -> Self {
        let rng = Rng::with_seed(mix(plan.seed ^ (thread << 32)));
        Self { rng, zipf: Zipf::new(plan.entries, plan.exponent), draw, entries: plan.entries }
    }

    fn draw(&mut self) -> u64 {
        match self.draw {
            Draw::Uniform => self.rng.u64(0..self.entries),
            // Two ranks may fall on one key: that key is then more popular.
            Draw::Zipf => mix(self.zipf.draw(&mut self.rng)) % self.entries,
            Draw::Missing => self.entries + self.rng.u64(0..1 << 40),
        }
    }
}
