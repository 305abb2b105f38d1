//! The load itself: keys, values that prove what they are, and threads that time each operation.
//!
//! A value begins with the number of its key and a version drawn at random; all its other bytes follow from these two.
//! So whoever reads it can tell whether it is a value that was written to this key, whole and unmixed, without keeping
//! a copy of anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use larder::ColdTier;

use super::zipf::Zipf;
use crate::interrupt;

/// Wrong values told in words.
const PROBLEMS_KEPT: usize = 10;
/// Operations between two looks at the clock and at the signals.
const STRIDE: u64 = 64;
/// Three significant digits, whatever the value.
const DIGITS: u8 = 3;
/// An operation that takes longer than an hour counts as one of an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Words of the generated text.
const WORDS: [&str; 16] = [
    "cache",
    "segment",
    "value",
    "entry",
    "\"name\":",
    "\"id\":",
    "\"tags\":[",
    "],",
    "true",
    "false",
    "null",
    "2026-",
    "active",
    "user",
    "https",
    "record",
];

/// What is done to a store.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The store.
    pub store: &'a ColdTier,
    /// Number of keys.
    pub entries: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Share of reads.
    pub read_share: f64,
    /// How popular keys are, if not all alike. What a read misses then is put in, as a cache before a slower store does.
    pub zipf: Option<Zipf>,
    /// An entry may be gone although its time has not come.
    pub may_miss: bool,
    /// Time to live of what is put in.
    pub ttl: Option<Duration>,
    /// Makes the versions of this run.
    pub seed: u64,
}

/// What was done and how long it took, in nanoseconds.
#[derive(Debug)]
pub struct Tally {
    /// Inserts and overwrites.
    pub puts: Histogram<u64>,
    /// Reads.
    pub gets: Histogram<u64>,
    /// Reads that found a value.
    pub hits: u64,
    /// Reads of the second half of the time.
    pub late_gets: u64,
    /// Those among them that found a value.
    pub late_hits: u64,
    /// Values that are as they were written.
    pub verified: u64,
    /// Values that are not.
    pub wrong: u64,
    /// The first of those, in words.
    pub problems: Vec<String>,
}

impl Tally {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("bounds that it allows");
        Self {
            puts: histogram(),
            gets: histogram(),
            hits: 0,
            late_gets: 0,
            late_hits: 0,
            verified: 0,
            wrong: 0,
            problems: Vec::new(),
        }
    }

    /// Several together.
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::new();
        for part in parts {
            sum.puts.add(&part.puts).expect("all have the same bounds");
            sum.gets.add(&part.gets).expect("all have the same bounds");
            sum.hits += part.hits;
            sum.late_gets += part.late_gets;
            sum.late_hits += part.late_hits;
            sum.verified += part.verified;
            sum.wrong += part.wrong;
            sum.problems.extend(part.problems.iter().cloned());
        }
        sum.problems.truncate(PROBLEMS_KEPT);
        sum
    }

    fn judge(&mut self, number: u64, value: &[u8], bytes: usize, room: &mut Vec<u8>) {
        if is_whole(number, value, bytes, room) {
            self.verified += 1;
            return;
        }
        self.note_wrong(format!("key {number}: a value of {} B that was never written to it", value.len()));
    }

    fn note_wrong(&mut self, problem: String) {
        self.wrong += 1;
        if self.problems.len() < PROBLEMS_KEPT {
            self.problems.push(problem);
        }
    }
}

impl Load<'_> {
    /// Puts every key in once, shared out among the threads. A signal ends it early.
    pub fn fill(&self, threads: u64, progress: &dyn Fn(f32)) -> larder::Result<Tally> {
        let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = |_: u64| {
            let mut tally = Tally::new();
            let mut room = Vec::new();
            while !interrupt::requested() {
                let from = next.fetch_add(STRIDE, Ordering::Relaxed);
                if from >= self.entries {
                    break;
                }
                for number in from..(from + STRIDE).min(self.entries) {
                    self.put(number, self.seed, &mut tally, &mut room)?;
                }
                done.fetch_add(STRIDE, Ordering::Relaxed);
            }
            Ok(tally)
        };
        let share = || done.load(Ordering::Relaxed) as f32 / self.entries as f32;
        self.on_threads(threads, &work, &|| progress(share()))
    }

    /// Reads and overwrites keys drawn evenly, or by their popularity, until `until`. A signal ends it early.
    pub fn mixed(&self, threads: u64, until: Instant, progress: &dyn Fn(f32)) -> larder::Result<Tally> {
        let started = Instant::now();
        let half = started + until.saturating_duration_since(started) / 2;
        let work = |thread: u64| {
            let mut random = fastrand::Rng::with_seed(self.seed ^ (thread + 1));
            let mut tally = Tally::new();
            let mut room = Vec::new();
            while Instant::now() < until && !interrupt::requested() {
                let before = (Instant::now() >= half).then(|| (tally.gets.len(), tally.hits));
                for _ in 0..STRIDE {
                    let number = match &self.zipf {
                        Some(zipf) => zipf.draw(&mut random),
                        None => random.u64(..self.entries),
                    };
                    if random.f64() < self.read_share {
                        let found = self.get(number, &mut tally, &mut room)?;
                        if !found && self.zipf.is_some() {
                            self.put(number, random.u64(..), &mut tally, &mut room)?;
                        }
                    } else {
                        self.put(number, random.u64(..), &mut tally, &mut room)?;
                    }
                }
                if let Some((gets, hits)) = before {
                    tally.late_gets += tally.gets.len() - gets;
                    tally.late_hits += tally.hits - hits;
                }
            }
            Ok(tally)
        };
        let whole = until.saturating_duration_since(started).as_secs_f32().max(1e-3);
        self.on_threads(threads, &work, &|| progress(started.elapsed().as_secs_f32() / whole))
    }

    /// Reads every entry there is. A signal ends it early.
    pub fn walk(&self, progress: &dyn Fn(f32)) -> larder::Result<Tally> {
        let mut tally = Tally::new();
        let mut room = Vec::new();
        for (at, entry) in self.store.iter().enumerate() {
            let entry = entry?;
            match number_of(&entry.key) {
                Some(number) => tally.judge(number, &entry.value, self.value_bytes, &mut room),
                None => tally.note_wrong("a key that was never put in".to_owned()),
            }
            tally.hits += 1;
            if (at as u64).is_multiple_of(STRIDE) {
                progress(at as f32 / self.entries as f32);
                if interrupt::requested() {
                    break;
                }
            }
        }
        Ok(tally)
    }

    fn on_threads(
        &self,
        threads: u64,
        work: &(dyn Fn(u64) -> larder::Result<Tally> + Sync),
        look: &dyn Fn(),
    ) -> larder::Result<Tally> {
        let tallies = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                look();
                thread::sleep(Duration::from_millis(20));
            }
            let joined = workers.into_iter().map(|worker| worker.join());
            joined
                .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<larder::Result<Vec<_>>>()
        })?;
        Ok(Tally::sum(&tallies))
    }

    fn put(&self, number: u64, version: u64, tally: &mut Tally, room: &mut Vec<u8>) -> larder::Result<()> {
        make_value(number, version, self.value_bytes, room);
        let key = key_of(number);
        let started = Instant::now();
        match self.ttl {
            Some(ttl) => self.store.insert_with_ttl(&key, room, ttl)?,
            None => self.store.insert(&key, room)?,
        }
        tally.puts.saturating_record(nanos(started));
        Ok(())
    }

    /// Whether there was a value.
    fn get(&self, number: u64, tally: &mut Tally, room: &mut Vec<u8>) -> larder::Result<bool> {
        let key = key_of(number);
        let started = Instant::now();
        let found = self.store.get(&key)?;
        tally.gets.saturating_record(nanos(started));
        if let Some(value) = &found {
            tally.hits += 1;
            tally.judge(number, value, self.value_bytes, room);
        } else if !self.may_miss && !interrupt::requested() {
            // Nothing expires, nothing is deleted or evicted: after a whole fill every key is there.
            tally.note_wrong(format!("key {number}: lost"));
        }
        Ok(found.is_some())
    }
}

fn nanos(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn key_of(number: u64) -> [u8; 22] {
    let mut key = *b"bench:0000000000000000";
    for (at, place) in key[6..].iter_mut().enumerate() {
        *place = b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize];
    }
    key
}

fn number_of(key: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(key.strip_prefix(b"bench:")?).ok()?, 16).ok()
}

/// Makes the value of a key in one of its versions.
fn make_value(number: u64, version: u64, bytes: usize, value: &mut Vec<u8>) {
    value.clear();
    value.extend_from_slice(&number.to_le_bytes());
    value.extend_from_slice(&version.to_le_bytes());
    let mut random = fastrand::Rng::with_seed(number.rotate_left(32) ^ version);
    while value.len() < bytes {
        // Words with a number here and there: about as compressible as JSON.
        let draw = random.u64(..);
        value.extend_from_slice(WORDS[(draw & 15) as usize].as_bytes());
        value.push(b' ');
        if draw >> 4 & 3 == 0 {
            value.extend_from_slice(&key_of(draw)[14..]);
        }
    }
    value.truncate(bytes);
}

fn is_whole(number: u64, value: &[u8], bytes: usize, room: &mut Vec<u8>) -> bool {
    let version = value.get(8..16).and_then(|version| version.try_into().ok()).map(u64::from_le_bytes);
    let Some(version) = version else { return false };
    make_value(number, version, bytes, room);
    value == room
}
