//! Bugs that were found, each with the sequence that showed it.

use std::io::ErrorKind as IoKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::{CompactionTask, Disk, Durability, ErrorKind, SegmentState};

use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::*;

fn is_segment_write(call: &Call) -> bool {
    call.op == Op::Write && call.is_segment()
}

fn is_output_creation(call: &Call) -> bool {
    call.op == Op::Create && call.is_output()
}

fn full_disk(call: &Call) -> Option<IoKind> {
    is_segment_write(call).then_some(IoKind::StorageFull)
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = scratch();
    for (name, bytes) in read_image(dir) {
        write_file(copy.path(), &name, &bytes);
    }
    copy
}

/// Fills the active segment until one more is sealed.
fn seal_one<D: Disk>(cold: &larder::ColdTier<D, larder::ManualClock>, from: u32) {
    let sealed = || cold.segments().iter().filter(|it| it.state == SegmentState::Sealed).count();
    let before = sealed();
    for number in from.. {
        cold.insert(&key(number), &noise(number.into(), 400)).unwrap();
        cold.len(); // hands over
        if sealed() > before {
            return;
        }
    }
}

#[test]
fn a_failed_write_under_durability_always_is_told_once_and_does_not_run_away() {
    let dir = scratch();
    let disk = ScriptedDisk::new(is_segment_write);
    let cold = open_on(config(dir.path()).durability(Durability::Always), disk);
    cold.insert(b"a", b"1").unwrap();
    cold.disk().script([Verdict::Fail(IoKind::StorageFull)]);
    assert_eq!(cold.insert(b"b", b"2").unwrap_err().kind(), ErrorKind::WriteLost);
    cold.insert(b"c", b"3").unwrap();
    assert_eq!(cold.get(b"b").unwrap(), None);
    assert_eq!(cold.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn durability_always_acknowledges_a_record_that_rolls_a_segment_only_once_it_is_synced() {
    let dir = scratch();
    let cold =
        open_on(config(dir.path()).durability(Durability::Always), ScriptedDisk::new(|_| false).logging());
    let mut unsynced = std::collections::BTreeSet::new();
    for number in 0..40u32 {
        cold.insert(&key(number), &noise(number.into(), 10_000)).unwrap();
        for call in cold.disk().take_log() {
            match call.op {
                Op::Write if call.is_segment() => drop(unsynced.insert(call.name)),
                Op::Sync => drop(unsynced.remove(&call.name)),
                _ => {}
            }
        }
        assert!(unsynced.is_empty(), "insert {number} was acknowledged with {unsynced:?} not synced");
    }
    assert!(cold.segments().len() > 3, "segments were rolled");
}

#[test]
fn what_a_failed_write_left_in_the_file_is_not_found_by_a_recovery() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(is_segment_write));
    cold.insert(b"base", b"base").unwrap();
    cold.flush().unwrap();
    // The first write stores everything but eight bytes, the rest of it fails.
    let ghost = noise(1, 3000);
    cold.disk().script([Verdict::Short(3012), Verdict::Fail(IoKind::StorageFull)]);
    cold.insert(b"ghost", &ghost).unwrap();
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    cold.remove(b"ghost").unwrap();
    cold.insert(b"x", b"y").unwrap();
    cold.flush().unwrap();
    let killed = copy_of(dir.path());
    cold.close().unwrap();
    for after in [killed.path(), dir.path()] {
        let cold = open(after);
        assert_eq!(cold.get(b"ghost").unwrap(), None);
        assert_eq!(cold.get(b"x").unwrap().as_deref(), Some(&b"y"[..]));
        assert_eq!(cold.get(b"base").unwrap().as_deref(), Some(&b"base"[..]));
        cold.close().unwrap();
        assert!(larder::verify(after, &mut |_| ()).unwrap().is_clean());
    }
}

#[test]
fn a_damaged_snapshot_does_not_count_as_covering_what_compaction_drops() {
    let dir = scratch();
    let cold = open(dir.path());
    for number in 0..500 {
        cold.insert(&key(number), &noise(number.into(), 400)).unwrap();
    }
    cold.flush().unwrap();
    for number in 400..500 {
        cold.remove(&key(number)).unwrap();
    }
    cold.close().unwrap();
    ruin_snapshot(dir.path());
    let cold = open(dir.path());
    assert_eq!((cold.len(), cold.stats().recovery.snapshot_entries), (400, 0));
    compact(&cold);
    cold.close().unwrap();
    let cold = open(dir.path());
    assert_eq!((cold.len(), cold.stats().recovery.given_up), (400, 0));
    assert_eq!(cold.get(&key(450)).unwrap(), None);
}

#[test]
fn a_relocation_does_not_revive_a_value_whose_overwrite_was_lost() {
    let dir = scratch();
    let disk = ScriptedDisk::new(is_output_creation).standing(full_disk);
    let cold = open_on(config(dir.path()), disk);
    for number in 0..100 {
        cold.insert(&key(number), &noise(number.into(), 400)).unwrap();
    }
    for number in 0..30 {
        cold.remove(&key(number)).unwrap();
    }
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let task = scope.spawn(|| cold.run(CompactionTask::CompactData));
        gate.wait();
        cold.disk().start_failing();
        cold.insert(&key(50), b"NEW").unwrap();
        wait_until("the overwrite is lost", || cold.stats().writes_lost > 0);
        assert_eq!(cold.get(&key(50)).unwrap(), None);
        gate.release.send(()).unwrap();
        // Whether the compaction goes through is its affair; the old value must not come back by it.
        drop(task.join().unwrap());
        assert_eq!(cold.get(&key(50)).unwrap(), None);
        cold.disk().stop_failing();
    });
    wait_until("the store writes again", || cold.insert(b"probe", b"1").is_ok());
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost);
    cold.flush().unwrap();
    compact(&cold);
    assert_eq!(cold.get(&key(50)).unwrap(), None);
    assert_eq!(cold.get(&key(60)).unwrap().as_deref(), Some(&noise(60, 400)[..]));
    cold.abandon();
    assert_eq!(open(dir.path()).get(&key(50)).unwrap(), None);
}

#[test]
fn a_synced_delete_stays_although_its_victim_held_a_damaged_record() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(is_output_creation));
    seal_one(&cold, 0);
    for number in 100..110 {
        cold.insert(&key(number), &noise(7, 400)).unwrap();
    }
    seal_one(&cold, 2000);
    cold.flush().unwrap();
    let name = segment_names(&cold)[0].clone();
    let mut bytes = read_file(dir.path(), &name);
    let damaged = noise(7, 20);
    let at = bytes.windows(20).position(|window| window == damaged).expect("key 7 is in the first segment");
    bytes[at] ^= 1;
    write_file(dir.path(), &name, &bytes);
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let task = scope.spawn(|| cold.run(CompactionTask::CompactData));
        gate.wait();
        cold.remove(&key(5)).unwrap();
        cold.flush().unwrap();
        gate.release.send(()).unwrap();
        task.join().unwrap().unwrap();
    });
    assert_eq!(cold.get(&key(5)).unwrap(), None);
    compact(&cold);
    cold.flush().unwrap();
    cold.abandon();
    let cold = open(dir.path());
    assert_eq!(cold.get(&key(5)).unwrap(), None);
    assert_eq!(cold.get(&key(6)).unwrap().as_deref(), Some(&noise(6, 400)[..]));
}

#[test]
fn a_reopened_store_has_made_names_and_manifest_durable_before_it_acknowledges() {
    let dir = scratch();
    let cold = open(dir.path());
    cold.insert(b"k", b"v").unwrap();
    cold.len();
    cold.abandon();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|_| false).logging());
    let calls = cold.disk().take_log();
    let first = |op: Op| calls.iter().position(|call| call.op == op);
    let last_manifest_write =
        calls.iter().rposition(|call| call.op == Op::Write && call.name.starts_with("MANIFEST"));
    let last_manifest_sync =
        calls.iter().rposition(|call| call.op == Op::Sync && call.name.starts_with("MANIFEST"));
    assert!(first(Op::SyncDir) < first(Op::Write), "{calls:?}");
    assert!(first(Op::SyncDir).is_some() && last_manifest_sync > last_manifest_write, "{calls:?}");
}

#[test]
fn a_segment_has_a_durable_name_before_an_edit_names_it() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|_| false).logging());
    cold.disk().take_log();
    cold.insert(b"k", b"v").unwrap();
    cold.len();
    let calls = cold.disk().take_log();
    let created = calls.iter().position(|call| call.op == Op::Create && call.is_segment());
    let named = calls.iter().position(|call| call.op == Op::SyncDir);
    let edit = calls.iter().position(|call| call.op == Op::Write && call.name.starts_with("MANIFEST"));
    assert!(created.is_some() && created < named && named < edit, "{calls:?}");
}

#[test]
fn planted_files_of_absurd_kinds_do_not_keep_a_store_from_opening() {
    type Plant = fn(&Path);
    let first_segment = |dir: &Path| names(dir, is_segment)[0].clone();
    let plants: [(&str, Plant); 4] = [
        ("CURRENT grown", |dir| {
            let mut bytes = read_file(dir, "CURRENT");
            bytes.resize(5000, 0);
            write_file(dir, "CURRENT", &bytes);
        }),
        ("a segment grown to 300 MiB", |dir| {
            let name = names(dir, is_segment)[0].clone();
            let file = std::fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap();
            file.set_len(300 << 20).unwrap();
        }),
        ("a stray directory under a segment's name", |dir| {
            std::fs::create_dir(dir.join("seg-0000000999.lard")).unwrap();
        }),
        ("a stranger's file", |dir| write_file(dir, "dict-5-+f.lard", b"mine")),
    ];
    for (what, plant) in plants {
        let dir = scratch();
        let cold = open(dir.path());
        for number in 0..50 {
            cold.insert(&key(number), &noise(number.into(), 100)).unwrap();
        }
        cold.flush().unwrap();
        cold.abandon();
        plant(dir.path());
        let cold = open(dir.path());
        assert_eq!(cold.len(), 50, "{what}");
        cold.close().unwrap();
        assert_eq!(open(dir.path()).len(), 50, "{what}, opened again");
    }
    // A segment whose name is a directory is a lost segment, not a lost store.
    let dir = scratch();
    let cold = open(dir.path());
    cold.insert(b"k", b"v").unwrap();
    cold.flush().unwrap();
    cold.abandon();
    let name = first_segment(dir.path());
    remove_file(dir.path(), &name);
    std::fs::create_dir(dir.path().join(name)).unwrap();
    let cold = open(dir.path());
    assert_eq!((cold.len(), cold.stats().recovery.missing_segments), (0, 1));
}

#[test]
fn damage_below_the_synced_end_of_an_open_tail_does_not_bring_a_deleted_value_back() {
    let dir = scratch();
    let cold = open(dir.path());
    cold.insert(b"key", &noise(1, 100)).unwrap();
    cold.flush().unwrap();
    cold.remove(b"key").unwrap();
    cold.flush().unwrap();
    cold.insert(b"later", b"v").unwrap();
    cold.flush().unwrap();
    let name = segment_names(&cold)[0].clone();
    cold.abandon();
    let mut bytes = read_file(dir.path(), &name);
    let at = bytes.windows(3).rposition(|window| window == b"key").unwrap();
    bytes[at] ^= 1;
    write_file(dir.path(), &name, &bytes);
    let cold = open(dir.path());
    assert_eq!(cold.get(b"key").unwrap(), None);
    assert_eq!(cold.get(b"later").unwrap().as_deref(), Some(&b"v"[..]));
    assert!(cold.stats().recovery.damaged > 0);
}

#[test]
fn one_missing_segment_does_not_stop_the_tasks() {
    let dir = scratch();
    let cold = open(dir.path());
    for number in 0..400 {
        let ttl = std::time::Duration::from_millis(200);
        cold.insert_with_ttl(&key(number), &noise(number.into(), 400), ttl).unwrap();
    }
    cold.flush().unwrap();
    cold.clock().advance(300);
    remove_file(dir.path(), &segment_names(&cold)[0]);
    let before = cold.segments().len();
    cleanup(&cold);
    compact(&cold);
    assert!(cold.segments().len() < before, "the others were cleaned up");
    assert!(cold.len() < 200, "{}", cold.len());
}

#[test]
fn a_lost_snapshot_does_not_let_a_value_come_back_that_outlives_what_replaced_it() {
    let dir = scratch();
    let ms = std::time::Duration::from_millis;
    let cold = open(dir.path());
    // Three versions in three segments: for ever, then two times to live.
    // What lasts beside the first one keeps its segment.
    for number in 0..50 {
        cold.insert(&key(number), &noise(number.into(), 400)).unwrap();
    }
    cold.insert(b"key", b"one").unwrap();
    cold.insert_with_ttl(b"key", b"two", ms(10_000)).unwrap();
    rebuild(&cold);
    // A snapshot covers what the second one hides: the third is said to outlast everything.
    cold.insert_with_ttl(b"key", b"three", ms(60_000)).unwrap();
    cold.flush().unwrap();
    cold.abandon();
    ruin_snapshot(dir.path());
    let cold = open(dir.path());
    assert_eq!(cold.get(b"key").unwrap().as_deref(), Some(&b"three"[..]));
    // The second one goes as replaced, the third as expired.
    cold.run_due().unwrap();
    cold.clock().advance(70_000);
    cold.run_due().unwrap();
    assert_eq!(cold.get(b"key").unwrap(), None);
    cold.flush().unwrap();
    cold.abandon();
    // The same damage once more.
    ruin_snapshot(dir.path());
    let now = larder::ManualClock::new(START_MS + 70_000);
    let cold = larder::ColdTier::open_with(config(dir.path()), larder::OsDisk, now).unwrap();
    assert_eq!(cold.get(b"key").unwrap(), None);
}

#[test]
fn a_dead_segment_that_cannot_be_read_does_not_keep_maintenance_busy_for_ever() {
    let dir = scratch();
    let cold = open(dir.path());
    for number in 0..100 {
        cold.insert(&key(number), &noise(number.into(), 400)).unwrap();
    }
    for number in 0..100 {
        cold.remove(&key(number)).unwrap();
    }
    cold.flush().unwrap();
    cold.abandon();
    let cold = open(dir.path());
    rebuild(&cold);
    // Covered, dead, with deletions in it, and not readable: it cannot go, and is no reason to try for ever.
    for name in names(dir.path(), is_segment) {
        remove_file(dir.path(), &name);
    }
    assert!(cold.run_due().unwrap() < 10);
}

#[test]
fn a_snapshot_does_not_claim_to_hold_a_record_that_is_still_being_placed() {
    for round in 0..20 {
        let dir = scratch();
        let cold = open(dir.path());
        let enough = AtomicBool::new(false);
        // Every second record seals a segment first: the writer is busy with that nearly all the time.
        let fill = |from: u32| {
            let numbers = (from..).take_while(|_| !enough.load(Ordering::SeqCst));
            numbers
                .inspect(|number| cold.insert(&key(*number), &noise(u64::from(*number), 30_000)).unwrap())
                .last()
        };
        let last = std::thread::scope(|scope| {
            let filling = scope.spawn(|| fill(0));
            while cold.is_empty() {
                std::thread::yield_now();
            }
            rebuild(&cold);
            enough.store(true, Ordering::SeqCst);
            filling.join().unwrap().unwrap()
        });
        cold.flush().unwrap();
        cold.abandon();
        let cold = open(dir.path());
        let lost: Vec<u32> = (0..=last).filter(|number| cold.get(&key(*number)).unwrap().is_none()).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {last}");
    }
}

/// A directory whose sync has failed may have lost the writer's names too, and says so once. A snapshot, and a manifest
/// that was written anew, took it for a failure of their own.
#[test]
fn a_failed_sync_of_the_directory_makes_the_store_read_only_whoever_asked_for_it() {
    let dir = scratch();
    let disk = ScriptedDisk::new(|call| call.op == Op::SyncDir);
    let cold = open_on(config(dir.path()), disk);
    let mut model = Model::new();
    put(&cold, &mut model, b"key".to_vec(), b"value".to_vec());
    cold.flush().unwrap();
    cold.disk().script([Verdict::Fail(IoKind::Other)]);
    assert!(cold.run(CompactionTask::RebuildIndex).unwrap_err().is_read_only());
    assert_eq!(cold.disk().forget_script(), 0, "the sync of the snapshot's name was the one");
    assert!(cold.insert(b"another", b"value").unwrap_err().is_read_only());
    assert!(cold.flush().unwrap_err().is_read_only());
    expect_exactly(&cold, &model, "reads go on");
}

#[test]
fn small_expired_segments_that_hide_something_go_although_the_first_of_them_gave_nothing_back() {
    let dir = scratch();
    let cold = open(dir.path());
    let seconds = std::time::Duration::from_secs;
    for number in 0..20_000 {
        cold.insert_with_ttl(&key(number), &noise(number.into(), 400), seconds(86_400)).unwrap();
    }
    cold.len(); // hands over
    cold.run_due().unwrap();
    let before = cold.segments().len();
    // Each turn leaves a segment of one block whose records hide some that outlive them: all together not a hundredth of
    // the store.
    for turn in 0..40 {
        for number in 0..3 {
            cold.insert_with_ttl(&key(turn * 3 + number), &noise(number.into(), 400), seconds(60)).unwrap();
        }
        cold.len(); // hands over
        cold.clock().advance(10_000);
        cold.run_due().unwrap();
    }
    cold.clock().advance(60_000);
    cold.run_due().unwrap();
    let after = cold.segments().len();
    assert!(after <= before + 17, "{before} segments have become {after}");
}

/// What a task cannot read at the moment says nothing about the entries in it: readers have the segment open. They were
/// taken for dangling, all of them.
#[test]
fn rebuilding_the_index_leaves_the_entries_of_a_segment_that_cannot_be_opened_now() {
    let dir = scratch();
    let disk = ScriptedDisk::new(|call| call.op == Op::OpenRead && call.is_segment());
    let cold = open_on(config(dir.path()), disk);
    let mut model = Model::new();
    for number in 0..20 {
        put(&cold, &mut model, key(number), noise(number.into(), 100));
    }
    cold.run(CompactionTask::CompactData).unwrap();
    cold.disk().script([Verdict::Fail(IoKind::NotFound)]);
    cold.run(CompactionTask::RebuildIndex).unwrap();
    assert_eq!(cold.disk().forget_script(), 0, "the segment was looked for");
    expect_exactly(&cold, &model, "after the index was rebuilt");
}

/// A process that is out of descriptors for a moment cannot open the directory to sync it. Nothing was tried then, and
/// nothing is lost: it was taken for a failed sync, and the store stayed read-only.
#[test]
fn a_directory_that_cannot_be_opened_for_its_sync_does_not_make_the_store_read_only() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::SyncDir));
    let mut model = Model::new();
    cold.disk().script([Verdict::FailAs(rustix::io::Errno::MFILE)]);
    cold.insert(b"lost", b"value").unwrap();
    assert_eq!(cold.flush().unwrap_err().kind(), ErrorKind::WriteLost, "it has no segment to go to");
    put(&cold, &mut model, b"key".to_vec(), b"value".to_vec());
    cold.flush().unwrap();
    for number in (0..600).chain(0..300) {
        put(&cold, &mut model, key(number), noise(number.into(), 1000));
    }
    cold.flush().unwrap();
    // The names of a compaction's outputs.
    cold.disk().script([Verdict::FailAs(rustix::io::Errno::NFILE)]);
    assert_eq!(cold.run(CompactionTask::CompactData).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(cold.disk().forget_script(), 0, "it was met");
    compact(&cold);
    cold.flush().unwrap();
    expect_exactly(&cold, &model, "after both");
    cold.close().unwrap();
    expect_exactly(&open(dir.path()), &model, "reopened");
}

/// Under writers that never stop, each step of a task waited for all that was queued, and space ran away meanwhile.
#[test]
fn maintenance_does_not_wait_behind_what_is_queued() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(is_segment_write).logging());
    cold.insert(b"key", b"value").unwrap();
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script((0..1000).map(|_| Verdict::Hold(hold.clone())));
    drop(hold);
    for number in 0..4000 {
        cold.insert(&key(number), &noise(number.into(), 1000)).unwrap();
    }
    cold.schedule(CompactionTask::RebuildIndex).unwrap();
    let saves = |call: &Call| call.op == Op::Create && is_snapshot(&call.name);
    let mut written = 0;
    while !cold.disk().take_log().iter().any(saves) {
        // The time is for the worker to get to it; the writer stands still meanwhile.
        if gate.reached.recv_timeout(std::time::Duration::from_millis(100)).is_ok() {
            written += 1;
            std::thread::sleep(std::time::Duration::from_millis(100));
            gate.release.send(()).unwrap();
        }
        assert!(cold.stats().queued_bytes > 0, "all was written first, in {written} batches");
    }
    cold.disk().forget_script();
    drop(gate);
    cold.flush().unwrap();
}

/// A process that is being started has copies of all descriptors until it runs its program. The lock was given up by
/// closing its file alone, and so a store that had been closed was in use for a moment more.
#[test]
fn a_store_that_was_closed_opens_at_once_while_other_threads_start_processes() {
    let dir = scratch();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !enough.load(Ordering::SeqCst) {
                    drop(std::process::Command::new("true").status());
                }
            });
        }
        let opened: Vec<bool> = (0..300)
            .map(|_| {
                let opened = larder::ColdTier::open_with(
                    config(dir.path()),
                    larder::OsDisk,
                    larder::ManualClock::new(START_MS),
                );
                opened.is_ok_and(|cold| cold.close().is_ok())
            })
            .collect();
        enough.store(true, Ordering::SeqCst);
        assert!(opened.iter().all(|is_open| *is_open), "{opened:?}");
    });
}
