//! Expiry (E1, E2, T1, T2): exact to the millisecond, gone for good, and cleaned up without reading what has expired.

use std::time::Duration;

use larder::internals::serialization::segment::SEGMENT_HEADER_BYTES;
use larder::{Clock, ColdTier, CompactionTask, Durability, ManualClock, OsDisk, Ttl};

use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{
    Model, START_MS, allocated_segment_bytes, cleanup, compact, config, expect_absent, expect_exactly,
    is_segment, key, names, noise, open, open_on, put, rebuild, scratch, segment_names, try_cleanup,
    wait_until,
};

type Store = ColdTier<OsDisk, ManualClock>;

/// Something done to a store.
type Step = fn(&Store);

fn reopen_at(dir: &std::path::Path, now_ms: u64) -> Store {
    ColdTier::open_with(config(dir), OsDisk, ManualClock::new(now_ms)).expect("reopen")
}

#[test]
fn an_entry_lives_to_its_last_millisecond_and_not_one_longer() {
    let dir = scratch();
    let cold = open(dir.path());
    for ttl_ms in [1, 2, 999, 1000, 86_400_000] {
        let key = format!("lives {ttl_ms}").into_bytes();
        cold.insert_with_ttl(&key, b"value", Duration::from_millis(ttl_ms)).unwrap();
        // In flight or in a file: the answer is the same.
        for is_flushed in [false, true] {
            if is_flushed {
                cold.flush().unwrap();
            }
            assert_eq!(cold.ttl(&key).unwrap(), Some(Ttl::Remaining(Duration::from_millis(ttl_ms))));
        }
        cold.clock().advance(ttl_ms - 1);
        assert_eq!(
            cold.get(&key).unwrap().as_deref(),
            Some(&b"value"[..]),
            "{ttl_ms} ms, one before the end"
        );
        assert_eq!(cold.ttl(&key).unwrap(), Some(Ttl::Remaining(Duration::from_millis(1))));
        assert!(cold.contains_key(&key).unwrap());
        let misses = cold.stats().expired_misses;
        cold.clock().advance(1);
        expect_absent(&cold, [&key], "at its end");
        assert_eq!(cold.iter().count(), 0);
        assert_eq!(cold.stats().expired_misses, misses + 1, "one get of the three calls is counted");
    }
    // A part of a millisecond counts as a whole one: nothing expires early.
    cold.insert_with_ttl(b"short", b"value", Duration::from_nanos(1)).unwrap();
    assert_eq!(cold.ttl(b"short").unwrap(), Some(Ttl::Remaining(Duration::from_millis(1))));
    cold.insert_with_ttl(b"long", b"value", Duration::from_micros(1500)).unwrap();
    assert_eq!(cold.ttl(b"long").unwrap(), Some(Ttl::Remaining(Duration::from_millis(2))));
}

#[test]
fn the_default_time_to_live_is_used_where_none_is_given() {
    let dir = scratch();
    let with_default = config(dir.path()).default_ttl(Duration::from_millis(1500));
    let cold = open_on(with_default, OsDisk);
    cold.insert(b"default", b"1").unwrap();
    cold.insert_with_ttl(b"own", b"2", Duration::from_secs(60)).unwrap();
    assert_eq!(cold.ttl(b"default").unwrap(), Some(Ttl::Remaining(Duration::from_millis(1500))));
    assert_eq!(cold.ttl(b"own").unwrap(), Some(Ttl::Remaining(Duration::from_secs(60))));
    assert_eq!(cold.ttl(b"absent").unwrap(), None);
    let expiries: Vec<_> = cold.iter().map(|entry| entry.unwrap().expires_at_ms).collect();
    assert!(expiries.contains(&Some(START_MS + 1500)) && expiries.contains(&Some(START_MS + 60_000)));
    cold.clock().advance(1500);
    expect_absent(&cold, [&b"default".to_vec()], "after the default");
    assert_eq!(cold.get(b"own").unwrap().as_deref(), Some(&b"2"[..]));
    cold.close().unwrap();

    let cold = reopen_at(dir.path(), START_MS + 1500);
    cold.insert(b"without", b"3").unwrap();
    assert_eq!(cold.ttl(b"without").unwrap(), Some(Ttl::Never));
    assert_eq!(
        cold.ttl(b"own").unwrap(),
        Some(Ttl::Remaining(Duration::from_millis(58_500))),
        "as it was stored"
    );
}

#[test]
fn an_entry_rewritten_with_a_later_expiry_while_the_cleanup_runs_stays() {
    let dir = scratch();
    // Stopped where it has opened the segment's footer, before it takes anything out.
    let concerns =
        |call: &Call| call.op == Op::Read && call.is_segment() && call.offset > SEGMENT_HEADER_BYTES as u64;
    let cold = open_on(config(dir.path()), ScriptedDisk::new(concerns));
    for n in 0..200 {
        cold.insert_with_ttl(&key(n), &noise(n.into(), 100), Duration::from_secs(1)).unwrap();
    }
    cold.flush().unwrap();
    // Sealed, so that its rows come from the footer.
    compact(&cold);
    cold.close().unwrap();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(concerns));
    cold.clock().advance(1000);
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    let report = std::thread::scope(|scope| {
        let task = scope.spawn(|| cleanup(&cold));
        let gate = gate;
        gate.wait();
        let progress = cold.compaction_state().progress();
        assert!(cold.compaction_state().is_compacting());
        assert_eq!(cold.compaction_state().task(), Some(CompactionTask::CleanupExpired));
        assert_eq!(progress, 0.2);
        for n in 0..50 {
            cold.insert_with_ttl(&key(n), b"later", Duration::from_secs(60)).unwrap();
        }
        for n in 50..60 {
            cold.insert(&key(n), b"for ever").unwrap();
        }
        cold.flush().unwrap();
        drop(gate);
        task.join().unwrap()
    });
    assert_eq!(report.expired_removed, 140, "those that were not rewritten");
    assert_eq!(cold.compaction_state().progress(), 1.0);
    let model: Model =
        (0..60).map(|n| (key(n), if n < 50 { b"later".to_vec() } else { b"for ever".to_vec() })).collect();
    expect_exactly(&cold, &model, "after the cleanup");
    assert_eq!(cold.len(), 60);
    compact(&cold);
    expect_exactly(&cold, &model, "after a compaction");
    cold.close().unwrap();
    let cold = reopen_at(dir.path(), START_MS + 1000);
    expect_exactly(&cold, &model, "after a reopen");
}

#[test]
fn cleanup_counts_what_it_removes_once_and_exactly() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    for n in 0..300u32 {
        // One class of times to live, one log: what expires lies among what does not yet.
        let (value, ttl_ms) = (noise(n.into(), 400), [17_000, 16_000, 16_500][n as usize % 3]);
        cold.insert_with_ttl(&key(n), &value, Duration::from_millis(ttl_ms)).unwrap();
        if n % 3 == 0 {
            model.insert(key(n), value);
        }
    }
    // Not expired but dead: no cleanup counts them.
    for n in (1..31).step_by(3) {
        cold.remove(&key(n)).unwrap();
    }
    for n in (31..61).step_by(3) {
        put(&cold, &mut model, key(n), b"rewritten".to_vec());
    }
    assert_eq!(cleanup(&cold).expired_removed, 0, "nothing is due");
    assert_eq!(cold.len(), 290);
    cold.clock().advance(15_999);
    assert_eq!(cleanup(&cold).expired_removed, 0, "a millisecond too early");
    cold.clock().advance(1);
    assert_eq!(cold.len(), 290, "expired entries are counted until they are cleaned up");
    assert_eq!(cleanup(&cold).expired_removed, 80);
    assert_eq!(cold.len(), 210);
    assert_eq!(cleanup(&cold).expired_removed, 0, "once only");
    cold.clock().advance(500);
    assert_eq!(cleanup(&cold).expired_removed, 100);
    assert_eq!(cold.len(), 110);
    assert_eq!(cold.stats().expired_removed, 180);
    expect_exactly(&cold, &model, "after the cleanups");
    let expired: u64 = cold.segments().iter().map(|segment| segment.expired_records).sum();
    assert_eq!(expired, 180, "the accounts know them: {:?}", cold.segments());
    compact(&cold);
    expect_exactly(&cold, &model, "after a compaction");
    assert_eq!(cold.segments().iter().map(|segment| segment.expired_records).sum::<u64>(), 0);
    assert_eq!(cold.stats().expired_removed, 180, "a compaction finds none of them again");
}

#[test]
fn a_compaction_removes_expired_entries_that_no_cleanup_has_met() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    for n in 0..300u32 {
        // One class of times to live: what expires lies among what does not yet.
        let (value, ttl_ms) = (noise(n.into(), 400), 17_000 - 1000 * u64::from(n % 2));
        cold.insert_with_ttl(&key(n), &value, Duration::from_millis(ttl_ms)).unwrap();
        if n % 2 == 0 {
            model.insert(key(n), value);
        }
    }
    cold.clock().advance(16_000);
    let report = compact(&cold);
    assert_eq!((report.entries_copied, report.entries_expired), (150, 150), "{report:?}");
    assert_eq!(cold.len(), 150);
    assert_eq!(cold.stats().expired_removed, 150);
    assert_eq!(cleanup(&cold).expired_removed, 0);
    expect_exactly(&cold, &model, "after the compaction");
}

#[test]
fn wholly_expired_segments_leave_the_disk_without_one_record_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|_| false).logging());
    let mut model = Model::new();
    for n in 0..400 {
        cold.insert_with_ttl(&key(n), &noise(n.into(), 600), Duration::from_secs(1 + u64::from(n) / 200))
            .unwrap();
    }
    put(&cold, &mut model, b"stays".to_vec(), noise(9, 600));
    cold.flush().unwrap();
    let segments = cold.segments();
    let expired: Vec<_> =
        segments.iter().filter(|segment| segment.latest_expiry_ms == Some(START_MS + 1000)).collect();
    assert!(!expired.is_empty() && segments.len() >= 4, "{segments:?}");
    cold.clock().advance(1000);
    let before = allocated_segment_bytes(dir.path());
    let files_before = names(dir.path(), is_segment);
    // A barrier seals what has come of age: the cleanup itself shall write nothing.
    cold.flush().unwrap();
    assert!(allocated_segment_bytes(dir.path()) >= before, "footers were added");
    let before = allocated_segment_bytes(dir.path());
    cold.disk().take_log();
    let report = cleanup(&cold);
    let log = cold.disk().take_log();
    assert_eq!(report.expired_removed, 200);
    assert_eq!(report.segments_dropped, expired.len() as u64, "{report:?}");
    assert_eq!(report.bytes_reclaimed as i64, before - allocated_segment_bytes(dir.path()));
    let left = names(dir.path(), is_segment);
    assert_eq!(left.len(), files_before.len() - expired.len());
    for segment in &expired {
        assert!(!left.contains(&format!("seg-{:010}.lard", segment.id)), "{} is still there", segment.id);
    }
    // Of every segment, dropped or not, the footer alone was read; and nothing was written to any.
    let ends: Vec<(String, u64)> = segments
        .iter()
        .map(|segment| {
            (
                format!("seg-{:010}.lard", segment.id),
                SEGMENT_HEADER_BYTES as u64 + segment.live_bytes + segment.dead_bytes,
            )
        })
        .collect();
    let mut read = 0;
    for call in log.iter().filter(|call| call.is_segment()) {
        let (_, records_end) = ends.iter().find(|(name, _)| *name == call.name).expect("a known segment");
        match call.op {
            Op::Read => {
                assert!(
                    call.offset >= *records_end,
                    "records were read: {call:?}, they end at {records_end}"
                );
                read += call.len;
            }
            Op::Write => panic!("a cleanup writes to no segment: {call:?}"),
            _ => {}
        }
    }
    assert!(read > 0 && read < 20_000, "{read} bytes of footers");

    cold.clock().advance(1000);
    let report = cleanup(&cold);
    assert_eq!(report.expired_removed, 200);
    assert!(report.segments_dropped >= 1, "{report:?}");
    expect_exactly(&cold, &model, "one entry is left");
    cold.close().unwrap();
    let cold = reopen_at(dir.path(), START_MS + 2000);
    expect_exactly(&cold, &model, "one entry is left after a reopen");
    assert_eq!(names(dir.path(), is_segment), segment_names(&cold));
}

#[test]
fn progress_of_a_cleanup_rises_from_a_fifth_to_the_end() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|call| call.is_segment()));
    for n in 0..400 {
        cold.insert_with_ttl(&key(n), &noise(n.into(), 600), Duration::from_secs(1)).unwrap();
    }
    cold.flush().unwrap();
    cold.clock().advance(1000);
    let (gate, hold) = Gate::new();
    cold.disk().script((0..10_000).map(|_| Verdict::Hold(hold.clone())));
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let task = scope.spawn(|| {
            let report = cleanup(&cold);
            cold.disk().forget_script();
            report
        });
        let Gate { reached, release } = gate;
        while !task.is_finished() {
            if let Ok(call) = reached.recv_timeout(Duration::from_millis(20)) {
                seen.push((call.op, cold.compaction_state().progress()));
                release.send(()).unwrap();
            }
        }
        assert_eq!(task.join().unwrap().expired_removed, 400);
    });
    assert_eq!(cold.compaction_state().progress(), 1.0);
    assert!(seen.windows(2).all(|pair| pair[0].1 <= pair[1].1), "progress fell: {seen:?}");
    // The barrier before it seals what has come of age: a footer and its sync, nothing else.
    let sealing = seen.iter().take_while(|(_, progress)| *progress == 0.0).count();
    let sealing = seen.drain(..sealing).map(|(op, _)| op).collect::<Vec<_>>();
    assert!(sealing.iter().all(|op| matches!(op, Op::Stat | Op::Write | Op::Sync)), "{sealing:?}");
    assert_eq!(seen[0], (Op::OpenRead, 0.2), "{seen:?}");
    let removing = seen.iter().filter(|(op, _)| *op == Op::Remove).map(|(_, progress)| *progress);
    let removing: Vec<f32> = removing.collect();
    assert!(!removing.is_empty() && removing.iter().all(|p| *p == 0.9), "{removing:?}");
    let steps: std::collections::BTreeSet<u32> =
        seen.iter().map(|(_, progress)| progress.to_bits()).collect();
    assert!(steps.len() >= 4, "segment by segment: {seen:?}");
}

#[test]
fn a_cancelled_cleanup_loses_nothing_and_the_next_one_finishes_it() {
    let dir = scratch();
    let concerns = |call: &Call| call.op == Op::OpenRead && call.is_segment();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(concerns));
    let mut model = Model::new();
    for n in 0..400u32 {
        match n % 4 {
            0 => put(&cold, &mut model, key(n), noise(n.into(), 600)),
            _ => cold.insert_with_ttl(&key(n), &noise(n.into(), 600), Duration::from_secs(1)).unwrap(),
        }
    }
    cold.flush().unwrap();
    cold.clock().advance(1000);
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Pass, Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let task = scope.spawn(|| try_cleanup(&cold));
        let gate = gate;
        gate.wait();
        cold.cancel();
        drop(gate);
        assert_eq!(task.join().unwrap().unwrap_err().kind(), larder::ErrorKind::Cancelled);
    });
    expect_exactly(&cold, &model, "after the cancelled cleanup");
    let left = cold.len() - model.len() as u64;
    assert!(left > 0, "it was cancelled half way");
    assert_eq!(cleanup(&cold).expired_removed, left);
    assert_eq!(cold.len(), model.len() as u64);
    expect_exactly(&cold, &model, "after the next cleanup");
}

#[test]
fn what_has_expired_stays_expired_when_the_wall_clock_is_set_back() {
    for is_killed in [false, true] {
        let dir = scratch();
        let cold = open(dir.path());
        cold.insert_with_ttl(b"short", b"gone", Duration::from_secs(10)).unwrap();
        cold.insert_with_ttl(b"long", b"there", Duration::from_secs(100)).unwrap();
        cold.flush().unwrap();
        cold.clock().advance(20_000);
        cold.clock().set_wall(START_MS - 86_400_000);
        expect_absent(&cold, [&b"short".to_vec()], "with the clock set back while the store is open");
        assert_eq!(cold.ttl(b"long").unwrap(), Some(Ttl::Remaining(Duration::from_secs(80))));
        cold.flush().unwrap();
        match is_killed {
            true => cold.abandon(),
            false => cold.close().unwrap(),
        }
        for back_ms in [1, 19_999, 86_400_000, START_MS] {
            let cold = reopen_at(dir.path(), START_MS + 20_000 - back_ms.min(START_MS));
            let when = format!("killed {is_killed}, set back by {back_ms} ms");
            expect_absent(&cold, [&b"short".to_vec()], &when);
            assert_eq!(cold.ttl(b"long").unwrap(), Some(Ttl::Remaining(Duration::from_secs(80))), "{when}");
            // Time goes on from where it was saved.
            cold.insert_with_ttl(b"new", b"x", Duration::from_secs(5)).unwrap();
            assert_eq!(cold.ttl(b"new").unwrap(), Some(Ttl::Remaining(Duration::from_secs(5))), "{when}");
            assert_eq!(cold.stats().clock_jumps_refused, 0, "{when}");
            cold.remove(b"new").unwrap();
            cold.close().unwrap();
        }
    }
}

#[test]
fn a_forward_jump_is_followed_up_to_the_bound_and_refused_and_counted_beyond_it() {
    let bound = Duration::from_secs(3600);
    let saved = |dir: &std::path::Path| {
        let cold = open_on(config(dir).clock_jump_max(bound), OsDisk);
        cold.insert_with_ttl(b"minute", b"x", Duration::from_secs(60)).unwrap();
        cold.insert_with_ttl(b"day", b"y", Duration::from_secs(86_400)).unwrap();
        cold.close().unwrap();
    };
    let reopen = |dir: &std::path::Path, ahead_ms: u64| {
        let config =
            config(dir).clock_jump_max(bound).durability(Durability::Interval(Duration::from_millis(1)));
        ColdTier::open_with(config, OsDisk, ManualClock::new(START_MS + ahead_ms)).unwrap()
    };
    // Across a restart.
    let dir = scratch();
    saved(dir.path());
    let cold = reopen(dir.path(), 3_600_000);
    assert_eq!(cold.stats().clock_jumps_refused, 0);
    expect_absent(&cold, [&b"minute".to_vec()], "an hour ahead is followed");
    assert_eq!(cold.ttl(b"day").unwrap(), Some(Ttl::Remaining(Duration::from_secs(82_800))));
    drop(cold);
    let dir = scratch();
    saved(dir.path());
    let cold = reopen(dir.path(), 3_600_001);
    assert!(cold.stats().clock_jumps_refused >= 1);
    assert_eq!(cold.ttl(b"minute").unwrap(), Some(Ttl::Remaining(Duration::from_secs(60))), "not followed");
    assert_eq!(cold.get(b"minute").unwrap().as_deref(), Some(&b"x"[..]));
    drop(cold);

    // While it is open: the writer looks at the wall clock at every interval.
    let cold = reopen(dir.path(), 0);
    let refused = cold.stats().clock_jumps_refused;
    cold.clock().set_wall(START_MS + 10 * 86_400_000);
    wait_until("the jump refused", || cold.stats().clock_jumps_refused > refused);
    assert_eq!(cold.ttl(b"minute").unwrap(), Some(Ttl::Remaining(Duration::from_secs(60))), "not followed");
    cold.clock().set_wall(START_MS + 59_999);
    wait_until("the jump followed", || {
        cold.ttl(b"minute").unwrap() == Some(Ttl::Remaining(Duration::from_millis(1)))
    });
    cold.clock().set_wall(START_MS + 60_000);
    wait_until("its end", || cold.get(b"minute").unwrap().is_none());
    assert_eq!(cold.get(b"day").unwrap().as_deref(), Some(&b"y"[..]));
}

/// An older version that would outlive the newer one, in another segment.
///
/// With `companions`, each segment of the short-lived ones holds something that lives 60 ms longer, so that no cleanup
/// drops it as a whole.
fn overwritten_by_a_shorter_life(dir: &std::path::Path, companions: bool) -> (Store, Model, Vec<Vec<u8>>) {
    let cold = open(dir);
    let mut model = Model::new();
    for n in 0..100 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    for n in 100..200 {
        cold.insert_with_ttl(&key(n), &noise(n.into(), 900), Duration::from_secs(3600)).unwrap();
    }
    for n in 0..200 {
        cold.insert_with_ttl(&key(n), &noise(u64::from(n) + 400, 300), Duration::from_secs(1)).unwrap();
        if companions && n % 10 == 9 {
            let (key, value) = (key(300 + n), b"a little longer".to_vec());
            cold.insert_with_ttl(&key, &value, Duration::from_millis(1060)).unwrap();
            model.insert(key, value);
        }
    }
    for n in 200..220 {
        put(&cold, &mut model, key(n), noise(n.into(), 900));
    }
    cold.flush().unwrap();
    (cold, model, (0..200).map(key).collect())
}

#[test]
fn an_expired_overwriting_value_does_not_let_the_older_version_come_back() {
    let steps: [(&str, Step); 5] = [
        ("nothing", |_| {}),
        ("cleanup", |cold| {
            cleanup(cold);
        }),
        ("cleanup and compaction", |cold| {
            cleanup(cold);
            compact(cold);
        }),
        ("compaction", |cold| {
            compact(cold);
        }),
        ("snapshot, cleanup, compaction, compaction", |cold| {
            rebuild(cold);
            cleanup(cold);
            compact(cold);
            compact(cold);
        }),
    ];
    for (name, step) in steps {
        for (is_killed, companions) in [(false, false), (false, true), (true, false), (true, true)] {
            let when = format!("{name}, killed {is_killed}, companions {companions}");
            let dir = scratch();
            let (cold, model, expired) = overwritten_by_a_shorter_life(dir.path(), companions);
            cold.clock().advance(1000);
            expect_absent(&cold, &expired, &when);
            step(&cold);
            expect_exactly(&cold, &model, &when);
            expect_absent(&cold, &expired, &when);
            cold.flush().unwrap();
            match is_killed {
                true => cold.abandon(),
                false => cold.close().unwrap(),
            }
            let mut cold = reopen_at(dir.path(), START_MS + 1000);
            for round in 0..3 {
                let when = format!("{when}, start {round}");
                expect_exactly(&cold, &model, &when);
                expect_absent(&cold, &expired, &when);
                cleanup(&cold);
                expect_absent(&cold, &expired, &format!("{when}, cleaned up"));
                compact(&cold);
                expect_absent(&cold, &expired, &format!("{when}, compacted"));
                expect_exactly(&cold, &model, &format!("{when}, compacted"));
                cold.flush().unwrap();
                cold.abandon();
                cold = reopen_at(dir.path(), START_MS + 1000);
            }
            assert_eq!(cold.len(), model.len() as u64, "{when}: nothing expired is counted in the end");
        }
    }
}

#[test]
fn what_had_to_be_remembered_of_expired_entries_goes_once_a_snapshot_covers_it() {
    for is_reopened in [false, true] {
        let dir = scratch();
        let (mut cold, model, expired) = overwritten_by_a_shorter_life(dir.path(), true);
        cold.clock().advance(1000);
        cleanup(&cold);
        assert_eq!(cold.stats().shadows, 200, "the older versions must not come back");
        if is_reopened {
            cold.close().unwrap();
            cold = reopen_at(dir.path(), START_MS + 1000);
        }
        for _ in 0..3 {
            rebuild(&cold);
            cleanup(&cold);
            compact(&cold);
        }
        expect_exactly(&cold, &model, "after three compactions");
        expect_absent(&cold, &expired, "after three compactions");
        // 20 entries of 900 bytes and 20 small ones live; the expired ones took 60,000 bytes.
        let stats = cold.stats();
        assert_eq!(stats.shadows, 0, "reopened {is_reopened}: {:?}", cold.segments());
        assert!(stats.segment_bytes < 22_000, "reopened {is_reopened}: {stats:?}");
    }
}

#[test]
fn time_that_passes_while_the_store_is_closed_counts() {
    let dir = scratch();
    let cold = open(dir.path());
    cold.insert_with_ttl(b"short", b"x", Duration::from_secs(10)).unwrap();
    cold.insert_with_ttl(b"long", b"y", Duration::from_secs(100)).unwrap();
    cold.close().unwrap();
    let cold = reopen_at(dir.path(), START_MS + 10_000);
    expect_absent(&cold, [&b"short".to_vec()], "after ten seconds closed");
    assert_eq!(cold.ttl(b"long").unwrap(), Some(Ttl::Remaining(Duration::from_secs(90))));
    assert_eq!(cleanup(&cold).expired_removed, 1);
    assert_eq!(cold.clock().wall_ms(), START_MS + 10_000, "the store reads the clock and never sets it");
}

#[test]
fn an_automatic_cleanup_starts_by_itself_once_something_has_expired() {
    let dir = scratch();
    let automatic = config(dir.path())
        .maintenance(larder::Maintenance::Automatic)
        .maintenance_interval(Duration::from_millis(1));
    let cold = open_on(automatic, OsDisk);
    let mut model = Model::new();
    put(&cold, &mut model, b"stays".to_vec(), b"x".to_vec());
    for n in 0..100 {
        cold.insert_with_ttl(&key(n), b"y", Duration::from_secs(1)).unwrap();
    }
    assert_eq!(cold.len(), 101);
    cold.clock().advance(1000);
    wait_until("an automatic cleanup", || cold.stats().expired_removed == 100);
    assert_eq!(cold.len(), 1);
    expect_exactly(&cold, &model, "after an automatic cleanup");
}

#[test]
fn removing_an_expired_entry_changes_nothing_that_can_be_seen() {
    fn gone(cold: &Store) {
        expect_absent(cold, [&b"short".to_vec()], "expired");
        cold.remove(b"short").unwrap();
        expect_absent(cold, [&b"short".to_vec()], "expired and removed");
    }
    let dir = scratch();
    let cold = open(dir.path());
    cold.insert(b"short", b"older").unwrap();
    cold.insert_with_ttl(b"short", b"x", Duration::from_secs(1)).unwrap();
    cold.clock().advance(1000);
    gone(&cold);
    cleanup(&cold);
    gone(&cold);
    compact(&cold);
    gone(&cold);
    assert_eq!(cold.len(), 0);
    cold.close().unwrap();
    gone(&reopen_at(dir.path(), START_MS + 1000));
}

#[test]
fn a_flush_makes_the_time_durable_even_if_nobody_has_met_what_expired() {
    let dir = scratch();
    let cold = open(dir.path());
    cold.insert_with_ttl(b"short", b"value", Duration::from_millis(1000)).unwrap();
    cold.flush().unwrap();
    cold.clock().advance(2000);
    cold.flush().unwrap();
    cold.abandon();
    let cold = reopen_at(dir.path(), START_MS);
    expect_absent(&cold, [&b"short".to_vec()], "with the wall clock set back");
}
