//! Maintenance and the writer ask the disk for little at a time: nobody who reads waits behind a whole segment.

use std::collections::BTreeMap;

use larder::{ColdTier, ManualClock};

use crate::scripted::{Call, Op, ScriptedDisk};
use crate::stores::{compact, config, key, noise, open_on, scratch};

/// What is asked for at once, and a batch of the writer's or a record behind it.
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
