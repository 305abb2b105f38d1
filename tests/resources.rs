//! Opening, using and closing a store 1,000 times leaves nothing behind in the process: no thread, no file
//! descriptor, no memory. A process of its own, because it counts those of the whole process.

use std::time::Duration;

use larder::{ColdTier, ColdTierConfig, CompactionTask, Maintenance};

/// What the process holds at the moment.
#[derive(Clone, Copy, Debug)]
struct Level {
    threads: usize,
    descriptors: usize,
    resident_bytes: u64,
}

fn level() -> Level {
    let count = |dir: &str| std::fs::read_dir(dir).expect("Linux keeps it there").count();
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux keeps it there");
    let pages: u64 = statm.split(' ').nth(1).expect("the resident pages").parse().expect("a number");
    // The directory that is being listed is open itself, each time alike.
    Level {
        threads: count("/proc/self/task"),
        descriptors: count("/proc/self/fd"),
        resident_bytes: pages * 4096,
    }
}

/// One life of the store: every call, and a task by turns.
fn live(dir: &std::path::Path, round: u32) {
    let config = ColdTierConfig::new(dir).segment_bytes(64 << 10).maintenance(Maintenance::Manual);
    let cold = ColdTier::open(config).expect("open");
    for n in 0..20u32 {
        let key = (round * 7 + n) % 100;
        cold.insert(&key.to_le_bytes(), format!("{{\"round\":{round},\"n\":{n}}}").as_bytes())
            .expect("insert");
    }
    cold.insert_with_ttl(b"short", b"x", Duration::from_millis(1)).expect("insert");
    cold.remove(&(round % 100).to_le_bytes()).expect("remove");
    assert!(
        cold.get(&((round * 7 + 19) % 100).to_le_bytes()).expect("get").is_some()
            || round % 100 == (round * 7 + 19) % 100
    );
    assert!(cold.iter().count() <= 101);
    let task = match round % 40 {
        0 => CompactionTask::OptimizeCompression,
        n if n % 4 == 1 => CompactionTask::CleanupExpired,
        n if n % 4 == 2 => CompactionTask::CompactData,
        _ => CompactionTask::RebuildIndex,
    };
    cold.run(task).expect("run a task");
    match round % 3 {
        0 => cold.close().expect("close"),
        1 => drop(cold),
        _ => {
            // With a task under way.
            cold.schedule(CompactionTask::CompactData).expect("schedule");
            cold.close().expect("close");
        }
    }
}

#[test]
fn a_thousand_lives_leave_threads_descriptors_and_memory_level() {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    // Allocator, thread stacks and thread-locals find their size first.
    for round in 0..120 {
        live(dir.path(), round);
    }
    let before = level();
    for round in 120..1120 {
        live(dir.path(), round);
        if round % 250 == 0 {
            println!("{:?}", level());
        }
    }
    let after = level();
    let grown = after.resident_bytes as i64 - before.resident_bytes as i64;
    println!("before {before:?}, after {after:?}: {grown} bytes grown");
    assert_eq!(after.threads, before.threads, "threads were left behind");
    assert_eq!(after.descriptors, before.descriptors, "file descriptors were left behind");
    // An index alone takes 30 KiB and a store's maps as much: one leaked a life would be 60 MB.
    assert!(grown < 8 << 20, "{grown} bytes more after a thousand lives: {before:?}, {after:?}");
}
