//! A store at one moment, however it was looked at: from inside, from its files while nobody has it open, or from its
//! files while another process has.

use std::path::Path;
use std::time::Duration;

use larder::{ColdStats, ColdTier, CompactionState, CompactionTask, ErrorKind, Inspection, SegmentInfo};
use serde::Serialize;

use crate::disk_use::{self, DiskUse};
use crate::failure::Failure;
use crate::output;

/// Who has the store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// This process: figures from inside.
    Open,
    /// Nobody: what its files say.
    Closed,
    /// Another process: what its files say, which may be behind what that process knows.
    InUse,
}

/// Maintenance at the moment; known of a store that this process has open.
#[derive(Clone, Debug, Serialize)]
pub struct Work {
    /// The task that is running.
    pub task: Option<CompactionTask>,
    /// How far it is, 0 to 1.
    pub progress: f32,
    /// Bytes of segments that the running task has still to work through.
    pub bytes_to_go: u64,
    /// About how long it will still take; `None` if nothing runs, or it is too early to tell.
    pub seconds_left: Option<f64>,
    /// How long the last one took.
    pub last_seconds: f64,
    /// Bytes given back since the store was opened.
    pub bytes_reclaimed: u64,
}

impl Work {
    /// What is going on at the moment.
    pub fn of(state: &CompactionState) -> Self {
        Self {
            task: state.task(),
            progress: state.progress(),
            bytes_to_go: state.bytes_to_go(),
            seconds_left: state.time_left().map(|left| left.as_secs_f64()),
            last_seconds: state.last_duration_ns() as f64 / 1e9,
            bytes_reclaimed: state.bytes_reclaimed(),
        }
    }

    /// What is left of the running task, as far as it is known: `12.0 MiB to go, 3.20 s left`.
    pub fn left(&self) -> String {
        let to_go = (self.bytes_to_go > 0).then(|| format!("{} to go", output::bytes(self.bytes_to_go)));
        let time =
            self.seconds_left.map(|left| format!("{} left", output::duration(Duration::from_secs_f64(left))));
        to_go.into_iter().chain(time).collect::<Vec<_>>().join(", ")
    }
}

/// A store at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Glance {
    /// Its directory.
    pub dir: String,
    /// Who has it open.
    pub source: Source,
    /// When this was, unix ms.
    pub at_ms: u64,
    /// The library's figures.
    pub stats: ColdStats,
    /// What the file system says.
    pub disk: DiskUse,
    /// How new records are stored.
    pub compression: String,
    /// The segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// What recovery warns of.
    pub warnings: Vec<String>,
    /// Maintenance, if it can be seen.
    pub work: Option<Work>,
}

impl Glance {
    /// Looks at a store that this process has open.
    ///
    /// # Errors
    /// Its directory cannot be listed.
    pub fn of_open(dir: &Path, store: &ColdTier) -> Result<Self, Failure> {
        Ok(Self {
            work: Some(Work::of(store.compaction_state())),
            ..Self::new(dir, Source::Open, store.stats(), store.segments(), store.compression().to_string())?
        })
    }

    /// Looks at a store that this process has not open; changes nothing. Its files do not say its `capacity`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of_dir(dir: &Path, capacity: Option<u64>) -> Result<Self, Failure> {
        match larder::inspect(dir) {
            Ok(found) => Self::of_inspection(dir, Source::Closed, found, capacity),
            Err(error) if error.kind() == ErrorKind::Locked => Self::of_files_in_use(dir, capacity),
            Err(error) => Err(Failure::store("inspect", dir)(error)),
        }
    }

    /// Looks at the files of a store that another process has open: neither process waits for the other. What that
    /// process has not yet written is not seen.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn of_files_in_use(dir: &Path, capacity: Option<u64>) -> Result<Self, Failure> {
        let found = larder::inspect_shared(dir).map_err(Failure::store("look at the files of", dir))?;
        Self::of_inspection(dir, Source::InUse, found, capacity)
    }

    fn of_inspection(
        dir: &Path,
        source: Source,
        found: Inspection,
        capacity: Option<u64>,
    ) -> Result<Self, Failure> {
        let mut stats = found.stats;
        stats.capacity_bytes = capacity;
        Ok(Self {
            warnings: found.warnings,
            ..Self::new(dir, source, stats, found.segments, found.compression.to_string())?
        })
    }

    fn new(
        dir: &Path,
        source: Source,
        stats: ColdStats,
        segments: Vec<SegmentInfo>,
        compression: String,
    ) -> Result<Self, Failure> {
        let disk = disk_use::measure(dir)
            .map_err(|error| Failure::Other(format!("list {}: {error}", dir.display())))?;
        Ok(Self {
            dir: dir.display().to_string(),
            source,
            at_ms: output::unix_now_ms(),
            stats,
            disk,
            compression,
            segments,
            warnings: Vec::new(),
            work: None,
        })
    }

    /// Bytes on disk that are no record: footers, index snapshots, dictionaries, the manifest, unfilled blocks.
    pub fn overhead_bytes(&self) -> u64 {
        let records = self.stats.live_bytes + self.stats.dead_bytes + self.stats.expired_bytes;
        self.disk.bytes.saturating_sub(records)
    }

    /// Live keys and values before compression over what is stored of them; 0 if there are none.
    pub fn ratio(&self) -> f64 {
        quotient(self.stats.live_raw_bytes, self.stats.live_payload_bytes)
    }

    /// Bytes that the directory may still take; `None` if its capacity is not known, or there is none.
    pub fn free_bytes(&self) -> Option<u64> {
        Some(self.stats.capacity_bytes?.saturating_sub(self.disk.bytes))
    }

    /// Bytes of the whole directory for one byte of a live record; 0 if there is none.
    pub fn disk_amplification(&self) -> f64 {
        quotient(self.disk.bytes, self.stats.live_bytes)
    }

    /// Memory of the index for one entry; 0 if there is none.
    pub fn index_bytes_per_entry(&self) -> f64 {
        quotient(self.stats.index_bytes, self.stats.entries)
    }
}

/// A quotient of counts; 0 where there is nothing to divide by.
pub fn quotient(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
