//! Expiry groups: what dies together lies together, and whatever lies where, nothing lives a millisecond too long and
//! nothing comes back.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use larder::internals::serialization::segment::{SEGMENT_HEADER_BYTES, SegmentIdentity};
use larder::{ColdTier, Disk, ManualClock, OsDisk, SegmentState, Ttl};

use crate::scripted::{Call, Op, ScriptedDisk};
use crate::stores::{
    Model, START_MS, cleanup, compact, config, expect_absent, expect_exactly, is_segment, is_snapshot, key,
    names, noise, open, open_on, put, read_file, rebuild, scratch,
};

type Store = ColdTier<OsDisk, ManualClock>;

/// Something done to a store.
type Step = fn(&Store);

/// One a group of times to live, one for what lasts, and one for what lasts and is soon replaced.
const ACTIVE_MAX: usize = 18;

fn reopen_at(dir: &Path, now_ms: u64) -> Store {
    ColdTier::open_with(config(dir), OsDisk, ManualClock::new(now_ms)).expect("reopen")
}

fn put_for<D: Disk>(cold: &ColdTier<D, ManualClock>, key: &[u8], value: &[u8], ttl_ms: u64) {
    cold.insert_with_ttl(key, value, Duration::from_millis(ttl_ms)).expect("insert");
}

fn actives<D: Disk>(cold: &ColdTier<D, ManualClock>) -> usize {
    cold.segments().iter().filter(|segment| segment.state == SegmentState::Active).count()
}

fn segment_name(id: u64) -> String {
    format!("seg-{id:010}.lard")
}

/// The groups that the segment files name.
fn groups_on_disk(dir: &Path) -> BTreeSet<u8> {
    let group = |name: &String| SegmentIdentity::decode(&read_file(dir, name)).expect("a header").group;
    names(dir, is_segment).iter().map(group).collect()
}

#[test]
fn up_to_sixteen_times_to_live_get_segments_of_their_own_and_each_segment_dies_as_a_whole_unread() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|_| false).logging());
    let mut model = Model::new();
    // 1 s, 2 s, 4 s, ... and what lasts, all mixed.
    let ttls: Vec<u64> = (0..16).map(|class| 1000 << class).collect();
    for n in 0..1600u32 {
        put_for(&cold, &key(n), &noise(n.into(), 300), ttls[n as usize % 16]);
        if n % 40 == 0 {
            put(&cold, &mut model, key(5000 + n), noise(n.into(), 300));
        }
    }
    cold.flush().unwrap();
    assert_eq!(actives(&cold), 17);
    assert_eq!(groups_on_disk(dir.path()).len(), 17);
    // No segment holds two times to live, none what lasts beside what expires.
    for segment in cold.segments() {
        assert_eq!(segment.earliest_expiry_ms, segment.latest_expiry_ms, "{segment:?}");
    }
    let mut now_ms = START_MS;
    for (class, ttl_ms) in ttls.iter().enumerate() {
        let segments = cold.segments();
        let dying: Vec<_> =
            segments.iter().filter(|segment| segment.latest_expiry_ms == Some(START_MS + ttl_ms)).collect();
        assert!(!dying.is_empty());
        // Up to the last millisecond everything is there, and nothing is due.
        cold.clock().advance(START_MS + ttl_ms - 1 - now_ms);
        cold.len();
        cold.run_due().unwrap();
        let left = names(dir.path(), is_segment);
        for segment in &dying {
            assert!(left.contains(&segment_name(segment.id)), "{} went too early", segment.id);
        }
        for n in (class as u32..1600).step_by(16) {
            assert!(cold.contains_key(&key(n)).unwrap());
        }
        cold.clock().advance(1);
        now_ms = START_MS + ttl_ms;
        cold.disk().take_log();
        assert!(cold.run_due().unwrap() >= 1);
        let log = cold.disk().take_log();
        let left = names(dir.path(), is_segment);
        for segment in &dying {
            let name = segment_name(segment.id);
            assert!(!left.contains(&name), "{name} is still there after {ttl_ms} ms");
            let records_end = SEGMENT_HEADER_BYTES as u64 + segment.live_bytes + segment.dead_bytes;
            let is_record =
                |call: &&Call| call.name == name && call.op == Op::Read && call.offset < records_end;
            assert_eq!(log.iter().filter(is_record).count(), 0, "records of {name} were read: {log:?}");
        }
        assert_eq!(cold.len(), (1600 - 100 * (class as u64 + 1)) + model.len() as u64, "{ttl_ms} ms");
    }
    expect_exactly(&cold, &model, "all times to live are over");
    // The class of lasting records of which nothing is known.
    assert_eq!(groups_on_disk(dir.path()), BTreeSet::from([2]));
    let stats = cold.stats();
    assert_eq!((stats.expired_removed, stats.shadows, stats.compactions), (1600, 0, 0));
    assert_eq!(names(dir.path(), is_snapshot), Vec::<String>::new(), "no snapshot was needed");
    // Every byte was written once: nothing was copied.
    assert!(stats.written_amplification() < 1.1, "{stats:?}");
}

#[test]
fn forty_times_to_live_share_at_most_eighteen_active_segments_and_expire_to_the_millisecond() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    put(&cold, &mut model, b"lasts".to_vec(), b"for ever".to_vec());
    // From a second to two weeks, each a third more than the one before.
    let ttls: Vec<u64> = (0..40).map(|n| (1000.0 * 1.4f64.powi(n)) as u64).collect();
    let mut rng = fastrand::Rng::with_seed(40);
    let mut due = Vec::new();
    for n in 0..2000u32 {
        let ttl_ms = ttls[rng.usize(..40)];
        put_for(&cold, &key(n), &noise(n.into(), 100), ttl_ms);
        due.push((ttl_ms, n));
        if n % 100 == 0 {
            cold.len();
            assert!(actives(&cold) <= ACTIVE_MAX, "{} active segments", actives(&cold));
        }
    }
    cold.flush().unwrap();
    assert!(actives(&cold) <= ACTIVE_MAX, "{} active segments", actives(&cold));
    assert!(groups_on_disk(dir.path()).len() > 10, "classes are told apart");
    let mut now_ms = 0;
    for ttl_ms in &ttls {
        cold.clock().advance(ttl_ms - 1 - now_ms);
        let of_this = || due.iter().filter(|(ttl, _)| ttl == ttl_ms);
        for (_, n) in of_this() {
            assert!(cold.contains_key(&key(*n)).unwrap(), "{ttl_ms} ms, one before the end");
        }
        cold.clock().advance(1);
        now_ms = *ttl_ms;
        for (_, n) in of_this() {
            assert!(!cold.contains_key(&key(*n)).unwrap(), "{ttl_ms} ms, at the end");
        }
        cold.run_due().unwrap();
        let left = due.iter().filter(|(ttl, _)| *ttl > now_ms).count();
        let readable = due.iter().filter(|(_, n)| cold.contains_key(&key(*n)).unwrap()).count();
        assert_eq!(readable, left, "after {ttl_ms} ms");
    }
    cleanup(&cold);
    expect_exactly(&cold, &model, "all are over");
    // The class of lasting records of which nothing is known.
    assert_eq!(groups_on_disk(dir.path()), BTreeSet::from([2]));
}

#[test]
fn segments_are_sealed_at_a_sixteenth_of_their_time_to_live_and_not_before_half_a_second() {
    let sealed =
        |cold: &Store| cold.segments().iter().filter(|segment| segment.state == SegmentState::Sealed).count();
    for (ttl_ms, age_ms) in [(1000, 500), (8000, 500), (16_000, 1000), (1_600_000, 100_000)] {
        for by_run_due in [false, true] {
            let dir = scratch();
            let cold = open(dir.path());
            let barrier = |cold: &Store| match by_run_due {
                true => assert!(cold.run_due().is_ok()),
                false => cold.flush().unwrap(),
            };
            put_for(&cold, b"first", b"x", ttl_ms);
            cold.insert(b"lasts", b"x").unwrap();
            // The segment is opened when the writer gets there: before the time goes on.
            cold.flush().unwrap();
            cold.clock().advance(age_ms - 1);
            // The age is that of the segment, not of its last record.
            put_for(&cold, b"second", b"x", ttl_ms);
            cold.flush().unwrap();
            assert_eq!((sealed(&cold), actives(&cold)), (0, 2), "{ttl_ms} ms, a millisecond too early");
            cold.clock().advance(1);
            cold.flush().unwrap();
            barrier(&cold);
            assert_eq!((sealed(&cold), actives(&cold)), (1, 1), "{ttl_ms} ms: sealed, what lasts is not");
            put_for(&cold, b"third", b"x", ttl_ms);
            cold.flush().unwrap();
            assert_eq!((sealed(&cold), actives(&cold)), (1, 2), "{ttl_ms} ms: another segment");
        }
    }
}

#[test]
fn a_group_given_to_other_times_to_live_begins_a_new_segment() {
    let dir = scratch();
    let cold = open(dir.path());
    // More classes than there are groups: some are merged, and their numbers given out again.
    for class in 0..16u64 {
        put_for(&cold, &key(class as u32), b"x", 100_000 << class);
    }
    // Far from all of them: two old classes have to share.
    for (nth, ttl_ms) in [10_000, 1000, 100].into_iter().enumerate() {
        put_for(&cold, &key(100 + nth as u32), b"x", ttl_ms);
        cold.flush().unwrap();
        assert!(actives(&cold) <= ACTIVE_MAX);
        let own = cold
            .segments()
            .into_iter()
            .find(|segment| segment.earliest_expiry_ms == Some(START_MS + ttl_ms))
            .expect("the new record's segment");
        assert_eq!(
            own.latest_expiry_ms,
            Some(START_MS + ttl_ms),
            "it lies beside what lives ten times longer"
        );
    }
}

/// What replaces a value, and what it replaces: times to live in ms, 0 = none.
const PAIRS: [(u64, u64); 8] = [
    (10_000, 60_000),
    (60_000, 10_000),
    (10_000, 10_000),
    (0, 10_000),
    (10_000, 0),
    (3_600_000, 1000),
    (1000, 3_600_000),
    (700, 650),
];

fn put_pair(cold: &Store, key: &[u8], value: &[u8], ttl_ms: u64) {
    match ttl_ms {
        0 => cold.insert(key, value).unwrap(),
        _ => put_for(cold, key, value, ttl_ms),
    }
}

#[test]
fn an_overwriting_value_lives_exactly_its_own_time_and_the_older_one_never_comes_back() {
    let steps: [(&str, Step); 6] = [
        ("nothing", |_| {}),
        ("cleanup", |cold| {
            cleanup(cold);
        }),
        ("compaction", |cold| {
            compact(cold);
        }),
        ("run_due", |cold| {
            cold.run_due().unwrap();
        }),
        ("snapshot, cleanup", |cold| {
            rebuild(cold);
            cleanup(cold);
        }),
        ("cleanup, compaction, snapshot, compaction", |cold| {
            cleanup(cold);
            compact(cold);
            rebuild(cold);
            compact(cold);
        }),
    ];
    for (nth, (name, step)) in steps.into_iter().enumerate() {
        // Killed or closed; overwritten at once or when the older one's segment is sealed; removed in between.
        for variant in 0..8u32 {
            let (is_killed, is_later, is_removed) = (variant & 1 == 1, variant & 2 == 2, variant & 4 == 4);
            let when = format!("{name}, killed {is_killed}, later {is_later}, removed between {is_removed}");
            let dir = scratch();
            let mut cold = open(dir.path());
            for (nth, (older_ms, _)) in PAIRS.iter().enumerate() {
                for n in 0..3 {
                    put_pair(&cold, &key(nth as u32 * 10 + n), b"older", *older_ms);
                }
            }
            let mut now_ms = START_MS;
            if is_later {
                cold.clock().advance(600);
                now_ms += 600;
                cold.flush().unwrap();
            }
            let mut expiries = Vec::new();
            for (nth, (_, newer_ms)) in PAIRS.iter().enumerate() {
                for n in 0..3 {
                    let key = key(nth as u32 * 10 + n);
                    if is_removed {
                        cold.remove(&key).unwrap();
                    }
                    put_pair(&cold, &key, b"newer", *newer_ms);
                    expiries.push((key, (*newer_ms > 0).then_some(now_ms + newer_ms)));
                }
            }
            cold.flush().unwrap();
            let moments: BTreeSet<u64> = expiries.iter().filter_map(|(_, at_ms)| *at_ms).collect();
            let check = |cold: &Store, now_ms: u64, when: &str| {
                for (key, at_ms) in &expiries {
                    let text = String::from_utf8_lossy(key);
                    let got = cold.get(key).unwrap();
                    match at_ms {
                        Some(at_ms) if *at_ms <= now_ms => assert_eq!(got, None, "{when}: {text}"),
                        _ => {
                            assert_eq!(got.as_deref(), Some(&b"newer"[..]), "{when}: {text}");
                            let left = at_ms.map(|at| Ttl::Remaining(Duration::from_millis(at - now_ms)));
                            assert_eq!(cold.ttl(key).unwrap(), Some(left.unwrap_or(Ttl::Never)), "{when}");
                        }
                    }
                }
            };
            for at_ms in moments {
                cold.clock().advance(at_ms - 1 - now_ms);
                check(&cold, at_ms - 1, &format!("{when}, {} ms, one before", at_ms - START_MS));
                cold.clock().advance(1);
                now_ms = at_ms;
                let when = format!("{when}, at {} ms", at_ms - START_MS);
                check(&cold, now_ms, &when);
                step(&cold);
                check(&cold, now_ms, &format!("{when}, done"));
                cold.flush().unwrap();
                match is_killed {
                    true => cold.abandon(),
                    false => cold.close().unwrap(),
                }
                cold = reopen_at(dir.path(), now_ms);
                check(&cold, now_ms, &format!("{when}, reopened"));
                if nth.is_multiple_of(2) {
                    cleanup(&cold);
                    check(&cold, now_ms, &format!("{when}, reopened, cleaned up"));
                }
            }
            // Years later too, when everything that had a time has had it.
            cold.clock().advance(400 * 86_400_000);
            now_ms += 400 * 86_400_000;
            cleanup(&cold);
            compact(&cold);
            check(&cold, now_ms, &format!("{when}, in the end"));
            assert_eq!(cold.len(), 3, "{when}: one pair lasts");
        }
    }
}

#[test]
fn refreshes_with_the_same_time_to_live_expire_and_are_dropped_without_a_snapshot() {
    let dir = scratch();
    // Nothing is copied for the sake of garbage that goes by itself soon.
    let cold = open_on(config(dir.path()).dead_ratio_max(0.95), OsDisk);
    let mut model = Model::new();
    put(&cold, &mut model, b"lasts".to_vec(), b"x".to_vec());
    // Each key is written again every four seconds, with 20 seconds to live: most records replace another one.
    for round in 0..50u64 {
        for n in 0..50 {
            put_for(&cold, &key(n), &noise(round, 400), 20_000);
        }
        cold.flush().unwrap();
        cold.clock().advance(2000);
        // Of age: each round has a segment of its own.
        cold.flush().unwrap();
        cold.clock().advance(2000);
        cold.run_due().unwrap();
        assert!(names(dir.path(), is_snapshot).is_empty(), "round {round}: a snapshot was taken");
        assert!(cold.segments().len() <= 3, "round {round}: {:?}", cold.segments());
    }
    assert!(cold.stats().expired_removed == 0, "all of them were replaced in time");
    cold.clock().advance(16_000);
    cold.run_due().unwrap();
    let stats = cold.stats();
    assert_eq!((stats.entries, stats.shadows), (1, 0), "nothing has to be remembered");
    assert_eq!(names(dir.path(), is_segment).len(), 1, "{:?}", cold.segments());
    assert!(names(dir.path(), is_snapshot).is_empty());
    assert_eq!(stats.expired_removed, 50);
    expect_exactly(&cold, &model, "after the last refresh");
    cold.flush().unwrap();
    cold.abandon();
    let cold = reopen_at(dir.path(), START_MS + 216_000);
    expect_exactly(&cold, &model, "after a kill");
}

#[test]
fn a_refresh_before_its_segment_is_dropped_or_lost_leaves_nothing_older_behind() {
    // The refreshed value is dropped while the older ones' segments are still there: kept by a companion.
    for is_killed in [false, true] {
        let dir = scratch();
        let cold = open(dir.path());
        let mut model = Model::new();
        // One class: 16.0 s and 16.9 s. The companion keeps the first segment 900 ms longer.
        put_for(&cold, b"key", b"first", 16_000);
        put_for(&cold, b"companion", b"lives longer", 16_900);
        model.insert(b"companion".to_vec(), b"lives longer".to_vec());
        cold.flush().unwrap();
        cold.clock().advance(800);
        cold.flush().unwrap();
        // Expires before the companion's segment goes: does not outlast it.
        put_for(&cold, b"key", b"second", 15_500);
        cold.flush().unwrap();
        for now_ms in [START_MS + 16_300, START_MS + 16_899] {
            cold.clock().advance(now_ms - START_MS - if now_ms == START_MS + 16_300 { 800 } else { 16_300 });
            expect_absent(&cold, [&b"key".to_vec()], "expired");
            cleanup(&cold);
            expect_absent(&cold, [&b"key".to_vec()], "cleaned up");
            expect_exactly(&cold, &model, "the companion lives");
        }
        cold.flush().unwrap();
        match is_killed {
            true => cold.abandon(),
            false => cold.close().unwrap(),
        }
        let cold = reopen_at(dir.path(), START_MS + 16_899);
        expect_exactly(&cold, &model, "reopened");
        compact(&cold);
        expect_exactly(&cold, &model, "compacted");
    }
}

#[test]
fn a_long_lived_value_does_not_come_back_after_the_short_lived_one_that_replaced_it() {
    for with_snapshot in [false, true] {
        for tidy in 0..4 {
            let dir = scratch();
            let cold = open(dir.path());
            let mut model = Model::new();
            put(&cold, &mut model, b"lasts".to_vec(), b"x".to_vec());
            for n in 0..100 {
                put_for(&cold, &key(n), b"for a day", 86_400_000);
            }
            cold.flush().unwrap();
            if with_snapshot {
                rebuild(&cold);
            }
            for n in 0..100 {
                put_for(&cold, &key(n), b"for ten seconds", 10_000);
            }
            cold.flush().unwrap();
            let keys: Vec<_> = (0..100).map(key).collect();
            let mut cold = cold;
            cold.clock().advance(10_000);
            for round in 0..3 {
                let when = format!("snapshot {with_snapshot}, tidied {tidy}, round {round}");
                expect_absent(&cold, &keys, &when);
                match tidy {
                    0 => {}
                    1 => drop(cleanup(&cold)),
                    2 => drop(compact(&cold)),
                    _ => {
                        cold.run_due().unwrap();
                    }
                }
                expect_absent(&cold, &keys, &format!("{when}, tidied"));
                expect_exactly(&cold, &model, &when);
                cold.flush().unwrap();
                match round {
                    1 => cold.close().unwrap(),
                    _ => cold.abandon(),
                }
                cold = reopen_at(dir.path(), START_MS + 10_000 + round);
            }
            // Half a day later the first value's time would still not be over.
            cold.clock().advance(43_200_000);
            cold.run_due().unwrap();
            expect_exactly(&cold, &model, "half a day later");
            // Its disappearance was not forgotten before all of it was gone.
            cleanup(&cold);
            compact(&cold);
            rebuild(&cold);
            compact(&cold);
            expect_exactly(&cold, &model, "in the end");
            assert_eq!(cold.stats().shadows, 0);
        }
    }
}

#[test]
fn classes_are_learned_anew_after_a_start_and_old_segments_still_die_in_time() {
    let dir = scratch();
    let mut cold = open(dir.path());
    let mut now_ms = START_MS;
    for start in 0..5u32 {
        for n in 0..100 {
            // In another order each time, so that the groups' numbers differ.
            let ttl_ms = [7000, 30_000, 200_000][(n + start) as usize % 3];
            put_for(&cold, &key(start * 1000 + n), &noise(n.into(), 50), ttl_ms);
        }
        cold.flush().unwrap();
        cold.abandon();
        now_ms += 1000;
        cold = reopen_at(dir.path(), now_ms);
    }
    assert_eq!(cold.len(), 500);
    cold.clock().advance(5000);
    cold.run_due().unwrap();
    let alive = |cold: &Store| (0..5000).filter(|n| cold.contains_key(&key(*n)).unwrap()).count() as u64;
    cold.clock().advance(START_MS + 11_000 - now_ms - 5000);
    cold.run_due().unwrap();
    assert_eq!(cold.len(), alive(&cold), "all of the first class is gone");
    assert!(cold.segments().iter().all(|segment| segment.earliest_expiry_ms > Some(START_MS + 11_000)));
    cold.clock().advance(200_000);
    cold.run_due().unwrap();
    assert_eq!((cold.len(), names(dir.path(), is_segment).len()), (0, 0), "{:?}", cold.segments());
}
