//! Capacity: the directory stays within its bytes at every moment.

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::bounded;
use larder::{ColdTierConfig, CompactionTask, Compression, Durability, ErrorKind, OsDisk, QueueFull};

use crate::faults::appends;
use crate::scripted::{Gate, ScriptedDisk, Verdict};
use crate::stores::{START_MS, cleanup, compact, config, key, noise, open_on, scratch};
use crate::watched::{CAPACITY, Load, Newest, apply, du, expect_ledger, expect_newest, open_at, watching};

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
fn what_is_queued_takes_not_much_more_room_than_it_is_going_to() {
    let dir = scratch();
    let config = config(dir.path()).capacity_bytes(CAPACITY).queue_full(QueueFull::Refuse);
    let cold = open_on(config, ScriptedDisk::new(appends));
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    cold.insert(&key(0), &noise(0, 60)).unwrap();
    gate.wait();
    let accepts = |n: &u32| cold.insert(&key(*n), &noise((*n).into(), 60)).is_ok();
    let accepted = (1..100_000).take_while(accepts).count();
    drop(gate);
    cold.flush().unwrap();
    // The worker's turn: the room that it was asked for has been made.
    cold.run_due().unwrap();
    let (bytes, stats) = (du(dir.path()), cold.stats());
    assert_eq!(stats.entries + stats.evicted, accepted as u64 + 1);
    assert!(
        bytes > CAPACITY / 2 - CAPACITY / 16,
        "{accepted} records, {bytes} bytes of {CAPACITY}: {stats:?}"
    );
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
        cold.flush().unwrap();
    });
    assert!(most <= capacity && most > 17 << 20, "{most} of {capacity}");
    assert_eq!(cold.stats().evicted, evicted, "there was room");
    cold.set_capacity(None).unwrap();
    apply(&cold, load, 3, 14 << 20, &mut rng, &mut newest, &mut now_ms);
    cold.flush().unwrap();
    assert!(du(dir.path()) > capacity);
    assert_eq!(cold.stats().evicted, evicted, "there is no bound");
    expect_newest(&cold, &newest, now_ms, "without a bound");
    expect_ledger(&cold, dir.path(), "without a bound");
}
