//! Looking at a store without changing a byte of it: one that nobody has open, under its lock; or, without it, one that
//! its owner goes on with meanwhile.

use std::collections::HashMap;
use std::path::Path;

use super::core::adoption::adopt_unknown;
use super::core::manifest::{LoadedManifest, load};
use super::core::names;
use super::core::recovery::{Recovered, recover};
use super::core::segment::{read_footer, scan_records};
use super::core::snapshot::{check_spare_parts, load_snapshot};
use super::core::tuning_file::read_report;
use super::metadata_index::MetadataIndex;
use super::open::{directory_bytes, take_lock};
use super::parameters::parameters_of;
use super::report::{CompressionChoice, TuningReport};
use super::serialization::edit::SegmentEntry;
use super::serialization::segment::{SEGMENT_HEADER_BYTES, SegmentIdentity};
use super::view::{SegmentInfo, add_accounts, compression_choice, segment_infos};
use crate::cache::stats::ColdStats;
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile, OsDisk, OsLock};

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

/// Looks taken at most at a store that its owner goes on with, until one meets no file that has just gone.
const LOOKS_MAX: usize = 16;

/// Looks at a store without changing it. It must not be open; of one that is, see [`inspect_shared`].
///
/// # Errors
/// `is_locked` if it is open; `is_config` if there is none.
pub fn inspect(dir: &Path) -> Result<Inspection> {
    let disk = OsDisk;
    let _lock = lock_store(&disk, dir)?;
    let (loaded, found) = look(&disk, dir)?;
    inspection(&disk, dir, loaded, found)
}

/// Looks at the files of a store that may be open, here or in another process; takes no lock and writes nothing, so
/// neither waits for the other.
///
/// What the owner has not yet written is not seen, nor what it has not written down: hits, evictions, its capacity.
/// Expired entries that a cleanup has found count as live until that is saved. Files that the owner removes meanwhile
/// are no damage: the look is taken again.
///
/// # Errors
/// `is_config` if there is no store; what the operating system refused.
pub fn inspect_shared(dir: &Path) -> Result<Inspection> {
    inspect_shared_on(&OsDisk, dir)
}

/// [`inspect_shared`] on another disk, for tests.
pub fn inspect_shared_on<D: Disk>(disk: &D, dir: &Path) -> Result<Inspection> {
    let mut before = Vec::new();
    let mut looks = 1;
    loop {
        let seen = look(disk, dir);
        let trouble: Vec<String> = match &seen {
            Ok((loaded, found)) => loaded.warnings.iter().chain(&found.warnings).cloned().collect(),
            Err(error) if error.is_config() => return Err(no_store(dir)),
            Err(error) => vec![error.to_string()],
        };
        // An edit is in the manifest before the files go that it does without. So what a look misses only because the
        // owner was faster, the next one does not ask for; the same trouble twice is damage.
        if trouble.is_empty() || trouble == before || looks == LOOKS_MAX {
            let (loaded, found) = seen?;
            return inspection(disk, dir, loaded, found);
        }
        before = trouble;
        looks += 1;
    }
}

fn inspection<D: Disk>(
    disk: &D,
    dir: &Path,
    loaded: LoadedManifest,
    found: Recovered<D>,
) -> Result<Inspection> {
    let mut stats = ColdStats {
        entries: found.index.len(),
        shadows: found.index.shadows(),
        index_bytes: found.index.resident_bytes(),
        snapshot_bytes: loaded.state.snapshot.map_or(0, |snapshot| snapshot.file_bytes),
        dictionaries: found.dictionaries.count() as u64,
        dictionary_bytes: 2 * found.dictionaries.total_bytes() as u64,
        disk_bytes: directory_bytes(disk, dir)?,
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
        snapshots: loaded.state.snapshot.iter().len() as u64,
        warnings: loaded.warnings.into_iter().chain(found.warnings).collect(),
    })
}

/// The last tuning of a store, with everything it measured; see `ColdTier::explain`. The store may be open: the file is
/// only ever replaced as a whole.
///
/// # Errors
/// `is_config` if there is no store; what the operating system refused.
pub fn explain(dir: &Path) -> Result<Option<TuningReport>> {
    let disk = OsDisk;
    require_store(&disk, dir)?;
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
    let _lock = lock_store(&disk, dir)?;
    let (loaded, found) = look(&disk, dir)?;
    let mut report = VerifyReport { live_entries: found.index.len(), ..VerifyReport::default() };
    report.warnings = loaded.warnings.iter().chain(&found.warnings).cloned().collect();
    let total = loaded.state.segments.len().max(1);
    for (at, entry) in loaded.state.segments.values().enumerate() {
        verify_segment(&disk, dir, entry, &loaded, &found, &mut report)?;
        progress((at + 1) as f32 / total as f32);
    }
    verify_what_can_be_rebuilt(&disk, dir, &loaded, &mut report)?;
    progress(1.0);
    Ok(report)
}

/// What makes up for damage of the snapshot, and the explanation of the last tuning: nothing is lost with them.
fn verify_what_can_be_rebuilt(
    disk: &OsDisk,
    dir: &Path,
    loaded: &LoadedManifest,
    report: &mut VerifyReport,
) -> Result<()> {
    let mut damage = |path: &Path, problem: String| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.damaged.push(Damage { file, offset: 0, problem });
    };
    if let Some(snapshot) = &loaded.state.snapshot {
        let path = names::snapshot(dir, snapshot.id);
        let (store_id, segments) = (loaded.state.store_id, HashMap::new());
        match load_snapshot(disk, dir, store_id, snapshot, &segments, &mut MetadataIndex::default()) {
            Err(problem) => damage(&path, problem),
            Ok(taken) => {
                let spare = check_spare_parts(disk, dir, store_id, snapshot).err();
                taken.mended.into_iter().chain(spare).for_each(|problem| damage(&path, problem));
            }
        }
    }
    let current = dir.join(names::CURRENT);
    if let Err(error) = disk.open_read(&current) {
        damage(&current, error.to_string());
    }
    let tuning = dir.join(names::TUNING);
    let is_there = disk.open_read(&tuning).is_ok();
    if is_there && read_report(disk, dir)?.is_none() {
        damage(&tuning, "the last tuning cannot be explained".into());
    }
    Ok(())
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
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let got = file.read_full_at(&mut header, 0).map_err(|error| Error::io("read", &path, error))?;
    match SegmentIdentity::decode(&header[..got]) {
        Ok(identity) if identity == entry.identity => {}
        Ok(_) => damage(0, "header: of another segment".into()),
        Err(problem) => damage(0, format!("header: {problem}; the manifest knows what it said")),
    }
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

fn look<D: Disk>(disk: &D, dir: &Path) -> Result<(LoadedManifest, Recovered<D>)> {
    let mut loaded = load(disk, dir)?.ok_or_else(|| no_store(dir))?;
    adopt_unknown(disk, dir, &mut loaded)?;
    let found = recover(disk, dir, &loaded.state, loaded.broken || loaded.state.damaged)?;
    Ok((loaded, found))
}

fn no_store(dir: &Path) -> Error {
    Error::config("dir", format!("{} holds no store", dir.display()))
}

/// The lock file of a store always exists; where it does not, nothing must be created.
fn require_store(disk: &OsDisk, dir: &Path) -> Result<()> {
    match disk.list(dir) {
        Ok(files) if files.iter().any(|name| name == names::LOCK) => Ok(()),
        _ => Err(no_store(dir)),
    }
}

/// The lock of a store, damaged as it may be: one without a lock file has never been opened here.
pub(super) fn take_lock_of(disk: &OsDisk, dir: &Path) -> Result<Option<OsLock>> {
    match require_store(disk, dir) {
        Ok(()) => take_lock(disk, dir).map(Some),
        Err(_) => Ok(None),
    }
}

fn lock_store(disk: &OsDisk, dir: &Path) -> Result<OsLock> {
    require_store(disk, dir)?;
    take_lock(disk, dir)
}
