//! Torn tails (P1, W2): a store killed while its segment was being written, the segment cut at every length, with
//! nothing, zeros or wrong bytes behind the cut.

use std::time::Duration;

use larder::internals::serialization::record::UnverifiedRecord;
use larder::internals::serialization::segment::{SEGMENT_HEADER_BYTES, SegmentIdentity};
use larder::{ColdTier, ManualClock, OsDisk};

use crate::stores::{
    Image, Model, config, expect_exactly, is_segment, key, open, read_image, scratch, write_image,
};

/// Which group's segment is cut: records of one group lie in one segment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tail {
    /// What does not expire, and removals.
    Lasting,
    /// What expires: values only.
    Expiring,
}

/// One record each, in this order: value, or `None` for a removal.
fn operations(tail: Tail) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let text = |n: usize| (0..n).map(|at| b'a' + (at % 26) as u8).collect::<Vec<u8>>();
    let removal = match tail {
        Tail::Lasting => None,
        Tail::Expiring => Some(text(1)),
    };
    vec![
        (b"one".to_vec(), Some(text(3))),
        (b"2".to_vec(), Some(text(0))),
        (b"one".to_vec(), Some(text(6))),
        (b"three".to_vec(), Some(text(7))),
        (b"one".to_vec(), removal.clone()),
        (b"2".to_vec(), Some(text(4))),
        (b"three".to_vec(), removal),
    ]
}

fn after(operations: &[(Vec<u8>, Option<Vec<u8>>)]) -> Model {
    let mut model = Model::new();
    for (key, value) in operations {
        match value {
            Some(value) => drop(model.insert(key.clone(), value.clone())),
            None => drop(model.remove(key)),
        }
    }
    model
}

/// The files of a store killed after it had handed everything over, and where each record's bytes end.
fn killed_store(dir: &std::path::Path, tail: Tail) -> (Image, String, Vec<usize>) {
    let cold = open(dir);
    for (key, value) in operations(tail) {
        match value {
            Some(value) if tail == Tail::Expiring => {
                cold.insert_with_ttl(&key, &value, Duration::from_secs(3600)).unwrap();
            }
            Some(value) => cold.insert(&key, &value).unwrap(),
            None => cold.remove(&key).unwrap(),
        }
    }
    // Handed over, not synced.
    cold.len();
    cold.abandon();
    let image = read_image(dir);
    let segments: Vec<_> = image.keys().filter(|name| is_segment(name)).cloned().collect();
    let [name] = &segments[..] else { panic!("one segment: {segments:?}") };
    let name = name.clone();
    let bytes = &image[&name];
    let identity = SegmentIdentity::decode(bytes).unwrap();
    let (mut at, mut ends) = (SEGMENT_HEADER_BYTES, Vec::new());
    while at < bytes.len() {
        let record = UnverifiedRecord::parse(&bytes[at..], identity.base_sequence).unwrap();
        let end = at + record.stored_range().end;
        ends.push(end);
        at = end.next_multiple_of(4);
    }
    assert_eq!(ends.len(), operations(tail).len(), "one record an operation");
    assert_eq!(at, bytes.len(), "nothing but records");
    (image, name, ends)
}

/// Cuts the segment at every length and puts something behind the cut.
fn cut_everywhere(behind: impl Fn(&[u8]) -> Vec<u8>) {
    cut_at_each(1, Tail::Lasting, &behind);
    cut_at_each(1, Tail::Expiring, &behind);
}

/// Cuts at every length that is a multiple of `step`.
fn cut_at_each(step: usize, tail: Tail, behind: &impl Fn(&[u8]) -> Vec<u8>) {
    let dir = scratch();
    let store = dir.path().join("store");
    let (image, name, ends) = killed_store(&store, tail);
    let whole = &image[&name];
    let keys: Vec<_> = operations(tail).into_iter().map(|(key, _)| key).collect();
    let mut met = std::collections::BTreeSet::new();
    // Of the header nothing is read: the manifest says who the segment is.
    for cut in
        [0, 1, 33].into_iter().chain((SEGMENT_HEADER_BYTES - 1..=whole.len()).filter(|cut| cut % step == 0))
    {
        let mut torn = whole[..cut].to_vec();
        torn.extend(behind(&whole[cut..]));
        let mut image = image.clone();
        image.insert(name.clone(), torn);
        write_image(&store, &image);

        // Padding is no part of a record: without it the record is whole.
        let records = ends.iter().filter(|end| **end <= cut).count();
        met.insert(records);
        let mut model = after(&operations(tail)[..records]);
        let when = format!("{tail:?}, cut at {cut} of {}, {records} records", whole.len());
        let cold = open(&store);
        expect_read(&cold, &keys, &model, &when);
        let recovery = cold.stats().recovery;
        assert_eq!(recovery.scanned_records, records as u64, "{when}");
        assert_eq!((recovery.damaged, recovery.missing_segments), (0, 0), "{when}: {recovery:?}");
        assert!(!cold.segments().iter().any(|segment| segment.records != records as u64), "{when}");

        // Life goes on, in another segment.
        cold.insert(b"after the cut", b"new").unwrap();
        model.insert(b"after the cut".to_vec(), b"new".to_vec());
        expect_exactly(&cold, &model, &when);
        expect_read(&cold, &keys, &model, &when);
        cold.flush().unwrap();
        cold.abandon();

        let when = format!("{when}, a start later");
        let cold = open(&store);
        expect_read(&cold, &keys, &model, &when);
        let recovery = cold.stats().recovery;
        assert_eq!(recovery.scanned_records, 1, "{when}: the tail has a footer now: {recovery:?}");
        if cut % 8 == 0 {
            expect_exactly(&cold, &model, &when);
            cold.abandon();
            let report = larder::verify(&store, &mut |_| {}).unwrap();
            assert!(report.is_clean(), "{when}: {report:?}");
            assert_eq!(report.live_entries, model.len() as u64, "{when}");
        } else {
            cold.abandon();
        }
    }
    assert_eq!(met.len(), ends.len() + 1, "every number of whole records was met");
}

/// As `expect_exactly`, without the walk over the whole index.
fn expect_read(cold: &ColdTier<OsDisk, ManualClock>, keys: &[Vec<u8>], model: &Model, when: &str) {
    for key in keys {
        let got = cold.get(key).unwrap();
        assert_eq!(got.as_deref(), model.get(key).map(|value| &value[..]), "{when}: {key:?}");
    }
    assert_eq!(cold.len(), model.len() as u64, "{when}");
}

#[test]
fn a_segment_cut_at_any_length_yields_the_records_before_the_cut() {
    cut_everywhere(|_| Vec::new());
}

#[test]
fn zeros_behind_the_cut_are_no_records() {
    cut_everywhere(|rest| vec![0; rest.len() + 100]);
}

#[test]
fn wrong_bytes_behind_the_cut_are_no_records() {
    // Every byte differs from the one that was there.
    cut_everywhere(|rest| rest.iter().map(|byte| !byte).chain([0xff; 37]).collect());
}

#[test]
fn records_of_an_earlier_life_of_the_file_are_no_records() {
    // What was written there is there again, but moved: valid bytes in the wrong place.
    for tail in [Tail::Lasting, Tail::Expiring] {
        cut_at_each(4, tail, &|rest| [&[0; 4][..], rest].concat());
    }
}

#[test]
fn a_cut_tail_is_sealed_and_never_written_again() {
    for tail in [Tail::Lasting, Tail::Expiring] {
        let dir = scratch();
        let store = dir.path().join("store");
        let (mut image, name, ends) = killed_store(&store, tail);
        image.get_mut(&name).unwrap().truncate(ends[4] + 9);
        write_image(&store, &image);
        let cold = open(&store);
        let sealed = read_image(&store)[&name].clone();
        assert!(sealed.starts_with(&image[&name][..ends[4]]));
        for n in 0..500 {
            match tail {
                Tail::Lasting => cold.insert(&key(n), b"some value").unwrap(),
                Tail::Expiring => {
                    cold.insert_with_ttl(&key(n), b"some value", Duration::from_secs(3600)).unwrap();
                }
            }
        }
        cold.flush().unwrap();
        assert!(read_image(&store)[&name] == sealed, "{tail:?}: a sealed segment was written to");
        cold.close().unwrap();
        assert!(read_image(&store)[&name] == sealed, "{tail:?}: a sealed segment was written to");
    }
}

#[test]
fn a_kill_after_the_hand_over_loses_nothing_in_any_number_of_segments() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    for n in 0..1000u32 {
        let value = format!("value number {n} {}", "x".repeat(n as usize % 300)).into_bytes();
        crate::stores::put(&cold, &mut model, key(n % 700), value);
        if n % 9 == 0 {
            crate::stores::remove(&cold, &mut model, &key(n / 2));
        }
    }
    cold.len();
    assert!(cold.segments().len() >= 3);
    cold.abandon();
    let cold = open(dir.path());
    expect_exactly(&cold, &model, "after a kill");
    assert_eq!(cold.stats().recovery.torn_bytes, 0);
    cold.abandon();
    let cold = crate::stores::open_on(config(dir.path()), OsDisk);
    expect_exactly(&cold, &model, "after another one");
}
