//! What the kernel counts: of this process, and of the machine, to know how much of it others took.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};

use crate::plan::Caches;
use crate::{Failure, Result};

/// Ticks of `/proc` a second, on every Linux that there is.
const TICKS_A_SECOND: f64 = 100.0;
const BLOCK_BYTES: u64 = 512;
/// How often the disk is looked at where its maximum is asked for.
const DISK_EVERY: Duration = Duration::from_millis(50);

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Bytes that this process caused to be written to the device.
    pub written_bytes: u64,
    /// Bytes that this process gave to write calls; what is written to a mapping is not among them.
    pub handed_bytes: u64,
    /// Bytes that this process caused to be read from the device.
    pub read_bytes: u64,
    /// Processor time of this process.
    pub own_seconds: f64,
    /// Processor time of everybody.
    pub all_seconds: f64,
}

impl Counters {
    /// As they are now; 0 what the kernel does not tell.
    pub fn now() -> Self {
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let all = fs::read_to_string("/proc/stat").unwrap_or_default();
        let all: Vec<f64> =
            all.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(number).collect();
        // user, nice, system, idle, iowait, irq, softirq; stolen time is somebody else's machine.
        let busy: f64 =
            all.iter().enumerate().filter(|(at, _)| [0, 1, 2, 5, 6].contains(at)).map(|(_, of)| of).sum();
        Self {
            written_bytes: field(&io, "write_bytes:"),
            handed_bytes: field(&io, "wchar:"),
            read_bytes: field(&io, "read_bytes:"),
            own_seconds: own_seconds(),
            all_seconds: busy / TICKS_A_SECOND,
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// The number behind a name in the files of `/proc`.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Processor time of this process, all its threads together; finer than the ticks of `/proc`.
fn own_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory of this process that is no file's, as it is now.
pub fn anonymous_memory_bytes() -> u64 {
    field(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "RssAnon:") * 1024
}

/// Resident memory of this process, what it has mapped of files included.
pub fn resident_memory_bytes() -> u64 {
    field(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:") * 1024
}

/// Largest resident memory of this process since `reset_peak_memory`.
pub fn peak_memory_bytes() -> u64 {
    field(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmHWM:") * 1024
}

/// Begins a new measurement of the peak; where that is not permitted the peak is that of the whole process.
pub fn reset_peak_memory() {
    fs::write("/proc/self/clear_refs", "5").ok();
}

/// Bytes that a directory takes on the disk, as `du` counts them.
pub fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Stores remove files meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * BLOCK_BYTES };
    }
    Ok(bytes)
}

/// Does something, and says how much of the disk a directory took at most meanwhile.
pub fn watching_disk<T>(dir: &Path, act: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !has_ended.load(Ordering::Acquire) {
                // A folder that was just removed is no reason to stop.
                most = most.max(disk_bytes(dir).unwrap_or(0));
                thread::park_timeout(DISK_EVERY);
            }
            most
        });
        let done = act();
        has_ended.store(true, Ordering::Release);
        watching.thread().unpark();
        let most = watching.join().map_err(|_| Failure("the look at the disk panicked".to_owned()))?;
        Ok((done?, most))
    })
}

/// Empties the page cache, and says how.
pub fn drop_caches(dir: &Path, how: Caches) -> Result<&'static str> {
    rustix::fs::sync();
    if how == Caches::Auto && fs::write("/proc/sys/vm/drop_caches", "1").is_ok() {
        return Ok("page cache of the machine dropped");
    }
    forget_files(dir)?;
    Ok("posix_fadvise on the store's files: what is mapped stays")
}

fn forget_files(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_files(&path)?;
        } else if let Ok(file) = File::open(&path) {
            fadvise(&file, 0, None, Advice::DontNeed).map_err(io::Error::from)?;
        }
    }
    Ok(())
}
