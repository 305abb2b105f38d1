//! Many entries at once, by their keys or all of them: what each would give alone, and a disk that is asked for them before
//! it is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use larder::{Codec, ColdTier, CompactionTask, Compression, ManualClock};

use crate::scripted::{Call, Op, ScriptedDisk, Verdict};
use crate::stores::*;

/// A hundred values in files, those of every third key removed.
fn filled(dir: &std::path::Path) -> ColdTier<ScriptedDisk, ManualClock> {
    let cold = open_on(config(dir), ScriptedDisk::new(|call| call.op == Op::Read).logging());
    for number in 0..100 {
        cold.insert(&key(number), &noise(number.into(), 300)).unwrap();
    }
    for number in (0..100).step_by(3) {
        cold.remove(&key(number)).unwrap();
    }
    cold.flush().unwrap();
    cold.disk().take_log();
    cold
}

fn expected(number: u32) -> Option<Vec<u8>> {
    (!number.is_multiple_of(3) && number < 100).then(|| noise(number.into(), 300))
}

#[test]
fn each_key_gets_what_it_gets_alone_wherever_its_record_is() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).compression(Compression::Fixed(Codec::Zstd(1))), larder::OsDisk);
    for number in 0..2000 {
        cold.insert(&key(number), &json(number, 0)).unwrap();
    }
    cold.insert_with_ttl(b"dying", b"value", Duration::from_millis(5)).unwrap();
    cold.flush().unwrap();
    for number in (0..2000).step_by(3) {
        cold.remove(&key(number)).unwrap();
    }
    cold.clock().advance(5);
    // Some of them are still in flight.
    for number in (0..2000).step_by(5) {
        cold.insert(&key(number), &json(number, 1)).unwrap();
    }
    let mut keys: Vec<Vec<u8>> = (0..2100).rev().map(key).collect();
    keys.extend([b"dying".to_vec(), key(5), key(5)]);
    let before = cold.stats();
    let together = cold.multi_get(&keys).unwrap();
    let between = cold.stats();
    let alone: Vec<_> = keys.iter().map(|key| cold.get(key).unwrap()).collect();
    let after = cold.stats();
    assert!(together == alone);
    assert!(together.iter().flatten().count() > 1400 && together.iter().any(Option::is_none));
    for (name, counter) in [
        ("hits", (|stats| stats.hits) as fn(&larder::ColdStats) -> u64),
        ("misses", |stats| stats.misses),
        ("expired misses", |stats| stats.expired_misses),
    ] {
        let (together, alone) = (counter(&between) - counter(&before), counter(&after) - counter(&between));
        assert!(together == alone && alone > 0, "{name}: {together}, {alone} one by one");
    }
    assert_eq!(cold.multi_get::<&[u8]>(&[]).unwrap(), []);
}

#[test]
fn the_disk_is_asked_for_all_that_is_not_in_memory_before_it_is_waited_for() {
    let dir = scratch();
    let cold = filled(dir.path());
    let numbers: Vec<u32> = (0..40).collect();
    let keys: Vec<Vec<u8>> = numbers.iter().copied().map(key).collect();
    // Every second one that is there is not in memory.
    let there = numbers.iter().filter(|number| expected(**number).is_some()).count();
    let script = (0..there).map(|nth| match nth % 2 {
        0 => Verdict::Fail(ErrorKind::WouldBlock),
        _ => Verdict::Pass,
    });
    cold.disk().script(script);
    let values = cold.multi_get(&keys).unwrap();
    for (number, value) in numbers.into_iter().zip(values) {
        assert_eq!(value.map(Vec::from), expected(number), "{number}");
    }
    let log: Vec<Call> = cold.disk().take_log();
    let asked = log.iter().filter(|call| call.op == Op::WillNeed).count();
    assert_eq!(asked, there.div_ceil(2));
    let reads: Vec<usize> = (0..log.len()).filter(|at| log[*at].op == Op::Read).collect();
    assert_eq!(reads.len(), there + asked);
    let last_asked = log.iter().rposition(|call| call.op == Op::WillNeed).unwrap();
    assert!(last_asked < reads[there], "the disk is waited for before it is asked: {log:?}");
    let stats = cold.stats();
    assert_eq!((stats.hits, stats.misses), (there as u64, 40 - there as u64));
}

#[test]
fn a_walk_that_has_to_wait_asks_for_the_next_few_dozen_entries_as_well_but_once() {
    let dir = scratch();
    let cold = filled(dir.path());
    // The first read and the third: the second entry is there by then, the third not yet.
    let late = || Verdict::Fail(ErrorKind::WouldBlock);
    cold.disk().script([late(), Verdict::Pass, Verdict::Pass, late()]);
    let found: BTreeMap<Vec<u8>, Vec<u8>> =
        cold.iter().map(|entry| entry.map(|entry| (entry.key.into(), entry.value.into())).unwrap()).collect();
    let wanted = (0..100).filter_map(|number| Some((key(number), expected(number)?)));
    assert_eq!(found, wanted.collect());
    let log: Vec<Call> = cold.disk().take_log();
    let asked_behind = |read: usize| {
        let at = log.iter().enumerate().filter(|(_, call)| call.op == Op::Read).nth(read).unwrap().0;
        log[at + 1..].iter().take_while(|call| call.op == Op::WillNeed).count()
    };
    assert_eq!(asked_behind(0), 1 + 64, "the entry itself and those behind it");
    assert_eq!(asked_behind(3), 1, "what has been asked for already is not asked for again");
    assert_eq!(log.iter().filter(|call| call.op == Op::WillNeed).count(), 66);
}

#[test]
fn the_kernel_is_told_of_every_file_that_its_reads_come_in_no_order() {
    let dir = scratch();
    let read_without_advice = |log: &[Call]| -> BTreeSet<String> {
        let names = |op| log.iter().filter(move |call| call.op == op).map(|call| call.name.clone());
        let told: BTreeSet<String> = names(Op::RandomReads).collect();
        names(Op::Read).filter(|name| !told.contains(name)).collect()
    };
    let cold = filled(dir.path());
    cold.run(CompactionTask::CompactData).unwrap();
    cold.insert(b"in an active segment", b"value").unwrap();
    cold.flush().unwrap();
    let mut told = cold.disk().take_log();
    told.retain(|call| call.op == Op::RandomReads);
    let read_all = |cold: &ColdTier<ScriptedDisk, ManualClock>| {
        cold.disk().take_log();
        let found = (0..100).filter(|number| cold.get(&key(*number)).unwrap().is_some()).count();
        assert_eq!(found, 66);
        assert!(cold.get(b"in an active segment").unwrap().is_some());
        cold.disk().take_log()
    };
    told.extend(read_all(&cold));
    assert_eq!(read_without_advice(&told), BTreeSet::new(), "active segments and outputs");
    cold.close().unwrap();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::Read).logging());
    let mut told = cold.disk().take_log();
    told.retain(|call| call.op == Op::RandomReads);
    told.extend(read_all(&cold));
    assert_eq!(read_without_advice(&told), BTreeSet::new(), "segments that an opening found");
}

#[test]
fn a_read_that_fails_fails_the_call_and_costs_nothing() {
    let dir = scratch();
    let cold = filled(dir.path());
    let keys: Vec<Vec<u8>> = (0..100).map(key).collect();
    cold.disk().script([Verdict::Pass, Verdict::Fail(ErrorKind::Other)]);
    let error = cold.multi_get(&keys).unwrap_err();
    assert!(error.to_string().contains("read"), "{error}");
    let values = cold.multi_get(&keys).unwrap();
    for (number, value) in (0..100).zip(values) {
        assert_eq!(value.map(Vec::from), expected(number), "{number}");
    }
}

#[test]
fn a_key_outside_the_limits_is_refused_before_anything_is_read() {
    let dir = scratch();
    let cold = filled(dir.path());
    let error = cold.multi_get(&[key(1), Vec::new()]).unwrap_err();
    assert!(error.is_config(), "{error}");
    assert!(cold.disk().take_log().is_empty());
    assert_eq!(cold.stats().hits, 0);
}
