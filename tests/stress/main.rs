//! The real thing under load: callers, readers, the writer and maintenance of a store on a real directory, all at once,
//! with an oracle of values. `tests/sanitize.sh` runs it under ThreadSanitizer and AddressSanitizer.
//!
//! `LARDER_STRESS_SECONDS` says for how long each store is kept busy. Every check is of what was read, none of how long
//! it took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::{ColdTier, ColdTierConfig, CompactionTask, Durability, Error, verify};

const KEYS: u64 = 9000;
const CALLERS: u64 = 2;
const READERS: u64 = 2;

/// What becomes of a key, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Only overwritten.
    Lasting,
    /// Written with a time to live.
    Expiring,
    /// Every third write is a deletion.
    Deleted,
}

fn life(key: u64) -> Life {
    [Life::Lasting, Life::Expiring, Life::Deleted][(key % 3) as usize]
}

/// The one value of a key's version: readers know it byte for byte.
fn value(key: u64, version: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(key << 32 | version);
    let noise: String = (0..random.usize(0..900)).map(|_| random.alphanumeric()).collect();
    let names = ["alpha", "beta", "gamma", "delta"];
    let tags = names[..(version % 5) as usize].join("\",\"");
    let text = format!("{{\"version\":{version},\"key\":{key},\"tags\":[\"{tags}\"],\"noise\":\"{noise}\"}}");
    text.repeat(1 + (key % 3) as usize).into_bytes()
}

fn version_of(key: u64, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).expect("values are text");
    let digits = text.strip_prefix("{\"version\":").and_then(|rest| rest.split(',').next());
    let version = digits.and_then(|digits| digits.parse().ok()).expect("a version");
    assert_eq!(bytes, value(key, version), "key {key}: not the bytes of its version {version}");
    version
}

/// What is known of a key. One caller writes it, so its versions are in order.
#[derive(Default)]
struct Known {
    /// The newest version whose call has begun.
    begun: AtomicU64,
    /// The newest version whose call has returned.
    done: AtomicU64,
}

struct Load {
    known: Vec<Known>,
    stop: AtomicBool,
    bounded: bool,
    reads: AtomicU64,
    hits: AtomicU64,
    writes: AtomicU64,
    tasks: AtomicU64,
}

impl Load {
    fn new(bounded: bool) -> Self {
        Self {
            known: (0..KEYS).map(|_| Known::default()).collect(),
            stop: AtomicBool::new(false),
            bounded,
            reads: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
        }
    }

    /// Writes a version of a key, or nothing where there is no room.
    fn write(&self, cold: &ColdTier, key: u64) {
        let known = &self.known[key as usize];
        let version = known.begun.load(Ordering::SeqCst) + 1;
        known.begun.store(version, Ordering::SeqCst);
        let written = match life(key) {
            Life::Expiring => {
                let ttl = Duration::from_millis(20 + version % 400);
                cold.insert_with_ttl(&key.to_le_bytes(), &value(key, version), ttl)
            }
            Life::Deleted if version.is_multiple_of(3) => cold.remove(&key.to_le_bytes()),
            _ => cold.insert(&key.to_le_bytes(), &value(key, version)),
        };
        match written {
            Ok(()) => known.done.store(version, Ordering::SeqCst),
            // Nothing was changed.
            Err(error) if is_refusal(&error) => {}
            Err(error) => panic!("key {key}: {error}"),
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads a key: no older version than the call began with, none that was deleted, and no miss without a reason.
    fn read(&self, cold: &ColdTier, key: u64) {
        let known = &self.known[key as usize];
        let done = known.done.load(Ordering::SeqCst);
        let found = cold.get(&key.to_le_bytes()).expect("no read fails");
        let begun = known.begun.load(Ordering::SeqCst);
        self.reads.fetch_add(1, Ordering::Relaxed);
        let Some(found) = found else {
            let lasts = life(key) == Life::Lasting && !self.bounded && done > 0;
            assert!(!lasts, "key {key}: a miss, version {done} was there");
            return;
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        let version = version_of(key, &found);
        assert!((done..=begun).contains(&version), "key {key}: version {version} of {done} to {begun}");
        let deleted = life(key) == Life::Deleted && version.is_multiple_of(3);
        assert!(!deleted, "key {key}: version {version} is a deletion");
    }

    fn until_stopped(&self, seed: u64, mut work: impl FnMut(&mut fastrand::Rng)) {
        // A thread that fails stops the others, or they would wait for the end in vain.
        let _stop = StopOnPanic(&self.stop);
        let mut random = fastrand::Rng::with_seed(seed);
        while !self.stop.load(Ordering::Relaxed) {
            work(&mut random);
        }
    }
}

struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn config(dir: &std::path::Path, bounded: bool) -> ColdTierConfig {
    let config = ColdTierConfig::new(dir)
        .segment_bytes(64 << 10)
        .queue_bytes_max(1 << 20)
        .durability(Durability::Interval(Duration::from_millis(50)))
        .maintenance_interval(Duration::from_millis(20));
    if bounded { config.capacity_bytes(5 << 20) } else { config }
}

/// A task that has no room, or meets one that has just been asked for, is no failure.
fn run_task(cold: &ColdTier, task: CompactionTask) {
    match cold.run(task) {
        Ok(_) => {}
        Err(error) if is_refusal(&error) => {}
        Err(error) => panic!("{task:?}: {error}"),
    }
}

fn is_refusal(error: &Error) -> bool {
    error.is_busy() || error.is_full()
}

fn stress(bounded: bool) {
    let seconds = std::env::var("LARDER_STRESS_SECONDS").map_or(3, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let load = Load::new(bounded);
    let cold = ColdTier::open(config(dir.path(), bounded)).expect("open");
    let begun = Instant::now();
    std::thread::scope(|threads| {
        for caller in 0..CALLERS {
            let (load, cold) = (&load, &cold);
            threads.spawn(move || {
                load.until_stopped(caller, |random| {
                    let key = random.u64(0..KEYS / CALLERS) * CALLERS + caller;
                    load.write(cold, key);
                });
            });
        }
        for reader in 0..READERS {
            let (load, cold) = (&load, &cold);
            threads.spawn(move || {
                load.until_stopped(100 + reader, |random| load.read(cold, random.u64(0..KEYS)));
            });
        }
        let (load, cold) = (&load, &cold);
        threads.spawn(move || {
            // Tuning takes the longest, and reads only: every eighth task.
            let tasks =
                [CompactionTask::CompactData, CompactionTask::CleanupExpired, CompactionTask::RebuildIndex];
            load.until_stopped(200, |_| {
                let at = load.tasks.load(Ordering::Relaxed);
                let task =
                    if at % 8 == 3 { CompactionTask::OptimizeCompression } else { tasks[at as usize % 3] };
                run_task(cold, task);
                load.tasks.fetch_add(1, Ordering::Relaxed);
                for entry in cold.iter().take(50) {
                    let entry = entry.expect("no read fails");
                    let key = u64::from_le_bytes(entry.key[..].try_into().expect("eight bytes"));
                    version_of(key, &entry.value);
                }
                let _ = cold.stats();
            });
        });
        // Until each task has run and something was given back, on a slow machine too; one where that never is fails below.
        let (least, most) = (Duration::from_secs(seconds), Duration::from_secs(40 * seconds));
        let is_over = || {
            let elapsed = begun.elapsed();
            let tasks = load.tasks.load(Ordering::Relaxed);
            elapsed >= most || elapsed >= least && tasks >= 4 && cold.stats().bytes_reclaimed > 0
        };
        while !is_over() && !load.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    let stats = cold.stats();
    assert_eq!((stats.damaged_misses, stats.collision_misses), (0, 0), "{stats:?}");
    (0..KEYS).for_each(|key| load.read(&cold, key));
    cold.close().expect("close");
    let report = verify(dir.path(), &mut |_| {}).expect("verify");
    assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    let cold = ColdTier::open(config(dir.path(), bounded)).expect("open again");
    (0..KEYS).for_each(|key| load.read(&cold, key));
    cold.close().expect("close again");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (writes, reads, hits) = (count(&load.writes), count(&load.reads), count(&load.hits));
    let tasks = count(&load.tasks);
    println!(
        "bounded {bounded}: {writes} writes, {reads} reads, {hits} hits, {tasks} tasks, {} compactions, \
         {} B given back, {} expired, {} evicted",
        stats.compactions, stats.bytes_reclaimed, stats.expired_removed, stats.evicted
    );
    assert!(
        tasks >= 4 && writes > 0 && hits > 0 && stats.bytes_reclaimed > 0,
        "nothing happened at once: {stats:?}"
    );
}

#[test]
fn all_at_once_in_a_store_without_bounds() {
    stress(false);
}

#[test]
fn all_at_once_in_a_store_that_is_full() {
    stress(true);
}
