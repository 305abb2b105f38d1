//! Saving what can be saved of a damaged store into a fresh one.
//!
//! Every segment file is read, known to the manifest or not; of each key the record with the highest sequence number
//! counts. What is *sure* is what recovery would serve: its index vouches for it. What is *doubtful* is whole, and may
//! have been deleted or overwritten by something that is lost: everything, where no manifest can be read; what recovery
//! gives up (W), and files that a damaged manifest does not know. Opening a store serves none of that. Somebody who
//! repairs has lost more already, so it is saved and counted, unless only what is sure is asked for.
//!
//! The damaged store is read, and not changed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::core::adoption::adopt_unknown;
use super::core::manifest::{LoadedManifest, load};
use super::core::names::{self, FileKind};
use super::core::recovery::{Recovered, recover};
use super::core::segment::{decode_record, read_footer, read_record, scan_records};
use super::dictionary::{Dictionary, DictionaryTable};
use super::handle::ColdTier;
use super::inspect::take_lock_of;
use super::metadata_index::{EntryId, IndexEntry, Location};
use super::serialization;
use super::serialization::dictionary::{DICTIONARY_BYTES_LIMIT, decode_dictionary, dictionary_bytes_of};
use super::serialization::footer::FooterRow;
use super::serialization::segment::{SEGMENT_HEADER_BYTES, SegmentIdentity};
use crate::clock::{Clock, SystemClock};
use crate::config::ColdTierConfig;
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile, OsDisk, OsFile, read_all};

/// What a repair saved, and what it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RepairReport {
    /// Segment files read, what a task was still writing among them.
    pub segments: u64,
    /// Of these, files that the manifest does not name, or all where there is none.
    pub segments_unknown: u64,
    /// Whole records found in them.
    pub records: u64,
    /// Entries in the copy.
    pub saved: u64,
    /// Of these, entries that something lost may have deleted or overwritten.
    pub doubtful_saved: u64,
    /// Such entries that were left out, because only sure ones were asked for.
    pub doubtful_left: u64,
    /// Entries whose newest record is damaged: they are gone, and nothing older of them is saved.
    pub damaged: u64,
    /// Entries that had expired.
    pub expired: u64,
    /// What was met on the way.
    pub warnings: Vec<String>,
}

/// Where a record lies, and whether anything is to be saved of its key.
#[derive(Clone, Copy)]
struct Found {
    sequence: u64,
    at: Place,
    /// Where the same record lies damaged: a relocation that was cut short has left this one, or that one.
    damaged_twin: Option<Place>,
    expires_at_ms: u64,
    kind: FoundKind,
}

#[derive(Clone, Copy)]
struct Place {
    segment: u64,
    offset: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FoundKind {
    Value,
    Tombstone,
    /// A row of a footer says that it was there; its bytes are not.
    Damaged,
}

struct Segment {
    identity: SegmentIdentity,
    path: PathBuf,
    file: OsFile,
    /// Its slot in the index; `None` if the manifest does not name it.
    slot: Option<u32>,
}

struct Repair {
    segments: HashMap<u64, Segment>,
    dictionaries: DictionaryTable,
    known: Option<(LoadedManifest, Recovered<OsDisk>)>,
    hash_seed: u64,
    now_ms: u64,
    report: RepairReport,
}

/// Saves what can be saved of the store in `dir` into a new store, made by `copy`. The store must not be open; it is
/// not changed. With `only_sure`, entries that something lost may have deleted or overwritten are left out.
///
/// `progress` is told the share of the entries saved, 0 to 1.
///
/// # Errors
/// `is_config` if there are no segments in `dir` or the copy's directory holds a store; `is_locked` if it is open;
/// [`ErrorKind::NewerFormat`](crate::ErrorKind::NewerFormat) and [`ErrorKind::OlderFormat`](crate::ErrorKind::OlderFormat);
/// what the operating system refused, and what `ColdTier::insert` says.
pub fn repair(
    dir: &Path,
    copy: ColdTierConfig,
    only_sure: bool,
    progress: &mut dyn FnMut(f32),
) -> Result<RepairReport> {
    let disk = OsDisk;
    let _lock = take_lock_of(&disk, dir)?;
    if disk.list(&copy.dir).is_ok_and(|names| !names.is_empty()) {
        return Err(Error::config("copy", format!("{} is not empty", copy.dir.display())));
    }
    let mut repair = Repair::look(&disk, dir)?;
    let newest = repair.newest_records()?;
    let cold = ColdTier::open(copy)?;
    let total = newest.len().max(1);
    for (done, (id, found)) in newest.into_iter().enumerate() {
        repair.save(&cold, id, found, only_sure)?;
        if done % 1024 == 0 {
            progress(done as f32 / total as f32);
        }
    }
    cold.flush()?;
    cold.close()?;
    progress(1.0);
    Ok(repair.report)
}

impl Repair {
    fn look(disk: &OsDisk, dir: &Path) -> Result<Self> {
        let mut report = RepairReport::default();
        let known = match load(disk, dir) {
            Ok(Some(mut loaded)) => {
                adopt_unknown(disk, dir, &mut loaded)?;
                let found = recover(disk, dir, &loaded.state, loaded.broken || loaded.state.damaged)?;
                report.warnings.extend(loaded.warnings.iter().chain(&found.warnings).cloned());
                Some((loaded, found))
            }
            Ok(None) => None,
            Err(error) if error.is_corruption() => {
                report.warnings.push(error.to_string());
                None
            }
            Err(error) => return Err(error),
        };
        let wall_ms = SystemClock::default().wall_ms();
        let state = known.as_ref().map(|(loaded, _)| &loaded.state);
        let mut repair = Self {
            segments: HashMap::new(),
            dictionaries: DictionaryTable::new(),
            hash_seed: state.map_or(0, |state| state.hash_seed),
            now_ms: state.map_or(wall_ms, |state| state.clock_ms.max(wall_ms)),
            known,
            report,
        };
        let files = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
        for name in &files {
            if let FileKind::Dictionary(slot, id) = names::kind_of(name) {
                repair.take_dictionary(disk, &dir.join(name), slot, id);
            }
        }
        for name in &files {
            if let FileKind::Segment(id) = names::kind_of(name) {
                repair.take_segment(disk, dir.join(name), id);
            }
        }
        for name in &files {
            if let Some(id) = names::output_of(name) {
                repair.take_output(disk, dir.join(name), id);
            }
        }
        if repair.segments.is_empty() {
            return Err(Error::config("dir", format!("{} holds no segment that can be read", dir.display())));
        }
        Ok(repair)
    }

    fn warn(&mut self, path: &Path, problem: impl std::fmt::Display) {
        self.report.warnings.push(format!("{}: {problem}", path.display()));
    }

    /// Of several dictionaries of one slot, the one that the manifest names.
    fn take_dictionary(&mut self, disk: &OsDisk, path: &Path, slot: u8, id: u64) {
        let named = self.known.as_ref().and_then(|(loaded, _)| loaded.state.dictionaries.get(&slot));
        if named.is_some_and(|named| named.id != id) {
            return;
        }
        let bytes = disk.open_read(path).and_then(|file| read_all(&file, 4 * DICTIONARY_BYTES_LIMIT as u64));
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.warn(path, error),
        };
        let content_bytes = named.map_or(dictionary_bytes_of(bytes.len()), |named| named.bytes as usize);
        match decode_dictionary(&bytes, id, content_bytes) {
            Ok((content, _)) => match Dictionary::new(slot, content, 1) {
                Ok(dictionary) => drop(self.dictionaries.install(dictionary)),
                Err(error) => self.warn(path, error),
            },
            Err(error) => self.warn(path, format_args!("{error}: values that need it are lost")),
        }
    }

    /// Identity from the manifest, or from the header: either serves.
    fn take_segment(&mut self, disk: &OsDisk, path: PathBuf, id: u64) {
        let entry = self.known.as_ref().and_then(|(loaded, _)| loaded.state.segments.get(&id));
        let (identity, slot) = (entry.map(|entry| entry.identity), entry.map(|entry| entry.slot));
        let file = match disk.open_read(&path) {
            Ok(file) => file,
            Err(error) => return self.warn(&path, error),
        };
        let identity = match identity.map_or_else(|| identity_of(&file), Ok) {
            Ok(identity) => identity,
            Err(error) => return self.warn(&path, format_args!("{error}: nobody knows its records")),
        };
        self.add_segment(id, Segment { identity, path, file, slot });
    }

    /// What a task was writing when it was cut short. It holds copies of what others hold, and serves where they are damaged.
    fn take_output(&mut self, disk: &OsDisk, path: PathBuf, id: u64) {
        let file = match disk.open_read(&path) {
            Ok(file) => file,
            Err(error) => return self.warn(&path, error),
        };
        // Without a header it had only been begun.
        if let (Ok(identity), false) = (identity_of(&file), self.segments.contains_key(&id)) {
            self.add_segment(id, Segment { identity, path, file, slot: None });
        }
    }

    fn add_segment(&mut self, id: u64, segment: Segment) {
        let store_id = self.known.as_ref().map(|(loaded, _)| loaded.state.store_id);
        if store_id.is_some_and(|store_id| store_id != segment.identity.store_id) {
            return self.warn(&segment.path, "of another store");
        }
        self.report.segments += 1;
        self.report.segments_unknown += u64::from(segment.slot.is_none());
        self.segments.insert(id, segment);
    }

    /// Of each key the record with the highest sequence number, damaged ones that a footer tells of among them.
    fn newest_records(&mut self) -> Result<HashMap<EntryId, Found>> {
        let mut newest: HashMap<EntryId, Found> = HashMap::new();
        let mut take = |row: &FooterRow, segment: u64, kind: FoundKind| {
            let (sequence, expires_at_ms) = (row.sequence, row.expires_at_ms);
            let at = Place { segment, offset: row.offset };
            let found = Found { sequence, at, damaged_twin: None, expires_at_ms, kind };
            let Some(known) = newest.get_mut(&EntryId::of(row.hash)) else {
                newest.insert(EntryId::of(row.hash), found);
                return;
            };
            match (known.kind == FoundKind::Damaged, kind == FoundKind::Damaged) {
                _ if sequence > known.sequence => *known = found,
                _ if sequence < known.sequence => {}
                // A relocation leaves the same record twice for a while; a whole one is as good as the other.
                (true, false) => *known = Found { damaged_twin: Some(known.at), ..found },
                (false, true) => known.damaged_twin = Some(at),
                _ => {}
            }
        };
        for (id, segment) in &self.segments {
            let scan = scan_records(&segment.file, &segment.identity, self.hash_seed, &self.dictionaries)
                .map_err(|error| Error::io("read", &segment.path, error))?;
            self.report.records += scan.rows.len() as u64;
            for row in &scan.rows {
                take(row, *id, if row.tombstone { FoundKind::Tombstone } else { FoundKind::Value });
            }
            // Hashes of a footer are by the store's seed: without a manifest they say nothing.
            if self.known.is_some()
                && let Ok((_, rows)) = read_footer(&segment.file, &segment.identity)
            {
                let whole: HashSet<u32> = scan.rows.iter().map(|row| row.offset).collect();
                let lost = rows.iter().filter(|row| !whole.contains(&row.offset));
                lost.for_each(|row| take(row, *id, FoundKind::Damaged));
            }
        }
        Ok(newest)
    }

    fn location_of(&self, place: Place) -> Option<Location> {
        let slot = self.segments[&place.segment].slot?;
        Some(Location { slot, offset: place.offset })
    }

    /// Whether recovery's index vouches for a record, or against it; `None`: it cannot tell.
    fn is_in_force(&self, id: EntryId, found: &Found) -> Option<bool> {
        let (loaded, recovered) = self.known.as_ref()?;
        let is_indexed = |entry: &IndexEntry| {
            let places = [Some(found.at), found.damaged_twin];
            places.into_iter().flatten().any(|place| self.location_of(place) == Some(entry.location))
        };
        if let Some(entry) = recovered.index.get(id).filter(is_indexed) {
            return Some(!entry.is_shadow());
        }
        let manifest_lost_edits = loaded.broken || loaded.state.damaged;
        let given_up = recovered.stats.given_up > 0 && found.sequence <= recovered.watermark;
        match self.segments[&found.at.segment].slot {
            // A leftover of a task that was cut short, unless the manifest has forgotten it.
            None => (!manifest_lost_edits).then_some(false),
            Some(_) => (!given_up && !manifest_lost_edits).then_some(false),
        }
    }

    fn save(&mut self, cold: &ColdTier, id: EntryId, found: Found, only_sure: bool) -> Result<()> {
        let in_force = self.is_in_force(id, &found);
        if in_force == Some(false) {
            return self.save_known(cold, id);
        }
        match found.kind {
            FoundKind::Tombstone => return Ok(()),
            FoundKind::Damaged => {
                self.report.damaged += 1;
                return Ok(());
            }
            FoundKind::Value if found.expires_at_ms != 0 && found.expires_at_ms <= self.now_ms => {
                self.report.expired += 1;
                return Ok(());
            }
            FoundKind::Value => {}
        }
        if in_force.is_none() {
            if only_sure {
                self.report.doubtful_left += 1;
                return self.save_known(cold, id);
            }
            self.report.doubtful_saved += 1;
        }
        self.copy(cold, found.at)
    }

    /// What the index vouches for although another record of the key was found that is dead, a leftover or in doubt.
    fn save_known(&mut self, cold: &ColdTier, id: EntryId) -> Result<()> {
        let Some((_, recovered)) = &self.known else { return Ok(()) };
        let Some(entry) = recovered.index.get(id).filter(|entry| !entry.is_shadow()) else { return Ok(()) };
        let at = self.segments.iter().find(|(_, segment)| segment.slot == Some(entry.location.slot));
        let Some((segment, _)) = at else { return Ok(()) };
        self.copy(cold, Place { segment: *segment, offset: entry.location.offset })
    }

    fn copy(&mut self, cold: &ColdTier, at: Place) -> Result<()> {
        let segment = &self.segments[&at.segment];
        let (mut buffer, mut raw) = (Vec::new(), Vec::new());
        let read =
            read_record(&segment.file, &segment.identity, at.offset, 0, &mut buffer, &self.dictionaries);
        let Ok(record) = read else {
            self.report.damaged += 1;
            return Ok(());
        };
        let end = record.meta.stored_range().end;
        if decode_record(&record.meta, &mut buffer[..end], &self.dictionaries, &mut raw).is_err() {
            self.report.damaged += 1;
            return Ok(());
        }
        let (key, value) = raw.split_at(record.meta.key_len as usize);
        match record.meta.expires_at_ms {
            0 => cold.insert(key, value)?,
            at if at <= self.now_ms => {
                self.report.expired += 1;
                return Ok(());
            }
            at => cold.insert_with_ttl(key, value, Duration::from_millis(at - self.now_ms))?,
        }
        self.report.saved += 1;
        Ok(())
    }
}

/// What a segment's header says.
fn identity_of(file: &OsFile) -> serialization::Result<SegmentIdentity> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let got = file.read_full_at(&mut header, 0).unwrap_or(0);
    SegmentIdentity::decode(&header[..got])
}
