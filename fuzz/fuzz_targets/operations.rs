//! Operations against a model: what the store answers is what a map and a clock say, through every task, restart and
//! kill behind a flush.
#![no_main]

#[path = "../../tests/support/memory.rs"]
#[expect(dead_code, reason = "the disk of the crash suite, which also makes it fail")]
mod memory;

use std::collections::BTreeMap;
use std::time::Duration;

use larder::{ColdTier, ColdTierConfig, CompactionTask, Durability, Maintenance, ManualClock};
use libfuzzer_sys::fuzz_target;
use memory::{DIR, Memory, MemoryDisk};

const START_MS: u64 = 1_760_000_000_000;
const OPERATIONS: usize = 200;

type Store = ColdTier<MemoryDisk, ManualClock>;
type Model = BTreeMap<u8, (Vec<u8>, Option<u64>)>;

fn open(memory: &Memory, now_ms: u64) -> Store {
    let config = ColdTierConfig::new(DIR)
        .segment_bytes(64 << 10)
        .durability(Durability::Never)
        .maintenance(Maintenance::Manual);
    ColdTier::open_with(config, memory.disk(), ManualClock::new(now_ms)).expect("open")
}

fn check(cold: &Store, model: &mut Model, now_ms: u64) {
    model.retain(|_, (_, until)| until.is_none_or(|until| until > now_ms));
    let listed = cold.iter().map(|entry| entry.expect("iter")).count();
    assert_eq!(listed, model.len(), "entries listed");
    for key in 0..=31u8 {
        let read = cold.get(&[key, 1]).expect("get");
        assert_eq!(read.as_deref(), model.get(&key).map(|(value, _)| &**value), "key {key}");
    }
}

fuzz_target!(|data: &[u8]| {
    let memory = Memory::holding(None);
    let (mut cold, mut model, mut now_ms) = (open(&memory, START_MS), Model::new(), START_MS);
    for operation in data.chunks_exact(3).take(OPERATIONS) {
        let [what, key, size] = [operation[0], operation[1] & 31, operation[2]];
        let value = vec![size; usize::from(size) * usize::from(what >> 4)];
        match what & 15 {
            0..=4 => {
                cold.insert(&[key, 1], &value).expect("insert");
                model.insert(key, (value, None));
            }
            5..=7 => {
                let ttl_ms = 1 + u64::from(size) * 40;
                cold.insert_with_ttl(&[key, 1], &value, Duration::from_millis(ttl_ms)).expect("insert");
                model.insert(key, (value, Some(now_ms + ttl_ms)));
            }
            8 | 9 => {
                cold.remove(&[key, 1]).expect("remove");
                model.remove(&key);
            }
            10 => {
                now_ms += u64::from(size) * 20;
                cold.clock().advance(u64::from(size) * 20);
            }
            11 => drop(cold.run(CompactionTask::CompactData).expect("compact")),
            12 => drop(cold.run(CompactionTask::CleanupExpired).expect("clean up")),
            13 => drop(cold.run(CompactionTask::RebuildIndex).expect("save the index")),
            14 => {
                cold.close().expect("close");
                cold = open(&memory, now_ms);
            }
            _ => {
                cold.flush().expect("flush");
                cold.abandon();
                cold = open(&memory, now_ms);
            }
        }
        if what & 15 > 9 {
            check(&cold, &mut model, now_ms);
        }
    }
    check(&cold, &mut model, now_ms);
    cold.close().expect("close");
});
