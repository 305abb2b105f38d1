//! Configuration: builder style, every value with its unit, default and limits; a bad value is refused by name when
//! the store is opened, before anything on disk is touched.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::cache::eviction::Eviction;
use crate::error::{Error, Result};

/// Configuration of the whole cache. Its parts are the tiers' own configurations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheConfig {
    /// The tier on disk.
    pub cold: ColdTierConfig,
}

impl CacheConfig {
    /// A cache whose cold tier lives in `dir`, everything else at its default.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { cold: ColdTierConfig::new(dir) }
    }

    /// Replaces the configuration of the cold tier.
    pub fn cold(mut self, cold: ColdTierConfig) -> Self {
        self.cold = cold;
        self
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<()> {
        self.cold.validate()
    }
}

/// When accepted writes are made durable. Whatever the choice, `flush` makes everything accepted before it durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Never by itself. A process kill loses only what was still queued; a power cut may lose everything written
    /// since the last `flush` or maintenance commit.
    Never,
    /// At most this long after the write was accepted (default 1 s; 1 ms to 1 h). A power cut loses at most that.
    Interval(Duration),
    /// Before the call returns. Calls of several threads share one sync.
    Always,
}

/// What a write does when the queue to the writer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueFull {
    /// Waits until there is room (default).
    Wait,
    /// Waits at most this long, then fails with [`ErrorKind::Busy`](crate::ErrorKind::Busy).
    WaitFor(Duration),
    /// Fails with [`ErrorKind::Busy`](crate::ErrorKind::Busy) instead of waiting for room. While garbage nears its bound,
    /// writers are held up for 20 ms at most all the same.
    Refuse,
}

/// Who starts the maintenance tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Maintenance {
    /// The store itself, by the thresholds of this configuration; tasks can be asked for as well (default).
    Automatic,
    /// Only `ColdTier::run` and `ColdTier::schedule`.
    Manual,
}

/// How values are compressed before the first tuning, or always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Starts with LZ4, which costs a writer little, and follows what `OptimizeCompression` finds (default).
    /// Compaction stores anew what was written before.
    Tuned,
    /// Always this codec; `OptimizeCompression` measures and reports, but changes nothing.
    Fixed(Codec),
}

/// Which new entries are stored once the capacity is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// All of them (default).
    All,
    /// Those whose key was offered before, not too long ago: keys that come once and never again do not wear the disk
    /// out and push nothing else out. Costs about two bytes of memory for each entry that fits.
    Frequency,
}

/// A way to store a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Codec {
    /// As they are.
    None,
    /// LZ4 block format.
    Lz4,
    /// Zstandard at this level (-7 to 19).
    Zstd(i8),
}

/// As it is displayed: `"zstd 3"`.
#[cfg(feature = "serde")]
impl serde::Serialize for Codec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd {level}"),
        }
    }
}

/// What a stored byte is worth in CPU time: the one knob of compression tuning.
///
/// As text, in lower case: `speed`, `balanced`, `space`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// 3 ns: the byte is written once (2 ns at 500 MB/s) and read once (1 ns at 1 GB/s). Right where whole segments
    /// expire and disk space is no concern.
    Speed,
    /// 40 ns: by default a segment is compacted when a quarter of it is dead, so a byte that lives is in the long run
    /// written four times (8 ns) and read back three times for that (6 ns at 500 MB/s), and read once by a hit (1 ns):
    /// 15 ns of the disk, of which there is one where there are several processors (twice that), and 10 ns, a hundredth
    /// of [`Space`](Self::Space), for its place. The choice does not hang on the exact figure: measured on JSON records
    /// of 1 KB with a 64 KiB dictionary, zstd 3 costs less than 1 from 6 ns on, and 9 less than 3 only from 800 ns on.
    #[default]
    Balanced,
    /// 1 us: the store is full, and a byte takes another's place: 1 KB more is one entry less, whose miss costs 1 ms
    /// at the origin. With less than 800 ns the JSON records would be stored as with [`Balanced`](Self::Balanced).
    Space,
}

impl Weights {
    /// The price of one stored byte, in nanoseconds of CPU time.
    pub fn byte_price_ns(self) -> f64 {
        match self {
            Self::Speed => 3.0,
            Self::Balanced => 40.0,
            Self::Space => 1000.0,
        }
    }
}

impl std::fmt::Display for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Speed => "speed",
            Self::Balanced => "balanced",
            Self::Space => "space",
        })
    }
}

impl std::str::FromStr for Weights {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "speed" => Ok(Self::Speed),
            "balanced" => Ok(Self::Balanced),
            "space" => Ok(Self::Space),
            _ => Err(Error::config("weights", format!("{text:?} is none of speed, balanced, space"))),
        }
    }
}

/// As it is displayed: `"space"`.
#[cfg(feature = "serde")]
impl serde::Serialize for Weights {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Configuration of the cold tier.
///
/// ```
/// use larder::{ColdTierConfig, Durability};
/// use std::time::Duration;
///
/// let config = ColdTierConfig::new("/var/cache/app")
///     .segment_bytes(16 << 20)
///     .default_ttl(Duration::from_secs(3600))
///     .durability(Durability::Interval(Duration::from_millis(200)));
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct ColdTierConfig {
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) queue_bytes_max: usize,
    pub(crate) queue_full: QueueFull,
    pub(crate) durability: Durability,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) compression: Compression,
    pub(crate) weights: Weights,
    pub(crate) maintenance: Maintenance,
    pub(crate) maintenance_interval: Duration,
    pub(crate) dead_ratio_max: f64,
    pub(crate) retune_ratio: f64,
    pub(crate) sample_entries_max: usize,
    pub(crate) clock_jump_max: Duration,
    pub(crate) capacity_bytes: Option<u64>,
    pub(crate) admission: Admission,
    pub(crate) write_budget_bytes_per_day: Option<u64>,
    pub(crate) evictions: Option<Sender<Eviction>>,
}

/// Longest key the format can hold.
pub(crate) const KEY_BYTES_LIMIT: usize = 64 << 10;
/// Longest value the format can hold.
pub(crate) const VALUE_BYTES_LIMIT: usize = 64 << 20;
/// Longest time to live: a hundred years.
pub(crate) const TTL_LIMIT: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 20;
const QUEUE_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=16 << 30;
const SAMPLE_ENTRIES: std::ops::RangeInclusive<usize> = 100..=1000;

impl ColdTierConfig {
    /// A cold tier in `dir` (created if absent, readable by the owner alone), everything else at its default.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 16 << 20,
            queue_bytes_max: 64 << 20,
            queue_full: QueueFull::Wait,
            durability: Durability::Interval(Duration::from_secs(1)),
            default_ttl: None,
            key_bytes_max: KEY_BYTES_LIMIT,
            value_bytes_max: VALUE_BYTES_LIMIT,
            compression: Compression::Tuned,
            weights: Weights::Balanced,
            maintenance: Maintenance::Automatic,
            maintenance_interval: Duration::from_millis(500),
            dead_ratio_max: 0.25,
            retune_ratio: 0.5,
            sample_entries_max: 1000,
            clock_jump_max: Duration::from_secs(366 * 24 * 3600),
            capacity_bytes: None,
            admission: Admission::All,
            write_budget_bytes_per_day: None,
            evictions: None,
        }
    }

    /// Size at which a segment file is sealed, in bytes. Default 16 MiB; 64 KiB to 64 MiB. A record larger than that
    /// gets a segment of its own.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Memory that accepted but not yet written records may take, in bytes. Default 64 MiB; 64 KiB to 16 GiB. A record
    /// larger than that is let through when the queue is empty; who comes while it waits, waits behind it.
    pub fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// What a write does when the queue is full. Default [`QueueFull::Wait`].
    pub fn queue_full(mut self, choice: QueueFull) -> Self {
        self.queue_full = choice;
        self
    }

    /// When writes become durable. Default [`Durability::Interval`] of one second.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Time to live of entries inserted without one. Default none (they never expire); 1 ms to 100 years.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Longest key accepted, in bytes. Default and limit 64 KiB.
    pub fn key_bytes_max(mut self, bytes: usize) -> Self {
        self.key_bytes_max = bytes;
        self
    }

    /// Longest value accepted, in bytes. Default and limit 64 MiB.
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }

    /// How values are compressed. Default [`Compression::Tuned`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// What compression tuning weighs a stored byte by. Default [`Weights::Balanced`].
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Who starts maintenance. Default [`Maintenance::Automatic`].
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// How often automatic maintenance looks whether there is something to do. Default 500 ms; 1 ms to 1 h.
    pub fn maintenance_interval(mut self, interval: Duration) -> Self {
        self.maintenance_interval = interval;
        self
    }

    /// Automatic compaction starts when this share of the records' bytes is dead or expired; what goes by itself within an
    /// hour is left out. Default 0.25; 0.05 to 0.95. Lower saves disk, higher saves writes.
    pub fn dead_ratio_max(mut self, ratio: f64) -> Self {
        self.dead_ratio_max = ratio;
        self
    }

    /// Automatic tuning starts when the bytes inserted since the last one exceed this share of the live raw bytes (and
    /// there are 100 entries at least). Default 0.5; 0.01 to 100.
    pub fn retune_ratio(mut self, ratio: f64) -> Self {
        self.retune_ratio = ratio;
        self
    }

    /// Entries that tuning samples at most. Default 1000; 100 to 1000.
    pub fn sample_entries_max(mut self, entries: usize) -> Self {
        self.sample_entries_max = entries;
        self
    }

    /// Largest forward jump of the wall clock that the store follows; a larger one is refused and counted in the
    /// statistics. Default 366 days; at least one minute.
    pub fn clock_jump_max(mut self, jump: Duration) -> Self {
        self.clock_jump_max = jump;
        self
    }

    /// Bytes that the store's directory may take, as `du` counts it, at any moment and with everything that
    /// maintenance writes on its way. Default none; at least 16 segments (of [`segment_bytes`](Self::segment_bytes),
    /// or 1/256 of the capacity, but at least 1 MiB, whichever is less) and 4 MiB.
    ///
    /// Segments are at most 1/256 of the capacity, or 1 MiB. When it is reached, entries are evicted by value: those
    /// that were read least for their bytes and their remaining life go first. Subdirectories are not counted.
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.capacity_bytes = Some(bytes);
        self
    }

    /// Which new entries are stored once the capacity is reached. Default [`Admission::All`].
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// Bytes that may be written to segments in a day, to spare a disk that wears out. Default none; at least 1 MiB.
    /// Up to an hour's worth may be written at once; beyond it, new entries are not stored (and counted as rejected).
    pub fn write_budget_bytes_per_day(mut self, bytes: u64) -> Self {
        self.write_budget_bytes_per_day = Some(bytes);
        self
    }

    /// Who learns of each eviction, with its reason: a channel of your own making.
    ///
    /// ```
    /// # fn main() -> larder::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use larder::{Admission, ColdTier, ColdTierConfig, EvictionReason};
    ///
    /// let (listener, evictions) = crossbeam_channel::bounded(10_000);
    /// let config = ColdTierConfig::new(dir.path())
    ///     .segment_bytes(64 << 10)
    ///     .capacity_bytes(8 << 20)
    ///     .admission(Admission::All)
    ///     .evictions(listener);
    /// let cold = ColdTier::open(config)?;
    /// for n in 0..20_000u32 {
    ///     // 20 MB of values that do not shrink, into 8 MiB.
    ///     let value: Vec<u8> = (0..1000).map(|at| (n.wrapping_mul(at * at + 7) >> 11) as u8).collect();
    ///     cold.insert(&n.to_le_bytes(), &value)?;
    /// }
    /// cold.flush()?;
    /// let stats = cold.stats();
    /// assert!(stats.disk_bytes <= 8 << 20);
    /// let evicted = evictions.try_iter().filter(|one| one.reason == EvictionReason::Capacity).count();
    /// assert_eq!(evicted as u64 + stats.evictions_untold, stats.evicted);
    /// assert_eq!(stats.entries + stats.evicted, 20_000);
    /// # Ok(()) }
    /// ```
    /// The store never waits for the listener: what its channel has no
    /// room for is counted in [`ColdStats::evictions_untold`](crate::ColdStats::evictions_untold). Costs reading the
    /// keys of what is evicted.
    pub fn evictions(mut self, listener: Sender<Eviction>) -> Self {
        self.evictions = Some(listener);
        self
    }

    /// The directory.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<()> {
        if self.dir.as_os_str().is_empty() {
            return Err(Error::config("dir", "is empty; name a directory"));
        }
        within("segment_bytes", self.segment_bytes, SEGMENT_BYTES)?;
        within("queue_bytes_max", self.queue_bytes_max, QUEUE_BYTES)?;
        within("key_bytes_max", self.key_bytes_max, 1..=KEY_BYTES_LIMIT)?;
        within("value_bytes_max", self.value_bytes_max, 0..=VALUE_BYTES_LIMIT)?;
        within("sample_entries_max", self.sample_entries_max, SAMPLE_ENTRIES)?;
        within("dead_ratio_max", self.dead_ratio_max, 0.05..=0.95)?;
        within("retune_ratio", self.retune_ratio, 0.01..=100.0)?;
        let hour = Duration::from_secs(3600);
        within_time("maintenance_interval", self.maintenance_interval, Duration::from_millis(1)..=hour)?;
        within_time("clock_jump_max", self.clock_jump_max, Duration::from_secs(60)..=TTL_LIMIT)?;
        if let Durability::Interval(interval) = self.durability {
            within_time("durability", interval, Duration::from_millis(1)..=hour)?;
        }
        if let Some(capacity) = self.capacity_bytes {
            check_capacity(capacity, self.segment_bytes)?;
        }
        if let Some(budget) = self.write_budget_bytes_per_day {
            within("write_budget_bytes_per_day", budget, 1 << 20..=u64::MAX)?;
        }
        if let Some(ttl) = self.default_ttl {
            within_time("default_ttl", ttl, Duration::from_millis(1)..=TTL_LIMIT)?;
        }
        if let Compression::Fixed(Codec::Zstd(level)) = self.compression {
            within("compression", level, -7..=19)?;
        }
        Ok(())
    }
}

/// Size of segments in a directory of this capacity.
pub(crate) fn segment_bytes_at(capacity_bytes: u64, segment_bytes_max: u64) -> u64 {
    (capacity_bytes / 256).max(1 << 20).min(segment_bytes_max)
}

/// Refuses a capacity that is too small for what a store needs besides its entries.
pub(crate) fn check_capacity(capacity_bytes: u64, segment_bytes_max: u64) -> Result<()> {
    let min = 16 * segment_bytes_at(capacity_bytes, segment_bytes_max) + (4 << 20);
    if capacity_bytes >= min {
        return Ok(());
    }
    Err(Error::config("capacity_bytes", format!("{capacity_bytes} is too little; {min} at least")))
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, format!("{value} is outside {} to {}", range.start(), range.end())))
}

fn within_time(field: &str, value: Duration, range: std::ops::RangeInclusive<Duration>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, format!("{value:?} is outside {:?} to {:?}", range.start(), range.end())))
}
