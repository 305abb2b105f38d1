//! Segments that are damaged, or cannot be read, while the store is open: what they cost, what maintenance leaves alone.

use std::io::ErrorKind as IoKind;

use larder::SegmentState;

use crate::scripted::{Call, Op, ScriptedDisk, Verdict};
use crate::stores::*;

fn opens_segment(call: &Call) -> bool {
    call.op == Op::OpenRead && call.is_segment()
}

/// The only segment file with these bytes in it, and where.
fn find(dir: &std::path::Path, bytes: &[u8]) -> (String, usize) {
    let place = |name: &String| {
        let file = read_file(dir, name);
        file.windows(bytes.len()).position(|window| window == bytes).map(|at| (name.clone(), at))
    };
    let found: Vec<_> = names(dir, is_segment).iter().filter_map(place).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn flip(dir: &std::path::Path, name: &str, places: &[usize]) {
    let mut bytes = read_file(dir, name);
    for at in places {
        bytes[*at] ^= 1;
    }
    write_file(dir, name, &bytes);
}

/// All that the segment hides is covered, so it would not be missed for that; but entries in force lie in it.
#[test]
fn a_compaction_leaves_a_segment_that_cannot_be_read_now() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(opens_segment));
    let mut model = Model::new();
    for n in 0..300 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    for n in (0..300).step_by(3) {
        remove(&cold, &mut model, &key(n));
    }
    rebuild(&cold);
    cold.disk().script([Verdict::Fail(IoKind::NotFound)]);
    compact(&cold);
    assert_eq!(cold.disk().forget_script(), 0, "no victim was looked for");
    expect_exactly(&cold, &model, "after the compaction that could not read a victim");
    cold.close().unwrap();
    expect_exactly(&open(dir.path()), &model, "reopened");
}

/// W. A record of the segment is lost, with the footer that would tell of it, and it was a deletion: whoever drops the
/// segment raises W above it. Otherwise a start without the snapshot finds the old value and nothing against it.
#[test]
fn what_a_lost_deletion_kept_away_stays_away_after_a_compaction_of_its_segment() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    put(&cold, &mut model, b"deleted".to_vec(), b"value".to_vec());
    for n in 0..100 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    let sealed = || {
        cold.flush().unwrap();
        cold.segments().iter().filter(|it| it.state == SegmentState::Sealed).count()
    };
    // Behind the first segment: the deletion, and values of which some are replaced from further segments.
    for n in 100..140 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    assert_eq!(sealed(), 1);
    remove(&cold, &mut model, b"deleted");
    for n in 140..240 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    for n in 140..160 {
        put(&cold, &mut model, key(n), noise(u64::from(n) + 1000, 600));
    }
    assert_eq!(sealed(), 2);
    let second = segment_names(&cold)[1].clone();
    let bytes = read_file(dir.path(), &second);
    let at = bytes.windows(7).position(|window| window == b"deleted").expect("the deletion is in it");
    flip(dir.path(), &second, &[at, bytes.len() - 1]);
    let report = compact(&cold);
    assert!(report.segments_removed > 0 && !names(dir.path(), is_segment).contains(&second), "{report:?}");
    expect_exactly(&cold, &model, "compacted");
    cold.flush().unwrap();
    cold.abandon();
    for name in names(dir.path(), is_snapshot) {
        remove_file(dir.path(), &name);
    }
    let cold = open(dir.path());
    assert_eq!(cold.get(b"deleted").unwrap(), None, "what was deleted is back");
    for entry in cold.iter().map(|entry| entry.unwrap()) {
        assert!(model.get(&entry.key[..]).is_some_and(|value| *value == entry.value));
    }
}

/// G1: read once more, in case it was just being moved, and no more.
#[test]
fn damage_costs_a_lookup_few_reads() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|_| false).logging());
    cold.insert(b"sound", &noise(1, 500)).unwrap();
    cold.insert(b"damaged", &noise(2, 500)).unwrap();
    cold.flush().unwrap();
    let (name, at) = find(dir.path(), b"damaged");
    flip(dir.path(), &name, &[at]);
    let reads_of = |key: &[u8]| {
        cold.disk().take_log();
        let is_found = cold.get(key).unwrap().is_some();
        let reads = cold.disk().take_log().into_iter().filter(|call| call.op == Op::Read);
        (is_found, reads.count())
    };
    assert_eq!(reads_of(b"sound"), (true, 1));
    let (is_found, reads) = reads_of(b"damaged");
    assert!(!is_found && (2..=4).contains(&reads), "{reads} reads");
    assert_eq!(cold.stats().damaged_misses, 1);
}

/// What a start tells of a tail that was damaged, to the byte.
#[test]
fn bytes_told_as_torn_are_those_of_the_damaged_record() {
    let dir = scratch();
    let cold = open(dir.path());
    for name in ["first", "other", "third"] {
        cold.insert(name.as_bytes(), &noise(7, 500)).unwrap();
    }
    cold.flush().unwrap();
    cold.abandon();
    let (name, at) = find(dir.path(), b"other");
    let (_, next) = find(dir.path(), b"third");
    flip(dir.path(), &name, &[at]);
    let cold = open(dir.path());
    let recovery = cold.stats().recovery;
    assert!(recovery.damaged > 0);
    assert_eq!(recovery.torn_bytes, (next - at) as u64, "{recovery:?}");
    assert_eq!(cold.len(), 2);
}
