//! What the tests share: configurations, values, the four tasks, whole directories, and the one comparison that counts.

#![expect(clippy::disallowed_methods, reason = "tests lay out, copy and damage the files of a store")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use larder::internals::report::{CleanupReport, CompactionReport, RebuildReport, TuningReport};
use larder::{
    Clock, Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, Disk, Durability, Maintenance,
    ManualClock, OsDisk, Result, TaskReport,
};

/// The time at which the tests' stores begin.
pub const START_MS: u64 = 1_760_000_000_000;

/// Every entry a store must hold, and no other.
pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// The files of a directory, byte for byte.
pub type Image = BTreeMap<String, Vec<u8>>;

/// Small segments, values as they are, nothing by itself: what happens is what the test does.
pub fn config(dir: &Path) -> ColdTierConfig {
    ColdTierConfig::new(dir)
        .segment_bytes(64 << 10)
        .durability(Durability::Never)
        .maintenance(Maintenance::Manual)
        .compression(Compression::Fixed(Codec::None))
}

/// A store on the real disk that begins at [`START_MS`].
pub fn open(dir: &Path) -> ColdTier<OsDisk, ManualClock> {
    open_on(config(dir), OsDisk)
}

pub fn open_on<D: Disk>(config: ColdTierConfig, disk: D) -> ColdTier<D, ManualClock> {
    ColdTier::open_with(config, disk, ManualClock::new(START_MS)).expect("open the store")
}

/// Waits until the compaction worker of a store that was just opened has begun: it looks for the reserve then.
pub fn until_begun<D: Disk, C: Clock>(cold: &ColdTier<D, C>) {
    cold.set_capacity(None).unwrap();
}

/// A directory in memory where the system has such a place; removed when dropped.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("larder-it-").tempdir_in(parent).expect("create a scratch directory")
}

pub fn key(number: u32) -> Vec<u8> {
    format!("key {number:05}").into_bytes()
}

/// Bytes that do not compress; equal seeds, equal bytes.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Text such as an API answers: it compresses, and better with a dictionary.
pub fn json(number: u32, version: u32) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(u64::from(number) << 32 | u64::from(version));
    let mut support = String::new();
    for browser in ["chrome", "chrome_android", "edge", "firefox", "firefox_android", "opera", "safari"] {
        support.push_str(&format!("\"{browser}\":{{\"version_added\":\"{}\"}},", rng.u32(1..140)));
    }
    format!(
        "{{\"id\":{number},\"version\":{version},\"mdn_url\":\"https://developer.example.org/docs/Web/API/{:x}\",\
         \"support\":{{{support}\"webview\":null}},\"status\":{{\"deprecated\":{},\"standard_track\":true}}}}",
        rng.u32(..),
        rng.bool(),
    )
    .into_bytes()
}

/// Inserts into store and model alike.
pub fn put<D: Disk, C: Clock>(cold: &ColdTier<D, C>, model: &mut Model, key: Vec<u8>, value: Vec<u8>) {
    cold.insert(&key, &value).expect("insert");
    model.insert(key, value);
}

/// Removes from store and model alike.
pub fn remove<D: Disk, C: Clock>(cold: &ColdTier<D, C>, model: &mut Model, key: &[u8]) {
    cold.remove(key).expect("remove");
    model.remove(key);
}

/// Insists that the store holds the model and nothing else, in every way it can be read.
pub fn expect_exactly<D: Disk, C: Clock>(cold: &ColdTier<D, C>, model: &Model, when: &str) {
    let listed: Vec<_> = cold.iter().map(|entry| entry.expect("iter")).collect();
    let mut seen = Model::new();
    for entry in listed {
        let key = entry.key.to_vec();
        assert!(seen.insert(key.clone(), entry.value.to_vec()).is_none(), "{when}: {} twice", text(&key));
    }
    for (key, value) in model {
        assert!(seen.get(key) == Some(value), "{when}: {} is not listed as it should be", text(key));
        let got = cold.get(key).expect("get");
        assert!(got.as_deref() == Some(&value[..]), "{when}: {} reads {:?}", text(key), got.map(|v| v.len()));
    }
    for key in seen.keys() {
        assert!(model.contains_key(key), "{when}: {} must not be there", text(key));
    }
    assert_eq!(seen.len(), model.len(), "{when}");
}

/// Insists that none of these keys can be read.
pub fn expect_absent<'a, D: Disk, C: Clock>(
    cold: &ColdTier<D, C>,
    keys: impl IntoIterator<Item = &'a Vec<u8>>,
    when: &str,
) {
    for key in keys {
        assert_eq!(cold.get(key).expect("get"), None, "{when}: {} must not be there", text(key));
        assert!(!cold.contains_key(key).expect("contains_key"), "{when}: {}", text(key));
        assert_eq!(cold.ttl(key).expect("ttl"), None, "{when}: {}", text(key));
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned()
}

pub fn try_compact<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> Result<CompactionReport> {
    match cold.run(CompactionTask::CompactData)? {
        TaskReport::CompactData(report) => Ok(report),
        other => panic!("another task's report: {other:?}"),
    }
}

pub fn compact<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> CompactionReport {
    try_compact(cold).expect("compact")
}

pub fn try_cleanup<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> Result<CleanupReport> {
    match cold.run(CompactionTask::CleanupExpired)? {
        TaskReport::CleanupExpired(report) => Ok(report),
        other => panic!("another task's report: {other:?}"),
    }
}

pub fn cleanup<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> CleanupReport {
    try_cleanup(cold).expect("clean up")
}

pub fn tune<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> TuningReport {
    match cold.run(CompactionTask::OptimizeCompression).expect("tune") {
        TaskReport::OptimizeCompression(report) => report,
        other => panic!("another task's report: {other:?}"),
    }
}

pub fn rebuild<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> RebuildReport {
    match cold.run(CompactionTask::RebuildIndex).expect("rebuild") {
        TaskReport::RebuildIndex(report) => report,
        other => panic!("another task's report: {other:?}"),
    }
}

/// The names of the files in a directory that `keep` picks, sorted.
pub fn names(dir: &Path, keep: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("list the directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("list the directory").file_name().into_string().expect("plain names"))
        .filter(|name| keep(name))
        .collect();
    names.sort();
    names
}

pub fn is_segment(name: &str) -> bool {
    name.starts_with("seg-")
}

pub fn is_temporary(name: &str) -> bool {
    name.ends_with(".tmp")
}

/// Everything that opens a store or looks at one, where all of it has to refuse; what each says.
pub fn refusals(dir: &Path) -> [larder::Error; 3] {
    [
        ColdTier::open(config(dir)).unwrap_err(),
        larder::inspect(dir).unwrap_err(),
        larder::verify(dir, &mut |_| {}).unwrap_err(),
    ]
}

pub fn is_snapshot(name: &str) -> bool {
    name.starts_with("snap-")
}

/// Damages the snapshot beyond what its parity makes up for.
pub fn ruin_snapshot(dir: &Path) {
    let name = the_snapshot(dir);
    let mut bytes = read_file(dir, &name);
    bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
    write_file(dir, &name, &bytes);
}

/// The name of the snapshot.
pub fn the_snapshot(dir: &Path) -> String {
    let mut snapshots = names(dir, is_snapshot);
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    snapshots.remove(0)
}

pub fn is_dictionary(name: &str) -> bool {
    name.starts_with("dict-")
}

/// The names of the segment files of these numbers.
pub fn segment_names<D: Disk, C: Clock>(cold: &ColdTier<D, C>) -> Vec<String> {
    cold.segments().iter().map(|segment| format!("seg-{:010}.lard", segment.id)).collect()
}

/// Bytes that the file system has given the segment files, as `du` counts them.
pub fn allocated_segment_bytes(dir: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let bytes = |name: &String| std::fs::metadata(dir.join(name)).expect("stat").blocks() * 512;
    names(dir, is_segment).iter().map(bytes).sum::<u64>() as i64
}

pub fn read_image(dir: &Path) -> Image {
    names(dir, |_| true).into_iter().map(|name| (name.clone(), read_file(dir, &name))).collect()
}

pub fn read_file(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).expect("read a file")
}

pub fn write_file(dir: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(dir.join(name), bytes).expect("write a file");
}

pub fn remove_file(dir: &Path, name: &str) {
    std::fs::remove_file(dir.join(name)).expect("remove a file");
}

/// Lays a directory out anew: exactly these files.
pub fn write_image(dir: &Path, image: &Image) {
    if dir.exists() {
        std::fs::remove_dir_all(dir).expect("clear the directory");
    }
    std::fs::create_dir_all(dir).expect("create the directory");
    for (name, bytes) in image {
        write_file(dir, name, bytes);
    }
}

/// The project's directory.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Waits for what another thread is about to bring about. The limit is a watchdog's, not a measure.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "it never came true: {what}");
        std::thread::yield_now();
    }
}
