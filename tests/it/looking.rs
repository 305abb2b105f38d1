//! Looking at a store from outside, closed or in use: nothing is changed, and what its owner does meanwhile is no damage.

#![expect(clippy::disallowed_methods, reason = "tests lay out and damage the files of a store")]

use std::thread;
use std::time::Duration;

use larder::internals::inspect_shared_on;
use larder::{
    ColdTier, CompactionTask, Durability, Inspection, Maintenance, SegmentGroup, inspect, inspect_shared,
};

use crate::scripted::{Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{Model, config, json, key, noise, open, put, read_image, remove, scratch};

/// What two looks must agree on.
fn essence(look: &Inspection) -> impl PartialEq + std::fmt::Debug + use<> {
    (look.stats.clone(), look.segments.clone(), look.compression, look.snapshots, look.warnings.clone())
}

#[test]
fn a_shared_look_sees_what_an_exclusive_one_sees_and_changes_nothing() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    (0..2000).for_each(|n| put(&cold, &mut model, key(n), json(n, 1)));
    (0..500).for_each(|n| remove(&cold, &mut model, &key(n)));
    cold.flush().unwrap();
    let seen = inspect_shared(dir.path()).unwrap();
    assert_eq!((seen.stats.entries, seen.warnings.len()), (1500, 0));
    assert_eq!(seen.segments.len() as u64, cold.stats().segments);
    cold.close().unwrap();

    let before = read_image(dir.path());
    let (shared, alone) = (inspect_shared(dir.path()).unwrap(), inspect(dir.path()).unwrap());
    assert_eq!(essence(&shared), essence(&alone));
    let files: u64 = before.values().map(|bytes| (bytes.len() as u64).next_multiple_of(4096)).sum();
    assert_eq!(alone.stats.disk_bytes, files);
    assert!(read_image(dir.path()) == before, "a look has changed a file");
}

#[test]
fn where_there_is_no_store_none_is_made() {
    let dir = scratch();
    assert!(inspect_shared(dir.path()).unwrap_err().is_config());
    assert!(larder::explain(dir.path()).unwrap_err().is_config());
    assert!(read_image(dir.path()).is_empty());
    let absent = dir.path().join("absent");
    assert!(inspect_shared(&absent).is_err() && !absent.exists());
}

/// The owner rewrites and removes everything it can while a look is held at its n-th opened file, for every n.
#[test]
fn files_that_vanish_while_they_are_looked_at_are_no_damage() {
    for at in 0.. {
        let dir = scratch();
        let cold = open(dir.path());
        let mut model = Model::new();
        (0..300).for_each(|n| put(&cold, &mut model, key(n), noise(n.into(), 600)));
        cold.run(CompactionTask::RebuildIndex).unwrap();
        (100..400).for_each(|n| put(&cold, &mut model, key(n), noise(1000 + u64::from(n), 600)));
        cold.flush().unwrap();

        let disk = ScriptedDisk::new(|call| call.op == Op::OpenRead);
        let (gate, hold) = Gate::new();
        disk.script((0..at).map(|_| Verdict::Pass).chain([Verdict::Hold(hold)]));
        let place = dir.path().to_path_buf();
        let look = thread::spawn(move || {
            let seen = inspect_shared_on(&disk, &place);
            (seen, disk.forget_script())
        });
        let reached = loop {
            match gate.reached.recv_timeout(Duration::from_millis(5)) {
                Ok(_) => break true,
                Err(_) if look.is_finished() => break !gate.reached.is_empty(),
                Err(_) => {}
            }
        };
        if reached {
            (0..100).for_each(|n| remove(&cold, &mut model, &key(n)));
            cold.run(CompactionTask::CompactData).unwrap();
            cold.run(CompactionTask::RebuildIndex).unwrap();
            put(&cold, &mut model, key(9999), noise(1, 600));
            cold.flush().unwrap();
        }
        drop(gate);
        let (seen, unused) = look.join().unwrap();
        let seen = seen.unwrap();
        assert_eq!(seen.warnings, Vec::<String>::new(), "held at file {at}");
        // Before what was done meanwhile, or after it; of a look that had them all open, before.
        let entries = seen.stats.entries;
        assert!(entries == 400 || (reached && entries == 301), "held at file {at}: {entries} entries");
        assert_eq!((seen.stats.recovery.missing_segments, seen.stats.recovery.given_up), (0, 0));
        cold.close().unwrap();
        if !reached {
            assert!(at > 5 && unused > 0, "the look opens more files than {at}");
            break;
        }
    }
}

#[test]
fn a_store_that_maintains_itself_can_be_looked_at_at_any_time() {
    let dir = scratch();
    let config = config(dir.path())
        .maintenance(Maintenance::Automatic)
        .maintenance_interval(Duration::from_millis(1))
        .durability(Durability::Interval(Duration::from_millis(1)))
        .dead_ratio_max(0.05);
    let cold = ColdTier::open(config).unwrap();
    (0..500).for_each(|n| cold.insert(&key(n), &noise(n.into(), 500)).unwrap());
    cold.flush().unwrap();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    thread::scope(|scope| {
        let cold = &cold;
        scope.spawn(move || {
            // Until the other end is gone.
            for n in 0u64.. {
                if stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected) {
                    break;
                }
                cold.insert(&key((n % 500) as u32), &noise(n, 500)).unwrap();
            }
        });
        let stop = stop;
        for _ in 0..100 {
            let seen = inspect_shared(dir.path()).unwrap();
            assert_eq!((seen.stats.entries, seen.warnings), (500, Vec::new()));
        }
        drop(stop);
    });
    assert!(cold.stats().compactions > 0, "nothing was going on");
    cold.close().unwrap();
}

#[test]
fn a_file_that_is_really_gone_is_a_warning() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    (0..300).for_each(|n| put(&cold, &mut model, key(n), noise(n.into(), 600)));
    cold.flush().unwrap();
    let first = cold.segments()[0].id;
    std::fs::remove_file(dir.path().join(format!("seg-{first:010}.lard"))).unwrap();
    let seen = inspect_shared(dir.path()).unwrap();
    assert_eq!((seen.warnings.len(), seen.stats.recovery.missing_segments), (1, 1), "{:?}", seen.warnings);
    assert!(seen.warnings[0].contains("seg-"), "{:?}", seen.warnings);
    cold.abandon();
}

#[test]
fn segments_say_what_lies_together_and_how_much_of_it_never_expires() {
    let dir = scratch();
    let cold = open(dir.path());
    for n in 0..40 {
        cold.insert(&key(n), &noise(n.into(), 500)).unwrap();
        cold.insert_with_ttl(&key(100 + n), b"for a minute", Duration::from_secs(60)).unwrap();
        cold.insert_with_ttl(&key(200 + n), b"for a day", Duration::from_secs(86_400)).unwrap();
    }
    (0..10).for_each(|n| cold.remove(&key(n)).unwrap());
    cold.flush().unwrap();
    for segments in [cold.segments(), inspect_shared(dir.path()).unwrap().segments] {
        let lasting: u64 = segments.iter().map(|segment| segment.unexpiring_records).sum();
        assert_eq!(lasting, 40, "values that never expire, deletions left out, dead ones included");
        let mut expiring = Vec::new();
        for segment in &segments {
            match segment.group {
                SegmentGroup::Lasting(class) => {
                    assert!(class < 5 && segment.earliest_expiry_ms.is_none(), "{segment:?}");
                    assert_eq!(segment.group.to_string(), format!("lasting {class}"));
                }
                SegmentGroup::Expiring(class) => {
                    assert!(class < 16 && segment.unexpiring_records == 0, "{segment:?}");
                    assert_eq!(segment.group.to_string(), format!("expiring {class}"));
                    expiring.push(class);
                }
                other => panic!("{other}"),
            }
        }
        expiring.sort_unstable();
        assert_eq!(expiring, [0, 1], "one class of a minute, one of a day");
    }
    #[cfg(feature = "serde")]
    assert_eq!(serde_json::to_value(SegmentGroup::Lasting(3)).unwrap(), "lasting 3");
    cold.close().unwrap();
}
