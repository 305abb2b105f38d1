//! What is synced, and when; and what a sync, a roll or an opening that fails leaves behind.

use std::collections::BTreeSet;
use std::io::ErrorKind as IoKind;
use std::time::Duration;

use larder::{ColdTier, ColdTierConfig, CompactionTask, Durability, Error, ErrorKind, ManualClock, OsDisk};

use crate::faults::{Concern, appends};
use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{
    Model, START_MS, compact, config, expect_absent, expect_exactly, is_segment, is_snapshot, key, names,
    noise, open, open_on, put, read_image, rebuild, remove, scratch, wait_until, write_image,
};

/// What of a log is not durable at its end: names of files with unsynced writes, and whether names are.
fn not_durable(log: &[Call]) -> (BTreeSet<String>, bool) {
    let (mut dirty, mut are_names_dirty) = (BTreeSet::new(), false);
    for call in log {
        match call.op {
            Op::Write => drop(dirty.insert(call.name.clone())),
            Op::Sync => drop(dirty.remove(&call.name)),
            Op::Create | Op::Rename | Op::Remove => are_names_dirty = true,
            Op::SyncDir => are_names_dirty = false,
            _ => {}
        }
    }
    (dirty, are_names_dirty)
}

#[test]
fn with_always_a_write_is_durable_when_the_call_returns() {
    let dir = scratch();
    let always = config(dir.path()).durability(Durability::Always);
    let cold = open_on(always.clone(), ScriptedDisk::new(|_| false).logging());
    let mut model = Model::new();
    let mut log = cold.disk().take_log();
    let mut expect_durable = |what: &str| {
        let calls = cold.disk().take_log();
        assert!(
            calls.iter().any(|call| call.op == Op::Sync && call.is_segment()),
            "{what} synced no segment"
        );
        log.extend(calls);
        assert_eq!(not_durable(&log), (BTreeSet::new(), false), "{what} returned too early");
    };
    for n in 0..200 {
        put(&cold, &mut model, key(n % 120), noise(n.into(), 700));
        expect_durable("insert");
    }
    remove(&cold, &mut model, &key(3));
    expect_durable("remove");
    cold.insert_with_ttl(&key(4), b"x", Duration::from_secs(9)).unwrap();
    model.insert(key(4), b"x".to_vec());
    expect_durable("insert_with_ttl");
    cold.abandon();
    let cold = open(dir.path());
    expect_exactly(&cold, &model, "after a kill");
    cold.close().unwrap();

    // Many callers share syncs; each finds its writes after a kill.
    let cold = open_on(always, OsDisk);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let cold = &cold;
            scope.spawn(move || {
                for n in 0..50 {
                    cold.insert(&key(1000 * (thread + 1) + n), &noise(n.into(), 200)).unwrap();
                }
            });
        }
    });
    for thread in 0..4u32 {
        for n in 0..50 {
            model.insert(key(1000 * (thread + 1) + n), noise(n.into(), 200));
        }
    }
    cold.abandon();
    expect_exactly(&open(dir.path()), &model, "after a kill with four callers");
}

#[test]
fn never_syncs_nothing_until_it_is_asked_to() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|_| false).logging());
    cold.disk().take_log();
    for n in 0..50 {
        cold.insert(&key(n), b"value").unwrap();
    }
    cold.len();
    let log = cold.disk().take_log();
    assert!(log.iter().any(appends) && !log.iter().any(|call| call.op == Op::Sync), "{log:?}");
    cold.flush().unwrap();
    let log = [log, cold.disk().take_log()].concat();
    assert_eq!(not_durable(&log), (BTreeSet::new(), false));
}

#[test]
fn an_interval_syncs_by_itself() {
    let dir = scratch();
    let interval = config(dir.path()).durability(Durability::Interval(Duration::from_millis(1)));
    let cold = open_on(interval, ScriptedDisk::new(|_| false).logging());
    let mut log = cold.disk().take_log();
    cold.insert(b"k", b"v").unwrap();
    wait_until("a sync without a flush", || {
        log.extend(cold.disk().take_log());
        log.iter().any(appends) && not_durable(&log) == (BTreeSet::new(), false)
    });
}

#[test]
fn after_a_failed_sync_nothing_is_written_and_reads_go_on() {
    let syncs: [(&str, Concern); 2] = [
        ("segment", |call| call.op == Op::Sync && call.is_segment()),
        ("manifest", |call| call.op == Op::Sync && call.name.starts_with("MANIFEST")),
    ];
    for (what, concerns) in syncs {
        let dir = scratch();
        let cold = open_on(config(dir.path()), ScriptedDisk::new(concerns).logging());
        let mut model = Model::new();
        for n in 0..50 {
            put(&cold, &mut model, key(n), noise(n.into(), 300));
        }
        cold.disk().script([Verdict::Fail(IoKind::Other)]);
        let error = cold.flush().unwrap_err();
        assert!(error.is_read_only(), "{what}: {error}");
        cold.disk().take_log();
        for _ in 0..2 {
            assert!(cold.insert(b"k", b"v").unwrap_err().is_read_only(), "{what}");
            assert!(cold.remove(&key(1)).unwrap_err().is_read_only(), "{what}");
            assert!(cold.flush().unwrap_err().is_read_only(), "{what}: never acknowledged again");
            for task in [CompactionTask::CompactData, CompactionTask::RebuildIndex] {
                assert!(cold.run(task).unwrap_err().is_read_only(), "{what}, {task:?}");
            }
        }
        expect_exactly(&cold, &model, what);
        let log = cold.disk().take_log();
        let written = |call: &&Call| {
            !call.name.ends_with(".tmp")
                && !call.name.starts_with("snap-")
                && matches!(call.op, Op::Write | Op::Sync | Op::Create | Op::Rename)
        };
        assert_eq!(log.iter().filter(written).count(), 0, "{what}: {log:?}");
        assert!(cold.close().unwrap_err().is_read_only(), "{what}");
        // Nothing was lost by the failure itself: everything had been handed over.
        let cold = open(dir.path());
        expect_exactly(&cold, &model, "reopened");
        put(&cold, &mut model, b"k".to_vec(), b"v".to_vec());
        cold.flush().unwrap();
        compact(&cold);
        cold.close().unwrap();
        expect_exactly(&open(dir.path()), &model, "reopened again");
    }
}

#[test]
fn a_segment_whose_name_cannot_be_made_durable_takes_no_record() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::SyncDir));
    cold.disk().script([Verdict::Fail(IoKind::Other)]);
    cold.insert(b"k", b"v").unwrap();
    assert!(cold.flush().unwrap_err().is_read_only());
    expect_absent(&cold, [&b"k".to_vec()], "accepted and lost");
    assert_eq!(cold.stats().writes_lost, 1);
    assert!(cold.close().unwrap_err().is_read_only());
    let cold = open(dir.path());
    expect_exactly(&cold, &Model::new(), "after a reopen");
}

#[test]
fn with_always_a_failed_sync_is_the_callers_error() {
    let dir = scratch();
    let always: ColdTierConfig = config(dir.path()).durability(Durability::Always);
    let cold = open_on(always, ScriptedDisk::new(|call| call.op == Op::Sync && call.is_segment()));
    cold.insert(b"before", b"1").unwrap();
    cold.disk().script([Verdict::Fail(IoKind::Other)]);
    assert!(cold.insert(b"k", b"v").unwrap_err().is_read_only());
    assert!(cold.insert(b"k", b"v").unwrap_err().is_read_only());
    assert_eq!(cold.get(b"before").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_manifest_that_cannot_be_rolled_loses_nothing_whatever_call_fails() {
    // From the new manifest's creation to the old one's removal.
    fn is_of_a_roll(call: &Call) -> bool {
        let is_new = call.name.starts_with("MANIFEST-0000000002") || call.name.starts_with("CURRENT");
        is_new || call.op == Op::SyncDir || (call.op == Op::Remove && call.name.starts_with("MANIFEST"))
    }
    let is_rolled = |dir: &std::path::Path| !names(dir, |name| name == "MANIFEST-0000000002").is_empty();
    // Every flush adds an edit: how many it takes until the manifest is written anew.
    let dir = scratch();
    let cold = open(dir.path());
    let mut flushes = 0;
    while !is_rolled(dir.path()) {
        cold.insert(b"k", b"v").unwrap();
        cold.flush().unwrap();
        flushes += 1;
        assert!(flushes < 100_000, "it is never rolled");
    }
    assert_eq!(names(dir.path(), |name| name.starts_with("MANIFEST")), ["MANIFEST-0000000002"]);
    drop(cold);

    let mut failed = 0;
    for nth in 0.. {
        let dir = scratch();
        let cold = open_on(config(dir.path()), ScriptedDisk::new(is_of_a_roll));
        let mut model = Model::new();
        for _ in 0..flushes - 2 {
            put(&cold, &mut model, b"k".to_vec(), b"v".to_vec());
            cold.flush().unwrap();
        }
        assert!(!is_rolled(dir.path()));
        cold.disk().script((0..nth).map(|_| Verdict::Pass).chain([Verdict::Fail(IoKind::Other)]));
        let mut outcome = Ok(());
        for n in 0..6 {
            let value = format!("{n}").into_bytes();
            match cold.insert(b"b", &value) {
                Ok(()) => drop(model.insert(b"b".to_vec(), value)),
                Err(error) => assert!(error.is_read_only(), "{error}"),
            }
            outcome = outcome.and(cold.flush());
        }
        let when = format!("call {nth} of the roll failed: {outcome:?}");
        if cold.disk().forget_script() > 0 {
            assert!(nth >= 8 && outcome.is_ok() && is_rolled(dir.path()), "{when}");
            break;
        }
        failed += 1;
        if !outcome.as_ref().is_err_and(Error::is_read_only) {
            // New segments, handed over and not synced: a kill must not lose them.
            for n in 0..300 {
                put(&cold, &mut model, key(n), noise(n.into(), 600));
            }
            cold.len();
        }
        expect_exactly(&cold, &model, &when);
        cold.abandon();
        let cold = open(dir.path());
        expect_exactly(&cold, &model, &format!("{when}, killed and reopened"));
        put(&cold, &mut model, b"more".to_vec(), b"value".to_vec());
        cold.close().unwrap();
        expect_exactly(&open(dir.path()), &model, &format!("{when}, and once more"));
    }
    assert!(failed >= 8, "{failed} calls of a roll failed by turns");
}

#[test]
fn the_manifest_of_a_store_that_is_opened_often_does_not_grow_without_end() {
    let dir = scratch();
    let longest = |dir: &std::path::Path| {
        let files = names(dir, |name| name.starts_with("MANIFEST"));
        files.iter().map(|name| std::fs::metadata(dir.join(name)).unwrap().len()).max().unwrap()
    };
    // Forty lives of a hundred flushes each. A state of one segment takes under 16 KiB.
    let mut lengths = Vec::new();
    for _ in 0..40 {
        let cold = open(dir.path());
        for n in 0..100u32 {
            cold.insert(b"k", &n.to_le_bytes()).unwrap();
            cold.flush().unwrap();
        }
        cold.close().unwrap();
        lengths.push(longest(dir.path()));
    }
    let max = *lengths.iter().max().unwrap();
    assert!(max <= 20 << 20, "{max} bytes of manifest for one entry: {lengths:?}");
}

#[test]
fn a_store_that_cannot_be_opened_for_a_refused_call_opens_once_it_works() {
    let dir = scratch();
    let store = dir.path().join("store");
    let cold = open(&store);
    let mut model = Model::new();
    for n in 0..200 {
        put(&cold, &mut model, key(n % 150), noise(n.into(), 600));
    }
    cold.flush().unwrap();
    cold.abandon();
    let image = read_image(&store);
    let mut refused = 0;
    for nth in 0.. {
        write_image(&store, &image);
        let is_met = |call: &Call| call.op != Op::Read || call.offset < 4096;
        let disk = ScriptedDisk::new(is_met);
        disk.script((0..nth).map(|_| Verdict::Pass).chain([Verdict::Fail(IoKind::PermissionDenied)]));
        let opened = ColdTier::open_with(config(&store), disk, ManualClock::new(START_MS));
        match opened {
            Err(error) => {
                refused += 1;
                assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::ReadOnly), "call {nth}: {error}");
            }
            Ok(cold) => {
                let left = cold.disk().forget_script();
                expect_exactly(&cold, &model, &format!("call {nth} was refused, and open went on"));
                cold.abandon();
                if left > 0 {
                    break;
                }
            }
        }
        // Whatever was half done: the next start finds everything.
        let cold = open(&store);
        expect_exactly(&cold, &model, &format!("after a start that failed at call {nth}"));
        cold.abandon();
    }
    assert!(refused >= 10, "{refused}");
}

/// The next damage could meet the other copy: what is known of both is written anew while one of them can be read.
#[test]
fn a_manifest_of_which_one_copy_is_damaged_is_written_anew_by_the_next_start() {
    let dir = scratch();
    let manifests = || names(dir.path(), |name| name.starts_with("MANIFEST"));
    let (cold, mut model) = (open(dir.path()), Model::new());
    put(&cold, &mut model, b"key".to_vec(), b"value".to_vec());
    cold.close().unwrap();
    let sound = manifests();
    open(dir.path()).close().unwrap();
    assert_eq!(manifests(), sound, "a sound manifest is gone on with");
    let mut image = read_image(dir.path());
    // Behind the header, the first copy of the first edit: the whole state.
    image.get_mut(&sound[0]).unwrap()[4096 + 100] ^= 1;
    write_image(dir.path(), &image);
    let cold = open(dir.path());
    expect_exactly(&cold, &model, "with one copy damaged");
    cold.close().unwrap();
    assert_ne!(manifests(), sound, "the damaged manifest is still in use");
    expect_exactly(&open(dir.path()), &model, "once more");
}

/// M3. The second copy of the commit could not be written, so the task has failed and is undone; the first copy is in the
/// file, whole, and must not come into force at the next start.
#[test]
fn a_commit_of_which_only_the_first_copy_was_written_does_not_come_into_force() {
    let mut commit = None;
    for is_cut in [false, true] {
        let dir = scratch();
        let is_edit = |call: &Call| call.op == Op::Write && call.name.starts_with("MANIFEST");
        let cold = open_on(config(dir.path()), ScriptedDisk::new(is_edit).logging());
        let mut model = Model::new();
        for n in 0..200 {
            put(&cold, &mut model, key(n), noise(n.into(), 600));
        }
        for n in (0..200).step_by(2) {
            remove(&cold, &mut model, &key(n));
        }
        // What the compaction would have to say beside its commit is said before.
        rebuild(&cold);
        cold.disk().take_log();
        if let Some((edits, len)) = commit {
            // The half of it, and no more room; then there is room again.
            let cut = [Verdict::Short(len / 2), Verdict::Fail(IoKind::StorageFull)];
            cold.disk().script((1..edits).map(|_| Verdict::Pass).chain(cut));
        }
        let outcome = cold.run(CompactionTask::CompactData);
        assert_eq!((outcome.is_err(), cold.disk().forget_script()), (is_cut, 0), "{outcome:?}");
        let edits: Vec<Call> = cold.disk().take_log().into_iter().filter(is_edit).collect();
        commit = edits.last().map(|last| (edits.len(), last.len));
        cold.abandon();
        let cold = open(dir.path());
        assert_eq!(cold.stats().recovery.missing_segments, 0, "cut {is_cut}");
        expect_exactly(&cold, &model, &format!("the commit was cut: {is_cut}"));
        cold.abandon();
    }
}

/// R5. The pointer names one manifest, and there is only one: what it does not name is left over all the same.
#[test]
fn a_lost_pointer_to_the_only_manifest_costs_nothing() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    for n in 0..200 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    for n in (0..200).step_by(2) {
        remove(&cold, &mut model, &key(n));
    }
    cold.flush().unwrap();
    let before = read_image(dir.path());
    compact(&cold);
    cold.close().unwrap();
    let mut image = read_image(dir.path());
    assert!(image.remove("CURRENT").is_some());
    let victims: Vec<_> = before.into_iter().filter(|(name, _)| is_segment(name)).collect();
    let names_of = |image: &crate::stores::Image| image.keys().filter(|name| is_segment(name)).count();
    let kept = names_of(&image);
    let left_over = victims.len();
    image.extend(victims);
    assert_eq!(names_of(&image), kept + left_over, "the compaction has replaced them all");
    write_image(dir.path(), &image);
    for start in 0..2 {
        let cold = open(dir.path());
        expect_exactly(&cold, &model, &format!("start {start}"));
        assert_eq!(names(dir.path(), is_segment).len(), kept, "start {start}: what is left over goes");
        cold.close().unwrap();
    }
}

/// A restart takes the index from its snapshot: whatever a store holds, it reads no segment for it.
#[test]
fn a_store_that_was_closed_opens_by_its_snapshot_alone() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    for n in 0..200 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    cold.close().unwrap();
    let cold = open(dir.path());
    let recovery = cold.stats().recovery;
    assert_eq!((recovery.snapshot_entries, recovery.footer_rows, recovery.scanned_records), (200, 0, 0));
    expect_exactly(&cold, &model, "reopened");
}

/// Nothing is written behind the snapshot, but entries are moved: a close saves that too, or the next start would have to
/// read the rows of all that was moved.
#[test]
fn a_store_closed_after_a_compaction_opens_by_its_snapshot_alone() {
    let dir = scratch();
    let mut model = Model::new();
    let cold = open(dir.path());
    for n in 0..400 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    for n in (0..400).step_by(2) {
        remove(&cold, &mut model, &key(n));
    }
    rebuild(&cold);
    let saved = names(dir.path(), is_snapshot);
    assert!(compact(&cold).entries_copied > 0);
    assert_eq!(names(dir.path(), is_snapshot), saved, "the compaction needed no snapshot");
    cold.close().unwrap();
    let cold = open(dir.path());
    let recovery = cold.stats().recovery;
    assert_eq!((recovery.snapshot_entries, recovery.footer_rows, recovery.scanned_records), (200, 0, 0));
    expect_exactly(&cold, &model, "reopened");
    // Nor is it saved once more where nothing has changed since.
    let saved = names(dir.path(), is_snapshot);
    cold.close().unwrap();
    assert_eq!(names(dir.path(), is_snapshot), saved);
}

/// A snapshot that took the number of the one before it would be deleted in its stead.
#[test]
fn numbers_of_files_are_not_given_out_again_after_a_restart() {
    let dir = scratch();
    let cold = open(dir.path());
    for n in 0..20 {
        cold.insert(&key(n), &noise(n.into(), 100)).unwrap();
    }
    cold.close().unwrap();
    let before = names(dir.path(), is_snapshot);
    let cold = open(dir.path());
    rebuild(&cold);
    let after = names(dir.path(), is_snapshot);
    assert!(after.last() > before.last(), "{before:?}, then {after:?}");
    cold.abandon();
    assert_eq!(open(dir.path()).stats().recovery.snapshot_entries, 20);
}

#[test]
fn a_remove_under_always_is_durable_when_it_returns_also_behind_another_that_is_not_yet() {
    fn syncs(call: &Call) -> bool {
        call.op == Op::Sync && call.is_segment()
    }
    let dir = scratch();
    let cold = open_on(config(dir.path()).durability(Durability::Always), ScriptedDisk::new(syncs));
    cold.insert(b"a", b"1").unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    let (returned, outcome) = crossbeam_channel::bounded(1);
    std::thread::scope(|scope| {
        let cold = &cold;
        let first = scope.spawn(move || cold.remove(b"a"));
        // The tombstone is written, and its sync has not begun.
        gate.wait();
        scope.spawn(move || returned.send(cold.remove(b"a")).unwrap());
        let early = outcome.recv_timeout(Duration::from_millis(200));
        assert!(early.is_err(), "returned before the deletion was durable");
        drop(gate);
        first.join().unwrap().unwrap();
        outcome.recv().unwrap().unwrap();
    });
}
