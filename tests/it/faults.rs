//! When the queue is full or a worker dies, and values of every size: what callers are told, and what stands.

use std::io::ErrorKind as IoKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::internals::brake::Brake;
use larder::internals::serialization::segment::SEGMENT_HEADER_BYTES;
use larder::{ColdTier, CompactionTask, Durability, Error, ErrorKind, ManualClock, OsDisk, QueueFull};

use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{
    Model, compact, config, expect_absent, expect_exactly, key, noise, open, open_on, put, scratch,
    wait_until,
};

pub type Scripted = ColdTier<ScriptedDisk, ManualClock>;

/// Picks the calls that a script is about.
pub type Concern = fn(&Call) -> bool;

/// Writes of records: the header of a new segment is not among them.
pub fn appends(call: &Call) -> bool {
    call.op == Op::Write && call.is_segment() && call.offset >= SEGMENT_HEADER_BYTES as u64
}

/// A store whose writer is stopped at its first append, the smallest queue there is filled up behind it.
fn with_full_queue(dir: &std::path::Path, queue_full: QueueFull) -> (Scripted, Gate, Model) {
    let config = config(dir).queue_bytes_max(64 << 10).queue_full(queue_full);
    let cold = open_on(config, ScriptedDisk::new(appends));
    let mut model = Model::new();
    for n in 0..20 {
        put(&cold, &mut model, key(n), noise(n.into(), 100));
    }
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    put(&cold, &mut model, key(20), noise(20, 100));
    gate.wait();
    (cold, gate, model)
}

#[test]
fn a_full_queue_answers_busy_and_has_changed_nothing() {
    for queue_full in [QueueFull::Refuse, QueueFull::WaitFor(Duration::from_millis(20))] {
        let dir = scratch();
        let (cold, gate, mut model) = with_full_queue(dir.path(), queue_full);
        let mut busy = None;
        for n in 21..1000 {
            let value = noise(n.into(), 1000);
            match cold.insert(&key(n), &value) {
                Ok(()) => drop(model.insert(key(n), value)),
                Err(error) => {
                    busy = Some((n, error));
                    break;
                }
            }
        }
        let (full_at, error) = busy.expect("64 KiB of queue do not hold a megabyte");
        assert!(error.is_busy(), "{error}");
        assert!((40..80).contains(&full_at), "{full_at} of a KiB each fit into 64 KiB");
        let before = cold.stats();
        assert!(before.queued_bytes <= 64 << 10, "{before:?}");
        // New, overwriting and removing alike are refused, and everything reads as before.
        assert!(cold.insert(&key(full_at), &noise(1, 1000)).unwrap_err().is_busy());
        assert!(cold.insert(&key(0), &noise(1, 1000)).unwrap_err().is_busy());
        assert!(cold.insert(&key(25), &noise(1, 1000)).unwrap_err().is_busy());
        let large = vec![b'k'; 60_000];
        assert!(cold.insert_with_ttl(&large, b"", Duration::from_secs(1)).unwrap_err().is_busy());
        // What the queue has left may take a few tombstones; then they are refused as well.
        let refused = (0..300).find(|n| match cold.remove(&key(*n % 20)) {
            Ok(()) => {
                model.remove(&key(*n % 20));
                false
            }
            Err(error) => {
                assert!(error.is_busy(), "{error}");
                true
            }
        });
        for (key, value) in &model {
            assert_eq!(cold.get(key).unwrap().as_deref(), Some(&value[..]), "readers go on, {queue_full:?}");
        }
        expect_absent(&cold, [&key(full_at), &large], "refused");
        let after = cold.stats();
        assert_eq!(after.inserts, before.inserts, "a refused write is not counted");
        assert!(after.queued_bytes <= 64 << 10, "{after:?}");
        if refused.is_none() {
            assert!(model.keys().all(|k| (20..1000).any(|n| *k == key(n))), "all twenty were removed");
        }
        drop(gate);
        cold.flush().unwrap();
        expect_exactly(&cold, &model, "once the queue has drained");
        assert_eq!(cold.stats().queued_bytes, 0);
        cold.insert(&key(full_at), b"now").unwrap();
        model.insert(key(full_at), b"now".to_vec());
        cold.close().unwrap();
        expect_exactly(&open(dir.path()), &model, "after a reopen");
    }
}

#[test]
fn a_caller_that_waits_for_the_queue_goes_on_when_there_is_room() {
    let dir = scratch();
    let (cold, gate, mut model) = with_full_queue(dir.path(), QueueFull::Wait);
    let accepted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let gate = gate;
        for thread in 0..3u32 {
            let (cold, accepted) = (&cold, &accepted);
            scope.spawn(move || {
                for n in 0..100u32 {
                    cold.insert(&key(1000 * (thread + 1) + n), &noise(n.into(), 1000)).unwrap();
                    accepted.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        wait_until("a full queue", || cold.stats().queued_bytes + 1256 > 64 << 10);
        // While the writer stands still, no more than the queue can ever be accepted.
        assert!(accepted.load(Ordering::SeqCst) < 60, "{accepted:?}");
        assert!(cold.stats().queued_bytes <= 64 << 10);
        drop(gate);
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 300);
    for thread in 0..3u32 {
        for n in 0..100u32 {
            model.insert(key(1000 * (thread + 1) + n), noise(n.into(), 1000));
        }
    }
    expect_exactly(&cold, &model, "all were accepted");
}

#[test]
fn a_record_larger_than_the_queue_is_let_through_when_it_is_empty() {
    let dir = scratch();
    let config = config(dir.path()).queue_bytes_max(64 << 10).queue_full(QueueFull::Wait);
    let cold = open_on(config, OsDisk);
    let mut model = Model::new();
    for n in 0..5 {
        put(&cold, &mut model, key(n), noise(n.into(), 200_000));
        put(&cold, &mut model, key(100 + n), noise(n.into(), 10));
    }
    cold.flush().unwrap();
    expect_exactly(&cold, &model, "large and small by turns");
}

#[test]
fn a_record_larger_than_the_queue_gets_in_while_others_keep_coming() {
    let dir = scratch();
    let config = config(dir.path()).queue_bytes_max(64 << 10).queue_full(QueueFull::Wait);
    let cold = open_on(config, OsDisk);
    let (is_over, others) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 1..4u32 {
            let (cold, is_over, others) = (&cold, &is_over, &others);
            scope.spawn(move || {
                for n in (0..50_000u32).take_while(|_| !is_over.load(Ordering::SeqCst)) {
                    cold.insert(&key(10_000 * thread + n % 1000), &noise(n.into(), 8000)).unwrap();
                    others.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while others.load(Ordering::SeqCst) < 100 {
            std::thread::yield_now();
        }
        for n in 0..20 {
            let before = others.load(Ordering::SeqCst);
            cold.insert(&key(n), &noise(n.into(), 200_000)).unwrap();
            // What is queued, what its threads were about to, and what they bring while it is encoded.
            let between = others.load(Ordering::SeqCst) - before;
            assert!(between < 200, "{between} others first");
        }
        is_over.store(true, Ordering::SeqCst);
    });
}

/// Runs a call on a thread of its own, with a watchdog: the promise is that nothing hangs.
fn must_end<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || drop(done.send(catch_unwind(AssertUnwindSafe(call)))));
    match wait.recv_timeout(Duration::from_secs(60)) {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => panic!("{what} hangs"),
    }
}

/// Every call that can fail answers that the store is closed; the others end.
fn expect_all_closed(cold: &Scripted) {
    let is_closed = |what: &str, error: Option<Error>| {
        let error = error.unwrap_or_else(|| panic!("{what} worked on a dead store"));
        assert!(error.is_closed(), "{what}: {error}");
    };
    is_closed("insert", cold.insert(b"k", b"v").err());
    is_closed("insert_with_ttl", cold.insert_with_ttl(b"k", b"v", Duration::from_secs(1)).err());
    is_closed("remove", cold.remove(&key(1)).err());
    is_closed("get", cold.get(&key(1)).err());
    is_closed("contains_key", cold.contains_key(&key(1)).err());
    is_closed("ttl", cold.ttl(&key(1)).err());
    is_closed("flush", cold.flush().err());
    is_closed("iter", cold.iter().next().and_then(Result::err));
    for task in [
        CompactionTask::CompactData,
        CompactionTask::CleanupExpired,
        CompactionTask::OptimizeCompression,
        CompactionTask::RebuildIndex,
    ] {
        is_closed("run", cold.run(task).err());
        is_closed("schedule", cold.schedule(task).err());
    }
    cold.len();
    cold.stats();
    cold.segments();
    cold.compression();
    cold.cancel();
}

#[test]
fn a_writer_that_panics_closes_the_store_and_nothing_hangs() {
    for durability in [Durability::Never, Durability::Always] {
        let dir = scratch();
        let store = dir.path().to_path_buf();
        let model: Model = (0..50).map(|n| (key(n), noise(n.into(), 200))).collect();
        let expected = model.clone();
        must_end("a store with a dead writer", move || {
            let config = config(&store).queue_bytes_max(64 << 10).durability(durability);
            let cold = open_on(config.clone(), ScriptedDisk::new(appends));
            for (key, value) in &model {
                cold.insert(key, value).unwrap();
            }
            cold.flush().unwrap();
            cold.disk().script([Verdict::Panic]);
            let last = cold.insert(b"last", b"value");
            assert!(last.is_ok() || durability == Durability::Always, "{last:?}");
            assert!(last.is_ok() || last.unwrap_err().is_closed());
            assert!(cold.flush().unwrap_err().is_closed());
            expect_all_closed(&cold);
            // More than the queue holds: a caller must not wait for a dead writer.
            for _ in 0..100 {
                assert!(cold.insert(b"more", &noise(1, 2000)).unwrap_err().is_closed());
            }
            assert!(cold.close().unwrap_err().is_closed());

            // The lock is free; a second time, dropped instead of closed.
            let cold = open_on(config, ScriptedDisk::new(appends));
            cold.disk().script([Verdict::Panic]);
            drop(cold.insert(b"last", b"value"));
            drop(cold);
        });
        let cold = open(dir.path());
        expect_exactly(&cold, &expected, "what was flushed before the panic");
    }
}

#[test]
fn callers_that_wait_for_the_queue_learn_that_the_writer_has_died() {
    let dir = scratch();
    let store = dir.path().to_path_buf();
    must_end("callers of a dead writer", move || {
        let config = config(&store).queue_bytes_max(64 << 10).queue_full(QueueFull::Wait);
        let cold = open_on(config, ScriptedDisk::new(appends));
        let (gate, hold) = Gate::new();
        cold.disk().script([Verdict::Hold(hold), Verdict::Panic]);
        cold.insert(b"first", b"value").unwrap();
        gate.wait();
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4u32)
                .map(|thread| {
                    let cold = &cold;
                    let until_refused = move || {
                        (0..).find_map(|n| cold.insert(&key(1000 * thread + n % 100), &noise(1, 5000)).err())
                    };
                    scope.spawn(until_refused)
                })
                .collect();
            let waiting = scope.spawn(|| cold.flush());
            wait_until("a full queue", || cold.stats().queued_bytes + 5300 > 64 << 10);
            drop(gate);
            for caller in callers {
                assert!(caller.join().unwrap().expect("it ends with an error").is_closed());
            }
            // Its barrier may have been answered before the panic, never after.
            let flushed = waiting.join().unwrap();
            assert!(flushed.is_ok() || flushed.unwrap_err().is_closed());
        });
    });
}

#[test]
fn a_compaction_worker_that_panics_closes_the_store_and_nothing_hangs() {
    let dir = scratch();
    let store = dir.path().to_path_buf();
    let model: Model = (0..200).map(|n| (key(n), noise(u64::from(n) + 7, 500))).collect();
    let expected = model.clone();
    must_end("a store with a dead compaction worker", move || {
        let cold =
            open_on(config(&store), ScriptedDisk::new(|call| call.op == Op::Write && call.is_output()));
        for n in 0..200 {
            cold.insert(&key(n), &noise(n.into(), 600)).unwrap();
        }
        for (key, value) in &model {
            cold.insert(key, value).unwrap();
        }
        cold.flush().unwrap();
        cold.disk().script([Verdict::Panic]);
        let error = cold.run(CompactionTask::CompactData).unwrap_err();
        assert!(error.is_closed(), "{error}");
        expect_all_closed(&cold);
        assert!(cold.close().unwrap_err().is_closed());
    });
    let cold = open(dir.path());
    expect_exactly(&cold, &expected, "after the panic");
    compact(&cold);
    expect_exactly(&cold, &expected, "compacted after the panic");
}

#[test]
fn a_dead_compaction_worker_is_not_said_to_be_compacting() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::Create));
    cold.insert(b"k", b"v").unwrap();
    cold.flush().unwrap();
    cold.disk().script([Verdict::Panic]);
    assert!(cold.run(CompactionTask::RebuildIndex).unwrap_err().is_closed());
    // The answer may come before the worker has unwound: it gets some time, nothing is measured.
    let is_over = || !cold.compaction_state().is_compacting();
    let ended = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        is_over()
    });
    assert!(ended, "a dead worker is said to be compacting");
    drop(cold);
}

#[test]
fn a_panic_under_a_readers_feet_is_that_readers_alone() {
    let dir = scratch();
    let cold =
        open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::Read && call.is_segment()));
    let mut model = Model::new();
    for n in 0..50 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    cold.flush().unwrap();
    cold.disk().script([Verdict::Panic]);
    assert!(catch_unwind(AssertUnwindSafe(|| cold.get(&key(7)))).is_err());
    expect_exactly(&cold, &model, "after a reader's panic");
    cold.insert(b"more", b"value").unwrap();
    compact(&cold);
    cold.close().unwrap();
}

#[test]
fn a_read_that_the_system_refuses_is_an_error_and_not_a_miss() {
    let dir = scratch();
    let cold =
        open_on(config(dir.path()), ScriptedDisk::new(|call| call.op == Op::Read && call.is_segment()));
    cold.insert(b"k", b"v").unwrap();
    cold.flush().unwrap();
    cold.disk().script([Verdict::Fail(IoKind::Other)]);
    let error = cold.get(b"k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("seg-"), "it names the file: {error}");
    assert_eq!(cold.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(cold.stats().damaged_misses, 0);
}

#[test]
fn keys_and_values_of_every_size_come_back_as_they_were_through_compaction_too() {
    let sizes = [
        0,
        1,
        3,
        4,
        25,
        31,
        32,
        63,
        255,
        256,
        1000,
        4095,
        4096,
        32_767,
        65_535,
        65_536,
        65_537,
        1 << 20,
        (5 << 20) + 1,
    ];
    let key_sizes = [1, 2, 3, 4, 255, 256, 4096, 32_768, 65_535, 65_536];
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    for (n, size) in sizes.iter().enumerate() {
        put(&cold, &mut model, format!("v{size}").into_bytes(), noise(n as u64, *size));
    }
    for (n, size) in key_sizes.iter().enumerate() {
        put(&cold, &mut model, noise(n as u64 + 900, *size), noise(n as u64, 100));
        put(&cold, &mut model, noise(n as u64 + 950, *size), Vec::new());
    }
    // Something dead in every segment that is shared.
    for (n, size) in sizes.iter().enumerate().filter(|(_, size)| **size < 70_000) {
        put(&cold, &mut model, format!("w{size}").into_bytes(), noise(n as u64, *size));
        put(&cold, &mut model, format!("w{size}").into_bytes(), noise(n as u64 + 50, *size));
        put(&cold, &mut model, format!("v{size}").into_bytes(), noise(n as u64 + 70, *size));
    }
    expect_exactly(&cold, &model, "in flight and in files");
    let report = compact(&cold);
    assert!(report.entries_copied > 10, "{report:?}");
    expect_exactly(&cold, &model, "compacted");
    cold.close().unwrap();
    let cold = open(dir.path());
    expect_exactly(&cold, &model, "reopened");
}

#[test]
fn the_largest_value_and_key_round_trip_and_are_moved_by_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let long_key = noise(3, 64 << 10);
    // Text that compresses, but is first stored as it is.
    let line: Vec<u8> = (0..4096u32).flat_map(|n| format!("{:015x},", n * n).into_bytes()).collect();
    let text: Vec<u8> = (0..1024u32).flat_map(|n| [&n.to_le_bytes(), &line[4..]].concat()).collect();
    assert_eq!(text.len(), 64 << 20);
    // Of another class of sizes than the text: a sample of its class that met this one alone would expect nothing.
    let random = noise(4, 1000);
    let cold = open(dir.path());
    cold.insert(&long_key, &text).unwrap();
    cold.insert(b"noise", &random).unwrap();
    for n in 0..2000 {
        cold.insert(&key(n), &crate::stores::json(n, 1)).unwrap();
    }
    let check = |cold: &ColdTier<OsDisk, ManualClock>, when: &str| {
        assert!(cold.get(&long_key).unwrap().as_deref() == Some(&text[..]), "{when}");
        assert!(cold.get(b"noise").unwrap().as_deref() == Some(&random[..]), "{when}");
        assert_eq!(cold.len(), 2002, "{when}");
    };
    check(&cold, "as written");
    cold.close().unwrap();
    let tuned = config(dir.path()).compression(larder::Compression::Tuned).sample_entries_max(100);
    let cold = open_on(tuned, OsDisk);
    check(&cold, "reopened");
    // A sample ends at 64 MiB: one that met a large value early has too few entries to judge by.
    assert!((0..10).any(|_| crate::stores::tune(&cold).changed));
    let before = cold.stats().segment_bytes;
    let report = compact(&cold);
    assert!(report.entries_recompressed >= 2001, "{report:?}");
    assert!(cold.stats().segment_bytes + (20 << 20) < before, "{before} {:?}", cold.stats());
    check(&cold, "moved and stored anew");
    cold.close().unwrap();
    let cold = open(dir.path());
    check(&cold, "reopened again");
    let largest = noise(5, 64 << 20);
    cold.insert(b"noise", &largest).unwrap();
    cold.flush().unwrap();
    assert!(cold.get(b"noise").unwrap().as_deref() == Some(&largest[..]));
}

#[test]
fn counting_entries_does_not_wait_for_a_writer_that_has_nothing_queued() {
    let dir = scratch();
    let disk = ScriptedDisk::new(|call| call.op == Op::Sync && call.is_segment());
    let cold = open_on(config(dir.path()), disk);
    cold.insert(b"key", b"value").unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let gate = gate;
        let flush = scope.spawn(|| cold.flush());
        gate.wait();
        // All is written; the sync takes its time.
        let count = scope.spawn(|| cold.len());
        wait_until("the entries are counted", || count.is_finished());
        assert_eq!(count.join().unwrap(), 1);
        drop(gate);
        flush.join().unwrap().unwrap();
    });
}

#[test]
fn a_record_larger_than_the_queue_that_waits_for_the_disk_holds_nobody_up() {
    fn removals(call: &Call) -> bool {
        call.op == Op::Remove && call.is_segment()
    }
    let dir = scratch();
    let config = config(dir.path())
        .capacity_bytes(64 << 20)
        .queue_bytes_max(64 << 10)
        .queue_full(QueueFull::WaitFor(Duration::from_secs(2)));
    let cold = open_on(config, ScriptedDisk::new(removals));
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    let large = noise(1, 2 << 20);
    // Until there is no room for the large one: what is evicted is not given back.
    let mut number = 0;
    while number < 10_000 || cold.insert(b"large", &large).is_ok() {
        assert!(number < 40_000);
        for _ in 0..100 {
            cold.insert(&key(number), &noise(number.into(), 4000)).unwrap();
            number += 1;
        }
    }
    gate.wait();
    std::thread::scope(|scope| {
        let (cold, large) = (&cold, &large);
        let waits = scope.spawn(move || cold.insert(b"large", large));
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..10 {
            cold.insert(b"small", b"1").unwrap();
        }
        assert!(!waits.is_finished(), "the small ones got in while the large one waited");
        drop(gate);
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn the_brake_forgets_whom_it_could_not_hold_up() {
    let brake = Brake::default();
    // A second's worth a call, and no call is held up for more than 20 ms.
    brake.set(Some(1 << 20));
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        brake.wait(1 << 20);
    }
    brake.set(Some(1 << 30));
    let started = Instant::now();
    (0..100).for_each(|_| brake.wait(100));
    // Twenty milliseconds each, if it does not forget.
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}
