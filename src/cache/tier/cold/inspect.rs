//! Looking at a store that nobody has open, without changing a byte of it.

use std::path::Path;

use super::core::manifest::{LoadedManifest, load};
use super::core::names;
use super::core::recovery::{Recovered, recover};
use super::core::segment::{read_footer, scan_records};
use super::core::tuning_file::read_report;
use super::open::take_lock;
use super::parameters::parameters_of;
use super::report::{CompressionChoice, TuningReport};
use super::serialization::edit::SegmentEntry;
use super::view::{SegmentInfo, add_accounts, compression_choice, segment_infos};
use crate::cache::stats::ColdStats;
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile, OsDisk};

/// What a store holds, as recovery would find it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inspection {
    /// Figures; counters are zero.
    pub stats: ColdStats,
    /// The segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// How records are compressed, unless their class has a choice of its own.
    pub compression: CompressionChoice,
    /// How records of each class are compressed, the smallest class first.
    pub class_compression: Vec<CompressionChoice>,
    /// Index snapshots kept.
    pub snapshots: u64,
    /// What recovery would warn of.
    pub warnings: Vec<String>,
}

/// What reading every record of a store found.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Whole records in them, dead ones included.
    pub records: u64,
    /// Entries that recovery would find, those included whose records are listed as damaged.
    pub live_entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is not as it was written.
    pub damaged: Vec<Damage>,
    /// What else recovery would warn of.
    pub warnings: Vec<String>,
}

impl VerifyReport {
    /// Whether everything is as it was written.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.warnings.is_empty()
    }
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Damage {
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub problem: String,
}

/// Looks at a store without changing it. It must not be open.
///
/// # Errors
/// `is_locked` if it is open; `is_config` if there is none.
pub fn inspect(dir: &Path) -> Result<Inspection> {
    let disk = OsDisk;
    let (_lock, loaded, found) = look(&disk, dir)?;
    let mut stats = ColdStats {
        entries: found.index.len(),
        shadows: found.index.shadows(),
        index_bytes: found.index.resident_bytes(),
        snapshot_bytes: loaded.state.snapshots.iter().map(|snapshot| snapshot.file_bytes).sum(),
        dictionaries: found.dictionaries.count() as u64,
        dictionary_bytes: 2 * found.dictionaries.total_bytes() as u64,
        recovery: found.stats.clone(),
        ..ColdStats::default()
    };
    add_accounts(&mut stats, &found.slab.accounts());
    let parameters = parameters_of(&loaded.state.parameters);
    Ok(Inspection {
        stats,
        segments: segment_infos(&found.slab),
        compression: compression_choice(parameters.common, &found.dictionaries),
        class_compression: parameters
            .classes
            .iter()
            .map(|class| compression_choice(*class, &found.dictionaries))
            .collect(),
        snapshots: loaded.state.snapshots.len() as u64,
        warnings: loaded.warnings.into_iter().chain(found.warnings).collect(),
    })
}

/// The last tuning of a store that nobody has open, with everything it measured; see `ColdTier::explain`.
///
/// # Errors
/// `is_locked` if it is open; `is_config` if there is none; what the operating system refused.
pub fn explain(dir: &Path) -> Result<Option<TuningReport>> {
    let disk = OsDisk;
    let _lock = lock_store(&disk, dir)?;
    read_report(&disk, dir)
}

/// Reads every record of a store and checks it, without changing anything. It must not be open.
///
/// `progress` is told the share of the bytes done, 0 to 1.
///
/// # Errors
/// `is_locked` if the store is open; `is_config` if there is none. Damage is no error: it is in the report.
pub fn verify(dir: &Path, progress: &mut dyn FnMut(f32)) -> Result<VerifyReport> {
    let disk = OsDisk;
    let (_lock, loaded, found) = look(&disk, dir)?;
    let mut report = VerifyReport { live_entries: found.index.len(), ..VerifyReport::default() };
    report.warnings = loaded.warnings.iter().chain(&found.warnings).cloned().collect();
    let total = loaded.state.segments.len().max(1);
    for (at, entry) in loaded.state.segments.values().enumerate() {
        verify_segment(&disk, dir, entry, &loaded, &found, &mut report)?;
        progress((at + 1) as f32 / total as f32);
    }
    progress(1.0);
    Ok(report)
}

fn verify_segment(
    disk: &OsDisk,
    dir: &Path,
    entry: &SegmentEntry,
    loaded: &LoadedManifest,
    found: &Recovered<OsDisk>,
    report: &mut VerifyReport,
) -> Result<()> {
    let path = names::segment(dir, entry.identity.segment_id);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if found.missing.contains(&entry.identity.segment_id) {
        return Ok(());
    }
    let file = disk.open_read(&path).map_err(|error| Error::io("open", &path, error))?;
    let scan = scan_records(&file, &entry.identity, loaded.state.hash_seed, &found.dictionaries)
        .map_err(|error| Error::io("read", &path, error))?;
    report.segments += 1;
    report.records += scan.rows.len() as u64;
    report.bytes += file.len().map_err(|error| Error::io("stat", &path, error))?;
    let mut damage = |offset: u64, problem: String| {
        report.damaged.push(Damage { file: name.clone(), offset, problem });
    };
    let Some(summary) = entry.sealed else {
        // It was being written: a torn end is what a crash leaves, not damage.
        return Ok(());
    };
    match read_footer(&file, &entry.identity) {
        Err(problem) => damage(summary.records_end, format!("footer: {problem}")),
        Ok((_, rows)) => {
            let whole: std::collections::HashSet<u32> = scan.rows.iter().map(|row| row.offset).collect();
            for row in rows.iter().filter(|row| !whole.contains(&row.offset)) {
                damage(row.offset.into(), format!("record with sequence number {}: damaged", row.sequence));
            }
            return Ok(());
        }
    }
    if scan.rows.len() < summary.records as usize {
        let lost = summary.records as usize - scan.rows.len();
        damage(0, format!("{lost} of {} records are damaged", summary.records));
    }
    Ok(())
}

fn look(disk: &OsDisk, dir: &Path) -> Result<(std::fs::File, LoadedManifest, Recovered<OsDisk>)> {
    let lock = lock_store(disk, dir)?;
    let loaded = load(disk, dir)?.ok_or_else(|| no_store(dir))?;
    let found = recover(disk, dir, &loaded.state, loaded.broken || loaded.state.damaged)?;
    Ok((lock, loaded, found))
}

fn no_store(dir: &Path) -> Error {
    Error::config("dir", format!("{} holds no store", dir.display()))
}

/// Locks a store. Its lock file always exists; where it does not, nothing must be created.
fn lock_store(disk: &OsDisk, dir: &Path) -> Result<std::fs::File> {
    if !disk.list(dir).is_ok_and(|files| files.iter().any(|name| name == names::LOCK)) {
        return Err(no_store(dir));
    }
    take_lock(disk, dir)
}
