//! The manifest on disk: which segments, dictionaries and snapshots are in force.
//!
//! Owner: the writer. An edit counts once `append` and `sync` have returned. Order of a roll (M2): the new manifest
//! and its name durable, `CURRENT` replaced and durable, then the old one unlinked; a crash at any line leaves a
//! `CURRENT` that names a whole manifest, or none and exactly one state to choose from.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::names::{self, FileKind};
use super::recovery::is_damage;
use crate::cache::tier::cold::serialization::edit::{
    Edit, ManifestState, SegmentEntry, check_manifest_header, decode_edits, encode_edit, manifest_header,
};
use crate::cache::tier::cold::serialization::{FormatError, open_block, seal_block};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, DiskFile, read_all};

const CURRENT_MAGIC: &[u8; 8] = b"LARDCUR1";
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// A manifest of this length, and of four times the length it started with, is rolled.
pub(super) const ROLL_BYTES: u64 = 4 << 20;

/// What reading a manifest found.
#[derive(Debug)]
pub struct LoadedManifest {
    /// The state after its last whole edit.
    pub state: ManifestState,
    /// Number of the file.
    pub number: u64,
    /// Highest number of any manifest file.
    pub highest_number: u64,
    /// Where the next edit goes.
    pub end: u64,
    /// Where its first edit ends.
    pub state_end: u64,
    /// Nothing torn, nothing damaged: appending may go on.
    pub clean: bool,
    /// Edits are missing in the middle: nothing may be deleted on this manifest's word.
    pub broken: bool,
    /// Segments in `state` whose edit is not in the file (R7).
    pub adopted: Vec<SegmentEntry>,
    /// What was met on the way.
    pub warnings: Vec<String>,
}

/// Reads the manifest in force; `None` in a directory that has none and never had a segment.
///
/// # Errors
/// When no manifest is readable although there are segments, or the format is newer.
pub fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Option<LoadedManifest>> {
    let files = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let mut numbers: Vec<u64> = Vec::new();
    let mut segments = 0;
    for name in &files {
        match names::kind_of(name) {
            FileKind::Manifest(number) => numbers.push(number),
            FileKind::Segment(_) => segments += 1,
            _ => {}
        }
    }
    numbers.sort_unstable();
    let mut warnings = Vec::new();
    let current = if files.iter().any(|name| name == names::CURRENT) {
        read_current(disk, dir, &mut warnings)?
    } else {
        None
    };
    let highest_number = numbers.last().copied().unwrap_or(0);
    if let Some(number) = current
        && let Some(loaded) = try_number(disk, dir, number, &mut warnings)?
    {
        return Ok(Some(LoadedManifest { warnings, highest_number, ..loaded }));
    }
    // Without the manifest that the pointer names, the one that knows most; it may not know all.
    let mut best: Option<LoadedManifest> = None;
    for number in numbers.iter().filter(|number| Some(**number) != current) {
        if let Some(loaded) = try_number(disk, dir, *number, &mut warnings)?
            && best.as_ref().is_none_or(|best| best.state.edit <= loaded.state.edit)
        {
            best = Some(loaded);
        }
    }
    if let Some(best) = best {
        let broken = best.broken || current.is_some() || numbers.len() > 1;
        return Ok(Some(LoadedManifest { warnings, highest_number, broken, clean: false, ..best }));
    }
    if segments == 0 {
        return Ok(None);
    }
    Err(Error::corruption(format!(
        "{}: {segments} segment files and no readable manifest ({}); `larder repair` saves what is in them",
        dir.display(),
        warnings.join("; "),
    )))
}

/// A manifest, unless it is unreadable; what is met goes to the warnings.
fn try_number<D: Disk>(
    disk: &D,
    dir: &Path,
    number: u64,
    warnings: &mut Vec<String>,
) -> Result<Option<LoadedManifest>> {
    match load_number(disk, dir, number) {
        Ok(mut loaded) => {
            warnings.append(&mut loaded.warnings);
            Ok(Some(loaded))
        }
        Err(error) if error.kind() == ErrorKind::Corruption => {
            warnings.push(error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read_current<D: Disk>(disk: &D, dir: &Path, warnings: &mut Vec<String>) -> Result<Option<u64>> {
    let path = dir.join(names::CURRENT);
    let bytes = match disk.open_read(&path).and_then(|file| read_all(&file, 4096)) {
        Ok(bytes) => bytes,
        Err(error) if is_damage(&error) => {
            warnings.push(format!("{}: {error}", path.display()));
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    match open_block(CURRENT_MAGIC, &bytes) {
        Ok(body) => Ok(body.try_into().ok().map(u64::from_le_bytes)),
        Err(other @ (FormatError::Newer(_) | FormatError::Older(_))) => Err(other_format(&path, other)),
        Err(error) => {
            warnings.push(format!("{}: {error}", path.display()));
            Ok(None)
        }
    }
}

fn other_format(path: &Path, error: FormatError) -> Error {
    let kind = match error {
        FormatError::Older(_) => ErrorKind::OlderFormat,
        _ => ErrorKind::NewerFormat,
    };
    Error::new(kind, format!("{}: {error}; nothing was changed", path.display()))
}

fn load_number<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<LoadedManifest> {
    let path = names::manifest(dir, number);
    let damaged = |problem: &str| Error::corruption(format!("{}: {problem}", path.display()));
    let bytes = match disk.open_read(&path).and_then(|file| read_all(&file, MANIFEST_BYTES_MAX)) {
        Ok(bytes) => bytes,
        Err(error) if is_damage(&error) => return Err(damaged(&error.to_string())),
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    match check_manifest_header(&bytes) {
        // The first edit vouches for the file where its header is damaged.
        Ok(()) | Err(FormatError::Checksum | FormatError::Magic | FormatError::Invalid(_)) => {}
        Err(other @ (FormatError::Newer(_) | FormatError::Older(_))) => {
            return Err(other_format(&path, other));
        }
        Err(error) => return Err(damaged(&error.to_string())),
    }
    let log = decode_edits(&bytes);
    let mut edits = log.edits.into_iter();
    let Some((_, Edit::State(state))) = edits.next() else {
        return Err(damaged("does not start with a whole state"));
    };
    let mut state = *state;
    for (number, edit) in edits {
        state.apply(number, &edit);
    }
    let mut warnings = Vec::new();
    if let Err(error) = check_manifest_header(&bytes) {
        warnings.push(format!("{}: header: {error}", path.display()));
    }
    if log.repaired > 0 {
        warnings.push(format!("{}: {} damaged edits read from their copies", path.display(), log.repaired));
    }
    if log.broken {
        warnings.push(format!("{}: damaged at {}, later edits are lost", path.display(), log.end));
    }
    Ok(LoadedManifest {
        state,
        number,
        highest_number: number,
        end: log.end as u64,
        state_end: log.state_end as u64,
        clean: log.repaired == 0 && log.end == bytes.len() && check_manifest_header(&bytes).is_ok(),
        broken: log.broken,
        adopted: Vec::new(),
        warnings,
    })
}

/// The manifest, open for appending.
pub struct Manifest<D: Disk> {
    dir: PathBuf,
    path: PathBuf,
    number: u64,
    file: D::File,
    end: u64,
    start_bytes: u64,
    dirty: bool,
    /// Number of the last edit that is durable; 0 until the first sync.
    synced: u64,
    state: ManifestState,
    /// Edits in force that found no room in the file: they go before the next one.
    owed: Vec<(u64, Edit)>,
}

impl<D: Disk> Manifest<D> {
    /// Writes `state` as a new manifest file and makes it the one in force.
    pub fn create(disk: &D, dir: &Path, number: u64, state: ManifestState) -> Result<Self> {
        let manifest = Self::write_new(disk, dir, number, state)?;
        write_current(disk, dir, number)?;
        Ok(manifest)
    }

    /// Writes `state` as a new manifest file, durable, but not in force.
    fn write_new(disk: &D, dir: &Path, number: u64, state: ManifestState) -> Result<Self> {
        let path = names::manifest(dir, number);
        // A leftover of a roll that was cut short: nobody names it.
        match disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path, error));
            }
            _ => {}
        }
        let file = disk.create(&path).map_err(|error| Error::io("create", &path, error))?;
        let mut bytes = manifest_header();
        bytes.extend_from_slice(&encode_edit(state.edit, state.edit, &Edit::State(Box::new(state.clone()))));
        file.write_full_at(&bytes, 0).map_err(|error| Error::io("write", &path, error))?;
        file.sync().map_err(|error| Error::io("sync", &path, error))?;
        sync_names(disk, dir)?;
        let end = bytes.len() as u64;
        Ok(Self {
            dir: dir.into(),
            path,
            number,
            file,
            end,
            start_bytes: end,
            dirty: false,
            synced: state.edit,
            state,
            owed: Vec::new(),
        })
    }

    /// Goes on with a manifest that was read whole, and enters what was adopted.
    pub fn reopen(disk: &D, dir: &Path, loaded: &LoadedManifest) -> Result<Self> {
        let path = names::manifest(dir, loaded.number);
        let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
        let mut manifest = Self {
            dir: dir.into(),
            path,
            number: loaded.number,
            file,
            end: loaded.end,
            start_bytes: loaded.state_end,
            dirty: false,
            synced: 0,
            state: loaded.state.clone(),
            owed: Vec::new(),
        };
        // The state has had these edits; in the file they get the numbers they have there.
        manifest.state.edit -= loaded.adopted.len() as u64;
        for entry in &loaded.adopted {
            manifest.append_or_owe(Edit::AddSegment(entry.clone()))?;
        }
        Ok(manifest)
    }

    /// The state after the last edit.
    pub fn state(&self) -> &ManifestState {
        &self.state
    }

    /// Whether an edit waits for its sync.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Appends an edit; it counts once `sync` has returned. Returns its number.
    ///
    /// # Errors
    /// When it cannot be written; then it does not count, and the next edit takes its place.
    pub fn append(&mut self, edit: &Edit) -> Result<u64> {
        self.write_owed()?;
        let number = self.state.edit + 1;
        self.write(number, edit)?;
        self.state.apply(number, edit);
        Ok(number)
    }

    /// Appends an edit that only says what the files show anyhow. Where the disk is full it is in force all the same,
    /// and written before the next one: without it the store would count on what it has lost (N2).
    ///
    /// # Errors
    /// As `append`, but for a full disk.
    pub fn append_or_owe(&mut self, edit: Edit) -> Result<()> {
        let number = self.state.edit + 1;
        match self.write_owed().and_then(|()| self.write(number, &edit)) {
            Err(error) if error.is_full() => self.owed.push((number, edit.clone())),
            outcome => outcome?,
        }
        self.state.apply(number, &edit);
        Ok(())
    }

    /// Whether edits in force are not in the file.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Writes what is owed, as far as there is room.
    pub fn write_owed(&mut self) -> Result<()> {
        while let Some((number, edit)) = self.owed.first().cloned() {
            self.write(number, &edit)?;
            self.owed.remove(0);
        }
        Ok(())
    }

    fn write(&mut self, number: u64, edit: &Edit) -> Result<()> {
        let bytes = encode_edit(number, self.synced, edit);
        if let Err(error) = self.file.write_full_at(&bytes, self.end) {
            let error = Error::io("append to", &self.path, error);
            // The first copy may have been written whole: it must not come into force at the next start.
            // Synced, because the kernel may have stored that copy already.
            let blanked = (|| {
                // No more than there is: a full disk would refuse that too.
                let left = self.file.len()?.saturating_sub(self.end).min(bytes.len() as u64 / 2);
                if left == 0 {
                    return Ok(());
                }
                self.file.write_full_at(&vec![0; left as usize], self.end)?;
                self.file.sync()
            })();
            if let Err(blank_error) = blanked {
                let error = format!("{error}; and it could not be taken back: {blank_error}");
                return Err(Error::new(ErrorKind::ReadOnly, error));
            }
            return Err(error);
        }
        self.end += bytes.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// Makes the edits durable.
    ///
    /// # Errors
    /// When the sync fails; it is never tried again on this file: the kernel may have dropped the bytes.
    pub fn sync(&mut self) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        self.file.sync().map_err(|error| sync_failed(&self.path, error))?;
        self.dirty = false;
        self.synced = self.owed.first().map_or(self.state.edit, |(number, _)| number - 1);
        Ok(())
    }

    /// Makes everything in the file durable, also what another process wrote.
    pub fn sync_anew(&mut self) -> Result<()> {
        self.dirty = true;
        self.sync()
    }

    /// Whether the log has grown enough to be written anew.
    pub fn wants_roll(&self, bytes_max: u64) -> bool {
        self.end > bytes_max && self.end > 4 * self.start_bytes
    }

    /// Starts a new file with the state alone, and removes the old one. The log must be synced.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] when it is unknown which of the two files is in force, or names may be lost. A new file
    /// that could not even be written is no error: the old one goes on.
    pub fn roll(&mut self, disk: &D) -> Result<()> {
        let new = match Self::write_new(disk, &self.dir, self.number + 1, self.state.clone()) {
            Ok(new) => new,
            Err(error) if error.is_read_only() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the manifest could not be written anew; the old one goes on");
                return Ok(());
            }
        };
        write_current(disk, &self.dir, new.number).map_err(read_only)?;
        let old = std::mem::replace(self, new);
        if let Err(error) = disk.remove(&old.path) {
            tracing::warn!(path = %old.path.display(), %error, "left behind; the next start removes it");
        }
        Ok(())
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.end
    }

    /// Number of the file.
    pub fn number(&self) -> u64 {
        self.number
    }
}

fn write_current<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<()> {
    let path = dir.join(names::CURRENT);
    replace_file(disk, dir, &path, &seal_block(CURRENT_MAGIC, &number.to_le_bytes()))
}

/// Writes a file so that a crash leaves the old one or the new one: temporary name, sync, rename, sync the directory.
pub fn replace_file<D: Disk>(disk: &D, dir: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = names::temporary(path);
    match disk.remove(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &temporary, error));
        }
        _ => {}
    }
    let written = (|| {
        let file = disk.create(&temporary)?;
        file.write_full_at(bytes, 0)?;
        file.sync()?;
        drop(file);
        disk.rename(&temporary, path)
    })();
    written.map_err(|error| {
        // Best effort: what stays behind is deleted at the next start.
        drop(disk.remove(&temporary));
        Error::io("write", path, error)
    })?;
    // The new file has the name already: this is no failure that has changed nothing.
    sync_names(disk, dir).map_err(read_only)
}

/// Makes the directory's names durable.
///
/// # Errors
/// [`ErrorKind::ReadOnly`]: a directory whose sync failed may have lost other names too, and will not say so again. Only
/// where no descriptor could be had for it was nothing tried, and nothing lost.
pub fn sync_names<D: Disk>(disk: &D, dir: &Path) -> Result<()> {
    disk.sync_dir(dir).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE) => Error::io("sync", dir, error),
        _ => sync_failed(dir, error),
    })
}

/// The error of a failed sync: what the kernel has dropped cannot be known, so the store is read-only from then on.
pub fn sync_failed(path: &Path, error: std::io::Error) -> Error {
    read_only(Error::io("sync", path, error))
}

fn read_only(error: Error) -> Error {
    Error::new(ErrorKind::ReadOnly, error.to_string())
}
