//! Compactions in long histories: what was deleted stays away over many of them and a reopening, and four threads never
//! see a wrong value while every task runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::{ColdTier, ColdTierConfig, Disk, Maintenance, ManualClock, OsDisk};

use crate::compaction::{KEYS, fill};
use crate::stores::{
    Model, START_MS, cleanup, compact, config, expect_absent, expect_exactly, is_snapshot, json, key, names,
    noise, open, put, rebuild, remove, remove_file, scratch, tune,
};

/// How a store's life is cut, and whether the next start finds its snapshot.
#[derive(Clone, Copy, Debug)]
struct Ending {
    is_killed: bool,
    is_snapshot_lost: bool,
}

fn reopen_after(
    cold: ColdTier<OsDisk, ManualClock>,
    dir: &std::path::Path,
    ending: Ending,
) -> ColdTier<OsDisk, ManualClock> {
    let now = {
        use larder::Clock;
        cold.clock().wall_ms()
    };
    match ending.is_killed {
        true => {
            cold.flush().unwrap();
            cold.abandon();
        }
        false => cold.close().unwrap(),
    }
    if ending.is_snapshot_lost {
        names(dir, is_snapshot).iter().for_each(|name| remove_file(dir, name));
    }
    ColdTier::open_with(config(dir), OsDisk, ManualClock::new(now)).unwrap()
}

#[test]
fn what_was_deleted_or_overwritten_does_not_come_back_after_compactions_and_a_reopen() {
    for is_killed in [false, true] {
        for is_snapshot_lost in [false, true] {
            for between in ["nothing", "removals", "expiry", "all"] {
                let ending = Ending { is_killed, is_snapshot_lost };
                let when = format!("{ending:?}, between two compactions: {between}");
                let dir = scratch();
                let cold = open(dir.path());
                let mut model = fill(&cold);
                let mut history: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
                for n in 0..60u32 {
                    cold.insert_with_ttl(&key(1000 + n), &noise(n.into(), 900), Duration::from_secs(5))
                        .unwrap();
                }
                compact(&cold);
                if between == "removals" || between == "all" {
                    for n in (0..KEYS).step_by(4) {
                        remove(&cold, &mut model, &key(n));
                    }
                    for n in (1..KEYS).step_by(4) {
                        put(&cold, &mut model, key(n), noise(u64::from(n) + 7000, 400));
                    }
                }
                if between == "expiry" || between == "all" {
                    cold.clock().advance(5000);
                    cleanup(&cold);
                } else {
                    for n in 0..60u32 {
                        model.insert(key(1000 + n), noise(n.into(), 900));
                    }
                }
                compact(&cold);
                expect_exactly(&cold, &model, &when);
                for (key, value) in &model {
                    history.entry(key.clone()).or_default().push(value.clone());
                }
                let mut cold = reopen_after(cold, dir.path(), ending);
                for round in 0..2 {
                    let when = format!("{when}, start {round}");
                    if !is_snapshot_lost {
                        expect_exactly(&cold, &model, &when);
                    } else {
                        // Without a snapshot entries may be given up, and are counted; none is wrong or back.
                        let listed = cold.iter().map(|entry| entry.unwrap());
                        for entry in listed {
                            assert_eq!(
                                model.get(&entry.key[..]).map(|v| &v[..]),
                                Some(&entry.value[..]),
                                "{when}"
                            );
                        }
                        let recovery = &cold.stats().recovery;
                        assert!(
                            cold.len() == model.len() as u64 || recovery.given_up > 0 || round > 0,
                            "{when}: {recovery:?}"
                        );
                    }
                    let gone: Vec<_> = (0..KEYS).map(key).filter(|key| !model.contains_key(key)).collect();
                    expect_absent(&cold, &gone, &when);
                    compact(&cold);
                    expect_absent(&cold, &gone, &format!("{when}, compacted"));
                    cold = reopen_after(cold, dir.path(), Ending { is_killed, is_snapshot_lost: false });
                }
            }
        }
    }
}

#[test]
fn entries_moved_twice_since_the_last_snapshot_are_found() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    for n in 0..200u32 {
        put(&cold, &mut model, key(n), noise(n.into(), 500));
        cold.insert_with_ttl(&key(1000 + n), &noise(n.into(), 200), Duration::from_secs(1)).unwrap();
        cold.insert_with_ttl(&key(2000 + n), &noise(n.into(), 200), Duration::from_secs(2)).unwrap();
    }
    rebuild(&cold);
    let snapshots = names(dir.path(), is_snapshot);
    // Expired firsts need no snapshot to go: both compactions stay behind the one that is there.
    for _ in 0..2 {
        cold.clock().advance(1000);
        let report = compact(&cold);
        assert_eq!(report.entries_expired, 200, "{report:?}");
        assert_eq!(names(dir.path(), is_snapshot), snapshots, "no snapshot was needed");
    }
    cold.flush().unwrap();
    cold.abandon();
    let cold = ColdTier::open_with(config(dir.path()), OsDisk, ManualClock::new(START_MS + 2000)).unwrap();
    assert!(cold.stats().recovery.snapshot_entries >= 600, "{:?}", cold.stats().recovery);
    expect_exactly(&cold, &model, "after two moves and a kill");
    expect_absent(&cold, &(1000..1200).chain(2000..2200).map(key).collect::<Vec<_>>(), "after a kill");
}

/// An entry as its thread knows it: value, and its expiry if it has one: not before the first time and not after the
/// second, because another thread turns the clock.
type Known = (Vec<u8>, Option<(u64, u64)>);

/// What one thread of the crowd knows of its own keys.
type Oracle = BTreeMap<u32, Known>;

const CROWD_KEYS: u32 = 250;
const CROWD_TASKS: u64 = 24;

/// One thread's life: writes, overwrites, removes and reads its own keys, and counts what it has checked.
///
/// It ends when it has made `ops` operations, spread over the [`CROWD_TASKS`] tasks of the maintenance.
fn live<D: Disk>(cold: &ColdTier<D, ManualClock>, thread: u32, ops: u32, tasks: &AtomicU64) -> (Oracle, u64) {
    use larder::Clock;
    let mut rng = fastrand::Rng::with_seed(u64::from(thread) + 77);
    let mut oracle = Oracle::new();
    let mut checked = 0;
    let key_of = |n: u32| key(thread * 10_000 + n);
    let mut op = 0;
    while op < ops {
        let n = rng.u32(..CROWD_KEYS);
        // So many writes a task: no faster than the segments can be compacted.
        let is_ahead = u64::from(op) * CROWD_TASKS >= u64::from(ops) * (tasks.load(Ordering::SeqCst) + 1);
        op += u32::from(!is_ahead);
        match if is_ahead { 9 } else { rng.u32(..10) } {
            0 => {
                cold.remove(&key_of(n)).unwrap();
                oracle.remove(&n);
            }
            1 => {
                let value = noise(u64::from(op) << 8 | u64::from(thread), rng.usize(..300));
                let ttl_ms = if rng.bool() { 5000 } else { 3_600_000 };
                let now_ms = cold.clock().wall_ms();
                cold.insert_with_ttl(&key_of(n), &value, Duration::from_millis(ttl_ms)).unwrap();
                let expiry = (now_ms + ttl_ms, cold.clock().wall_ms() + ttl_ms);
                oracle.insert(n, (value, Some(expiry)));
            }
            2..5 => {
                let value = json(n, op);
                cold.insert(&key_of(n), &value).unwrap();
                oracle.insert(n, (value, None));
            }
            _ => {
                let before_ms = cold.clock().wall_ms();
                let got = cold.get(&key_of(n)).unwrap();
                let after_ms = cold.clock().wall_ms();
                check(
                    &format!("thread {thread}, op {op}, key {n}"),
                    oracle.get(&n),
                    got.as_deref(),
                    before_ms,
                    after_ms,
                );
                checked += 1;
            }
        }
    }
    (oracle, checked)
}

/// The clock is turned by another thread in steps, so around the moment of expiry either answer is right.
fn check(when: &str, known: Option<&Known>, got: Option<&[u8]>, before_ms: u64, after_ms: u64) {
    const SLACK_MS: u64 = 1000;
    match known {
        None => assert_eq!(got, None, "{when}: it was removed, or never there"),
        Some((value, expiry)) => {
            assert!(got.is_none_or(|got| got == value), "{when}: a value that it does not have");
            let must_live = expiry.is_none_or(|(at, _)| at > after_ms + SLACK_MS);
            let must_be_gone = expiry.is_some_and(|(_, at)| at + SLACK_MS <= before_ms);
            assert!(!must_live || got.is_some(), "{when}: lost, expiry {expiry:?} at {after_ms}");
            assert!(!must_be_gone || got.is_none(), "{when}: expired at {expiry:?}, served at {before_ms}");
        }
    }
}

/// If the maintenance ends in a panic, the others must not wait for its tasks.
struct Ended<'a>(&'a AtomicU64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_max(CROWD_TASKS, Ordering::SeqCst);
    }
}

fn crowd(config: impl Fn(&std::path::Path) -> ColdTierConfig, ops: u32) {
    use larder::Clock;
    let dir = scratch();
    let cold = ColdTier::open_with(config(dir.path()), OsDisk, ManualClock::new(START_MS)).unwrap();
    let (is_over, tasks) = (AtomicBool::new(false), AtomicU64::new(0));
    let oracles: Vec<Oracle> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (cold, tasks) = (&cold, &tasks);
                scope.spawn(move || live(cold, thread, ops, tasks))
            })
            .collect();
        let maintenance = scope.spawn(|| {
            let _ended = Ended(&tasks);
            let mut round = 0u64;
            while !is_over.load(Ordering::SeqCst) {
                cold.clock().advance(100);
                match round % 8 {
                    7 => drop(tune(&cold)),
                    3 => drop(rebuild(&cold)),
                    n if n % 2 == 0 => drop(cleanup(&cold)),
                    _ => drop(compact(&cold)),
                }
                round += 1;
                tasks.store(round, Ordering::SeqCst);
            }
        });
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        maintenance.join().unwrap();
        let (oracles, checked): (Vec<_>, Vec<_>) = ended.into_iter().map(|end| end.unwrap()).unzip();
        println!("{} reads checked, {tasks:?} tasks", checked.iter().sum::<u64>());
        oracles
    });
    assert!(tasks.load(Ordering::SeqCst) >= CROWD_TASKS);
    assert_eq!(cold.stats().damaged_misses, 0);
    assert_eq!(cold.stats().writes_lost, 0);
    // Whole minutes on, so that no expiry is in doubt.
    cold.clock().advance(60_000);
    let now_ms = cold.clock().wall_ms();
    let check_all = |cold: &ColdTier<OsDisk, ManualClock>, when: &str| {
        for (thread, oracle) in oracles.iter().enumerate() {
            for n in 0..CROWD_KEYS {
                let got = cold.get(&key(thread as u32 * 10_000 + n)).unwrap();
                check(&format!("{when}: {thread}/{n}"), oracle.get(&n), got.as_deref(), now_ms, now_ms);
            }
        }
        let lives =
            oracles.iter().flat_map(BTreeMap::values).filter(|(_, at)| at.is_none_or(|(at, _)| at > now_ms));
        assert_eq!(cold.iter().count(), lives.count(), "{when}");
    };
    check_all(&cold, "after the crowd");
    compact(&cold);
    check_all(&cold, "after the crowd, compacted");
    cold.close().unwrap();
    let cold = ColdTier::open_with(config(dir.path()), OsDisk, ManualClock::new(now_ms)).unwrap();
    check_all(&cold, "after the crowd, reopened");
}

#[test]
fn four_threads_never_see_a_wrong_value_while_every_task_runs_over_and_over() {
    crowd(|dir| config(dir).compression(larder::Compression::Tuned).sample_entries_max(100), 3000);
}

#[test]
fn four_threads_never_see_a_wrong_value_while_maintenance_runs_by_itself_too() {
    crowd(
        |dir| {
            config(dir)
                .compression(larder::Compression::Tuned)
                .sample_entries_max(100)
                .maintenance(Maintenance::Automatic)
                .maintenance_interval(Duration::from_millis(1))
                .dead_ratio_max(0.05)
                .retune_ratio(0.01)
        },
        2000,
    );
}
