//! The life of a store as one caller sees it.

use std::time::Duration;

use larder::internals::frontier::Frontier;
use larder::internals::metadata_index::{
    EntryId, IndexEntry, Location, MetadataIndex, PARTITIONS, SizeClass,
};
use larder::{ColdTier, ColdTierConfig, CompactionTask, Maintenance, ManualClock, OsDisk, TaskReport, Ttl};

pub fn config(dir: &std::path::Path) -> ColdTierConfig {
    ColdTierConfig::new(dir).segment_bytes(64 << 10).maintenance(Maintenance::Manual)
}

fn value(n: u32, version: u32) -> Vec<u8> {
    format!("{{\"id\":{n},\"version\":{version},\"name\":\"entry number {n}\",\"tags\":[\"a\",\"b\"]}}")
        .into_bytes()
}

#[test]
fn what_is_inserted_is_found_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let cold = ColdTier::open(config(dir.path())).unwrap();
    for n in 0..5000u32 {
        cold.insert(&n.to_le_bytes(), &value(n, 1)).unwrap();
    }
    assert_eq!(cold.len(), 5000);
    for n in (0..5000u32).step_by(2) {
        cold.insert(&n.to_le_bytes(), &value(n, 2)).unwrap();
    }
    for n in (0..5000u32).step_by(5) {
        cold.remove(&n.to_le_bytes()).unwrap();
    }
    let check = |cold: &ColdTier| {
        for n in 0..5000u32 {
            let found = cold.get(&n.to_le_bytes()).unwrap();
            let expected = (n % 5 != 0).then(|| value(n, if n % 2 == 0 { 2 } else { 1 }));
            assert_eq!(found.as_deref(), expected.as_deref(), "{n}");
        }
        assert_eq!(cold.len(), 4000);
        assert_eq!(
            cold.iter().map(|entry| entry.unwrap().key).collect::<std::collections::BTreeSet<_>>().len(),
            4000
        );
    };
    check(&cold);
    cold.flush().unwrap();
    check(&cold);
    let TaskReport::CompactData(report) = cold.run(CompactionTask::CompactData).unwrap() else { panic!() };
    assert!(report.bytes_reclaimed > 0, "{report:?}");
    assert_eq!(report.entries_copied, 4000);
    check(&cold);
    cold.close().unwrap();
    let cold = ColdTier::open(config(dir.path())).unwrap();
    check(&cold);
    assert!(
        matches!(cold.run(CompactionTask::OptimizeCompression).unwrap(), TaskReport::OptimizeCompression(report) if report.changed)
    );
    let TaskReport::CompactData(report) = cold.run(CompactionTask::CompactData).unwrap() else { panic!() };
    assert_eq!(report.entries_recompressed, 4000);
    check(&cold);
    cold.run(CompactionTask::RebuildIndex).unwrap();
    cold.close().unwrap();
    let cold = ColdTier::open(config(dir.path())).unwrap();
    check(&cold);
    assert!(cold.stats().recovery.snapshot_entries > 0, "{:?}", cold.stats());
}

#[test]
fn expired_entries_are_misses_from_the_very_millisecond_and_leave_by_cleanup() {
    let dir = tempfile::tempdir().unwrap();
    let cold = ColdTier::open_with(config(dir.path()), OsDisk, ManualClock::new(1_000_000)).unwrap();
    for n in 0..1000u32 {
        cold.insert_with_ttl(
            &n.to_le_bytes(),
            &value(n, 1),
            Duration::from_millis(1000 + u64::from(n % 2) * 1000),
        )
        .unwrap();
    }
    cold.insert(b"for ever", b"x").unwrap();
    cold.clock().advance(999);
    assert_eq!(cold.ttl(&0u32.to_le_bytes()).unwrap(), Some(Ttl::Remaining(Duration::from_millis(1))));
    cold.clock().advance(1);
    assert_eq!(cold.get(&0u32.to_le_bytes()).unwrap(), None);
    assert!(cold.get(&1u32.to_le_bytes()).unwrap().is_some());
    assert_eq!(cold.ttl(b"for ever").unwrap(), Some(Ttl::Never));
    let TaskReport::CleanupExpired(report) = cold.run(CompactionTask::CleanupExpired).unwrap() else {
        panic!()
    };
    assert_eq!(report.expired_removed, 500);
    assert_eq!(cold.len(), 501);
    cold.clock().advance(1000);
    let TaskReport::CleanupExpired(report) = cold.run(CompactionTask::CleanupExpired).unwrap() else {
        panic!()
    };
    assert_eq!(report.expired_removed, 500);
    assert_eq!(cold.len(), 1);
    cold.run(CompactionTask::CompactData).unwrap();
    assert_eq!(cold.get(b"for ever").unwrap().as_deref(), Some(&b"x"[..]));
    assert!(cold.stats().segment_bytes < 2000, "{:?}", cold.stats());
}

#[test]
fn the_bytes_told_of_the_index_are_about_those_of_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let cold = ColdTier::open(config(dir.path())).unwrap();
    let empty = cold.stats().index_bytes;
    assert!((1_000..400_000).contains(&empty), "{empty} bytes of an empty index");
    for n in 0..50_000u32 {
        cold.insert(&n.to_le_bytes(), b"value").unwrap();
    }
    cold.flush().unwrap();
    // Slots of 12 bytes, in 1,024 tables of fifty entries each.
    let grown = cold.stats().index_bytes - empty;
    assert!((50_000 * 12..50_000 * 20).contains(&grown), "{grown} bytes more for 50,000 entries");
}

#[test]
fn numbers_that_arrive_out_of_order_are_caught_up_with_and_a_late_one_of_its_key_is_stale() {
    let id = |key: u64| EntryId::of(key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut frontier = Frontier::new(10);
    assert!(frontier.arrive(12, id(1)) && frontier.arrive(11, id(2)) && frontier.arrive(14, id(3)));
    assert_eq!(frontier.next(), 10, "10 is still to come");
    assert!(!frontier.arrive(10, id(1)), "a newer one of its key was there before");
    assert_eq!(frontier.next(), 13, "those that came early count as soon as the gap is closed");
    assert!(frontier.arrive(13, id(4)));
    assert_eq!(frontier.next(), 15);
    assert!(frontier.arrive(15, id(3)), "what has arrived in order is older");
    assert_eq!(frontier.next(), 16);
}

/// Partitions are made to fit what a snapshot holds: a start takes no more memory than the store did before it.
#[test]
fn an_index_that_was_loaded_takes_about_the_memory_of_one_that_grew() {
    let (grown, loaded) = (MetadataIndex::default(), MetadataIndex::default());
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..400_000 {
        let entry = IndexEntry {
            location: Location { slot: random.u32(..1000), offset: 64 * random.u32(..1000) },
            size: SizeClass::of(500),
        };
        grown.set(EntryId::of(random.u64(..)), entry);
    }
    for number in 0..PARTITIONS as u16 {
        let slots = grown.packed_partition(number);
        assert_eq!(loaded.load_partition(number, slots.into_iter(), |_| true), Some(()));
        assert_eq!(loaded.partition(number), grown.partition(number));
    }
    let (grown, loaded) = (grown.resident_bytes(), loaded.resident_bytes());
    assert!(loaded <= grown + grown / 10, "{loaded} bytes loaded, {grown} grown");
}
