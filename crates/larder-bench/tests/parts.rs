//! The simulator's own parts: a measurement is worth what its instruments are.

use std::io::ErrorKind;
use std::path::Path;

use larder::{Disk, DiskFile};
use larder_bench::disk::MemoryDisk;
use larder_bench::fifo::FifoCache;
use larder_bench::figures::uniform_theory;
use larder_bench::ledger::{Counted, FileKind};
use larder_bench::oracle::{Oracle, record_bytes, value_of};
use larder_bench::ttl::TtlSet;
use larder_bench::zipf::Zipf;

#[test]
fn memory_disk_keeps_what_is_written() {
    let disk = MemoryDisk::default();
    let path = Path::new("/d/seg-0000000001.lard");
    let file = disk.create(path).expect("a new name");
    assert_eq!(disk.create(path).err().map(|error| error.kind()), Some(ErrorKind::AlreadyExists));
    // Appends of odd lengths, over several pieces.
    let mut expected = Vec::new();
    for n in 0..100u32 {
        let part = vec![n as u8; 3001];
        file.write_full_at(&part, expected.len() as u64).expect("room");
        expected.extend_from_slice(&part);
    }
    // A hole, and what was there before overwritten.
    file.write_full_at(b"end", expected.len() as u64 + 70_000).expect("room");
    expected.resize(expected.len() + 70_000, 0);
    expected.extend_from_slice(b"end");
    file.write_full_at(b"over", 65_534).expect("room");
    expected[65_534..65_538].copy_from_slice(b"over");
    let mut read = vec![1; expected.len() + 10];
    assert_eq!(file.read_full_at(&mut read, 0).expect("readable"), expected.len());
    assert_eq!(read[..expected.len()], expected);
    assert_eq!(file.read_at(&mut read, expected.len() as u64 + 5).expect("readable"), 0);
    assert_eq!(disk.list(Path::new("/d")).expect("listed"), ["seg-0000000001.lard"]);
}

#[test]
fn memory_disk_has_one_lock_and_forgets_with_its_end() {
    let disk = MemoryDisk::default();
    let lock = disk.lock(Path::new("/d/LOCK")).expect("lockable").expect("free");
    assert!(disk.lock(Path::new("/d/LOCK")).expect("lockable").is_none());
    drop(lock);
    assert!(disk.lock(Path::new("/d/LOCK")).expect("lockable").is_some());
    let file = disk.create(Path::new("/d/CURRENT")).expect("a new name");
    drop(disk);
    assert_eq!(file.len().err().map(|error| error.kind()), Some(ErrorKind::NotFound));
}

#[test]
fn ledger_counts_blocks_until_the_last_handle_goes() {
    let disk = Counted::new(MemoryDisk::default());
    let (temporary, path) = (Path::new("/d/snap-0000000001.lard.tmp"), Path::new("/d/snap-0000000001.lard"));
    let file = disk.create(temporary).expect("a new name");
    file.write_full_at(&[1; 5000], 0).expect("room");
    file.write_full_at(&[2; 100], 0).expect("room");
    disk.rename(temporary, path).expect("there");
    let totals = disk.totals();
    let snapshots = totals.of(FileKind::Snapshot);
    assert_eq!(
        (snapshots.files, snapshots.bytes, snapshots.allocated, snapshots.written),
        (1, 5000, 8192, 5100)
    );
    disk.remove(path).expect("there");
    assert_eq!(
        disk.totals().of(FileKind::Snapshot).allocated,
        8192,
        "an open file takes room without a name"
    );
    drop(file);
    assert_eq!(disk.totals().of(FileKind::Snapshot).allocated, 0);
    let step = disk.take_step();
    assert_eq!(step.totals.of(FileKind::Snapshot).allocated_peak, 8192);
    assert_eq!(disk.totals().of(FileKind::Snapshot).allocated_peak, 0, "peaks start anew with each step");
    assert_eq!(disk.totals().of(FileKind::Segment).written, 0);
}

#[test]
fn ledger_follows_a_name_that_is_replaced() {
    let disk = Counted::new(MemoryDisk::default());
    for _ in 0..3 {
        let file = disk.create(Path::new("/d/CURRENT.tmp")).expect("a new name");
        file.write_full_at(&[1; 100], 0).expect("room");
        disk.rename(Path::new("/d/CURRENT.tmp"), Path::new("/d/CURRENT")).expect("there");
    }
    let totals = disk.totals();
    let manifest = totals.of(FileKind::Manifest);
    assert_eq!((manifest.files, manifest.allocated, manifest.written), (1, 4096, 300));
}

#[test]
fn zipf_draws_by_its_weights() {
    let mut rng = fastrand::Rng::with_seed(7);
    for exponent in [0.5, 0.9, 1.0, 1.3] {
        let (ranks, draws) = (100, 200_000);
        let zipf = Zipf::new(ranks, exponent);
        let mut counts = vec![0u32; ranks as usize];
        for _ in 0..draws {
            counts[zipf.draw(&mut rng) as usize - 1] += 1;
        }
        let weight = |rank: usize| ((rank + 1) as f64).powf(-exponent);
        let sum: f64 = (0..ranks as usize).map(weight).sum();
        for rank in [0, 1, 2, 9, 49, 99] {
            let expected = f64::from(draws) * weight(rank) / sum;
            // Five standard deviations.
            let off = (f64::from(counts[rank]) - expected).abs();
            assert!(
                off < 5.0 * expected.sqrt(),
                "exponent {exponent}, rank {}: {off} off {expected}",
                rank + 1
            );
        }
    }
}

#[test]
fn theory_of_uniform_overwrites_is_the_published_one() {
    for (space, written) in [(1.43, 1.88), (1.25, 2.69), (1.11, 5.18)] {
        let computed = uniform_theory(space);
        assert!((computed / written - 1.0).abs() < 0.02, "at space {space}: {computed}, published {written}");
    }
}

#[test]
fn fifo_cache_drops_its_oldest_file() {
    let mut cache = FifoCache::new(1000, 200);
    for key in 0..10 {
        cache.insert(key, 100);
    }
    assert!((0..10).all(|key| cache.contains(key)) && cache.bytes() == 1000);
    // Key 0 is written anew: its old record's file goes, and it does not.
    cache.insert(0, 100);
    assert!(cache.contains(0) && !cache.contains(1) && cache.contains(2));
    assert!(cache.bytes() <= 1000);
}

#[test]
fn oracle_knows_what_lives() {
    let mut oracle = Oracle::default();
    let bytes = record_bytes(24, 1000, true);
    assert_eq!(bytes, 1048);
    let lasting = record_bytes(24, 1000, false);
    assert_eq!(lasting, 1040);
    assert_eq!(record_bytes(257, 1000, false), 1280);
    assert_eq!(record_bytes(24, 65_511, false), 65_552);
    assert_eq!(record_bytes(24, 65_512, true), 65_564);
    oracle.put(1, 24, 1000, 500);
    oracle.put(2, 24, 1000, u64::MAX);
    oracle.put(1, 24, 1000, 900);
    oracle.expire(500);
    assert_eq!(
        (oracle.len(), oracle.live_bytes()),
        (2, bytes + lasting),
        "the expiry of a replaced record is none"
    );
    oracle.expire(900);
    assert_eq!((oracle.len(), oracle.live_bytes(), oracle.get(1).is_none()), (1, lasting, true));
    oracle.remove(2);
    assert!(oracle.is_empty() && oracle.live_bytes() == 0);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    value_of(1, 0, 100, &mut one);
    value_of(1, 1, 100, &mut other);
    assert!(one.len() == 100 && one != other);
}

#[test]
fn ttl_sets_draw_by_their_shares() {
    let mut rng = fastrand::Rng::with_seed(7);
    let draws: Vec<u64> = (0..100_000).map(|_| TtlSet::Cluster4.draw(&mut rng)).collect();
    for (ttl_ms, share) in [(60_000, 0.39), (14_400_000, 0.09), (86_400_000, 0.03)] {
        let drawn = draws.iter().filter(|drawn| **drawn == ttl_ms).count() as f64 / 1e5;
        assert!((drawn - share).abs() < 0.005, "{ttl_ms} ms: {drawn}, not {share}");
    }
    for set in [TtlSet::LogUniform, TtlSet::Cluster6, TtlSet::Cluster9, TtlSet::Cluster10, TtlSet::Hour] {
        assert!((0..1000).all(|_| (60_000..=86_400_000).contains(&set.draw(&mut rng))), "{set:?}");
    }
}
