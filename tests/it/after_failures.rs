//! What stands after a write or a task has failed: who is told, what the saved index holds, and the accounts of
//! segments and directory.

use std::io::ErrorKind as IoKind;
use std::time::Duration;

use larder::{ColdTier, CompactionTask, Durability, ErrorKind};

use crate::faults::{Scripted, appends};
use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{
    cleanup, compact, config, key, noise, open, open_on, rebuild, scratch, try_compact, wait_until,
};

const LONG: Duration = Duration::from_secs(1000);

fn is_full(verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Verdict> {
    verdicts.into_iter().chain([Verdict::Fail(IoKind::StorageFull)]).collect()
}

/// The segments' accounts and the index count the same entries.
fn expect_right_accounts(cold: &Scripted) {
    let live: u64 = cold.segments().iter().map(|segment| segment.live_records).sum();
    assert_eq!(live, cold.len(), "live by the segments' accounts, entries of the index");
}

#[test]
fn who_waits_under_always_is_told_of_a_loss_that_somebody_elses_flush_meets_first() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).durability(Durability::Always), ScriptedDisk::new(appends));
    cold.insert(b"a", b"1").unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script(is_full([Verdict::Hold(hold)]));
    let (lost, flushed) = std::thread::scope(|scope| {
        let cold = &cold;
        let first = scope.spawn(move || cold.insert(b"b", b"2"));
        // The writer stands in the write of `b`: what follows is queued, in this order.
        gate.wait();
        let queued = cold.stats().queued_bytes;
        let lost = scope.spawn(move || cold.insert(b"c", b"3"));
        wait_until("c is queued", || cold.stats().queued_bytes > queued);
        let flushed = scope.spawn(move || cold.flush());
        std::thread::sleep(Duration::from_millis(100));
        drop(gate);
        first.join().unwrap().unwrap();
        (lost.join().unwrap(), flushed.join().unwrap())
    });
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::WriteLost);
    // Nothing that had been accepted is lost: `c` was not.
    flushed.unwrap();
    assert_eq!(cold.get(b"c").unwrap(), None);
    assert_eq!(cold.stats().writes_lost, 1);
    assert_eq!(cold.get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn who_waits_under_always_is_answered_before_others_that_come_behind_a_flush() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).durability(Durability::Always), ScriptedDisk::new(appends));
    cold.insert(b"a", b"1").unwrap();
    let ((at_b, hold_b), (at_d, hold_d)) = (Gate::new(), Gate::new());
    cold.disk().script([Verdict::Hold(hold_b), Verdict::Pass, Verdict::Hold(hold_d)]);
    std::thread::scope(|scope| {
        let cold = &cold;
        let queue = |key: &'static [u8]| {
            let queued = cold.stats().queued_bytes;
            let insert = scope.spawn(move || cold.insert(key, b"2"));
            wait_until("it is queued", || cold.stats().queued_bytes > queued);
            insert
        };
        let first = queue(b"b");
        at_b.wait();
        let waiting = queue(b"c");
        let flush = scope.spawn(move || cold.flush());
        std::thread::sleep(Duration::from_millis(100));
        let last = queue(b"d");
        drop(at_b);
        // `c` is durable by the flush, and the writer stands in the write of `d`.
        at_d.wait();
        let is_answered = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            waiting.is_finished()
        });
        drop(at_d);
        assert!(is_answered, "not while more comes");
        for waits in [first, waiting, flush, last] {
            waits.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_saved_index_holds_nothing_that_was_lost_while_it_was_written() {
    fn concerns(call: &Call) -> bool {
        let creates = call.op == Op::Create && (call.is_segment() || call.name.starts_with("snap"));
        creates || appends(call)
    }
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(concerns));
    // A class of times to live that is known, and has no active segment.
    cold.insert_with_ttl(b"t", b"1", LONG).unwrap();
    compact(&cold);
    cold.insert(b"base", b"1").unwrap();
    cold.flush().unwrap();
    let ((at_snapshot, hold_snapshot), (at_x, hold_x), (at_segment, hold_segment)) =
        (Gate::new(), Gate::new(), Gate::new());
    let holds = [hold_snapshot, hold_x, hold_segment].map(Verdict::Hold);
    cold.disk().script(is_full(holds));
    std::thread::scope(|scope| {
        let cold = &cold;
        let rebuilt = scope.spawn(move || cold.run(CompactionTask::RebuildIndex).map(drop));
        // It has begun, and has read nothing of the index.
        at_snapshot.wait();
        cold.insert(b"x", b"2").unwrap();
        at_x.wait();
        cold.insert(b"lost", b"2").unwrap();
        cold.insert_with_ttl(b"ttl", b"2", LONG).unwrap();
        drop(at_x);
        // `lost` is in the index, and in the buffer.
        at_segment.wait();
        drop(at_snapshot);
        // The snapshot reads the index meanwhile. Were it slower, it would not see `lost`, and the test nothing.
        std::thread::sleep(Duration::from_millis(300));
        drop(at_segment);
        assert_eq!(rebuilt.join().unwrap().unwrap_err().kind(), ErrorKind::WriteLost);
    });
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    // Where `lost` would have been.
    cold.insert(b"next", b"3").unwrap();
    cold.flush().unwrap();
    cold.abandon();
    let cold = open(dir.path());
    assert_eq!(cold.len(), cold.iter().count() as u64);
    assert_eq!(cold.get(b"lost").unwrap(), None);
    assert_eq!(cold.stats().collision_misses, 0);
    rebuild(&cold);
}

#[test]
fn a_lost_batch_leaves_the_accounts_right() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(appends));
    cold.insert(b"a", b"1").unwrap();
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script(is_full([Verdict::Hold(hold)]));
    cold.insert(b"b", b"1").unwrap();
    gate.wait();
    // Each takes the place of the one before, and none of them comes to be.
    (0..10u8).for_each(|version| cold.insert(b"c", &[version]).unwrap());
    drop(gate);
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    cold.flush().unwrap();
    (0..9).for_each(|number| cold.insert(&key(number), b"1").unwrap());
    cold.flush().unwrap();
    assert_eq!(cold.len(), 11);
    expect_right_accounts(&cold);
}

#[test]
fn what_replaced_a_lost_record_in_another_segment_leaves_the_accounts_right() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(appends));
    cold.insert(b"a", b"1").unwrap();
    cold.insert_with_ttl(b"t", b"1", LONG).unwrap();
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    // The lasting records' segment is written first, then that of the others.
    cold.disk().script(is_full([Verdict::Hold(hold), Verdict::Pass]));
    cold.insert(b"b", b"1").unwrap();
    gate.wait();
    cold.insert_with_ttl(b"c", b"1", LONG).unwrap();
    cold.insert(b"c", b"2").unwrap();
    drop(gate);
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    cold.insert_with_ttl(b"u", b"1", LONG).unwrap();
    cold.flush().unwrap();
    assert_eq!(cold.get(b"c").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(cold.len(), 5);
    expect_right_accounts(&cold);
}

#[test]
fn what_replaced_a_lost_record_and_was_written_before_leaves_the_accounts_right() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).segment_bytes(4 << 20), ScriptedDisk::new(appends));
    cold.insert(b"a", b"1").unwrap();
    cold.insert_with_ttl(b"t", b"1", LONG).unwrap();
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script(is_full([Verdict::Hold(hold), Verdict::Pass]));
    cold.insert(b"b", b"1").unwrap();
    gate.wait();
    cold.insert(b"c", b"1").unwrap();
    // Whole pieces: they are written before the lasting records, which have none.
    cold.insert_with_ttl(b"c", b"2", LONG).unwrap();
    cold.insert_with_ttl(b"large", &noise(1, 300_000), LONG).unwrap();
    drop(gate);
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    cold.insert(b"d", b"1").unwrap();
    cold.flush().unwrap();
    assert_eq!(cold.get(b"c").unwrap().as_deref(), Some(&b"2"[..]));
    expect_right_accounts(&cold);
}

#[test]
fn a_lost_record_whose_successor_got_no_segment_leaves_the_accounts_right() {
    fn concerns(call: &Call) -> bool {
        (call.op == Op::Create && call.is_segment()) || appends(call)
    }
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(concerns));
    // A class of times to live that is known, and has no active segment.
    cold.insert_with_ttl(b"t", b"1", LONG).unwrap();
    compact(&cold);
    cold.insert(b"a", b"1").unwrap();
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script(is_full([Verdict::Hold(hold), Verdict::Fail(IoKind::StorageFull)]));
    cold.insert(b"b", b"1").unwrap();
    gate.wait();
    cold.insert(b"k", b"1").unwrap();
    cold.insert_with_ttl(b"k", b"2", LONG).unwrap();
    drop(gate);
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    (0..3).for_each(|number| cold.insert(&key(number), b"1").unwrap());
    cold.flush().unwrap();
    assert_eq!(cold.get(b"k").unwrap(), None);
    expect_right_accounts(&cold);
}

#[test]
fn a_record_that_gets_no_segment_leaves_the_accounts_right() {
    fn creations(call: &Call) -> bool {
        call.op == Op::Create && call.is_segment()
    }
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(creations));
    cold.insert(b"k", b"1").unwrap();
    cold.insert(b"other", b"1").unwrap();
    cold.flush().unwrap();
    cold.disk().script(is_full([]));
    cold.insert_with_ttl(b"k", b"2", LONG).unwrap();
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    cold.flush().unwrap();
    assert_eq!(cold.len(), 1);
    expect_right_accounts(&cold);
}

#[test]
fn a_compaction_that_fails_leaves_the_accounts_right() {
    fn outputs(call: &Call) -> bool {
        call.op == Op::Create && call.is_output()
    }
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(outputs));
    for number in 0..100u32 {
        let ttl = Duration::from_millis(100_000 + 40 * u64::from(number));
        cold.insert_with_ttl(&key(number), &noise(number.into(), 400), ttl).unwrap();
    }
    cold.flush().unwrap();
    // About half of them have expired, which the compaction finds before it fails.
    cold.clock().advance(102_000);
    cold.disk().script(is_full([]));
    assert!(try_compact(&cold).is_err());
    assert!((40..60).contains(&cold.len()), "{}", cold.len());
    expect_right_accounts(&cold);
    cleanup(&cold);
    expect_right_accounts(&cold);
    compact(&cold);
    expect_right_accounts(&cold);
}

#[test]
fn the_ledger_knows_what_a_failed_write_has_left_in_the_file() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(appends));
    cold.insert(b"base", b"1").unwrap();
    cold.flush().unwrap();
    let on_disk = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len().next_multiple_of(4096)).sum::<u64>()
    };
    for written in [40_000, 700_000] {
        let before = on_disk();
        cold.disk().script(is_full([Verdict::Short(written)]));
        cold.insert(b"large", &noise(1, written + 15_000)).unwrap();
        assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
        cold.flush().unwrap();
        assert!(on_disk() > before, "some of it is in the file");
        let known = cold.stats().disk_bytes;
        assert!(known >= on_disk(), "{known} of {} are known", on_disk());
    }
    drop(cold);
    drop(ColdTier::open(config(dir.path())).unwrap());
}
