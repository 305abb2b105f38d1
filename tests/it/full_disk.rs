//! When the disk is full: what callers are told, what stands, and how space comes back.

use std::io::ErrorKind as IoKind;

use larder::{CompactionTask, ErrorKind, SegmentState};

use crate::faults::{Scripted, appends};
use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{
    Model, cleanup, compact, config, expect_absent, expect_exactly, is_snapshot, key, names, noise, open,
    open_on, put, ruin_snapshot, scratch, wait_until,
};
use crate::watched::expect_ledger;

/// Appends fail while the disk is full; a segment can be neither begun.
fn when_full(call: &Call) -> Option<IoKind> {
    (call.op == Op::Write).then_some(IoKind::StorageFull)
}

fn on_a_disk_that_fills_up(dir: &std::path::Path) -> Scripted {
    open_on(config(dir), ScriptedDisk::new(appends).standing(when_full))
}

#[test]
fn writes_lost_to_a_full_disk_are_counted_told_once_and_read_as_misses_for_good() {
    for is_killed in [false, true] {
        let dir = scratch();
        let cold = on_a_disk_that_fills_up(dir.path());
        let mut model = Model::new();
        for n in 0..100 {
            put(&cold, &mut model, key(n), noise(n.into(), 300));
        }
        cold.flush().unwrap();
        cold.disk().start_failing();
        let mut lost = Vec::new();
        for n in (0..10).chain(500..510) {
            match cold.insert(&key(n), b"lost") {
                // Accepted, and then there is no room.
                Ok(()) => {
                    lost.push(key(n));
                    model.remove(&key(n));
                }
                Err(error) => assert!(error.is_full(), "{error}"),
            }
        }
        assert!(!lost.is_empty());
        let error = cold.flush().unwrap_err();
        assert!(error.is_full() || error.kind() == ErrorKind::WriteLost, "{error}");
        assert_eq!(cold.stats().writes_lost, lost.len() as u64);
        expect_exactly(&cold, &model, "while the disk is full");
        expect_absent(&cold, &lost, "lost");
        assert!(!error.is_full() || cold.insert(&key(50), b"refused").is_err_and(|error| error.is_full()));
        assert_eq!(
            cold.get(&key(50)).unwrap().as_deref(),
            Some(&noise(50, 300)[..]),
            "a refusal changes nothing"
        );

        cold.disk().stop_failing();
        // One flush tells of the loss, and then all is well.
        let told = if error.is_full() {
            // Until the writer has tried again, the disk is still full for all it knows.
            let mut told = None;
            wait_until("the loss told", || match cold.flush() {
                Err(error) if error.is_full() => false,
                outcome => {
                    told = Some(outcome);
                    true
                }
            });
            told.unwrap().unwrap_err().kind()
        } else {
            error.kind()
        };
        assert_eq!(told, ErrorKind::WriteLost);
        cold.flush().unwrap();
        wait_until("writes accepted again", || cold.insert(&key(600), b"there is room").is_ok());
        model.insert(key(600), b"there is room".to_vec());
        put(&cold, &mut model, key(5), b"written again".to_vec());
        cold.flush().unwrap();
        expect_exactly(&cold, &model, "once there is room");
        lost.retain(|key| !model.contains_key(key));
        expect_absent(&cold, &lost, "once there is room");
        assert_eq!(cold.stats().damaged_misses, 0);
        match is_killed {
            true => cold.abandon(),
            false => cold.close().unwrap(),
        }
        let cold = open(dir.path());
        expect_exactly(&cold, &model, "after a reopen");
        expect_absent(&cold, &lost, "neither the lost write nor what it replaced comes back");
        compact(&cold);
        expect_absent(&cold, &lost, "compacted");
    }
}

#[test]
fn a_batch_that_is_half_written_when_the_disk_fills_up_leaves_no_trace() {
    for is_killed in [false, true] {
        for written in [1, 30, 700, 3000, 8000] {
            let when = format!("{written} bytes written, killed {is_killed}");
            let dir = scratch();
            let cold = on_a_disk_that_fills_up(dir.path());
            let mut model = Model::new();
            for n in 0..40 {
                put(&cold, &mut model, key(n), noise(n.into(), 300));
            }
            cold.flush().unwrap();
            // The writer stands at the first of these while the others queue up behind it: one batch of all of them.
            let (gate, hold) = Gate::new();
            cold.disk().script([
                Verdict::Hold(hold),
                Verdict::Short(written),
                Verdict::Fail(IoKind::StorageFull),
            ]);
            put(&cold, &mut model, b"held".to_vec(), b"value".to_vec());
            gate.wait();
            let mut lost = Vec::new();
            for n in (0..10).chain(500..520) {
                cold.insert(&key(n), &noise(u64::from(n) + 1, 300)).unwrap();
                model.remove(&key(n));
                lost.push(key(n));
            }
            drop(gate);
            let told = cold.flush().unwrap_err();
            assert_eq!(told.kind(), ErrorKind::WriteLost, "{when}: {told}");
            assert_eq!(cold.stats().writes_lost, 30, "{when}");
            assert_eq!(cold.disk().forget_script(), 0, "{when}");
            expect_exactly(&cold, &model, &when);
            // A removal of what has been lost already is remembered too.
            for n in 500..505 {
                cold.remove(&key(n)).unwrap();
            }
            cold.flush().unwrap();
            expect_absent(&cold, &lost, &when);
            match is_killed {
                true => cold.abandon(),
                false => cold.close().unwrap(),
            }
            let report = larder::verify(dir.path(), &mut |_| {}).unwrap();
            assert!(report.is_clean(), "{when}: {report:?}");
            let cold = open(dir.path());
            let when = format!("{when}, reopened");
            assert_eq!(cold.stats().recovery.damaged, 0, "{when}");
            expect_absent(&cold, &lost, &when);
            expect_exactly(&cold, &model, &when);
        }
    }
}

#[test]
fn a_seal_that_fails_for_want_of_room_is_made_up_for() {
    let dir = scratch();
    let cold = on_a_disk_that_fills_up(dir.path());
    let mut model = Model::new();
    for n in 0..100 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    for n in 0..50 {
        put(&cold, &mut model, key(n), noise(u64::from(n) + 300, 100));
    }
    cold.flush().unwrap();
    cold.disk().start_failing();
    let error = cold.run(CompactionTask::CompactData).unwrap_err();
    assert!(error.is_full(), "{error}");
    expect_exactly(&cold, &model, "while the disk is full");
    cold.disk().stop_failing();
    for n in 200..400 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    cold.flush().unwrap();
    assert!(compact(&cold).bytes_reclaimed > 0);
    expect_exactly(&cold, &model, "once there is room");
    cold.close().unwrap();
    let cold = open(dir.path());
    assert_eq!(cold.stats().recovery.damaged, 0);
    expect_exactly(&cold, &model, "after a reopen");
}

#[test]
fn a_seal_whose_edit_fails_again_and_again_writes_one_footer() {
    let dir = scratch();
    let is_edit = |call: &Call| call.op == Op::Write && call.name.starts_with("MANIFEST");
    let disk = ScriptedDisk::new(|_| false)
        .standing(|call| {
            (call.op == Op::Write && call.name.starts_with("MANIFEST")).then_some(IoKind::StorageFull)
        })
        .logging();
    let cold = open_on(config(dir.path()), disk);
    let mut model = Model::new();
    for n in 0..100 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    cold.flush().unwrap();
    cold.disk().take_log();
    cold.disk().start_failing();
    let error = cold.run(CompactionTask::CompactData).unwrap_err();
    assert!(error.is_full(), "{error}");
    let taken = cold.stats().disk_bytes;
    for _ in 0..4 {
        assert!(cold.run(CompactionTask::CompactData).unwrap_err().is_full());
        assert_eq!(cold.stats().disk_bytes, taken, "nothing more was written");
    }
    // Behind a footer no record follows (W2): this one is lost, and what it replaced with it.
    cold.insert(&key(1), b"lost").unwrap();
    assert!(cold.flush().is_err());
    model.remove(&key(1));
    expect_exactly(&cold, &model, "while no edit can be written");
    let log = cold.disk().take_log();
    assert!(log.iter().filter(|call| is_edit(call)).count() > 5);
    assert_eq!(log.iter().filter(|call| call.op == Op::Write && call.is_segment()).count(), 1, "one footer");

    cold.disk().stop_failing();
    wait_until("writes accepted again", || cold.insert(&key(200), b"there is room").is_ok());
    model.insert(key(200), b"there is room".to_vec());
    wait_until("the loss told", || match cold.flush() {
        Err(error) => error.kind() == ErrorKind::WriteLost,
        Ok(()) => false,
    });
    compact(&cold);
    expect_ledger(&cold, dir.path(), "sealed at last");
    cold.close().unwrap();
    assert!(larder::verify(dir.path(), &mut |_| {}).unwrap().is_clean());
    expect_exactly(&open(dir.path()), &model, "reopened");
}

/// On the old order, a store opened on a full disk went on counting on a ruined snapshot: what it was thought
/// to cover was dropped, W rose above what only rows still knew, and the next start gave that up.
#[test]
fn opened_on_a_full_disk_a_store_does_not_count_on_a_snapshot_it_has_lost() {
    let dir = scratch();
    let mut model = Model::new();
    {
        let cold = open(dir.path());
        for n in 0..300 {
            put(&cold, &mut model, key(n), noise(n.into(), 400));
        }
        for n in 100..300 {
            cold.remove(&key(n)).unwrap();
            model.remove(&key(n));
        }
        cold.close().unwrap();
    }
    ruin_snapshot(dir.path());
    let disk = ScriptedDisk::new(|_| false).standing(when_full);
    disk.start_failing();
    let cold = open_on(config(dir.path()), disk);
    expect_exactly(&cold, &model, "opened on a full disk");
    assert_eq!(names(dir.path(), is_snapshot), Vec::<String>::new(), "useless, and in the way");
    cold.disk().stop_failing();
    cold.run_due().unwrap();
    put(&cold, &mut model, key(400), b"new".to_vec());
    cold.flush().unwrap();
    expect_exactly(&cold, &model, "compacted");
    cold.abandon();
    let cold = open(dir.path());
    expect_exactly(&cold, &model, "reopened");
    assert_eq!(cold.stats().recovery.damaged, 0, "the lost snapshot is forgotten: {:?}", cold.stats());
}

/// Nor does it cost a look again and again: what has expired in a segment is met once, sealed or not.
#[test]
fn what_has_expired_in_a_segment_that_cannot_be_sealed_is_cleaned_up_once() {
    let dir = scratch();
    let cold = on_a_disk_that_fills_up(dir.path());
    cold.insert_with_ttl(b"key", b"value", std::time::Duration::from_secs(1)).unwrap();
    cold.flush().unwrap();
    cold.disk().start_failing();
    cold.clock().advance(1500);
    let report = cleanup(&cold);
    assert_eq!((report.expired_removed, report.segments_checked), (1, 1), "{report:?}");
    assert_eq!(cold.segments()[0].state, SegmentState::Active);
    assert_eq!(cleanup(&cold).segments_checked, 0, "there is nothing left to look for");
    assert!(cold.run_due().unwrap() < 10);
}
