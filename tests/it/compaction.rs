//! Compaction (C1 to C10, P3): what it keeps, what it gives back, what can be seen of it, and that nothing is lost or
//! left behind wherever it is stopped, failed or cancelled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use larder::internals::serialization::segment::SEGMENT_HEADER_BYTES;
use larder::{ColdTier, CompactionTask, Disk, ErrorKind, Maintenance, ManualClock, OsDisk};

use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{
    Model, START_MS, allocated_segment_bytes, compact, config, expect_absent, expect_exactly, is_segment,
    is_snapshot, is_temporary, key, names, noise, open, open_on, put, read_file, read_image, rebuild, remove,
    scratch, segment_names, try_compact, until_begun, wait_until, write_image,
};

pub const KEYS: u32 = 300;

/// Three segments, every third value overwritten, every fifth key removed.
pub fn fill<D: Disk>(cold: &ColdTier<D, ManualClock>) -> Model {
    let mut model = Model::new();
    for n in 0..KEYS {
        put(cold, &mut model, key(n), noise(n.into(), 600));
    }
    for n in (0..KEYS).step_by(3) {
        put(cold, &mut model, key(n), noise(u64::from(n) + 1000, 500));
    }
    for n in (0..KEYS).step_by(5) {
        remove(cold, &mut model, &key(n));
    }
    cold.flush().unwrap();
    model
}

pub fn removed_keys() -> Vec<Vec<u8>> {
    (0..KEYS).step_by(5).map(key).collect()
}

#[test]
fn compaction_stopped_in_mid_copy_shows_its_progress_and_holds_up_neither_readers_nor_writers() {
    let dir = scratch();
    let disk = ScriptedDisk::new(|call| call.op == Op::Write && call.is_output());
    let cold = open_on(config(dir.path()), disk);
    let mut model = fill(&cold);
    let state = cold.compaction_state();
    assert!(!state.is_compacting());
    assert_eq!(state.last_duration_ns(), 0);
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Pass, Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let task = scope.spawn(|| compact(&cold));
        let gate = gate;
        assert!(gate.wait().is_output());
        assert!(state.is_compacting());
        assert_eq!(state.task(), Some(CompactionTask::CompactData));
        let progress = state.progress();
        assert!(0.3 < progress && progress < 0.7, "{progress} in mid-copy");
        assert_eq!(names(dir.path(), |name| is_segment(name) && is_temporary(name)).len(), 2);

        expect_exactly(&cold, &model, "while the compaction stands still");
        // Overwritten, removed, removed and written again, new: all while their old records are being copied.
        put(&cold, &mut model, key(1), b"overwritten meanwhile".to_vec());
        remove(&cold, &mut model, &key(2));
        remove(&cold, &mut model, &key(4));
        put(&cold, &mut model, key(4), b"written again meanwhile".to_vec());
        put(&cold, &mut model, key(5), b"back after a removal".to_vec());
        put(&cold, &mut model, key(KEYS), b"new".to_vec());
        cold.insert_with_ttl(&key(7), b"shorter life", Duration::from_millis(5)).unwrap();
        model.insert(key(7), b"shorter life".to_vec());
        for n in 200..KEYS {
            put(&cold, &mut model, key(n), noise(u64::from(n) + 5000, 300));
        }
        cold.flush().unwrap();
        expect_exactly(&cold, &model, "after writes into a standing compaction");
        assert!(state.is_compacting());
        assert_eq!(state.progress(), progress);

        drop(gate);
        let report = task.join().unwrap();
        assert_eq!(report.entries_damaged, 0);
        assert!(report.segments_removed >= 3, "{report:?}");
    });
    assert!(!state.is_compacting());
    assert_eq!(state.task(), None);
    assert_eq!(state.progress(), 1.0);
    assert!(state.last_duration_ns() > 0);
    assert_eq!(cold.disk().forget_script(), 0);
    expect_exactly(&cold, &model, "after the compaction");
    expect_absent(&cold, [&key(2), &key(10)], "after the compaction");

    cold.clock().advance(5);
    model.remove(&key(7));
    expect_absent(&cold, [&key(7)], "its shorter life has ended, the longer one is not back");
    // What was overwritten while it was copied is dead now, and goes.
    let report = compact(&cold);
    assert_eq!((report.entries_dead, report.entries_expired), (84, 1), "{report:?}");
    expect_exactly(&cold, &model, "after another compaction");
    let now_ms = START_MS + 5;
    cold.close().unwrap();
    let cold = ColdTier::open_with(config(dir.path()), OsDisk, ManualClock::new(now_ms)).unwrap();
    expect_exactly(&cold, &model, "after a reopen");
    expect_absent(&cold, [&key(2), &key(7), &key(10)], "after a reopen");
}

#[test]
fn progress_rises_and_passes_every_phase_where_the_documentation_says() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|_| true));
    let model = fill(&cold);
    rebuild(&cold);
    let (gate, hold) = Gate::new();
    cold.disk().script((0..10_000).map(|_| Verdict::Hold(hold.clone())));
    let mut seen: Vec<(Call, f32)> = Vec::new();
    std::thread::scope(|scope| {
        let task = scope.spawn(|| {
            let report = compact(&cold);
            cold.disk().forget_script();
            report
        });
        let Gate { reached, release } = gate;
        // Nothing else runs: while a call is held, the progress stands still.
        while !task.is_finished() {
            if let Ok(call) = reached.recv_timeout(Duration::from_millis(20)) {
                seen.push((call, cold.compaction_state().progress()));
                release.send(()).unwrap();
            }
        }
        task.join().unwrap();
    });
    assert_eq!(cold.compaction_state().progress(), 1.0);
    expect_exactly(&cold, &model, "after the compaction");
    for pair in seen.windows(2) {
        assert!(pair[0].1 <= pair[1].1, "progress fell: {pair:?}");
    }
    let of = |picks: &dyn Fn(&Call) -> bool| -> Vec<f32> {
        seen.iter().filter(|(call, _)| picks(call)).map(|(_, progress)| *progress).collect()
    };
    // The segment that was active is sealed first; then victims are chosen, and their footers listed.
    let listed = of(&|call| call.op == Op::OpenRead && call.is_segment());
    assert_eq!(listed[0], 0.1, "victims chosen");
    assert_eq!(of(&|call| call.op == Op::Create && call.is_output())[0], 0.3, "live entries listed");
    let written = of(&|call| call.op == Op::Write && call.is_output());
    assert!(
        written.len() >= 2 && written.iter().all(|progress| (0.3..0.7).contains(progress)),
        "{written:?}"
    );
    assert!(written.windows(2).all(|pair| pair[0] < pair[1]), "progress follows the bytes: {written:?}");
    let renamed = of(&|call| call.op == Op::Rename && call.is_output());
    assert!(renamed.len() == written.len() && renamed.iter().all(|p| *p == 0.7), "verified: {renamed:?}");
    let removed = of(&|call| call.op == Op::Remove && call.is_segment());
    assert!(removed.len() >= 3 && removed.iter().all(|p| *p == 0.9), "committed: {removed:?}");
}

/// Runs a task up to a call, and tells what can be seen of it there.
fn seen_at<T>(
    task: CompactionTask,
    at: fn(&Call) -> bool,
    see: impl FnOnce(&larder::CompactionState) -> T,
) -> T {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(at));
    fill(&cold);
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let gate = gate;
        scope.spawn(|| cold.run(task).unwrap());
        gate.wait();
        see(cold.compaction_state())
    })
}

#[test]
fn a_rebuild_of_the_index_is_at_four_fifths_when_all_footers_are_checked() {
    let saves = |call: &Call| call.op == Op::Create && is_snapshot(&call.name);
    assert_eq!(seen_at(CompactionTask::RebuildIndex, saves, |state| state.progress()), 0.8);
}

/// However slow the machine is: no longer than what has passed, times what is left to what is done.
#[test]
fn the_time_left_is_what_has_passed_by_what_is_left_and_done() {
    let before = Instant::now();
    let publishes = |call: &Call| call.op == Op::Rename && call.is_output();
    let (progress, left, most) = seen_at(CompactionTask::CompactData, publishes, |state| {
        std::thread::sleep(Duration::from_millis(100));
        let left = state.time_left().expect("it is late enough to tell");
        (state.progress(), left, before.elapsed())
    });
    assert_eq!(progress, 0.7);
    let by = |elapsed: Duration| elapsed.mul_f64(0.3 / 0.7 + 1e-6);
    assert!(by(Duration::from_millis(100)) <= left && left <= by(most), "{left:?} of {most:?}");
}

/// Every call of a compaction, but of a snapshot's 256 chunks only the first.
fn is_failed(call: &Call) -> bool {
    let is_later_chunk = call.name.starts_with("snap-") && call.op == Op::Write && call.offset > 2000;
    !is_later_chunk && !call.op.is_advice()
}

/// Insists that the directory holds what the store says it holds, and nothing temporary.
fn expect_tidy<D: Disk>(cold: &ColdTier<D, ManualClock>, dir: &std::path::Path, when: &str) {
    assert_eq!(names(dir, is_temporary), Vec::<String>::new(), "{when}");
    let mut known = segment_names(cold);
    known.sort();
    assert_eq!(names(dir, is_segment), known, "{when}: segment files beside those in force");
}

#[test]
fn a_failure_at_any_disk_call_of_a_compaction_loses_nothing_and_the_next_one_succeeds() {
    // With the shadows covered beforehand, and with a snapshot to be written by the compaction itself.
    let (mut refused, mut read_only, mut tolerated) = (0, 0, 0);
    for is_covered in [true, false] {
        let dir = scratch();
        let store = dir.path().join("store");
        let cold = open(&store);
        let model = fill(&cold);
        if is_covered {
            rebuild(&cold);
            cold.close().unwrap();
        } else {
            // All segments sealed by the next start, and no snapshot anywhere.
            cold.abandon();
            open(&store).abandon();
        }
        let image = read_image(&store);
        assert_eq!(image.keys().any(|name| is_snapshot(name)), is_covered);
        let victims: BTreeMap<_, _> = image.iter().filter(|(name, _)| is_segment(name)).collect();
        for nth in 0.. {
            write_image(&store, &image);
            let cold = open_on(config(&store), ScriptedDisk::new(is_failed).logging());
            until_begun(&cold);
            cold.disk().take_log();
            let before = cold.segments();
            cold.disk().script((0..nth).map(|_| Verdict::Pass).chain([Verdict::Fail(failure_of(nth))]));
            let outcome = try_compact(&cold);
            if cold.disk().forget_script() > 0 {
                outcome.unwrap();
                assert!(nth > 30, "a compaction makes more calls than {nth}");
                break;
            }
            let failed = cold.disk().take_log().into_iter().filter(is_failed).nth(nth).unwrap();
            let when = format!("covered {is_covered}, call {nth} failed: {failed:?}");
            expect_exactly(&cold, &model, &when);
            expect_absent(&cold, &removed_keys(), &when);
            // Also after a failure that the task passed over: a directory that could not be synced, say.
            let is_read_only = cold.flush().is_err_and(|error| error.is_read_only());
            match &outcome {
                // Whatever fails before the commit undoes the round; after it, only leftovers can remain.
                Ok(report) => {
                    tolerated += 1;
                    assert!(report.segments_removed > 0, "{when}: {report:?}");
                    // What goes is opened once more, to give its space back.
                    let goes = victims.contains_key(&failed.name) || is_snapshot(&failed.name);
                    let to_go = failed.op == Op::Open && goes;
                    assert!(
                        to_go
                            || matches!(
                                failed.op,
                                Op::Remove | Op::SyncDir | Op::Stat | Op::OpenRead | Op::Read
                            ),
                        "{when}: the failure was passed over"
                    );
                }
                Err(error) => {
                    assert!(!error.is_closed() && !error.is_busy(), "{when}: {error}");
                    for (name, bytes) in &victims {
                        assert!(read_file(&store, name) == **bytes, "{when}: victim {name} was touched");
                    }
                    if is_read_only {
                        // Whether the commit is on disk cannot be known: both sets stay.
                        read_only += 1;
                        assert!(cold.insert(b"x", b"y").unwrap_err().is_read_only(), "{when}");
                    } else {
                        refused += 1;
                        assert_eq!(cold.segments(), before, "{when}: the accounts changed");
                        let segments: Vec<_> = victims.keys().map(|name| (*name).clone()).collect();
                        assert_eq!(names(&store, is_segment), segments, "{when}: outputs were left behind");
                        expect_tidy(&cold, &store, &when);
                    }
                }
            }
            if !is_read_only {
                let again = try_compact(&cold).unwrap_or_else(|error| panic!("{when}: {error}"));
                assert_eq!(again.segments_removed > 0, outcome.is_err(), "{when}: {again:?}");
                expect_exactly(&cold, &model, &format!("{when}; compacted again"));
            }
            match is_read_only {
                true => assert!(cold.close().is_err(), "{when}"),
                false => cold.close().unwrap(),
            }
            let when = format!("{when}; reopened");
            let cold = open(&store);
            expect_exactly(&cold, &model, &when);
            expect_absent(&cold, &removed_keys(), &when);
            expect_tidy(&cold, &store, &when);
            assert_eq!(cold.stats().recovery.damaged, 0, "{when}");
            if nth % 4 == 0 || is_read_only {
                compact(&cold);
                expect_exactly(&cold, &model, &format!("{when} and compacted"));
            }
            cold.abandon();
        }
    }
    println!("{refused} refused, {read_only} read-only, {tolerated} tolerated");
    assert!(refused >= 40 && read_only >= 3 && tolerated >= 3, "{refused} {read_only} {tolerated}");
}

/// A full disk and a broken one, by turns.
fn failure_of(nth: usize) -> std::io::ErrorKind {
    if nth.is_multiple_of(2) { std::io::ErrorKind::StorageFull } else { std::io::ErrorKind::Other }
}

#[test]
fn a_record_that_reads_back_wrong_undoes_the_compaction() {
    // The write is cut short and said to be whole only by its return value: the store has to write the rest.
    let dir = scratch();
    let cold =
        open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::Write && call.is_output()));
    let model = fill(&cold);
    cold.disk().script([Verdict::Short(1), Verdict::Short(777), Verdict::Pass, Verdict::Short(4096)]);
    let report = compact(&cold);
    assert_eq!(report.entries_copied, model.len() as u64);
    assert_eq!(cold.disk().forget_script(), 0);
    // A write of no bytes is a failure, not an endless loop.
    for n in (0..KEYS).step_by(2) {
        cold.insert(&key(n), b"short").unwrap();
    }
    let model: Model = (0..KEYS)
        .filter_map(|n| {
            let kept = model.get(&key(n)).cloned();
            let value = if n.is_multiple_of(2) { Some(b"short".to_vec()) } else { kept };
            value.map(|value| (key(n), value))
        })
        .collect();
    cold.disk().script([Verdict::Short(0)]);
    assert_eq!(try_compact(&cold).unwrap_err().kind(), ErrorKind::Io);
    expect_exactly(&cold, &model, "after the write that wrote nothing");
    expect_tidy(&cold, dir.path(), "after the write that wrote nothing");
    compact(&cold);
    expect_exactly(&cold, &model, "after the next compaction");
}

#[test]
fn bytes_reclaimed_are_what_the_directory_has_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cold = open(dir.path());
    let model = fill(&cold);
    cold.close().unwrap();
    let cold = open(dir.path());
    let before = allocated_segment_bytes(dir.path());
    let report = compact(&cold);
    let after = allocated_segment_bytes(dir.path());
    assert_eq!(report.bytes_before, before as u64, "every segment was a victim: {report:?}");
    assert_eq!(report.bytes_after, after as u64);
    assert_eq!(report.bytes_reclaimed, before - after);
    assert!(report.bytes_reclaimed > 100_000, "{report:?}");
    assert_eq!(cold.stats().bytes_reclaimed, report.bytes_reclaimed as u64);
    assert_eq!(cold.compaction_state().bytes_reclaimed(), report.bytes_reclaimed as u64);
    assert_eq!(report.entries_copied, model.len() as u64);
    assert_eq!(report.entries_dead, u64::from(KEYS.div_ceil(3)) + u64::from(KEYS.div_ceil(5)));
    assert_eq!((report.entries_expired, report.entries_damaged, report.entries_recompressed), (0, 0, 0));
    expect_exactly(&cold, &model, "after the compaction");

    let nothing = compact(&cold);
    assert_eq!((nothing.segments_removed, nothing.bytes_reclaimed), (0, 0), "{nothing:?}");
    assert_eq!(allocated_segment_bytes(dir.path()), after);
}

#[test]
fn a_cancelled_compaction_leaves_nothing_behind_and_nothing_out() {
    let dir = scratch();
    let cold =
        open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::Write && call.is_output()));
    let model = fill(&cold);
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let task = scope.spawn(|| try_compact(&cold));
        let gate = gate;
        gate.wait();
        let before = names(dir.path(), |name| is_segment(name) && !is_temporary(name));
        cold.cancel();
        drop(gate);
        let error = task.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(names(dir.path(), is_segment), before);
    });
    assert!(!cold.compaction_state().is_compacting());
    assert_eq!(cold.compaction_state().bytes_reclaimed(), 0);
    expect_exactly(&cold, &model, "after the cancelled compaction");
    expect_tidy(&cold, dir.path(), "after the cancelled compaction");
    // The request was for that task alone.
    assert!(compact(&cold).bytes_reclaimed > 0);
    expect_exactly(&cold, &model, "after the next compaction");
}

#[test]
fn a_store_closed_in_mid_compaction_opens_whole() {
    for permits in [0, 1, 2, 5, 50] {
        let dir = scratch();
        let cold = open_on(config(dir.path()), ScriptedDisk::new(Call::is_output));
        let model = fill(&cold);
        let (gate, hold) = Gate::new();
        cold.disk().script((0..1000).map(|_| Verdict::Hold(hold.clone())));
        cold.schedule(CompactionTask::CompactData).unwrap();
        std::thread::scope(|scope| {
            // Dropped here when this scope ends, so that the held calls go on.
            let gate = gate;
            gate.wait();
            for _ in 0..permits {
                gate.release.send(()).unwrap();
            }
            scope.spawn(move || cold.close().unwrap());
        });
        let cold = open(dir.path());
        expect_exactly(&cold, &model, "after a close in mid-compaction");
        expect_tidy(&cold, dir.path(), "after a close in mid-compaction");
    }
}

#[test]
fn wholly_dead_segments_go_without_a_copy() {
    let dir = scratch();
    let disk = ScriptedDisk::new(|_| false).logging();
    let cold = open_on(config(dir.path()), disk);
    let mut model = Model::new();
    for n in 0..300 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    for n in 0..300 {
        put(&cold, &mut model, key(n), noise(u64::from(n) + 900, 600));
    }
    cold.flush().unwrap();
    rebuild(&cold);
    let segments = cold.segments();
    let emptied: Vec<_> = segments.iter().filter(|segment| segment.live_records == 0).collect();
    assert!(emptied.len() >= 2, "{segments:?}");
    cold.disk().take_log();
    let report = compact(&cold);
    let log = cold.disk().take_log();
    assert!(report.segments_removed >= emptied.len() as u64, "{report:?}");
    let left = names(dir.path(), is_segment);
    for segment in &emptied {
        let name = format!("seg-{:010}.lard", segment.id);
        assert!(!left.contains(&name), "{name} is wholly dead and still there");
        // Its footer alone is read: from behind the records to the end of the file.
        let records_end = SEGMENT_HEADER_BYTES as u64 + segment.live_bytes + segment.dead_bytes;
        let reads: Vec<_> = log.iter().filter(|call| call.op == Op::Read && call.name == name).collect();
        assert!(!reads.is_empty());
        assert!(reads.iter().all(|call| call.offset >= records_end), "{name}: {reads:?}");
    }
    expect_exactly(&cold, &model, "after the compaction");
}

#[test]
fn when_everything_is_removed_compaction_leaves_no_segment_and_nothing_to_remember() {
    let dir = scratch();
    let cold = open(dir.path());
    for n in 0..300 {
        cold.insert(&key(n), &noise(n.into(), 600)).unwrap();
    }
    for n in 0..300 {
        cold.remove(&key(n)).unwrap();
    }
    for _ in 0..2 {
        compact(&cold);
        expect_exactly(&cold, &Model::new(), "nothing lives");
    }
    assert!(cold.is_empty());
    // The snapshots cover every deletion, and no older record is left: nothing holds the tombstones.
    let (stats, segments) = (cold.stats(), cold.segments());
    assert_eq!((stats.shadows, stats.segment_bytes), (0, 0), "{segments:?}");
    assert_eq!(names(dir.path(), is_segment), Vec::<String>::new());
    cold.close().unwrap();
    let cold = open(dir.path());
    expect_exactly(&cold, &Model::new(), "after a reopen");
    expect_absent(&cold, &(0..300).map(key).collect::<Vec<_>>(), "after a reopen");
}

#[test]
fn an_output_that_the_system_refuses_to_read_back_is_not_called_damaged() {
    let dir = scratch();
    let concerns = |call: &Call| call.is_output() && matches!(call.op, Op::Stat | Op::Read);
    let cold = open_on(config(dir.path()), ScriptedDisk::new(concerns));
    let model = fill(&cold);
    let mut kinds = Vec::new();
    for nth in 0.. {
        cold.disk().script(
            (0..nth).map(|_| Verdict::Pass).chain([Verdict::Fail(std::io::ErrorKind::PermissionDenied)]),
        );
        let outcome = try_compact(&cold);
        if cold.disk().forget_script() > 0 {
            outcome.unwrap();
            break;
        }
        kinds.push(outcome.unwrap_err().kind());
        expect_tidy(&cold, dir.path(), "after a refused read");
    }
    assert!(kinds.len() >= 4, "{kinds:?}");
    assert!(kinds.iter().all(|kind| *kind == ErrorKind::Io), "{kinds:?}");
    expect_exactly(&cold, &model, "in the end");
}

#[test]
fn an_automatic_compaction_starts_by_itself_once_enough_is_dead() {
    let dir = scratch();
    let automatic = config(dir.path())
        .maintenance(Maintenance::Automatic)
        .maintenance_interval(Duration::from_millis(1))
        .dead_ratio_max(0.25);
    let cold = open_on(automatic, OsDisk);
    let mut model = Model::new();
    for n in 0..300 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    for n in 0..200 {
        put(&cold, &mut model, key(n), noise(u64::from(n) + 500, 600));
    }
    wait_until("an automatic compaction", || cold.stats().compactions > 0);
    wait_until("its end", || !cold.compaction_state().is_compacting());
    assert!(cold.stats().bytes_reclaimed > 0);
    expect_exactly(&cold, &model, "after an automatic compaction");
}

#[test]
fn garbage_in_a_segment_that_is_being_written_is_given_back_by_itself() {
    let dir = scratch();
    let automatic = config(dir.path())
        .segment_bytes(4 << 20)
        .maintenance(Maintenance::Automatic)
        .maintenance_interval(Duration::from_millis(5));
    let (cold, mut model) = (open_on(automatic, OsDisk), Model::new());
    // All in one active segment, a quarter of it in use; three quarters garbage.
    for n in 0..2000 {
        put(&cold, &mut model, key(n % 500), noise(n.into(), 1000));
    }
    cold.flush().unwrap();
    // Up to an eighth of a segment may stay.
    wait_until("the garbage is given back", || cold.stats().dead_bytes < 600_000);
    expect_exactly(&cold, &model, "after what ran by itself");
}
