//! A store at one moment, however it was looked at: from inside, from its files while nobody has it open, or from its
//! files while another process has.

use std::path::Path;

use larder::internals::compression::CodecId;
use larder::internals::core::{manifest, recovery};
use larder::{Codec, ColdStats, ColdTier, CompactionTask, ErrorKind, OsDisk, SegmentInfo};
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
    /// How long the last one took.
    pub last_seconds: f64,
    /// Bytes given back since the store was opened.
    pub bytes_reclaimed: u64,
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
        let state = store.compaction_state();
        Ok(Self {
            work: Some(Work {
                task: state.task(),
                progress: state.progress(),
                last_seconds: state.last_duration_ns() as f64 / 1e9,
                bytes_reclaimed: state.bytes_reclaimed(),
            }),
            ..Self::new(dir, Source::Open, store.stats(), store.segments(), store.compression().to_string())?
        })
    }

    /// Looks at a store that this process has not open; changes nothing.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of_dir(dir: &Path) -> Result<Self, Failure> {
        match larder::inspect(dir) {
            Ok(found) => Ok(Self {
                warnings: found.warnings,
                ..Self::new(dir, Source::Closed, found.stats, found.segments, found.compression.to_string())?
            }),
            Err(error) if error.kind() == ErrorKind::Locked => Self::of_files_in_use(dir),
            Err(error) => Err(Failure::store("inspect", dir)(error)),
        }
    }

    /// Looks at the files of a store that another process has open, without its lock: neither process waits for the
    /// other. Files that go away meanwhile are warnings, what that process has not yet written is not seen.
    ///
    /// This is the one place that uses what `larder` keeps to itself: `larder::inspect` insists on the lock.
    ///
    /// # Errors
    /// The files cannot be read, or are being replaced at this very moment: another look will do.
    pub fn of_files_in_use(dir: &Path) -> Result<Self, Failure> {
        let failed = || Failure::store("look at the files of", dir);
        let loaded = manifest::load(&OsDisk, dir).map_err(failed())?;
        let loaded =
            loaded.ok_or_else(|| Failure::Other(format!("{}: there is no store in it", dir.display())))?;
        let found = recovery::recover(&OsDisk, dir, &loaded.state, loaded.broken || loaded.state.damaged)
            .map_err(failed())?;
        let mut stats = ColdStats::default();
        stats.entries = found.index.len();
        stats.shadows = found.index.shadows();
        stats.index_bytes = found.index.resident_bytes();
        stats.snapshot_bytes = loaded.state.snapshots.iter().map(|snapshot| snapshot.file_bytes).sum();
        stats.dictionaries = found.dictionaries.count() as u64;
        stats.dictionary_bytes = 2 * found.dictionaries.total_bytes() as u64;
        stats.recovery = found.stats.clone();
        let accounts = found.slab.accounts();
        let segments: Vec<SegmentInfo> = accounts.iter().map(SegmentInfo::from).collect();
        for (account, segment) in accounts.iter().zip(&segments) {
            // As the library shares them out: by count, where records are dead.
            let values = segment.records.saturating_sub(account.summary.tombstones.into()).max(1);
            let live = |bytes: u64| {
                (u128::from(bytes) * u128::from(segment.live_records) / u128::from(values)) as u64
            };
            stats.live_payload_bytes += live(account.summary.payload_bytes);
            stats.live_raw_bytes += live(account.summary.raw_bytes);
            stats.segments += 1;
            stats.segment_bytes += segment.file_bytes;
            stats.live_bytes += segment.live_bytes;
            stats.dead_bytes += segment.dead_bytes;
            stats.expired_bytes += segment.expired_bytes;
        }
        let parameters = &loaded.state.parameters;
        let codec = match CodecId::from_u8(parameters.common.codec) {
            Some(CodecId::Lz4) => Codec::Lz4,
            Some(CodecId::Zstd) => Codec::Zstd(parameters.common.level),
            _ => Codec::None,
        };
        let dictionary =
            found.dictionaries.read(parameters.common.dictionary).as_ref().map(|known| known.bytes().len());
        let compression = match dictionary {
            Some(bytes) => format!("{codec} + {} KiB dictionary", bytes.div_ceil(1024)),
            None => codec.to_string(),
        };
        Ok(Self {
            warnings: loaded.warnings.into_iter().chain(found.warnings).collect(),
            ..Self::new(dir, Source::InUse, stats, segments, compression)?
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

    /// Bytes on disk for one byte of a live record; 0 if there is none.
    pub fn space_amplification(&self) -> f64 {
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
