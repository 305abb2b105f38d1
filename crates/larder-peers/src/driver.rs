//! Operations on a store that is open: timed one by one, and every value that is read compared.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use larder_bench::zipf::Zipf;

use crate::contents::{Contents, mix};
use crate::measure::Tally;
use crate::peer::Peer;
use crate::plan::Plan;
use crate::{Failure, Result};

/// Keys of neighbouring ranks are so far from each other in the order of loading. A prime, so that each key has a rank of
/// its own.
const RANK_STEP: u64 = 2_654_435_761;
/// The last tenth of a load is measured by itself, but no more puts than this.
const LAST_PUTS_MAX: u64 = 500_000;
/// Who is ahead of its pace waits for so long.
const PACE: Duration = Duration::from_millis(1);
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
    /// There is no store: what it would have found is put where it would have put it.
    is_nothing: bool,
}

/// Keys and values on their way, so that nothing is allocated while calls are timed.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
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
        Self { peer, contents, plan, versions, ahead: 1, is_nothing: peer.is_nothing() }
    }

    /// Of a store that was killed: newer versions are right too, as far as they can have come.
    pub fn after_a_kill(self) -> Self {
        Self { ahead: OVERWRITES_BEFORE_KILL, ..self }
    }

    /// Puts every entry once, one thread. The second tally is of the last puts alone.
    pub fn load(&self, ttl_of: impl Fn(u64) -> Option<Duration>) -> Result<(Tally, Tally)> {
        let (mut all, mut last) = (Tally::default(), Tally::default());
        let mut buffers = Buffers::default();
        let first_of_last = self.plan.entries - self.plan.entries.div_ceil(10).min(LAST_PUTS_MAX);
        for id in 0..self.plan.entries {
            let tally = if id < first_of_last { &mut all } else { &mut last };
            self.put(id, 0, ttl_of(id), &mut buffers, tally)?;
        }
        all.add(&last);
        Ok((all, last))
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

    /// Reads by popularity, and overwrites likewise, until so many bytes were put or the time is over; each thread
    /// overwrites keys of its own.
    pub fn mixed(&self, threads: u64, (bytes, limit): (u64, Duration)) -> Result<Tally> {
        let put_bytes = AtomicU64::new(0);
        self.in_threads(threads, |thread| {
            let mut keys = Keys::new(self.plan, Draw::Zipf, thread);
            let mut tally = Tally::default();
            let mut buffers = Buffers::default();
            let started = Instant::now();
            while put_bytes.load(Ordering::Relaxed) < bytes && started.elapsed() < limit {
                let before = tally.put_bytes;
                for operation in 0..TIME_CHECK_OPERATIONS {
                    let id = keys.draw();
                    if operation.is_multiple_of(OVERWRITE_EVERY) {
                        let own = id - id % threads + thread;
                        let id = if own < self.plan.entries { own } else { thread };
                        self.overwrite(id, &mut buffers, &mut tally)?;
                    } else {
                        let nanoseconds = self.get(id, &mut buffers, &mut tally)?;
                        tally.reads.saturating_record(nanoseconds);
                    }
                }
                put_bytes.fetch_add(tally.put_bytes - before, Ordering::Relaxed);
            }
            Ok(tally)
        })
    }

    /// Reads keys drawn evenly for as long as another thread overwrites such keys, `count` of them at an even pace over
    /// `seconds`; what was read, and what was put.
    pub fn read_beside_overwrites(&self, count: u64, seconds: f64) -> Result<(Tally, Tally)> {
        let has_ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut keys = Keys::new(self.plan, Draw::Uniform, 0);
                let mut tally = Tally::default();
                let mut buffers = Buffers::default();
                while !has_ended.load(Ordering::Acquire) {
                    self.get(keys.draw(), &mut buffers, &mut tally)?;
                }
                Ok(tally)
            });
            let put = self.overwrite_paced(count, seconds);
            has_ended.store(true, Ordering::Release);
            let read: Result<Tally> = reading.join().map_err(|_| Failure("a thread panicked".to_owned()))?;
            Ok((read?, put?))
        })
    }

    /// Gives up when it has taken twice the time: the store cannot keep the pace.
    fn overwrite_paced(&self, count: u64, seconds: f64) -> Result<Tally> {
        let mut keys = Keys::new(self.plan, Draw::Uniform, 1);
        let mut tally = Tally::default();
        let mut buffers = Buffers::default();
        let started = Instant::now();
        while tally.calls.len() < count && started.elapsed().as_secs_f64() < seconds * 2.0 {
            let due = (started.elapsed().as_secs_f64() / seconds * count as f64) as u64;
            if tally.calls.len() >= due {
                thread::sleep(PACE);
                continue;
            }
            self.overwrite(keys.draw(), &mut buffers, &mut tally)?;
        }
        Ok(tally)
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
        (0..self.plan.entries).try_for_each(|id| self.overwrite(id, &mut buffers, &mut tally))
    }

    /// Bytes of the keys and values that are in force.
    pub fn logical_bytes(&self) -> u64 {
        let present = (0..).zip(self.versions.iter().map(|version| version.load(Ordering::Acquire)));
        present
            .filter(|(_, version)| *version != ABSENT)
            .map(|(id, version)| self.contents.entry_bytes(id, version))
            .sum()
    }

    fn overwrite(&self, id: u64, buffers: &mut Buffers, tally: &mut Tally) -> Result<()> {
        let version = self.versions[id as usize].load(Ordering::Acquire).wrapping_add(1);
        self.put(id, version, None, buffers, tally)
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
        if self.is_nothing && oldest != ABSENT {
            self.contents.value(id, oldest, &mut buffers.value);
        }
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
            && (oldest..=newest).any(|version| self.contents.is_value(id, version, &buffers.value));
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
            Draw::Zipf => (self.zipf.draw(&mut self.rng) - 1) * RANK_STEP % self.entries,
            Draw::Missing => self.entries + self.rng.u64(0..1 << 40),
        }
    }
}
