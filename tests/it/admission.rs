//! Who is let in: the frequency gate, the write budget, and callers at a capacity that is taken.

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::unbounded;
use larder::{Admission, EvictionReason, OsDisk, QueueFull};

use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{compact, config, key, noise, open_on, scratch};
use crate::watched::{CAPACITY, du};

#[test]
fn the_frequency_gate_lets_second_offers_in_once_full_and_keeps_one_hit_wonders_out() {
    let dir = scratch();
    let (listener, told) = unbounded();
    let config =
        config(dir.path()).capacity_bytes(CAPACITY).admission(Admission::Frequency).evictions(listener);
    let cold = open_on(config, OsDisk);
    // While there is room, everything is let in.
    for n in 0..2000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    assert_eq!(cold.stats().rejected, 0);
    for n in 2000..10_000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    cold.flush().unwrap();
    let stats = cold.stats();
    assert!(stats.rejected > 4000, "{stats:?}");
    assert_eq!(stats.rejected + stats.inserts, 10_000);
    let rejections: Vec<_> = told.try_iter().collect();
    let of_gate: BTreeSet<_> = rejections
        .iter()
        .filter(|eviction| eviction.reason == EvictionReason::Admission)
        .map(|eviction| eviction.key.to_vec())
        .collect();
    assert_eq!(of_gate.len() as u64, stats.rejected);
    assert!(rejections.iter().all(|e| e.reason != EvictionReason::Admission || e.bytes == 0));
    assert!(of_gate.iter().all(|key| !cold.contains_key(key).unwrap()), "a rejected key is there");
    // A second offer is let in, and pushes others out: now the store is full to the brim.
    for n in 2000..10_000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    assert!(cold.stats().evicted > 1000, "{:?}", cold.stats());
    // Full: once is not enough, twice is.
    let fresh = |n: u32| key(500_000 + n);
    for n in 0..200 {
        cold.insert(&fresh(n), b"once").unwrap();
    }
    let let_in = (0..200).filter(|n| cold.contains_key(&fresh(*n)).unwrap()).count();
    assert!(let_in <= 20, "{let_in} of 200 one-hit wonders were let in");
    for n in 0..200 {
        cold.insert(&fresh(n), b"twice").unwrap();
    }
    for n in 0..200 {
        assert_eq!(cold.get(&fresh(n)).unwrap().as_deref(), Some(&b"twice"[..]), "{n}");
    }
}

#[test]
fn an_insert_that_is_not_let_in_takes_the_older_version_with_it() {
    let dir = scratch();
    let budget = 1 << 20;
    let (listener, told) = unbounded();
    let config = config(dir.path()).write_budget_bytes_per_day(budget).evictions(listener);
    let cold = open_on(config.clone(), OsDisk);
    cold.insert(b"key", b"older").unwrap();
    cold.insert(b"other", b"stays").unwrap();
    cold.flush().unwrap();
    // An hour's worth may go at once; then nothing.
    let mut n = 0;
    while cold.stats().rejected == 0 {
        cold.insert(&key(n), &noise(n.into(), 1000)).unwrap();
        cold.flush().unwrap();
        n += 1;
        assert!(n < 100, "the budget is never spent");
    }
    assert!(n > 30, "an hour's worth is {} bytes: {n}", budget / 24);
    cold.insert(b"key", b"newer").unwrap();
    assert_eq!(cold.get(b"key").unwrap(), None, "neither the newer one nor the older one");
    assert_eq!(cold.get(b"other").unwrap().as_deref(), Some(&b"stays"[..]));
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told.len() as u64, cold.stats().rejected);
    assert!(told.iter().all(|eviction| eviction.reason == EvictionReason::WriteBudget));
    assert_eq!((&told[1].key[..], told[1].bytes), (&b"key"[..], 0));
    cold.flush().unwrap();
    cold.abandon();
    let cold = open_on(config, OsDisk);
    assert_eq!(cold.get(b"key").unwrap(), None, "after a kill");
    compact(&cold);
    assert_eq!(cold.get(b"key").unwrap(), None, "after a compaction");
}

#[test]
fn the_write_budget_holds_over_a_day() {
    let dir = scratch();
    let budget: u64 = 8 << 20;
    let config = config(dir.path()).capacity_bytes(CAPACITY).write_budget_bytes_per_day(budget);
    let cold = open_on(config, OsDisk);
    let mut n = 0;
    // Every minute 20 KB are offered: 28 MB a day.
    for minute in 0..1440u64 {
        for _ in 0..20 {
            cold.insert(&key(n), &noise(n.into(), 1000)).unwrap();
            n += 1;
        }
        cold.flush().unwrap();
        cold.clock().advance(60_000);
        if minute % 60 == 59 {
            cold.run_due().unwrap();
            let most = budget * (minute + 1) / 1440 + budget / 24 + (128 << 10);
            let written = cold.stats().segment_bytes_written;
            assert!(written <= most, "after {minute} minutes {written} bytes were written, {most} allowed");
        }
    }
    let stats = cold.stats();
    assert!(stats.segment_bytes_written > budget * 9 / 10, "it is used: {stats:?}");
    assert!(stats.rejected > 15_000 && stats.rejected + stats.inserts == 28_800, "{stats:?}");
}

#[test]
fn at_a_full_disk_refuse_answers_busy_and_changes_nothing_and_goes_on_when_there_is_room() {
    let dir = scratch();
    // The commit of an eviction renames nothing and removes segments: held there.
    let concerns = |call: &Call| call.op == Op::Remove && call.is_segment();
    let config = config(dir.path()).capacity_bytes(CAPACITY).queue_full(QueueFull::Refuse);
    let cold = open_on(config, ScriptedDisk::new(concerns));
    let (gate, hold) = Gate::new();
    cold.disk().script((0..100_000).map(|_| Verdict::Hold(hold.clone())));
    drop(hold);
    let (mut n, mut is_held) = (0, false);
    let refused = loop {
        // What is queued takes more than what is written: full is what is full when nothing is queued.
        cold.flush().unwrap();
        let before = n;
        let refused = loop {
            match cold.insert(&key(n), &noise(n.into(), 2000)) {
                Ok(()) => n += 1,
                Err(error) => break error,
            }
            assert!(n < 10_000, "it is never full");
        };
        if n == before && is_held {
            break refused;
        }
        // The compaction worker, which has been asked for room, reserves some itself on its way to the gate.
        if !std::mem::replace(&mut is_held, true) {
            gate.wait();
        }
    };
    assert!(refused.is_busy(), "{refused}");
    assert!(refused.to_string().contains("capacity"), "{refused}");
    cold.flush().unwrap();
    assert!(du(dir.path()) <= CAPACITY);
    let before = cold.stats();
    let last = key(n - 1);
    for _ in 0..3 {
        let error = cold.insert(&last, &noise(7, 2000)).expect_err("still full");
        assert!(error.is_busy());
        let error = cold.insert(&key(n), &noise(7, 2000)).expect_err("still full");
        assert!(error.is_busy());
    }
    assert_eq!(cold.get(&key(n)).unwrap(), None);
    assert_eq!(cold.get(&last).unwrap().as_deref(), Some(&noise(u64::from(n - 1), 2000)[..]), "as it was");
    let after = cold.stats();
    assert_eq!((after.inserts, after.disk_bytes, after.queued_bytes), (before.inserts, before.disk_bytes, 0));
    // Room again.
    cold.disk().forget_script();
    drop(gate);
    cold.run_due().unwrap();
    cold.insert(&last, b"newer").unwrap();
    cold.insert(&key(n), b"new").unwrap();
    assert_eq!(cold.get(&last).unwrap().as_deref(), Some(&b"newer"[..]));
}

#[test]
fn at_a_full_disk_wait_waits_and_goes_on_when_there_is_room() {
    let dir = scratch();
    let concerns = |call: &Call| call.op == Op::Remove && call.is_segment();
    let config = config(dir.path()).capacity_bytes(CAPACITY).queue_full(QueueFull::Wait);
    let cold = open_on(config, ScriptedDisk::new(concerns));
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    std::thread::scope(|scope| {
        let (done_to, done) = unbounded();
        let cold = &cold;
        let writer = scope.spawn(move || {
            for n in 0..9000u32 {
                cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
                done_to.send(n).unwrap();
            }
        });
        let gate = gate;
        gate.wait();
        // It writes on until the room is gone, and then waits: nothing more comes for a while.
        while done.recv_timeout(Duration::from_millis(500)).is_ok() {}
        assert!(!writer.is_finished(), "it did not wait");
        assert!(du(dir.path()) <= CAPACITY);
        drop(gate);
        writer.join().unwrap();
    });
    cold.flush().unwrap();
    assert!(cold.contains_key(&key(8999)).unwrap());
    assert!(cold.stats().evicted > 2000 && du(dir.path()) <= CAPACITY);
}

#[test]
fn the_frequency_gate_forgets_what_was_offered_once_long_ago() {
    let dir = scratch();
    let config = config(dir.path()).capacity_bytes(CAPACITY).admission(Admission::Frequency);
    let cold = open_on(config, OsDisk);
    for n in 0..10_000 {
        cold.insert(&key(n), &noise(n.into(), 900)).unwrap();
    }
    let old = |n: u32| format!("old {n}").into_bytes();
    for n in 0..200 {
        cold.insert(&old(n), b"once").unwrap();
    }
    // Each of the two filters learns 65,536 keys and is emptied when the other one is full.
    for n in 0..3 * 65_536u32 {
        cold.insert(&n.to_le_bytes(), b"other").unwrap();
    }
    // What is queued takes more room than it will once written, and the gate is shut only where there is little.
    let is_shut = |n: &u32| {
        cold.flush().unwrap();
        let key = format!("filler {n}").into_bytes();
        cold.insert(&key, &noise(0, 900)).unwrap();
        !cold.contains_key(&key).unwrap()
    };
    (0..10_000).find(is_shut).expect("the gate shuts");
    for n in 0..200 {
        cold.insert(&old(n), b"again").unwrap();
    }
    let let_in = (0..200).filter(|n| cold.contains_key(&old(*n)).unwrap()).count();
    assert!(let_in <= 40, "{let_in} of 200 were taken for known");
}
