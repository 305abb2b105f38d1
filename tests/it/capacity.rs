//! Capacity: the directory stays within its bytes at every moment, what is worth least goes, and what is there is
//! always the newest.

#![expect(clippy::disallowed_methods, reason = "the tests put foreign files into the directory")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded, unbounded};
use larder::{
    Admission, Clock, ColdTier, ColdTierConfig, CompactionTask, Compression, Disk, Durability, ErrorKind,
    EvictionReason, ManualClock, OsDisk, QueueFull, SegmentState,
};

use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{START_MS, cleanup, compact, config, json, key, names, noise, open_on, scratch};

type Store = ColdTier<OsDisk, ManualClock>;

/// The least for segments of 64 KiB.
const CAPACITY: u64 = 5 << 20;

/// The newest state of every key; `None` = removed.
type Newest = BTreeMap<Vec<u8>, Option<(Vec<u8>, Option<u64>)>>;

/// Bytes of a directory as `du` counts them.
///
/// A walk takes time: one in which files came or went would count some that never were there together, and is begun
/// again.
fn du(dir: &Path) -> u64 {
    let bytes = |path: &Path| std::fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512);
    loop {
        let before = names(dir, |_| true);
        let files: u64 = before.iter().map(|name| bytes(&dir.join(name))).sum();
        if before == names(dir, |_| true) {
            return files + bytes(dir);
        }
    }
}

/// Looks at the directory every other millisecond while something runs; returns the most it took, and how often it was
/// looked at.
fn watching<T>(dir: &Path, run: impl FnOnce() -> T) -> (T, u64, u64) {
    std::thread::scope(|scope| {
        let (stop, stopped) = bounded::<()>(0);
        let watcher = scope.spawn(move || {
            let (mut most, mut looks) = (0, 0);
            loop {
                most = most.max(du(dir));
                looks += 1;
                if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(Duration::from_millis(2)) {
                    return (most, looks);
                }
            }
        });
        let outcome = run();
        drop(stop);
        let (most, looks) = watcher.join().expect("the watcher");
        (outcome, most, looks)
    })
}

fn open_at(config: ColdTierConfig, now_ms: u64) -> Store {
    ColdTier::open_with(config, OsDisk, ManualClock::new(now_ms)).expect("open the store")
}

/// Everything that can be read is the newest of its key; returns the keys that can.
fn expect_newest<D: Disk, C: Clock>(
    cold: &ColdTier<D, C>,
    newest: &Newest,
    now_ms: u64,
    when: &str,
) -> BTreeSet<Vec<u8>> {
    // The worker's turn: what it was asked for before is done.
    cold.flush().expect("flush");
    cold.run_due().expect("run_due");
    let mut present = BTreeSet::new();
    for (key, state) in newest {
        let Some(got) = cold.get(key).expect("get") else { continue };
        let text = String::from_utf8_lossy(key);
        let Some((value, expires_at_ms)) = state else { panic!("{when}: {text} was removed and is there") };
        assert!(got == value[..], "{when}: {text} is not the newest");
        assert!(expires_at_ms.is_none_or(|at_ms| at_ms > now_ms), "{when}: {text} has expired");
        present.insert(key.clone());
    }
    let listed: BTreeSet<Vec<u8>> = cold.iter().map(|entry| entry.expect("iter").key.to_vec()).collect();
    assert!(listed == present, "{when}: listed and read differ");
    assert_eq!(cold.stats().damaged_misses, 0, "{when}");
    present
}

/// What the ledger says is what the files take: never less, and more only by what active segments' footers will take.
fn expect_ledger<D: Disk, C: Clock>(cold: &ColdTier<D, C>, dir: &Path, when: &str) {
    cold.flush().expect("flush");
    // The worker's turn: what it was asked for before is done.
    cold.run_due().expect("run_due");
    let sizes = || -> Vec<(String, u64)> {
        let size = |name: String| {
            let bytes = std::fs::metadata(dir.join(&name)).expect("stat").len().next_multiple_of(4096);
            (name, bytes)
        };
        // The explanation of the last tuning is left to the slack; a start counts it.
        names(dir, |name| name != "TUNING").into_iter().map(size).collect()
    };
    let files: u64 = sizes().iter().map(|(_, bytes)| bytes).sum();
    let stats = cold.stats();
    assert_eq!(stats.queued_bytes, 0);
    let footers: u64 = cold
        .segments()
        .iter()
        .filter(|segment| segment.state == SegmentState::Active)
        .map(|segment| segment.records * 24 + 512 + 4096)
        .sum();
    let tuning = std::fs::metadata(dir.join("TUNING")).map_or(0, |meta| meta.len().next_multiple_of(4096));
    let (ledger, most) = (stats.disk_bytes, files + footers + tuning);
    assert!(
        (files..=most).contains(&ledger),
        "{when}: the ledger says {ledger}, the files take {files}, with footers {most}: {:?}",
        sizes()
    );
}

/// How a load looks.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Keys; 0 = a new one each time.
    keys: u32,
    /// Every second insert gets one of several times to live, and time goes on.
    expiring: bool,
    /// One operation in so many is a removal.
    removals: Option<u32>,
    /// Text that compresses instead of noise.
    text: bool,
    value_bytes: usize,
}

/// Applies operations until so many bytes were offered. Keys begin with `writer`, so that several may write at once.
fn apply<D: Disk>(
    cold: &ColdTier<D, ManualClock>,
    load: Load,
    writer: u32,
    bytes: u64,
    rng: &mut fastrand::Rng,
    newest: &mut Newest,
    now_ms: &mut u64,
) {
    let mut offered = 0;
    let mut op = newest.len() as u32 * 7;
    while offered < bytes {
        op += 1;
        let number = if load.keys == 0 { op } else { rng.u32(..load.keys) };
        let key = key(writer * 10_000_000 + number);
        if load.removals.is_some_and(|one_in| rng.u32(..one_in) == 0) {
            cold.remove(&key).expect("remove");
            newest.insert(key, None);
            continue;
        }
        let value = match load.text {
            true => json(number, op),
            false => noise(rng.u64(..), rng.usize(1..=2 * load.value_bytes)),
        };
        offered += (key.len() + value.len()) as u64;
        let ttl_ms = match load.expiring && rng.bool() {
            true => Some([1500, 9000, 60_000, 3_600_000][rng.usize(..4)] + rng.u64(..50)),
            false => None,
        };
        match ttl_ms {
            Some(ttl_ms) => cold.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)),
            None => cold.insert(&key, &value),
        }
        .expect("insert");
        newest.insert(key, Some((value, ttl_ms.map(|ttl_ms| *now_ms + ttl_ms))));
        if load.expiring && op.is_multiple_of(20) {
            cold.clock().advance(37);
            *now_ms += 37;
        }
    }
}

/// Puts a store under a load of several times its capacity, watched, and opens it again, closed and killed.
fn stays_within(config: ColdTierConfig, capacity: u64, load: Load) {
    let dir = config.dir().to_path_buf();
    let mut now_ms = START_MS;
    let mut newest = Newest::new();
    let mut rng = fastrand::Rng::with_seed(load.keys.into());
    for start in 0..3 {
        let cold = open_at(config.clone(), now_ms);
        let ((), most, looks) = watching(&dir, || {
            for part in 0..4 {
                apply(&cold, load, 0, capacity / 2, &mut rng, &mut newest, &mut now_ms);
                if part == 2 {
                    compact(&cold);
                    cleanup(&cold);
                }
            }
        });
        let when = format!("{load:?}, start {start}");
        assert!(most <= capacity, "{when}: {most} bytes of {capacity}, seen in {looks} looks");
        let present = expect_newest(&cold, &newest, now_ms, &when);
        expect_ledger(&cold, &dir, &when);
        let stats = cold.stats();
        if start > 0 && load.keys == 0 && !load.text {
            assert!(stats.evicted > 0, "{when}: {stats:?}");
            assert!(stats.disk_bytes > capacity / 2, "{when}: room is left unused: {stats:?}");
        }
        let present_after = expect_newest(&cold, &newest, now_ms, &when);
        assert!(present_after.is_subset(&present), "{when}: something came back");
        let ((), most, _) = watching(&dir, || match start {
            1 => cold.close().expect("close"),
            _ => cold.abandon(),
        });
        assert!(most <= capacity, "{when}: {most} bytes of {capacity} while it was closed");
        let (cold, most, _) = watching(&dir, || open_at(config.clone(), now_ms));
        assert!(most <= capacity, "{when}: {most} bytes of {capacity} while it was opened");
        let reopened = expect_newest(&cold, &newest, now_ms, &format!("{when}, reopened"));
        assert!(reopened.is_subset(&present_after), "{when}: something came back with a start");
        // The room that a start finds may be a little less: then it evicts.
        let lost = (present_after.len() - reopened.len()) as u64;
        assert!(lost <= cold.stats().evicted, "{when}: the start lost {lost}: {:?}", cold.stats());
        expect_ledger(&cold, &dir, &format!("{when}, reopened"));
        cold.close().expect("close");
    }
}

#[test]
fn a_capacity_too_small_for_a_store_is_refused_by_name_and_a_budget_too() {
    let dir = scratch();
    let text = |config: ColdTierConfig| {
        let error = config.validate().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    let small = config(dir.path());
    assert!(text(small.clone().capacity_bytes(CAPACITY - 1)).contains("capacity_bytes"));
    let refusal = text(small.clone().capacity_bytes(CAPACITY - 1));
    assert!(refusal.contains("5242879 is too little; 5242880 at least"), "{refusal}");
    assert!(small.clone().capacity_bytes(CAPACITY).validate().is_ok());
    // Segments are at most 1 MiB in a small directory, whatever they may be.
    let large = ColdTierConfig::new(dir.path());
    assert!(large.clone().capacity_bytes(20 << 20).validate().is_ok());
    let refusal = text(large.clone().capacity_bytes((20 << 20) - 1));
    assert!(refusal.contains("20971519 is too little; 20971520 at least"), "{refusal}");
    let refusal = text(small.clone().write_budget_bytes_per_day(1000));
    assert!(refusal.contains("write_budget_bytes_per_day") && refusal.contains("1048576"), "{refusal}");
    assert!(small.clone().write_budget_bytes_per_day(1 << 20).validate().is_ok());

    // A later change is held to the same, and changes nothing.
    let cold = open_on(small.capacity_bytes(CAPACITY), OsDisk);
    let error = cold.set_capacity(Some(CAPACITY - 1)).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(cold.stats().capacity_bytes, Some(CAPACITY));
    // A value that would take an eighth of it is refused, and changes nothing.
    cold.insert(b"key", b"older").unwrap();
    let error = cold.insert(b"key", &vec![0; (CAPACITY / 8) as usize]).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("eighth of the capacity"), "{error}");
    assert_eq!(cold.get(b"key").unwrap().as_deref(), Some(&b"older"[..]));
    cold.set_capacity(None).unwrap();
    assert_eq!(cold.stats().capacity_bytes, None);
    cold.insert(b"key", &vec![0; (CAPACITY / 8) as usize]).unwrap();
}

#[test]
fn new_keys_beyond_the_capacity_never_exceed_it() {
    let dir = scratch();
    let config = config(dir.path()).capacity_bytes(CAPACITY);
    stays_within(config, CAPACITY, Load { value_bytes: 700, ..Load::default() });
}

#[test]
fn small_values_beyond_the_capacity_never_exceed_it() {
    let dir = scratch();
    let config = config(dir.path()).capacity_bytes(CAPACITY);
    stays_within(config, CAPACITY, Load { value_bytes: 60, ..Load::default() });
}

#[test]
fn overwrites_beyond_the_capacity_never_exceed_it() {
    let dir = scratch();
    let config = config(dir.path()).capacity_bytes(CAPACITY);
    stays_within(config, CAPACITY, Load { keys: 4000, value_bytes: 1000, ..Load::default() });
}

#[test]
fn times_to_live_and_removals_beyond_the_capacity_never_exceed_it() {
    let dir = scratch();
    let config = config(dir.path()).capacity_bytes(CAPACITY);
    let load = Load { keys: 9000, expiring: true, removals: Some(6), value_bytes: 900, ..Load::default() };
    stays_within(config, CAPACITY, load);
}

#[test]
fn large_values_beyond_the_capacity_never_exceed_it() {
    let dir = scratch();
    let config = config(dir.path()).capacity_bytes(CAPACITY);
    let load = Load { keys: 300, expiring: true, removals: Some(9), value_bytes: 40_000, ..Load::default() };
    stays_within(config, CAPACITY, load);
}

#[test]
fn segments_of_a_megabyte_never_exceed_the_capacity_on_a_real_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = 20 << 20;
    let config = config(dir.path())
        .segment_bytes(16 << 20)
        .capacity_bytes(capacity)
        .durability(Durability::Interval(Duration::from_millis(20)));
    let load = Load { keys: 20_000, expiring: true, removals: Some(8), value_bytes: 2000, ..Load::default() };
    stays_within(config, capacity, load);
}

#[test]
fn with_tuning_and_maintenance_by_itself_the_capacity_is_kept() {
    let dir = scratch();
    let config = config(dir.path())
        .capacity_bytes(CAPACITY)
        .compression(Compression::Tuned)
        .maintenance(larder::Maintenance::Automatic)
        .maintenance_interval(Duration::from_millis(5))
        .durability(Durability::Interval(Duration::from_millis(1)));
    let cold = open_at(config, START_MS);
    let mut newest = Newest::new();
    let mut rng = fastrand::Rng::with_seed(3);
    let mut now_ms = START_MS;
    let ((), most, looks) = watching(dir.path(), || {
        for part in 0..8 {
            let load = Load { text: part % 3 != 2, value_bytes: 600, expiring: true, ..Load::default() };
            apply(&cold, load, part, CAPACITY, &mut rng, &mut newest, &mut now_ms);
            if part % 4 == 1 {
                cold.run(CompactionTask::OptimizeCompression).unwrap();
                assert!(part == 5 || cold.compression().codec != larder::Codec::None, "text compresses");
            }
        }
    });
    assert!(most <= CAPACITY, "{most} bytes of {CAPACITY}, seen in {looks} looks");
    assert!(cold.stats().evicted > 0);
    expect_newest(&cold, &newest, now_ms, "with everything by itself");
}

#[test]
fn two_writers_while_compactions_are_asked_for_never_exceed_the_capacity() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).capacity_bytes(CAPACITY), OsDisk);
    let (newest, most, looks) = watching(dir.path(), || {
        std::thread::scope(|scope| {
            let (done, is_done) = bounded::<()>(0);
            let writers: Vec<_> = (0..2u32)
                .map(|writer| {
                    let (cold, done) = (&cold, done.clone());
                    scope.spawn(move || {
                        let (mut newest, mut now_ms) = (Newest::new(), START_MS);
                        let mut rng = fastrand::Rng::with_seed(writer.into());
                        let load =
                            Load { keys: 6000, removals: Some(10), value_bytes: 700, ..Load::default() };
                        apply(cold, load, writer, 3 * CAPACITY, &mut rng, &mut newest, &mut now_ms);
                        drop(done);
                        newest
                    })
                })
                .collect();
            drop(done);
            while !matches!(is_done.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected)) {
                for task in [
                    CompactionTask::CompactData,
                    CompactionTask::CleanupExpired,
                    CompactionTask::RebuildIndex,
                    CompactionTask::OptimizeCompression,
                ] {
                    match cold.run(task) {
                        Ok(_) => {}
                        Err(error) => panic!("{task:?}: {error}"),
                    }
                }
            }
            let mut newest = Newest::new();
            writers.into_iter().for_each(|writer| newest.extend(writer.join().expect("a writer")));
            newest
        })
    });
    assert!(most <= CAPACITY, "{most} bytes of {CAPACITY}, seen in {looks} looks");
    let present = expect_newest(&cold, &newest, START_MS, "after the load");
    assert!(cold.stats().evicted > 0);
    expect_ledger(&cold, dir.path(), "after the load");
    cold.flush().unwrap();
    let present: BTreeSet<_> = present.into_iter().filter(|key| cold.contains_key(key).unwrap()).collect();
    cold.abandon();
    let cold = open_on(config(dir.path()).capacity_bytes(CAPACITY), OsDisk);
    // A start may find that it has to make room.
    assert!(expect_newest(&cold, &newest, START_MS, "reopened").is_subset(&present));
}

#[test]
fn a_smaller_capacity_is_kept_when_the_call_returns_and_a_larger_one_is_used() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), OsDisk);
    let (mut newest, mut now_ms, mut rng) = (Newest::new(), START_MS, fastrand::Rng::with_seed(1));
    let load = Load { value_bytes: 900, ..Load::default() };
    apply(&cold, load, 0, 16 << 20, &mut rng, &mut newest, &mut now_ms);
    cold.flush().unwrap();
    assert!(du(dir.path()) > 16 << 20);
    for capacity in [12 << 20, 8 << 20, CAPACITY] {
        cold.set_capacity(Some(capacity)).unwrap();
        assert!(du(dir.path()) <= capacity, "{} of {capacity}", du(dir.path()));
        let present = expect_newest(&cold, &newest, now_ms, &format!("{capacity}"));
        assert!(!present.is_empty() && present.len() < newest.len());
        let ((), most, _) = watching(dir.path(), || {
            apply(&cold, load, 1, CAPACITY, &mut rng, &mut newest, &mut now_ms);
        });
        assert!(most <= capacity, "{most} of {capacity}");
        expect_ledger(&cold, dir.path(), &format!("{capacity}"));
    }
    let evicted = cold.stats().evicted;
    let capacity = 24 << 20;
    cold.set_capacity(Some(capacity)).unwrap();
    let ((), most, _) = watching(dir.path(), || {
        apply(&cold, load, 2, 14 << 20, &mut rng, &mut newest, &mut now_ms);
    });
    assert!(most <= capacity, "{most} of {capacity}");
    assert_eq!(cold.stats().evicted, evicted, "there was room");
    cold.set_capacity(None).unwrap();
    apply(&cold, load, 3, 14 << 20, &mut rng, &mut newest, &mut now_ms);
    cold.flush().unwrap();
    assert!(du(dir.path()) > capacity);
    assert_eq!(cold.stats().evicted, evicted, "there is no bound");
    expect_newest(&cold, &newest, now_ms, "without a bound");
    expect_ledger(&cold, dir.path(), "without a bound");
}

#[test]
fn what_is_read_often_survives_eviction_far_better_than_what_is_not() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).capacity_bytes(CAPACITY), OsDisk);
    let value = |n: u32| noise(n.into(), 900);
    let hot: Vec<_> = (0..200).map(key).collect();
    let cold_keys: Vec<_> = (200..2000).map(key).collect();
    (0..2000).for_each(|n| cold.insert(&key(n), &value(n)).unwrap());
    cold.flush().unwrap();
    for n in 0..15_000u32 {
        cold.insert(&key(100_000 + n), &value(n)).unwrap();
        cold.get(&hot[n as usize % hot.len()]).unwrap();
    }
    let share = |keys: &[Vec<u8>]| {
        keys.iter().filter(|key| cold.contains_key(key).unwrap()).count() as f64 / keys.len() as f64
    };
    assert!(share(&hot) > 0.9, "{} of the hot keys are left", share(&hot));
    assert!(share(&cold_keys) < 0.1, "{} of the cold keys are left", share(&cold_keys));
}

#[test]
fn reads_before_a_capacity_is_set_do_not_count() {
    let survive = |capacity_first: bool| {
        let dir = scratch();
        let cold = open_on(config(dir.path()), OsDisk);
        if capacity_first {
            cold.set_capacity(Some(CAPACITY)).unwrap();
        }
        (0..2000).for_each(|n| cold.insert(&key(n), &noise(n.into(), 900)).unwrap());
        cold.flush().unwrap();
        for _ in 0..20 {
            (0..200).for_each(|n| drop(cold.get(&key(n)).unwrap()));
        }
        cold.set_capacity(Some(CAPACITY)).unwrap();
        // Once around, no read meanwhile.
        (0..5500u32).for_each(|n| cold.insert(&key(100_000 + n), &noise(n.into(), 900)).unwrap());
        (0..200).filter(|n| cold.contains_key(&key(*n)).unwrap()).count()
    };
    let (counted, uncounted) = (survive(true), survive(false));
    assert!(counted > 150 && uncounted < 20, "{counted} with a capacity, {uncounted} without");
}

#[test]
fn the_listener_learns_of_each_eviction_once_with_its_key() {
    let dir = scratch();
    let (listener, told) = unbounded();
    let cold = open_on(config(dir.path()).capacity_bytes(CAPACITY).evictions(listener), OsDisk);
    let keys: BTreeSet<Vec<u8>> = (0..9000).map(key).collect();
    for n in 0..9000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    cold.flush().unwrap();
    cold.run_due().unwrap();
    let told: Vec<_> = told.try_iter().collect();
    assert!(told.iter().all(|eviction| eviction.reason == EvictionReason::Capacity));
    assert!(told.iter().all(|eviction| (900..1100).contains(&eviction.bytes)), "{:?}", told[0]);
    let told_keys: BTreeSet<Vec<u8>> = told.iter().map(|eviction| eviction.key.to_vec()).collect();
    assert_eq!(told.len(), told_keys.len(), "one was told twice");
    let missing: BTreeSet<Vec<u8>> =
        keys.into_iter().filter(|key| !cold.contains_key(key).unwrap()).collect();
    assert!(missing.len() > 3000, "{}", missing.len());
    assert!(missing == told_keys, "{} missing, {} told", missing.len(), told_keys.len());
    let stats = cold.stats();
    assert_eq!((stats.evicted, stats.evictions_untold, stats.rejected), (told.len() as u64, 0, 0));
    assert_eq!(stats.evicted_bytes, told.iter().map(|eviction| eviction.bytes).sum::<u64>());
}

#[test]
fn what_was_replaced_removed_or_has_expired_is_no_eviction() {
    let dir = scratch();
    let (listener, told) = unbounded();
    let cold = open_on(config(dir.path()).capacity_bytes(CAPACITY).evictions(listener), OsDisk);
    // Rewritten over and over, never more than a fifth of the capacity alive.
    for round in 0..12u64 {
        for n in 0..400 {
            cold.insert(&key(n), &noise(round * 400 + u64::from(n), 2000)).unwrap();
        }
        for n in 1000..1200 {
            let ttl = Duration::from_secs(20);
            cold.insert_with_ttl(&key(n + 1000 * round as u32), &noise(n.into(), 500), ttl).unwrap();
        }
        for n in 300..320 {
            cold.remove(&key(n)).unwrap();
        }
        cold.clock().advance(21_000);
        cold.flush().unwrap();
        cold.run_due().unwrap();
    }
    assert!(cold.stats().raw_bytes_inserted > 2 * CAPACITY);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), []);
    let stats = cold.stats();
    assert_eq!((stats.evicted, stats.evicted_bytes, stats.evictions_untold), (0, 0, 0));
    assert_eq!(stats.entries, 380);
}

#[test]
fn a_listener_that_does_not_listen_holds_nothing_up_and_what_it_missed_is_counted() {
    for is_gone in [false, true] {
        let dir = scratch();
        let (listener, told) = bounded(10);
        let cold = open_on(config(dir.path()).capacity_bytes(CAPACITY).evictions(listener), OsDisk);
        let mut told = Some(told);
        if is_gone {
            told = None;
        }
        for n in 0..9000 {
            cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
        }
        cold.flush().unwrap();
        cold.run_due().unwrap();
        let stats = cold.stats();
        assert!(stats.evicted > 3000, "{stats:?}");
        let heard = if is_gone { 0 } else { 10 };
        assert_eq!(stats.evictions_untold, stats.evicted - heard);
        assert_eq!(told.map_or(0, |told| told.try_iter().count() as u64), heard);
    }
}

#[test]
fn the_frequency_gate_lets_second_offers_in_once_full_and_keeps_one_hit_wonders_out() {
    let dir = scratch();
    let (listener, told) = unbounded();
    let config =
        config(dir.path()).capacity_bytes(CAPACITY).admission(Admission::Frequency).evictions(listener);
    let cold = open_on(config, OsDisk);
    // While there is room, everything is let in.
    for n in 0..2000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    assert_eq!(cold.stats().rejected, 0);
    for n in 2000..10_000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    cold.flush().unwrap();
    let stats = cold.stats();
    assert!(stats.rejected > 4000, "{stats:?}");
    assert_eq!(stats.rejected + stats.inserts, 10_000);
    let rejections: Vec<_> = told.try_iter().collect();
    let of_gate: BTreeSet<_> = rejections
        .iter()
        .filter(|eviction| eviction.reason == EvictionReason::Admission)
        .map(|eviction| eviction.key.to_vec())
        .collect();
    assert_eq!(of_gate.len() as u64, stats.rejected);
    assert!(rejections.iter().all(|e| e.reason != EvictionReason::Admission || e.bytes == 0));
    assert!(of_gate.iter().all(|key| !cold.contains_key(key).unwrap()), "a rejected key is there");
    // A second offer is let in, and pushes others out: now the store is full to the brim.
    for n in 2000..10_000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    assert!(cold.stats().evicted > 1000, "{:?}", cold.stats());
    // Full: once is not enough, twice is.
    let fresh = |n: u32| key(500_000 + n);
    for n in 0..200 {
        cold.insert(&fresh(n), b"once").unwrap();
    }
    let let_in = (0..200).filter(|n| cold.contains_key(&fresh(*n)).unwrap()).count();
    assert!(let_in <= 20, "{let_in} of 200 one-hit wonders were let in");
    for n in 0..200 {
        cold.insert(&fresh(n), b"twice").unwrap();
    }
    for n in 0..200 {
        assert_eq!(cold.get(&fresh(n)).unwrap().as_deref(), Some(&b"twice"[..]), "{n}");
    }
}

#[test]
fn an_insert_that_is_not_let_in_takes_the_older_version_with_it() {
    let dir = scratch();
    let budget = 1 << 20;
    let (listener, told) = unbounded();
    let config = config(dir.path()).write_budget_bytes_per_day(budget).evictions(listener);
    let cold = open_on(config.clone(), OsDisk);
    cold.insert(b"key", b"older").unwrap();
    cold.insert(b"other", b"stays").unwrap();
    cold.flush().unwrap();
    // An hour's worth may go at once; then nothing.
    let mut n = 0;
    while cold.stats().rejected == 0 {
        cold.insert(&key(n), &noise(n.into(), 1000)).unwrap();
        cold.flush().unwrap();
        n += 1;
        assert!(n < 100, "the budget is never spent");
    }
    assert!(n > 30, "an hour's worth is {} bytes: {n}", budget / 24);
    cold.insert(b"key", b"newer").unwrap();
    assert_eq!(cold.get(b"key").unwrap(), None, "neither the newer one nor the older one");
    assert_eq!(cold.get(b"other").unwrap().as_deref(), Some(&b"stays"[..]));
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told.len() as u64, cold.stats().rejected);
    assert!(told.iter().all(|eviction| eviction.reason == EvictionReason::WriteBudget));
    assert_eq!((&told[1].key[..], told[1].bytes), (&b"key"[..], 0));
    cold.flush().unwrap();
    cold.abandon();
    let cold = open_on(config, OsDisk);
    assert_eq!(cold.get(b"key").unwrap(), None, "after a kill");
    compact(&cold);
    assert_eq!(cold.get(b"key").unwrap(), None, "after a compaction");
}

#[test]
fn the_write_budget_holds_over_a_day() {
    let dir = scratch();
    let budget: u64 = 8 << 20;
    let config = config(dir.path()).capacity_bytes(CAPACITY).write_budget_bytes_per_day(budget);
    let cold = open_on(config, OsDisk);
    let mut n = 0;
    // Every minute 20 KB are offered: 28 MB a day.
    for minute in 0..1440u64 {
        for _ in 0..20 {
            cold.insert(&key(n), &noise(n.into(), 1000)).unwrap();
            n += 1;
        }
        cold.flush().unwrap();
        cold.clock().advance(60_000);
        if minute % 60 == 59 {
            cold.run_due().unwrap();
            let most = budget * (minute + 1) / 1440 + budget / 24 + (128 << 10);
            let written = cold.stats().segment_bytes_written;
            assert!(written <= most, "after {minute} minutes {written} bytes were written, {most} allowed");
        }
    }
    let stats = cold.stats();
    assert!(stats.segment_bytes_written > budget * 9 / 10, "it is used: {stats:?}");
    assert!(stats.rejected > 15_000 && stats.rejected + stats.inserts == 28_800, "{stats:?}");
}

#[test]
fn at_a_full_disk_refuse_answers_busy_and_changes_nothing_and_goes_on_when_there_is_room() {
    let dir = scratch();
    // The commit of an eviction renames nothing and removes segments: held there.
    let concerns = |call: &Call| call.op == Op::Remove && call.is_segment();
    let config = config(dir.path()).capacity_bytes(CAPACITY).queue_full(QueueFull::Refuse);
    let cold = open_on(config, ScriptedDisk::new(concerns));
    let (gate, hold) = Gate::new();
    cold.disk().script((0..100_000).map(|_| Verdict::Hold(hold.clone())));
    drop(hold);
    let mut n = 0;
    let refused = loop {
        // What is queued takes more than what is written: full is what is full when nothing is queued.
        cold.flush().unwrap();
        let before = n;
        let refused = loop {
            match cold.insert(&key(n), &noise(n.into(), 2000)) {
                Ok(()) => n += 1,
                Err(error) => break error,
            }
            assert!(n < 10_000, "it is never full");
        };
        if n == before {
            break refused;
        }
    };
    assert!(refused.is_busy(), "{refused}");
    assert!(refused.to_string().contains("capacity"), "{refused}");
    gate.wait();
    cold.flush().unwrap();
    assert!(du(dir.path()) <= CAPACITY);
    let before = cold.stats();
    let last = key(n - 1);
    for _ in 0..3 {
        let error = cold.insert(&last, &noise(7, 2000)).expect_err("still full");
        assert!(error.is_busy());
        let error = cold.insert(&key(n), &noise(7, 2000)).expect_err("still full");
        assert!(error.is_busy());
    }
    assert_eq!(cold.get(&key(n)).unwrap(), None);
    assert_eq!(cold.get(&last).unwrap().as_deref(), Some(&noise(u64::from(n - 1), 2000)[..]), "as it was");
    let after = cold.stats();
    assert_eq!((after.inserts, after.disk_bytes, after.queued_bytes), (before.inserts, before.disk_bytes, 0));
    // Room again.
    cold.disk().forget_script();
    drop(gate);
    cold.run_due().unwrap();
    cold.insert(&last, b"newer").unwrap();
    cold.insert(&key(n), b"new").unwrap();
    assert_eq!(cold.get(&last).unwrap().as_deref(), Some(&b"newer"[..]));
}

#[test]
fn at_a_full_disk_wait_waits_and_goes_on_when_there_is_room() {
    let dir = scratch();
    let concerns = |call: &Call| call.op == Op::Remove && call.is_segment();
    let config = config(dir.path()).capacity_bytes(CAPACITY).queue_full(QueueFull::Wait);
    let cold = open_on(config, ScriptedDisk::new(concerns));
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let (done_to, done) = unbounded();
        let cold = &cold;
        let writer = scope.spawn(move || {
            for n in 0..9000u32 {
                cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
                done_to.send(n).unwrap();
            }
        });
        let gate = gate;
        gate.wait();
        // It writes on until the room is gone, and then waits: nothing more comes for a while.
        while done.recv_timeout(Duration::from_millis(500)).is_ok() {}
        assert!(!writer.is_finished(), "it did not wait");
        assert!(du(dir.path()) <= CAPACITY);
        drop(gate);
        writer.join().unwrap();
    });
    cold.flush().unwrap();
    assert!(cold.contains_key(&key(8999)).unwrap());
    assert!(cold.stats().evicted > 2000 && du(dir.path()) <= CAPACITY);
}

#[test]
fn an_older_version_does_not_resurface_when_its_newer_one_is_evicted() {
    for is_killed in [false, true] {
        let dir = scratch();
        let config = || config(dir.path()).capacity_bytes(CAPACITY);
        let mut cold = open_on(config(), OsDisk);
        // Older versions without an end and with a long one, newer ones with and without; their segments lie apart.
        for n in 0..600 {
            match n % 2 {
                0 => cold.insert(&key(n), &noise(n.into(), 400)).unwrap(),
                _ => {
                    let ttl = Duration::from_secs(864_000);
                    cold.insert_with_ttl(&key(n), &noise(n.into(), 400), ttl).unwrap();
                }
            }
        }
        let mut newest = Newest::new();
        for n in 0..600u32 {
            let value = noise(u64::from(n) + 10_000, 500);
            let ttl_ms = [None, Some(3_600_000), Some(5000)][n as usize % 3];
            match ttl_ms {
                None => cold.insert(&key(n), &value).unwrap(),
                Some(ttl_ms) => {
                    cold.insert_with_ttl(&key(n), &value, Duration::from_millis(ttl_ms)).unwrap();
                }
            }
            newest.insert(key(n), Some((value, ttl_ms.map(|ttl_ms| START_MS + ttl_ms))));
        }
        let mut missing: BTreeSet<Vec<u8>> = BTreeSet::new();
        for round in 0..8u32 {
            for n in 0..1500u32 {
                let (key, value) = (key(100_000 + 2000 * round + n), noise(n.into(), 1000));
                cold.insert(&key, &value).unwrap();
                newest.insert(key, Some((value, None)));
            }
            let now_ms = START_MS + u64::from(round) * 1000;
            cold.flush().unwrap();
            cold.run_due().unwrap();
            let when = format!("killed {is_killed}, round {round}");
            let present = expect_newest(&cold, &newest, now_ms, &when);
            for key in &missing {
                assert!(!present.contains(key), "{when}: {} came back", String::from_utf8_lossy(key));
            }
            missing.extend(newest.keys().filter(|key| !present.contains(*key)).cloned());
            match is_killed {
                true => cold.abandon(),
                false => cold.close().unwrap(),
            }
            cold = open_at(config(), now_ms + 1000);
            let present = expect_newest(&cold, &newest, now_ms + 1000, &format!("{when}, reopened"));
            for key in &missing {
                assert!(!present.contains(key), "{when}: {} came back", String::from_utf8_lossy(key));
            }
        }
        // They were read in each round, so some of them are worth their bytes.
        let gone = (0..600).filter(|n| missing.contains(&key(*n))).count();
        assert!(gone > 100, "{gone} of the first ones were evicted");
    }
}

/// One run of random operations in a directory that other files all but fill, so that little is enough to evict.
fn random_run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = scratch();
    // Without holes: it has to count for `du` too.
    std::fs::write(dir.path().join("ballast"), vec![1; rng.usize(3_600_000..4_200_000)]).unwrap();
    let config = config(dir.path())
        .capacity_bytes(CAPACITY)
        .durability([Durability::Never, Durability::Always][rng.usize(..2)])
        .compression([Compression::Tuned, Compression::Fixed(larder::Codec::None)][rng.usize(..2)]);
    let mut now_ms = START_MS;
    let mut cold = open_at(config.clone(), now_ms);
    let mut newest = Newest::new();
    // Absent since it was last seen absent, unless written since.
    let mut absent: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for step in 0..250 {
        for _ in 0..rng.u32(1..60) {
            let key = key(rng.u32(..400));
            if rng.u32(..8) == 0 {
                cold.remove(&key).unwrap();
                newest.insert(key, None);
                continue;
            }
            let value = noise(rng.u64(..), [50, 400, 3000][rng.usize(..3)]);
            let ttl_ms = [None, None, Some(1500), Some(20_000), Some(3_600_000)][rng.usize(..5)];
            match ttl_ms {
                None => cold.insert(&key, &value).unwrap(),
                Some(ttl_ms) => cold.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)).unwrap(),
            }
            absent.remove(&key);
            newest.insert(key, Some((value, ttl_ms.map(|ttl_ms| now_ms + ttl_ms))));
        }
        let what = rng.u32(..12);
        match what {
            0 => drop(compact(&cold)),
            1 => drop(cleanup(&cold)),
            2 => drop(crate::stores::rebuild(&cold)),
            3 => assert!(cold.run_due().is_ok()),
            4 | 5 => {
                let ms = rng.u64(1..3000);
                cold.clock().advance(ms);
                now_ms += ms;
            }
            6 => {
                cold.flush().unwrap();
                cold.abandon();
                cold = open_at(config.clone(), now_ms);
            }
            7 => {
                cold.close().unwrap();
                cold = open_at(config.clone(), now_ms);
            }
            _ => {}
        }
        let when = format!("seed {seed}, step {step}, what {what}");
        let took = du(dir.path());
        assert!(took <= CAPACITY, "{when}: {took} bytes of {CAPACITY}");
        for (key, state) in &newest {
            let text = String::from_utf8_lossy(key);
            match (cold.get(key).unwrap(), state) {
                (None, _) => drop(absent.entry(key.clone()).or_insert_with(|| when.clone())),
                (Some(_), None) => panic!("{when}: {text} was removed and is there"),
                (Some(got), Some((value, at_ms))) => {
                    assert!(got == value[..], "{when}: {text} is not the newest");
                    assert!(at_ms.is_none_or(|at_ms| at_ms > now_ms), "{when}: {text} has expired");
                    assert!(
                        !absent.contains_key(key),
                        "{when}: {text} came back, absent since {}",
                        absent[key]
                    );
                }
            }
        }
        let stats = cold.stats();
        assert_eq!((stats.damaged_misses, stats.writes_lost, stats.recovery.given_up), (0, 0, 0), "{when}");
        if step % 50 == 49 {
            expect_ledger(&cold, dir.path(), &when);
        }
    }
}

#[test]
fn random_operations_at_a_full_disk_never_show_a_stale_value_nor_an_evicted_one() {
    let seeds = std::env::var("LARDER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(5);
    (0..seeds).for_each(random_run);
}

#[test]
fn deletions_that_no_snapshot_covers_do_not_keep_eviction_busy_for_ever() {
    let dir = scratch();
    let full =
        config(dir.path()).capacity_bytes(CAPACITY).queue_full(QueueFull::WaitFor(Duration::from_secs(20)));
    let cold = open_on(full, OsDisk);
    // A segment of nothing but deletions ...
    for n in 0..100 {
        cold.insert(&key(n), &noise(n.into(), 400)).unwrap();
    }
    cold.flush().unwrap();
    for n in 0..100 {
        cold.remove(&key(n)).unwrap();
    }
    cold.flush().unwrap();
    // ... and then more than fits, overwritten, so that what is evicted is remembered.
    for n in 0..30_000u32 {
        cold.insert(&key(1000 + n % 9000), &noise(n.into(), 500)).unwrap();
    }
    cold.flush().unwrap();
    cold.close().unwrap();
}

#[test]
fn a_cancel_that_met_no_task_does_not_keep_callers_from_room() {
    let dir = scratch();
    let full =
        config(dir.path()).capacity_bytes(CAPACITY).queue_full(QueueFull::WaitFor(Duration::from_secs(20)));
    let cold = open_on(full, OsDisk);
    cold.cancel();
    for n in 0..12_000u32 {
        cold.insert(&key(n), &noise(n.into(), 1000)).unwrap();
    }
    cold.run_due().unwrap();
    cold.close().unwrap();
}

#[test]
fn a_small_write_budget_that_is_asked_for_every_millisecond_fills_all_the_same() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).write_budget_bytes_per_day(1 << 20), OsDisk);
    let mut n = 0;
    while cold.stats().rejected == 0 {
        cold.insert(&key(n), &noise(n.into(), 100)).unwrap();
        cold.flush().unwrap();
        n += 1;
    }
    let inserted = cold.stats().inserts;
    // Twelve bytes a second.
    for step in 0..200_000u32 {
        cold.clock().advance(1);
        cold.insert(&key(90_000 + step % 9), b"value").unwrap();
    }
    assert!(cold.stats().inserts > inserted, "nothing was gained in 200 s");
}
