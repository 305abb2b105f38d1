//! Whether maintenance had better keep its reads and writes out of the page cache: the same store, with less memory than
//! data, under each of several ways of handling its files, in turns.
//!
//! What counts is what readers have to fetch from the device, so the figures are bytes, not times: they hold on a busy
//! machine too. The memory is limited from outside (`docs/PACING.md` says how).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use larder::{Codec, ColdTier, ColdTierConfig, Compression, Disk, DiskFile, OsDisk, SystemClock};
use rustix::fs::{Advice, OFlags, fadvise};
use serde_json::{Value, json};

use crate::ledger::is_maintenance;
use crate::oracle::{key_of, value_of};
use crate::zipf::Zipf;
use crate::{Failure, Result};

const KEY_BYTES: usize = 16;
/// What direct reads have to be aligned to.
const ALIGNMENT: usize = 4096;
/// Before a turn counts, its streams run this long.
const WARM_UP: Duration = Duration::from_secs(4);

/// How the compaction worker handles its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Through the page cache.
    Buffered,
    /// Victims are dropped from the page cache once they are read.
    ForgetVictims,
    /// Outputs too, once they are synced and read back.
    ForgetAll,
    /// Victims are read past the page cache (`O_DIRECT`).
    DirectVictims,
    /// Likewise; and outputs are dropped once they are synced and read back.
    DirectForget,
}

impl Handling {
    const ALL: [Self; 5] =
        [Self::Buffered, Self::ForgetVictims, Self::ForgetAll, Self::DirectVictims, Self::DirectForget];

    fn is_direct(self) -> bool {
        matches!(self, Self::DirectVictims | Self::DirectForget)
    }

    fn forgets_outputs(self) -> bool {
        matches!(self, Self::ForgetAll | Self::DirectForget)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::ForgetVictims => "victims forgotten",
            Self::ForgetAll => "victims and outputs forgotten",
            Self::DirectVictims => "victims read directly",
            Self::DirectForget => "victims read directly, outputs forgotten",
        }
    }
}

/// How the run is laid out.
#[derive(Clone, Copy, Debug)]
pub struct PageCacheOptions {
    /// Number of keys.
    pub entries: u64,
    /// Bytes of a value, which do not shrink.
    pub value_bytes: u32,
    /// Reads a second, Zipf-distributed with this exponent.
    pub reads: f64,
    /// See `reads`.
    pub exponent: f64,
    /// Overwrites a second, drawn evenly.
    pub writes: f64,
    /// Length of a turn.
    pub phase: Duration,
    /// Turns of each handling.
    pub turns: usize,
}

/// Runs it in `dir`, which must not hold a store yet.
///
/// # Errors
/// What the store or the file system refused.
pub fn page_cache(dir: &Path, options: &PageCacheOptions) -> Result<Value> {
    let config = ColdTierConfig::new(dir).compression(Compression::Fixed(Codec::None)).segment_bytes(8 << 20);
    let load = open(config.clone(), Handling::Buffered)?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for number in 0..options.entries {
        key_of(number, KEY_BYTES, &mut key);
        value_of(number, 0, options.value_bytes, &mut value);
        load.insert(&key, &value)?;
    }
    load.close()?;
    let mut turns = Vec::new();
    for turn in 0..options.turns {
        // Each begins with what the one before left in the page cache: the order changes from turn to turn.
        for at in 0..Handling::ALL.len() {
            let handling = Handling::ALL[(at * (turn % 4 + 1) + turn) % Handling::ALL.len()];
            let store = open(config.clone(), handling)?;
            let mut told = run(&store, options, (turn * Handling::ALL.len() + at) as u64)?;
            told["handling"] = json!(handling.name());
            turns.push(told);
            store.close()?;
        }
    }
    Ok(json!({ "turns": turns }))
}

fn open(config: ColdTierConfig, handling: Handling) -> Result<ColdTier<AdvisedDisk>> {
    Ok(ColdTier::open_with(config, AdvisedDisk { handling }, SystemClock::default())?)
}

fn run(store: &ColdTier<AdvisedDisk>, options: &PageCacheOptions, seed: u64) -> Result<Value> {
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let reader =
            scope.spawn(|| stream(options.reads, &stop, |random| read(store, options, random, &reads), seed));
        let writer =
            scope.spawn(|| stream(options.writes, &stop, |random| write(store, options, random), !seed));
        thread::sleep(WARM_UP);
        let (before, bytes, gets) = (store.stats(), bytes_from_device()?, reads.load(Ordering::Relaxed));
        thread::sleep(options.phase);
        let (after, bytes, gets) =
            (store.stats(), bytes_from_device()? - bytes, reads.load(Ordering::Relaxed) - gets);
        stop.store(true, Ordering::Relaxed);
        for stream in [reader, writer] {
            stream.join().map_err(|_| Failure("a stream panicked".to_owned()))??;
        }
        Ok(json!({
            "gets": gets,
            "device_bytes_per_get": bytes as f64 / gets.max(1) as f64,
            "bytes_reclaimed": after.bytes_reclaimed - before.bytes_reclaimed,
            "compactions": after.compactions - before.compactions,
            "live_bytes": after.live_bytes,
        }))
    })
}

fn stream(
    a_second: f64,
    stop: &AtomicBool,
    mut call: impl FnMut(&mut fastrand::Rng) -> Result<()>,
    seed: u64,
) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (started, mut number) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_secs_f64(number as f64 / a_second);
        if let Some(early) = due.checked_sub(started.elapsed()) {
            thread::sleep(early.max(Duration::from_millis(1)));
        }
        call(&mut random)?;
        number += 1;
    }
    Ok(())
}

fn read(
    store: &ColdTier<AdvisedDisk>,
    options: &PageCacheOptions,
    random: &mut fastrand::Rng,
    reads: &AtomicU64,
) -> Result<()> {
    // Ranks are spread over the keys, so that what is read often does not lie together.
    let rank = Zipf::new(options.entries, options.exponent).draw(random);
    let mut key = Vec::new();
    key_of(rank.wrapping_mul(0x9E37_79B9_7F4A_7C15) % options.entries, KEY_BYTES, &mut key);
    if store.get(&key)?.is_none() {
        return Err(Failure("an entry is missing".to_owned()));
    }
    reads.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn write(
    store: &ColdTier<AdvisedDisk>,
    options: &PageCacheOptions,
    random: &mut fastrand::Rng,
) -> Result<()> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let number = random.u64(..options.entries);
    key_of(number, KEY_BYTES, &mut key);
    value_of(number, random.u64(..), options.value_bytes, &mut value);
    Ok(store.insert(&key, &value)?)
}

/// Bytes that this process had fetched from devices so far.
fn bytes_from_device() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|number| number.parse().ok())
        .ok_or_else(|| Failure("/proc/self/io says nothing".to_owned()))
}

/// The real file system, with the compaction worker's files handled in one of the ways.
#[derive(Clone, Copy, Debug)]
struct AdvisedDisk {
    handling: Handling,
}

/// A file, and what is to become of its pages.
#[derive(Debug)]
struct AdvisedFile {
    inner: <OsDisk as Disk>::File,
    /// Of a file that maintenance opened: to read it directly, or to have its pages dropped.
    second: Option<File>,
    direct: bool,
}

impl AdvisedDisk {
    fn advised(self, path: &Path, inner: <OsDisk as Disk>::File) -> io::Result<AdvisedFile> {
        let is_output = path.extension().is_some_and(|extension| extension == "tmp");
        let direct = self.handling.is_direct() && !is_output;
        let forgotten = match is_output {
            true => self.handling.forgets_outputs(),
            false => matches!(self.handling, Handling::ForgetVictims | Handling::ForgetAll),
        };
        let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
        let second = match is_maintenance() && (direct || forgotten) {
            true => Some(OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?),
            false => None,
        };
        Ok(AdvisedFile { inner, second, direct })
    }
}

impl Disk for AdvisedDisk {
    type File = AdvisedFile;
    type Lock = <OsDisk as Disk>::Lock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<AdvisedFile> {
        self.advised(path, OsDisk.create(path)?)
    }

    fn open(&self, path: &Path) -> io::Result<AdvisedFile> {
        self.advised(path, OsDisk.open(path)?)
    }

    fn open_read(&self, path: &Path) -> io::Result<AdvisedFile> {
        self.advised(path, OsDisk.open_read(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<Option<u64>> {
        OsDisk.free_bytes(dir)
    }

    fn memory_bytes(&self) -> Option<u64> {
        OsDisk.memory_bytes()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        OsDisk.lock(path)
    }
}

impl DiskFile for AdvisedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.second {
            // What readers fetch goes through the page cache in any case.
            Some(direct) if self.direct && is_maintenance() => read_directly(direct, buf, offset),
            _ => self.inner.read_at(buf, offset),
        }
    }

    fn random_reads(&self) {
        self.inner.random_reads();
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.inner.allocated_bytes()
    }
}

impl Drop for AdvisedFile {
    fn drop(&mut self) {
        if let Some(second) = self.second.as_ref().filter(|_| !self.direct) {
            // Advice: what comes of it is what is measured.
            fadvise(second, 0, None, Advice::DontNeed).ok();
        }
    }
}

/// Reads whole blocks into memory that is aligned like them, and copies what is wanted.
fn read_directly(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let skipped = (offset % ALIGNMENT as u64) as usize;
    let blocks = (skipped + buf.len()).next_multiple_of(ALIGNMENT);
    let mut room = vec![0; blocks + ALIGNMENT];
    let aligned = room.as_ptr().align_offset(ALIGNMENT);
    let got = file.read_at(&mut room[aligned..aligned + blocks], offset - skipped as u64)?;
    let wanted = got.saturating_sub(skipped).min(buf.len());
    buf[..wanted].copy_from_slice(&room[aligned + skipped..][..wanted]);
    Ok(wanted)
}
