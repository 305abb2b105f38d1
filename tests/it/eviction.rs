//! Eviction: what is worth least goes, what is there is always the newest, and the listener learns of the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use larder::{Compression, Durability, EvictionReason, OsDisk, QueueFull};

use crate::stores::{
    START_MS, cleanup, compact, config, is_segment, is_snapshot, key, names, noise, open_on, read_file,
    scratch, write_file,
};
use crate::watched::{CAPACITY, Newest, du, expect_ledger, expect_newest, open_at};

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
    write_file(dir.path(), "ballast", &vec![1; rng.usize(3_600_000..4_200_000)]);
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

/// What an eviction may copy is charged once, although a round that meets a damaged record starts again (C10).
#[test]
fn a_round_of_eviction_that_starts_again_is_charged_for_its_copies_once() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).capacity_bytes(64 << 20), OsDisk);
    const KEYS: u32 = 6000;
    // Each replaces something, and no snapshot covers that: a damaged one is covered first, and the round starts again.
    for n in 0..KEYS {
        cold.insert(&key(n), b"first").unwrap();
    }
    for n in 0..KEYS {
        cold.insert(&key(n), &noise(n.into(), 1000)).unwrap();
    }
    cold.flush().unwrap();
    // The segments of what was replaced go; nothing is covered for that.
    cold.run_due().unwrap();
    assert_eq!(names(dir.path(), is_snapshot), Vec::<String>::new());
    // All of the same worth: read once, of one length.
    for n in 0..KEYS {
        assert!(cold.get(&key(n)).unwrap().is_some());
    }
    let damage = |n: u32| {
        let value = noise(n.into(), 1000);
        for name in names(dir.path(), is_segment) {
            let mut bytes = read_file(dir.path(), &name);
            if let Some(at) = bytes.windows(value.len()).position(|window| window == value) {
                bytes[at] ^= 1;
                write_file(dir.path(), &name, &bytes);
            }
        }
    };
    damage(50);
    // Room for the copies below the limit, but not for what callers are promised: some rounds of eviction.
    let taken = cold.stats().disk_bytes;
    cold.set_capacity(Some((taken + (256 << 10) + (300 << 10)) * 256 / 255)).unwrap();
    let kept: Vec<u32> = (0..KEYS).filter(|n| cold.get(&key(*n)).unwrap().is_some()).collect();
    let evicted_below = (0..KEYS).rev().find(|n| kept.binary_search(n).is_err()).unwrap();
    let copied = kept.iter().filter(|n| **n < evicted_below).count() as u64;
    let bytes = copied * 1024;
    assert!((240 << 10..=256 << 10).contains(&bytes), "{copied} of {evicted_below}");
}
