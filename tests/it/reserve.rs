//! The reserve: on a disk that others have filled, maintenance goes on, space comes back, and nothing is lost.

#![expect(clippy::disallowed_methods, reason = "a file of somebody else's fills the file system")]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder::{ColdTier, Disk, Maintenance, ManualClock, OsDisk};

use crate::small_disk::{SmallDisk, fill_up, taken};
use crate::stores::{
    Model, compact, config, expect_exactly, key, names, noise, open_on, put, remove, scratch, try_compact,
    wait_until,
};
use crate::watched::expect_ledger;

const DISK_BYTES: u64 = 24 << 20;
const KEYS: u32 = 10_000;

fn reserve_bytes(dir: &Path) -> u64 {
    let found = names(dir, |name| name == "RESERVE");
    found.iter().map(|name| crate::stores::read_file(dir, name).len() as u64).sum()
}

/// Ten megabytes with a reserve beside them, then 60 % of them garbage, spread over every segment.
fn store_full_of_garbage<D: Disk>(dir: &Path, disk: D) -> (ColdTier<D, ManualClock>, Model) {
    let cold = open_on(config(dir).segment_bytes(256 << 10), disk);
    let mut model = Model::new();
    for n in 0..KEYS {
        put(&cold, &mut model, key(n), noise(n.into(), 1000));
    }
    cold.flush().unwrap();
    compact(&cold);
    assert!(reserve_bytes(dir) >= 256 << 10, "{:?}", names(dir, |_| true));
    for n in (0..KEYS).filter(|n| n % 5 < 3) {
        remove(&cold, &mut model, &key(n));
    }
    cold.flush().unwrap();
    (cold, model)
}

/// Maintenance by itself gives the space back, and afterwards all is as if the disk had never been full.
fn expect_relief<D: Disk>(cold: &ColdTier<D, ManualClock>, dir: &Path, model: &mut Model, when: &str) {
    let before = cold.stats().segment_bytes;
    cold.run_due().unwrap_or_else(|error| panic!("{when}: {error}"));
    // By itself, maintenance leaves a quarter of garbage.
    let after = cold.stats().segment_bytes;
    assert!(after * 3 < before * 2 && after < 6 << 20, "{when}: {after} of {before}");
    expect_exactly(cold, model, when);
    assert!(reserve_bytes(dir) >= 256 << 10 || taken(dir) < 8 << 20, "{when}: made anew");
    wait_until("writes accepted", || cold.insert(b"there is room", b"again").is_ok());
    model.insert(b"there is room".to_vec(), b"again".to_vec());
    cold.flush().unwrap();
    expect_ledger(cold, dir, when);
}

/// Under eight megabytes it would be much beside what the store takes.
#[test]
fn a_small_store_keeps_no_reserve_until_it_has_grown() {
    let dir = scratch();
    let cold = open_on(config(dir.path()).segment_bytes(256 << 10), OsDisk);
    for (keys, is_kept) in [(0..4000, false), (4000..10_000, true)] {
        keys.for_each(|n| cold.insert(&key(n), &noise(n.into(), 1000)).unwrap());
        compact(&cold);
        assert_eq!(names(dir.path(), |name| name == "RESERVE").len(), usize::from(is_kept));
    }
}

/// Where there are gigabytes left, little is kept; when they go, the whole of it is there before they are gone.
#[test]
fn little_is_kept_while_the_disk_has_plenty_of_room() {
    const GIB: u64 = 1 << 30;
    let root = scratch();
    let dir = root.path().join("store");
    let config = config(&dir).segment_bytes(4 << 20);
    let config = config.maintenance(Maintenance::Automatic).maintenance_interval(Duration::from_millis(5));
    let cold = open_on(config, SmallDisk::new(root.path(), 256 << 20));
    for n in 0..70 {
        cold.insert(&key(n), &noise(n.into(), 1 << 20)).unwrap();
    }
    cold.flush().unwrap();
    // Of a disk that cannot tell, as of a small one, the most.
    let whole = |bytes: u64| (1 << 20..=(72 << 20) / 32).contains(&bytes);
    let little = |bytes: u64| (256 << 10..=(72 << 20) / 256).contains(&bytes);
    wait_until("a whole reserve", || whole(reserve_bytes(&dir)));
    cold.disk().tell_free(7 * GIB);
    wait_some_looks();
    assert!(whole(reserve_bytes(&dir)), "not while it is soon scarce again");
    cold.disk().tell_free(9 * GIB);
    wait_until("little", || little(reserve_bytes(&dir)));
    cold.disk().tell_free(5 * GIB);
    wait_some_looks();
    assert!(little(reserve_bytes(&dir)), "still plenty");
    cold.disk().tell_free(3 * GIB);
    wait_until("a whole reserve again", || whole(reserve_bytes(&dir)));
    expect_ledger(&cold, &dir, "with a whole reserve again");
    cold.close().unwrap();
}

fn wait_some_looks() {
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn on_a_disk_that_others_have_filled_garbage_is_given_back_by_itself() {
    // From nothing at all to room that ends in mid-copy of a round, in its commit, or in the snapshot before it.
    for free_bytes in [0, 4 << 10, 12 << 10, 40 << 10, 150 << 10, 220 << 10] {
        let when = format!("{free_bytes} bytes free");
        let root = scratch();
        let dir = root.path().join("store");
        let (cold, mut model) = store_full_of_garbage(&dir, SmallDisk::new(root.path(), DISK_BYTES));
        fill_up(root.path(), DISK_BYTES, free_bytes);
        expect_relief(&cold, &dir, &mut model, &when);
        cold.abandon();
        expect_exactly(&open_on(config(&dir).segment_bytes(256 << 10), OsDisk), &model, &when);
    }
}

#[test]
fn without_a_reserve_a_full_disk_stays_full_and_nothing_is_lost() {
    let root = scratch();
    let dir = root.path().join("store");
    let (cold, mut model) = store_full_of_garbage(&dir, SmallDisk::new(root.path(), DISK_BYTES));
    crate::stores::remove_file(&dir, "RESERVE");
    fill_up(root.path(), DISK_BYTES, 0);
    for _ in 0..2 {
        assert!(try_compact(&cold).unwrap_err().is_full());
        expect_exactly(&cold, &model, "full");
    }
    fill_up(root.path(), DISK_BYTES, 2 << 20);
    expect_relief(&cold, &dir, &mut model, "once others have made room");
}

#[test]
fn a_store_that_fills_the_disk_itself_gets_its_garbage_back() {
    let root = scratch();
    let dir = root.path().join("store");
    let (cold, mut model) = store_full_of_garbage(&dir, SmallDisk::new(root.path(), DISK_BYTES));
    fill_up(root.path(), DISK_BYTES, 1 << 20);
    let mut accepted = Vec::new();
    for n in KEYS.. {
        match cold.insert(&key(n), &noise(n.into(), 1000)) {
            Ok(()) => accepted.push(n),
            Err(error) => {
                assert!(error.is_full(), "{error}");
                break;
            }
        }
    }
    assert!(cold.flush().is_err());
    assert!(cold.stats().writes_lost > 0, "{:?}", cold.stats());
    let stored = |n: &u32| cold.get(&key(*n)).unwrap().map(|value| (key(*n), value.to_vec()));
    model.extend(accepted.iter().filter_map(stored));
    assert!(model.len() > 4000);
    cold.run_due().unwrap();
    expect_exactly(&cold, &model, "given back");
    wait_until("writes accepted", || cold.insert(b"there is room", b"again").is_ok());
    assert!(taken(root.path()) + (4 << 20) < DISK_BYTES, "{}", taken(root.path()));
}

#[test]
fn small_stores_keep_no_reserve_and_a_store_that_shrinks_gives_it_up() {
    let dir = scratch();
    let cold = open_on(config(dir.path()), OsDisk);
    let mut model = Model::new();
    for n in 0..2000 {
        put(&cold, &mut model, key(n), noise(n.into(), 1000));
    }
    cold.flush().unwrap();
    compact(&cold);
    assert_eq!(reserve_bytes(dir.path()), 0);
    for n in 2000..KEYS {
        put(&cold, &mut model, key(n), noise(n.into(), 1000));
    }
    cold.flush().unwrap();
    cold.run_due().unwrap();
    let reserve = reserve_bytes(dir.path());
    assert!((256 << 10..=taken(dir.path()) / 32).contains(&reserve), "{reserve} of {}", taken(dir.path()));
    expect_ledger(&cold, dir.path(), "with a reserve");
    cold.close().unwrap();
    // Kept while nobody has the store open, found again, and no part of what a look finds wanting.
    assert_eq!(reserve_bytes(dir.path()), reserve);
    assert!(larder::verify(dir.path(), &mut |_| {}).unwrap().is_clean());
    let cold = open_on(config(dir.path()), OsDisk);
    expect_ledger(&cold, dir.path(), "reopened");
    assert_eq!(reserve_bytes(dir.path()), reserve);
    for n in 100..KEYS {
        remove(&cold, &mut model, &key(n));
    }
    compact(&cold);
    assert_eq!(reserve_bytes(dir.path()), 0, "{:?}", names(dir.path(), |_| true));
    expect_ledger(&cold, dir.path(), "shrunk");
    expect_exactly(&cold, &model, "shrunk");
}

/// A file system of its own, taken away again whatever happens.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking(), "umount");
    }
}

#[test]
fn on_a_small_tmpfs_that_is_full_garbage_is_given_back_by_itself() {
    let root = scratch();
    let size = format!("size={DISK_BYTES}");
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", &size, "larder-test"]).arg(root.path()).output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        return;
    }
    let _mounted = Mounted(root.path());
    let dir = root.path().join("store");
    let (cold, mut model) = store_full_of_garbage(&dir, OsDisk);
    let filled = std::fs::File::create(root.path().join("ballast"))
        .map(|mut ballast| while ballast.write_all(&[1; 4096]).is_ok() {});
    filled.unwrap();
    expect_relief(&cold, &dir, &mut model, "a full tmpfs");
    cold.close().unwrap();
    expect_exactly(&open_on(config(&dir).segment_bytes(256 << 10), OsDisk), &model, "reopened");
}
