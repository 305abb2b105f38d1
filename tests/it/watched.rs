//! Loads for a store with a capacity, a directory that is watched meanwhile, and the ledger held against it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use larder::{Clock, ColdTier, ColdTierConfig, Disk, ManualClock, OsDisk, SegmentState};

use crate::stores::{json, key, names, noise};

pub type Store = ColdTier<OsDisk, ManualClock>;

/// The least for segments of 64 KiB.
pub const CAPACITY: u64 = 5 << 20;

/// The newest state of every key; `None` = removed.
pub type Newest = BTreeMap<Vec<u8>, Option<(Vec<u8>, Option<u64>)>>;

/// Bytes of a directory as `du` counts them.
///
/// A walk takes time: one in which files came or went would count some that never were there together, and is begun
/// again.
pub fn du(dir: &Path) -> u64 {
    let bytes = |path: &Path| std::fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512);
    loop {
        let before = names(dir, |_| true);
        let files: u64 = before.iter().map(|name| bytes(&dir.join(name))).sum();
        if before == names(dir, |_| true) {
            return files + bytes(dir);
        }
    }
}

/// Looks at the directory every other millisecond while something runs; returns the most it took, and how often it was
/// looked at.
pub fn watching<T>(dir: &Path, run: impl FnOnce() -> T) -> (T, u64, u64) {
    std::thread::scope(|scope| {
        let (stop, stopped) = bounded::<()>(0);
        let watcher = scope.spawn(move || {
            let (mut most, mut looks) = (0, 0);
            loop {
                most = most.max(du(dir));
                looks += 1;
                if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(Duration::from_millis(2)) {
                    return (most, looks);
                }
            }
        });
        let outcome = run();
        drop(stop);
        let (most, looks) = watcher.join().expect("the watcher");
        // However busy the machine is, what it has come to is seen.
        (outcome, most.max(du(dir)), looks)
    })
}

pub fn open_at(config: ColdTierConfig, now_ms: u64) -> Store {
    ColdTier::open_with(config, OsDisk, ManualClock::new(now_ms)).expect("open the store")
}

/// Everything that can be read is the newest of its key; returns the keys that can.
pub fn expect_newest<D: Disk, C: Clock>(
    cold: &ColdTier<D, C>,
    newest: &Newest,
    now_ms: u64,
    when: &str,
) -> BTreeSet<Vec<u8>> {
    // The worker's turn: what it was asked for before is done.
    cold.flush().expect("flush");
    cold.run_due().expect("run_due");
    let mut present = BTreeSet::new();
    for (key, state) in newest {
        let Some(got) = cold.get(key).expect("get") else { continue };
        let text = String::from_utf8_lossy(key);
        let Some((value, expires_at_ms)) = state else { panic!("{when}: {text} was removed and is there") };
        assert!(got == value[..], "{when}: {text} is not the newest");
        assert!(expires_at_ms.is_none_or(|at_ms| at_ms > now_ms), "{when}: {text} has expired");
        present.insert(key.clone());
    }
    let listed: BTreeSet<Vec<u8>> = cold.iter().map(|entry| entry.expect("iter").key.to_vec()).collect();
    assert!(listed == present, "{when}: listed and read differ");
    assert_eq!(cold.stats().damaged_misses, 0, "{when}");
    present
}

/// What the ledger says is what the files take, to the block: of active segments with the footers they are going to
/// have.
pub fn expect_ledger<D: Disk, C: Clock>(cold: &ColdTier<D, C>, dir: &Path, when: &str) {
    cold.flush().expect("flush");
    // The worker's turn: what it was asked for before is done.
    cold.run_due().expect("run_due");
    let active = |segment: &larder::SegmentInfo| segment.state == SegmentState::Active;
    let footers: BTreeMap<String, u64> = cold
        .segments()
        .iter()
        .filter(|segment| active(segment))
        .map(|segment| (format!("seg-{:010}.lard", segment.id), segment.records * 24 + 512))
        .collect();
    let bytes = |name: String| {
        let len = std::fs::metadata(dir.join(&name)).expect("stat").len();
        let footer = footers.get(&name).copied().unwrap_or(0);
        (name, (len + footer).next_multiple_of(4096))
    };
    let sizes: Vec<(String, u64)> = names(dir, |_| true).into_iter().map(bytes).collect();
    let stats = cold.stats();
    assert_eq!(stats.queued_bytes, 0);
    let files: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(stats.disk_bytes, files, "{when}: the ledger and the files: {sizes:?}");
}

/// How a load looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Keys; 0 = a new one each time.
    pub keys: u32,
    /// Every second insert gets one of several times to live, and time goes on.
    pub expiring: bool,
    /// One operation in so many is a removal.
    pub removals: Option<u32>,
    /// Text that compresses instead of noise.
    pub text: bool,
    pub value_bytes: usize,
}

/// Applies operations until so many bytes were offered. Keys begin with `writer`, so that several may write at once.
pub fn apply<D: Disk>(
    cold: &ColdTier<D, ManualClock>,
    load: Load,
    writer: u32,
    bytes: u64,
    rng: &mut fastrand::Rng,
    newest: &mut Newest,
    now_ms: &mut u64,
) {
    let mut offered = 0;
    let mut op = newest.len() as u32 * 7;
    while offered < bytes {
        op += 1;
        let number = if load.keys == 0 { op } else { rng.u32(..load.keys) };
        let key = key(writer * 10_000_000 + number);
        if load.removals.is_some_and(|one_in| rng.u32(..one_in) == 0) {
            cold.remove(&key).expect("remove");
            newest.insert(key, None);
            continue;
        }
        let value = match load.text {
            true => json(number, op),
            false => noise(rng.u64(..), rng.usize(1..=2 * load.value_bytes)),
        };
        offered += (key.len() + value.len()) as u64;
        let ttl_ms = match load.expiring && rng.bool() {
            true => Some([1500, 9000, 60_000, 3_600_000][rng.usize(..4)] + rng.u64(..50)),
            false => None,
        };
        match ttl_ms {
            Some(ttl_ms) => cold.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)),
            None => cold.insert(&key, &value),
        }
        .expect("insert");
        newest.insert(key, Some((value, ttl_ms.map(|ttl_ms| *now_ms + ttl_ms))));
        if load.expiring && op.is_multiple_of(20) {
            cold.clock().advance(37);
            *now_ms += 37;
        }
    }
}
