//! Maintenance and the writer ask the disk for little at a time: nobody who reads waits behind a whole segment.

use std::collections::BTreeMap;
use std::time::Duration;

use larder::{ColdTier, ManualClock};

use crate::faults::appends;
use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{Model, compact, config, expect_exactly, key, noise, open_on, put, scratch};

/// What is asked for at once, and a piece of a segment or a record behind it.
const STEP_BYTES: u64 = 128 << 10;
const AT_ONCE_MAX: u64 = STEP_BYTES + (256 << 10) + (8 << 10);

/// Six segments of 1 MiB, of whose records one in ten is left.
fn filled(dir: &std::path::Path) -> ColdTier<ScriptedDisk, ManualClock> {
    let config = config(dir).segment_bytes(1 << 20);
    let cold = open_on(config, ScriptedDisk::new(|_| false).logging());
    (0..6000).for_each(|number| cold.insert(&key(number), &noise(number.into(), 1000)).unwrap());
    (0..6000).filter(|number| number % 10 != 0).for_each(|number| cold.remove(&key(number)).unwrap());
    cold.flush().unwrap();
    cold
}

#[test]
fn what_is_appended_is_written_out_bit_by_bit_before_its_sync() {
    let dir = scratch();
    let cold = filled(dir.path());
    compact(&cold);
    let (mut len, mut begun) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let mut syncs = 0;
    for Call { op, name, offset, len: bytes } in cold.disk().take_log() {
        let end = offset + bytes as u64;
        let (len, begun) = (len.entry(name.clone()).or_default(), begun.entry(name.clone()).or_default());
        match op {
            // The header of a snapshot is written last.
            Op::Write => *len = (*len).max(end),
            Op::WriteBack => {
                assert_eq!(offset, *begun, "{name}: a gap, or twice the same");
                assert!(end.is_multiple_of(4096) && end <= *len, "{name}: {end} of {len}");
                *begun = end;
            }
            Op::Sync if name.starts_with("seg-") => {
                assert!(*len - *begun <= AT_ONCE_MAX, "{name}: {begun} of {len} at its sync");
                syncs += u64::from(*len > (1 << 19));
            }
            _ => {}
        }
    }
    assert!(syncs >= 6, "{syncs} syncs of segments worth the name");
}

#[test]
fn a_compaction_reads_survivors_in_pieces_and_leaves_out_what_is_dead() {
    let dir = scratch();
    let config = config(dir.path()).segment_bytes(1 << 20);
    let cold = open_on(config, ScriptedDisk::new(|_| false).logging());
    (0..4000).for_each(|number| cold.insert(&key(number), &noise(number.into(), 1000)).unwrap());
    // What is left lies together: hundreds of records, then none for hundreds.
    let is_kept = |number: &u32| number % 1000 < 250;
    (0..4000).filter(|number| !is_kept(number)).for_each(|number| cold.remove(&key(number)).unwrap());
    cold.flush().unwrap();
    let victims: Vec<_> = cold.segments().into_iter().filter(|segment| segment.live_records > 0).collect();
    let bytes: u64 = victims.iter().map(|segment| segment.file_bytes).sum();
    cold.disk().take_log();
    compact(&cold);
    let log = cold.disk().take_log();
    let reads: Vec<&Call> = log.iter().filter(|call| call.op == Op::Read && call.is_segment()).collect();
    assert!(reads.iter().all(|call| call.len as u64 <= STEP_BYTES), "{reads:?}");
    let read: u64 = reads.iter().map(|call| call.len as u64).sum();
    assert!(read > bytes / 5 && read < bytes / 2, "{read} of {bytes} were read");
    (0..4000).for_each(|number| {
        let value = is_kept(&number).then(|| noise(number.into(), 1000));
        assert_eq!(cold.get(&key(number)).unwrap().as_deref(), value.as_deref(), "{number}");
    });
}

#[test]
fn the_space_of_what_goes_is_given_back_before_its_name() {
    let dir = scratch();
    let cold = filled(dir.path());
    cold.disk().take_log();
    compact(&cold);
    let log = cold.disk().take_log();
    let mut given_back = Vec::new();
    let mut removed = 0;
    for call in log.iter().filter(|call| call.is_segment()) {
        match call.op {
            Op::GiveBack => given_back.push(&call.name),
            Op::Remove => {
                assert!(given_back.contains(&&call.name), "{} went at once", call.name);
                removed += 1;
            }
            Op::Read => assert!(!given_back.contains(&&call.name), "{} was read afterwards", call.name),
            _ => {}
        }
    }
    assert!(removed >= 6, "{removed} removed");
}

/// What the page cache keeps in one piece.
const PIECE_BYTES: u64 = 256 << 10;

/// A store whose writer is held at its first append while records of a KiB are queued behind it: 3,000 of them, and before
/// these one that expires. What the writer is told of its next appends follows the hold, which ends with the gate.
fn with_much_queued(
    dir: &std::path::Path,
    verdicts: impl IntoIterator<Item = Verdict>,
) -> (ColdTier<ScriptedDisk, ManualClock>, Gate) {
    let config = config(dir).segment_bytes(8 << 20);
    let cold = open_on(config, ScriptedDisk::new(appends).logging());
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    cold.disk().script(verdicts);
    cold.insert(&key(0), &noise(0, 1000)).unwrap();
    gate.wait();
    cold.insert_with_ttl(b"expires", b"in an hour", Duration::from_secs(3600)).unwrap();
    (1..=3000).for_each(|number| cold.insert(&key(number), &noise(number.into(), 1000)).unwrap());
    (cold, gate)
}

/// What was written of segments, flushed behind all that was queued.
fn flushed(dir: &std::path::Path, held: impl FnOnce(&ColdTier<ScriptedDisk, ManualClock>)) -> Vec<Call> {
    let (cold, gate) = with_much_queued(dir, []);
    held(&cold);
    drop(gate);
    cold.flush().unwrap();
    cold.disk().take_log()
}

/// Where the appends to each segment end, in their order.
fn ends(log: &[Call]) -> BTreeMap<&str, Vec<u64>> {
    let mut ends = BTreeMap::<&str, Vec<u64>>::new();
    for call in log.iter().filter(|call| call.op == Op::Write && call.name.starts_with("seg-")) {
        ends.entry(&call.name).or_default().push(call.offset + call.len as u64);
    }
    ends
}

#[test]
fn while_more_comes_writes_end_where_pieces_of_the_page_cache_end() {
    let dir = scratch();
    let log = flushed(dir.path(), |_| ());
    let segments = ends(&log);
    let many = segments.values().find(|ends| ends.len() > 8).expect("a segment of 3 MB");
    // The header, the record at which the writer was held, pieces, and what was left at the flush.
    let pieces = &many[2..many.len() - 1];
    assert_eq!(pieces, (1..=11).map(|piece| piece * PIECE_BYTES).collect::<Vec<u64>>());
}

#[test]
fn a_compaction_writes_whole_pieces_of_the_page_cache() {
    let dir = scratch();
    let (cold, gate) = with_much_queued(dir.path(), []);
    drop(gate);
    (0..3000).filter(|number| number % 3 == 0).for_each(|number| cold.remove(&key(number)).unwrap());
    cold.flush().unwrap();
    cold.disk().take_log();
    compact(&cold);
    let log = cold.disk().take_log();
    let outputs: Vec<Vec<u64>> =
        ends(&log).into_iter().filter(|(name, _)| name.ends_with(".tmp")).map(|(_, ends)| ends).collect();
    let pieces = |ends: &Vec<u64>| ends.len() > 5 && ends[..5].iter().all(|end| end % PIECE_BYTES == 0);
    assert!(outputs.iter().any(pieces), "{outputs:?}");
}

#[test]
fn who_shares_the_writer_with_many_does_not_wait_for_as_long_as_they_come() {
    let dir = scratch();
    let log = flushed(dir.path(), |_| ());
    let appended: Vec<&Call> = log.iter().filter(|call| appends(call)).collect();
    let alone = |call: &&Call| appended.iter().filter(|other| other.name == call.name).count() == 1;
    let at = appended.iter().position(alone).expect("a segment of one record");
    assert!(at <= 3, "it was written behind {at} others: {appended:?}");
}

#[test]
fn a_segment_of_age_is_sealed_while_more_comes_for_others() {
    let dir = scratch();
    let log = flushed(dir.path(), |cold| cold.clock().advance(600_000));
    let sealed = log.iter().position(|call| call.op == Op::Sync && call.is_segment()).expect("a seal");
    let pieces_behind = log[sealed..].iter().filter(|call| appends(call)).count();
    assert!(pieces_behind >= 5, "sealed before the last {pieces_behind} appends");
}

#[test]
fn a_writer_that_is_behind_does_not_seal_at_every_piece() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).segment_bytes(8 << 20), ScriptedDisk::new(appends).logging());
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    let insert = |number: u32| {
        cold.insert_with_ttl(&key(number), &noise(number.into(), 1000), Duration::from_secs(1)).unwrap()
    };
    insert(0);
    gate.wait();
    (1..=4000).for_each(insert);
    // All of it is older than a segment may become.
    cold.clock().advance(2000);
    drop(gate);
    cold.flush().unwrap();
    let log = cold.disk().take_log();
    let segments = log.iter().filter(|call| call.op == Op::Create && call.is_segment()).count();
    let pieces = log.iter().filter(|call| appends(call)).count();
    assert!(pieces >= 14 && segments <= 7, "{segments} segments for {pieces} writes");
}

#[test]
fn a_record_of_which_a_piece_has_the_first_half_is_read_from_memory() {
    let dir = scratch();
    let (gate, hold) = Gate::new();
    let (cold, first) = with_much_queued(dir.path(), [Verdict::Pass, Verdict::Hold(hold)]);
    // The store's end waits for the writer: the hold ends before, however the test does.
    let gate = gate;
    drop(first);
    let call = gate.wait();
    assert_eq!(call.offset, PIECE_BYTES, "the second piece: {call:?}");
    (0..=3000).for_each(|number| {
        assert_eq!(
            cold.get(&key(number)).unwrap().as_deref(),
            Some(&noise(number.into(), 1000)[..]),
            "{number}"
        );
    });
    assert_eq!(cold.stats().damaged_misses, 0);
}

#[test]
fn what_a_piece_has_of_a_record_goes_with_the_record() {
    let fail = || Verdict::Fail(std::io::ErrorKind::StorageFull);
    // One piece is written; of the next nothing, less than the record needs, and more.
    let parts: [Vec<Verdict>; 3] =
        [vec![fail()], vec![Verdict::Short(40), fail()], vec![Verdict::Short(100_000), fail()]];
    for (is_followed, verdicts) in [false, true, true].into_iter().zip(parts) {
        let dir = scratch();
        let verdicts = [Verdict::Pass].into_iter().chain(verdicts);
        let (cold, gate) = with_much_queued(dir.path(), verdicts);
        drop(gate);
        let error = cold.flush().unwrap_err();
        assert!(error.to_string().contains("lost"), "{error}");
        let mut model = Model::new();
        model.insert(b"expires".to_vec(), b"in an hour".to_vec());
        let is_found = |number: &u32| cold.get(&key(*number)).unwrap().is_some();
        let found: Vec<u32> = (0..=3000).filter(is_found).collect();
        // 52 bytes of header and records of 1,024 (1,000, a key of 9, a header of 15): the piece ends in this one.
        assert_eq!((0..).find(|number| !found.contains(number)), Some(255));
        found.iter().for_each(|number| drop(model.insert(key(*number), noise((*number).into(), 1000))));
        assert_eq!(cold.stats().writes_lost, 3001 - found.len() as u64);
        if is_followed {
            (4000..4100).for_each(|number| put(&cold, &mut model, key(number), noise(number.into(), 1000)));
            cold.flush().unwrap();
        }
        expect_exactly(&cold, &model, "after the failure");
        assert_eq!(cold.stats().damaged_misses, 0);
        cold.abandon();
        let report = larder::verify(dir.path(), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        expect_exactly(&open_on(config(dir.path()), larder::OsDisk), &model, "after a reopen");
    }
}

#[test]
fn what_does_not_fit_into_memory_is_written_in_small_pieces_from_then_on() {
    const SMALL_BYTES: u64 = 16 << 10;
    let dir = scratch();
    let config = config(dir.path()).segment_bytes(1 << 20);
    let cold = open_on(config, ScriptedDisk::new(|_| false).logging().with_memory(16 << 20));
    let written = |numbers: std::ops::Range<u32>| {
        numbers.for_each(|number| cold.insert(&key(number), &noise(number.into(), 1000)).unwrap());
        cold.flush().unwrap();
        let log = cold.disk().take_log();
        // Records alone: no headers, footers or snapshots.
        let segments = log.into_iter().filter(|call| call.op == Op::Write && call.name.starts_with("seg-"));
        segments.filter(|call| appends(call) && call.offset < 1000 << 10).collect::<Vec<Call>>()
    };
    let first = written(0..2000);
    assert!(
        first.iter().any(|call| call.len as u64 > SMALL_BYTES),
        "2 MB are little of the memory: {first:?}"
    );
    written(2000..5000);
    let small = written(5000..7000);
    let fits = |call: &Call| call.offset / SMALL_BYTES == (call.offset + call.len as u64 - 1) / SMALL_BYTES;
    assert!(small.len() >= 100 && small.iter().all(fits), "{small:?}");
    (0..7000).filter(|number| number % 2 == 0).for_each(|number| cold.remove(&key(number)).unwrap());
    cold.disk().take_log();
    compact(&cold);
    let log = cold.disk().take_log();
    let outputs: Vec<&Call> = log.iter().filter(|call| call.op == Op::Write && call.is_output()).collect();
    assert!(outputs.len() >= 100 && outputs.iter().all(|call| fits(call)), "{outputs:?}");
    (0..7000).for_each(|number| {
        let value = (number % 2 != 0).then(|| noise(number.into(), 1000));
        assert_eq!(cold.get(&key(number)).unwrap().as_deref(), value.as_deref(), "{number}");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_there_is_is_no_more_than_the_machine_has() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    let bytes = larder::Disk::memory_bytes(&larder::OsDisk).expect("Linux tells");
    assert!(bytes >= 64 << 20 && bytes <= total * 1024, "{bytes} of {total} KiB");
}
