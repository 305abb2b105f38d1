//! Openings that are large enough to be spread over several threads find what small ones do.

use std::collections::BTreeMap;

use larder::{Clock, ColdTier, ColdTierConfig, Disk, OsDisk};

use crate::stores::{
    Model, compact, config, expect_exactly, key, names, open_on, put, rebuild, remove, scratch,
};

/// Above the entries, rows and records from which on threads are started.
const ENTRIES: u32 = 120_000;

fn few_segments(dir: &std::path::Path) -> ColdTierConfig {
    config(dir).segment_bytes(16 << 20)
}

fn value(key: u32, version: u8) -> Vec<u8> {
    [&key.to_le_bytes()[..], &[version; 3]].concat()
}

/// Live and dead records, segment by segment, of the segments that are not being written.
fn accounts<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> BTreeMap<u64, (u64, u64)> {
    cold.segments().iter().map(|segment| (segment.id, (segment.live_records, segment.dead_records))).collect()
}

#[test]
fn a_large_snapshot_is_loaded_with_every_entry_and_account() {
    let dir = scratch();
    let mut model = Model::new();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    for n in 0..ENTRIES + 20_000 {
        put(&cold, &mut model, key(n), value(n, 0));
    }
    for n in 0..10_000 {
        put(&cold, &mut model, key(n * 3), value(n * 3, 1));
        remove(&cold, &mut model, &key(n * 3 + 1));
    }
    rebuild(&cold);
    let known = accounts(&cold);
    cold.close().unwrap();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    let stats = cold.stats();
    assert_eq!(
        stats.recovery.snapshot_entries,
        stats.entries + stats.shadows,
        "the snapshot covers all of it"
    );
    assert!(stats.recovery.footer_rows == 0 && stats.entries == model.len() as u64, "{stats:?}");
    assert_eq!(accounts(&cold), known);
    expect_exactly(&cold, &model, "from a large snapshot");

    // What newer rows replace is dead, and lay in segments that are still there.
    for n in 0..30_000 {
        put(&cold, &mut model, key(n * 4), value(n, 2));
    }
    cold.flush().unwrap();
    cold.abandon();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    assert_eq!(cold.stats().recovery.snapshot_entries, stats.recovery.snapshot_entries);
    let known = accounts(&cold);
    cold.close().unwrap();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    assert_eq!(accounts(&cold), known, "what replay counted is what a snapshot of it counts");
    expect_exactly(&cold, &model, "after a kill, closed, and opened again");
}

#[test]
fn a_large_snapshot_and_many_rows_newer_and_moved_give_the_newest_of_each() {
    let dir = scratch();
    let mut model = Model::new();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    for n in 0..ENTRIES {
        put(&cold, &mut model, key(n), value(n, 0));
    }
    rebuild(&cold);
    // Newer rows of keys that the snapshot knows and of others; deletions; then all that is left of the old segments moves.
    for n in 0..ENTRIES / 2 {
        put(&cold, &mut model, key(n * 2), value(n * 2, 1));
    }
    for n in 0..10_000 {
        put(&cold, &mut model, key(ENTRIES + n), value(n, 2));
        remove(&cold, &mut model, &key(n * 5));
    }
    let report = compact(&cold);
    assert!(report.entries_copied >= 50_000, "{report:?}");
    // And what is only in a segment that was being written.
    for n in 0..ENTRIES {
        put(&cold, &mut model, key(n), value(n, 3));
    }
    for n in 0..10_000 {
        remove(&cold, &mut model, &key(n * 7));
    }
    cold.flush().unwrap();
    cold.abandon();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    let recovery = cold.stats().recovery;
    assert!(recovery.snapshot_entries >= 100_000 && recovery.scanned_records >= 100_000, "{recovery:?}");
    assert!(recovery.footer_rows >= 50_000 && recovery.damaged == 0, "{recovery:?}");
    expect_exactly(&cold, &model, "after a kill");
    let known = accounts(&cold);
    cold.close().unwrap();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    assert_eq!(accounts(&cold), known, "what replay counted is what a snapshot of it counts");
    expect_exactly(&cold, &model, "closed, and opened again");
}

#[test]
fn many_rows_without_a_snapshot_give_the_newest_of_each() {
    let dir = scratch();
    let mut model = Model::new();
    let cold = open_on(few_segments(dir.path()), OsDisk);
    for n in 0..ENTRIES {
        put(&cold, &mut model, key(n), value(n, 0));
    }
    for n in 0..30_000 {
        put(&cold, &mut model, key(n * 4), value(n, 1));
        remove(&cold, &mut model, &key(n * 4 + 2));
    }
    cold.flush().unwrap();
    cold.abandon();
    assert!(names(dir.path(), |name| name.starts_with("snap-")).is_empty());
    let cold = open_on(few_segments(dir.path()), OsDisk);
    assert_eq!(cold.stats().recovery.snapshot_entries, 0);
    expect_exactly(&cold, &model, "from rows alone");
    let known = accounts(&cold);
    cold.close().unwrap();
    assert_eq!(accounts(&open_on(few_segments(dir.path()), OsDisk)), known);
}
