//! Finding again what a store holds: manifest, snapshot, footers, open tails. Reads and decides; writes nothing.
//!
//! The index after recovery is, for each key, its newest record on disk (invariants R1 to R4). Two ways lead there:
//! - From a snapshot that covers every discarded shadow (`covers >= W`): its entries, then every footer row with a
//!   higher sequence number, the highest one of a key winning. Rows that a compaction moved since may only take over
//!   an entry whose segment is gone; they never add one, because what the snapshot does not know was dead.
//! - Without one: every row with a sequence number above W. Nothing below can be trusted: what shadowed it is gone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use super::live_counts::LiveCounts;
use super::names::{self, FileKind};
use super::newest_rows::NewestRows;
use super::segment::{ReadError, Scan, read_footer, row_bytes, scan_records, scan_records_on};
use super::slab::{OpenSegment, Slab};
use super::snapshot::load_snapshot;
use crate::cache::stats::RecoveryStats;
use crate::cache::tier::cold::dictionary::{Dictionary, DictionaryTable};
use crate::cache::tier::cold::metadata_index::{EntryId, IndexEntry, Location, MetadataIndex, SizeClass};
use crate::cache::tier::cold::serialization::dictionary::{DICTIONARY_BYTES_LIMIT, decode_dictionary};
use crate::cache::tier::cold::serialization::edit::{ManifestState, SegmentEntry, SnapshotEntry};
use crate::cache::tier::cold::serialization::footer::FooterRow;
use crate::cache::tier::cold::serialization::segment::{
    LogKind, SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile, read_all};

/// A segment that was being written when the store went down.
#[derive(Debug)]
pub struct Tail {
    /// Its number.
    pub segment_id: u64,
    /// Its whole records.
    pub rows: Vec<FooterRow>,
    /// What they add up to.
    pub summary: SegmentSummary,
    /// Its footer had been written: it only has to be entered in the manifest.
    pub has_footer: bool,
}

/// What recovery found.
pub struct Recovered<D: Disk> {
    /// Where each key's newest record is.
    pub index: MetadataIndex,
    /// The segments, open, with their accounts.
    pub slab: Slab<D::File>,
    /// The dictionaries.
    pub dictionaries: DictionaryTable,
    /// Segments to be sealed, or dropped where they hold nothing.
    pub tails: Vec<Tail>,
    /// Segments that the manifest names and that are not there.
    pub missing: Vec<u64>,
    /// The snapshot cannot be used, and so must not count as covering anything.
    pub unusable_snapshot: Option<u64>,
    /// The snapshot was used, and has damage that its parity made up for.
    pub is_snapshot_worn: bool,
    /// Dictionaries of which one copy is damaged.
    pub dictionaries_to_mend: Vec<u8>,
    /// Files that an interrupted task left behind.
    pub orphans: Vec<String>,
    /// Lowest sequence number above everything seen.
    pub next_sequence: u64,
    /// Lowest segment and snapshot number that no file has, orphans included.
    pub next_file_id: u64,
    /// W, raised by what is missing or damaged.
    pub watermark: u64,
    /// Figures.
    pub stats: RecoveryStats,
    /// What was met on the way, in words.
    pub warnings: Vec<String>,
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    manifest: &'a ManifestState,
    files: BTreeMap<u64, D::File>,
    tails: BTreeMap<u64, Tail>,
    dictionaries: DictionaryTable,
    index: MetadataIndex,
    live: LiveCounts,
    watermark: u64,
    missing: Vec<u64>,
    unusable_snapshot: Option<u64>,
    is_snapshot_worn: bool,
    dictionaries_to_mend: Vec<u8>,
    stats: RecoveryStats,
    warnings: Vec<String>,
}

/// Recovers the store in `dir` from its manifest; `broken` says that the manifest has lost edits.
///
/// # Errors
/// When the operating system refuses to list, open or read; never because of damage.
pub fn recover<D: Disk>(
    disk: &D,
    dir: &Path,
    manifest: &ManifestState,
    broken: bool,
) -> Result<Recovered<D>> {
    let mut recovery = Recovery {
        disk,
        dir,
        manifest,
        files: BTreeMap::new(),
        tails: BTreeMap::new(),
        dictionaries: DictionaryTable::new(),
        index: MetadataIndex::default(),
        live: LiveCounts::default(),
        watermark: manifest.watermark,
        missing: Vec::new(),
        unusable_snapshot: None,
        is_snapshot_worn: false,
        dictionaries_to_mend: Vec::new(),
        stats: RecoveryStats::default(),
        warnings: Vec::new(),
    };
    recovery.load_dictionaries()?;
    recovery.open_segments()?;
    if broken {
        recovery.distrust_unknown_segments()?;
    }
    recovery.build_index()?;
    recovery.finish()
}

impl<D: Disk> Recovery<'_, D> {
    fn load_dictionaries(&mut self) -> Result<()> {
        for entry in self.manifest.dictionaries.values() {
            let path = names::dictionary(self.dir, entry.slot, entry.id);
            let bytes = match self.disk.open_read(&path) {
                Ok(file) => read_all(&file, 4 * DICTIONARY_BYTES_LIMIT as u64),
                Err(error) => Err(error),
            };
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) if is_damage(&error) => {
                    self.damage(format!("{}: {error}: values that need it are lost", path.display()));
                    continue;
                }
                Err(error) => return Err(Error::io("read", &path, error)),
            };
            // Whoever uses it prepares it for the levels in force.
            let level = self.manifest.parameters.common.level;
            match decode_dictionary(&bytes, entry.id, entry.bytes as usize) {
                Ok((content, damaged)) => {
                    if damaged {
                        self.dictionaries_to_mend.push(entry.slot);
                        self.damage(format!("{}: one of its two copies is damaged", path.display()));
                    }
                    match Dictionary::new(entry.slot, content, level) {
                        Ok(dictionary) => drop(self.dictionaries.install(dictionary)),
                        Err(error) => self.damage(format!("{}: {error}", path.display())),
                    }
                }
                Err(error) => {
                    self.damage(format!("{}: {error}: values that need it are lost", path.display()));
                }
            }
        }
        Ok(())
    }

    fn damage(&mut self, warning: String) {
        self.stats.damaged += 1;
        self.warnings.push(warning);
    }

    /// Opens every segment; reads the ones that were being written.
    fn open_segments(&mut self) -> Result<()> {
        for (id, entry) in &self.manifest.segments {
            let path = names::segment(self.dir, *id);
            match self.disk.open_read(&path) {
                Ok(file) => {
                    self.files.insert(*id, file);
                }
                Err(error) if is_damage(&error) => {
                    self.damage(format!("{}: {error}: its entries are lost", path.display()));
                    self.missing.push(*id);
                    self.watermark = self.watermark.max(self.known_shadow(entry));
                    continue;
                }
                Err(error) => return Err(Error::io("open", &path, error)),
            }
            if entry.sealed.is_none() {
                let tail = self.read_tail(entry)?;
                self.tails.insert(*id, tail);
            }
        }
        self.stats.segments = self.files.len() as u64;
        self.stats.missing_segments = self.missing.len() as u64;
        Ok(())
    }

    fn read_tail(&mut self, entry: &SegmentEntry) -> Result<Tail> {
        let segment_id = entry.identity.segment_id;
        let file = &self.files[&segment_id];
        let (seed, dictionaries) = (self.manifest.hash_seed, &self.dictionaries);
        let scan = scan_records_on(usize::MAX, file, &entry.identity, seed, dictionaries)
            .map_err(|error| Error::io("read", &names::segment(self.dir, segment_id), error))?;
        self.stats.scanned_records += scan.rows.len() as u64;
        // A footer alone proves nothing here: a power cut may have kept it and taken the records before it.
        if let Ok((summary, rows)) = read_footer(file, &entry.identity)
            && rows == scan.rows
        {
            return Ok(Tail { segment_id, rows, summary, has_footer: true });
        }
        self.stats.torn_bytes += scan.torn_bytes;
        self.stats.damaged += scan.damaged + scan.undecodable;
        let synced = self.manifest.tails.iter().find(|tail| tail.segment_id == segment_id);
        if let Some(synced) = synced
            && scan.gapless_end < synced.records_end
        {
            // Not a torn end: these bytes were durable, and one of them may have been a deletion (R4).
            self.watermark = self.watermark.max(synced.shadow_max);
            let path = names::segment(self.dir, segment_id);
            self.damage(format!("{}: damaged at {}", path.display(), scan.gapless_end));
        }
        Ok(Tail { segment_id, rows: scan.rows, summary: scan.summary, has_footer: false })
    }

    /// A segment's rows and the end of its records: from its tail, its footer, or (damaged) its records. The flag says
    /// that records are known to be lost.
    fn rows_of(&mut self, entry: &SegmentEntry) -> Result<(Vec<FooterRow>, u64, bool)> {
        let id = entry.identity.segment_id;
        if let Some(tail) = self.tails.get(&id) {
            return Ok((tail.rows.clone(), tail.summary.records_end, false));
        }
        let Some(file) = self.files.get(&id) else { return Ok((Vec::new(), 0, false)) };
        let path = names::segment(self.dir, id);
        let problem = match read_footer(file, &entry.identity) {
            Ok((summary, rows)) => {
                self.stats.footer_rows += rows.len() as u64;
                return Ok((rows, summary.records_end, false));
            }
            Err(ReadError::Io(error)) if !is_damage(&error) => return Err(Error::io("read", &path, error)),
            Err(problem) => problem,
        };
        let scan = match scan_records(file, &entry.identity, self.manifest.hash_seed, &self.dictionaries) {
            Ok(scan) => scan,
            Err(error) if is_damage(&error) => Scan::default(),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        self.stats.scanned_records += scan.rows.len() as u64;
        let known = entry.sealed.map_or(0, |summary| u64::from(summary.records));
        let lost = known.saturating_sub(scan.rows.len() as u64);
        self.damage(format!(
            "{}: footer: {problem}; its records were read instead, {lost} of {known} are lost",
            path.display()
        ));
        Ok((scan.rows, scan.summary.records_end, lost > 0))
    }

    /// Highest shadow that a segment is known to hold, or to have held durably.
    fn known_shadow(&self, entry: &SegmentEntry) -> u64 {
        let id = entry.identity.segment_id;
        let synced = self.manifest.tails.iter().find(|tail| tail.segment_id == id);
        let sealed = entry.sealed.map(|summary| summary.shadow_max);
        sealed.or(synced.map(|tail| tail.shadow_max)).unwrap_or(0)
    }

    /// The manifest has lost edits: what segments it does not know kept away must stay away all the same (R4).
    fn distrust_unknown_segments(&mut self) -> Result<()> {
        let names = self.disk.list(self.dir).map_err(|error| Error::io("list", self.dir, error))?;
        for name in names {
            let FileKind::Segment(id) = names::kind_of(&name) else { continue };
            if self.manifest.segments.contains_key(&id) {
                continue;
            }
            let Ok(file) = self.disk.open_read(&self.dir.join(&name)) else { continue };
            let mut header = [0; SEGMENT_HEADER_BYTES];
            let got = file.read_full_at(&mut header, 0).unwrap_or(0);
            let Ok(identity) = SegmentIdentity::decode(&header[..got]) else { continue };
            if identity.store_id != self.manifest.store_id {
                continue;
            }
            let summary = match read_footer(&file, &identity) {
                Ok((summary, _)) => Some(summary),
                Err(_) => scan_records(&file, &identity, self.manifest.hash_seed, &self.dictionaries)
                    .ok()
                    .map(|scan| scan.summary),
            };
            let shadow_max = summary.map_or(0, |summary| summary.shadow_max);
            self.watermark = self.watermark.max(shadow_max);
            self.damage(format!("{name}: no edit names it any more; its entries are lost, the file is kept"));
        }
        Ok(())
    }

    fn build_index(&mut self) -> Result<()> {
        if let Some(snapshot) = &self.manifest.snapshot {
            if snapshot.covers >= self.watermark && self.build_from(snapshot)? {
                return Ok(());
            }
            self.unusable_snapshot = Some(snapshot.id);
        }
        self.build_from_rows()
    }

    /// Builds the index from a snapshot; false (and an empty index) if it cannot be used.
    fn build_from(&mut self, snapshot: &SnapshotEntry) -> Result<bool> {
        let open = self.manifest.segments.iter().filter(|(id, _)| self.files.contains_key(id));
        let slots: HashMap<u32, u64> = open.map(|(id, entry)| (entry.slot, *id)).collect();
        let store_id = self.manifest.store_id;
        let taken = match load_snapshot(self.disk, self.dir, store_id, snapshot, &slots, &mut self.index) {
            Ok(taken) => taken,
            Err(problem) => {
                self.damage(problem);
                return Ok(false);
            }
        };
        self.live = taken.live;
        self.is_snapshot_worn = !taken.mended.is_empty();
        taken.mended.into_iter().for_each(|problem| self.damage(problem));
        self.stats.snapshot_entries = taken.entries;
        let mut newest = NewestRows::new();
        for entry in self.manifest.segments.values() {
            let moved_since =
                entry.identity.log == LogKind::Survivors && entry.added_by > snapshot.covers_edit;
            let newer = self.summary_of(entry).sequence_max > snapshot.covers;
            if !(moved_since || newer) {
                continue;
            }
            let (rows, records_end, lost) = self.rows_of(entry)?;
            if lost {
                let shadow_max = self.summary_of(entry).shadow_max;
                self.watermark = self.watermark.max(shadow_max);
                if shadow_max > snapshot.covers {
                    self.index.clear();
                    return Ok(false);
                }
            }
            for (at, row) in rows.iter().enumerate() {
                let found = index_entry(entry.slot, &rows, at, records_end);
                let id = EntryId::of(row.hash);
                if row.sequence > snapshot.covers {
                    newest.add(id, row.sequence, found);
                } else if moved_since && taken.dangling > 0 {
                    newest.add_moved(id, found);
                }
            }
        }
        newest.enter(&self.index, &mut self.live);
        if taken.dangling > 0 {
            self.index.remove_dangling();
        }
        Ok(true)
    }

    fn summary_of(&self, entry: &SegmentEntry) -> SegmentSummary {
        let tail = self.tails.get(&entry.identity.segment_id).map(|tail| tail.summary);
        tail.or(entry.sealed).unwrap_or_default()
    }

    /// Builds the index from rows alone. The first pass only learns what is damaged, because that raises W.
    fn build_from_rows(&mut self) -> Result<()> {
        let entries: Vec<&SegmentEntry> = self.manifest.segments.values().collect();
        for entry in &entries {
            let (_, _, lost) = self.rows_of(entry)?;
            if lost {
                self.watermark = self.watermark.max(self.summary_of(entry).shadow_max);
            }
        }
        self.stats.footer_rows = 0;
        let mut newest = NewestRows::new();
        for entry in entries {
            let (rows, records_end, _) = self.rows_of(entry)?;
            for (at, row) in rows.iter().enumerate() {
                if row.sequence <= self.watermark {
                    self.stats.given_up += u64::from(!row.tombstone);
                    continue;
                }
                let found = index_entry(entry.slot, &rows, at, records_end);
                newest.add(EntryId::of(row.hash), row.sequence, found);
            }
        }
        self.index = MetadataIndex::with_room_for(newest.rows() as u64);
        newest.enter(&self.index, &mut self.live);
        if self.stats.given_up > 0 {
            self.warnings.push(format!(
                "no usable snapshot: {} records up to sequence number {} were given up, because deletions that may \
                 apply to them are no longer on disk",
                self.stats.given_up, self.watermark
            ));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Recovered<D>> {
        let manifest = self.manifest;
        let orphans = self.find_orphans()?;
        let next_file_id = orphans.iter().map(|name| file_id(name) + 1).fold(manifest.next_file_id, u64::max);
        let mut next_sequence = manifest.next_sequence.max(self.watermark + 1).max(manifest.covered() + 1);
        let slab = Slab::default();
        slab.adopt(manifest.segments.values().map(|entry| entry.slot));
        // In the order of creation: a survivor segment was made when the fresh ones before it had been begun.
        let mut begun = 0;
        for (id, file) in std::mem::take(&mut self.files) {
            let entry = &manifest.segments[&id];
            let summary = self.summary_of(entry);
            next_sequence = next_sequence.max(summary.sequence_max + 1);
            let identity = entry.identity;
            let sealed_at = match identity.log {
                LogKind::Survivors => begun,
                LogKind::Fresh => {
                    begun = begun.max(summary.sequence_min);
                    summary.sequence_max
                }
            };
            // What the values' size classes add up to is settled below.
            slab.install(entry.slot, OpenSegment::new(identity, file), summary, 0, Some(sealed_at));
        }
        settle_accounts(&self.live, &slab);
        Ok(Recovered {
            index: self.index,
            slab,
            dictionaries: self.dictionaries,
            tails: self.tails.into_values().collect(),
            missing: self.missing,
            unusable_snapshot: self.unusable_snapshot,
            is_snapshot_worn: self.is_snapshot_worn,
            dictionaries_to_mend: self.dictionaries_to_mend,
            orphans,
            next_sequence,
            next_file_id,
            watermark: self.watermark,
            stats: self.stats,
            warnings: self.warnings,
        })
    }

    /// Files that bear our names and that the manifest does not know.
    fn find_orphans(&self) -> Result<Vec<String>> {
        let names = self.disk.list(self.dir).map_err(|error| Error::io("list", self.dir, error))?;
        let manifest = self.manifest;
        let is_orphan = |name: &String| match names::kind_of(name) {
            FileKind::Segment(id) => !manifest.segments.contains_key(&id),
            FileKind::Snapshot(id) => manifest.snapshot.is_none_or(|snapshot| snapshot.id != id),
            FileKind::Dictionary(slot, id) => {
                manifest.dictionaries.get(&slot).is_none_or(|entry| entry.id != id)
            }
            FileKind::Temporary => true,
            // Manifests are the writer's to remove: it alone knows which one it goes on with.
            FileKind::Manifest(_) | FileKind::Fixed | FileKind::Foreign => false,
        };
        Ok(names.into_iter().filter(is_orphan).collect())
    }
}

/// The number in a file's name; 0 if it has none.
fn file_id(name: &str) -> u64 {
    match names::kind_of(name.strip_suffix(".tmp").unwrap_or(name)) {
        FileKind::Segment(id) | FileKind::Snapshot(id) => id,
        _ => 0,
    }
}

/// Errors of opening a file that mean the file is not what we left there, as opposed to a refusal.
pub fn is_damage(error: &io::Error) -> bool {
    // A planted symbolic link answers ELOOP, which the standard library has no stable kind for.
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    // The medium cannot give the bytes back.
    let is_unreadable = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    let kinds = [
        io::ErrorKind::NotFound,
        io::ErrorKind::InvalidInput,
        io::ErrorKind::IsADirectory,
        io::ErrorKind::FileTooLarge,
    ];
    is_link || is_unreadable || kinds.contains(&error.kind())
}

/// The index entry of a row.
pub fn index_entry(slot: u32, rows: &[FooterRow], at: usize, records_end: u64) -> IndexEntry {
    let size =
        if rows[at].tombstone { SizeClass::SHADOW } else { SizeClass::of(row_bytes(rows, at, records_end)) };
    IndexEntry { location: Location { slot, offset: rows[at].offset }, size }
}

/// Counts, segment by segment, the values that no index entry points at.
fn settle_accounts<F>(live: &LiveCounts, slab: &Slab<F>) {
    for account in slab.accounts() {
        let (records, bytes) = live.of(account.slot);
        let values = account.summary.records.saturating_sub(account.summary.tombstones);
        let dead = u64::from(values).saturating_sub(records);
        // Of the dead no sizes are known; they are taken to be like those of the living.
        let class_bytes = match records {
            0 => account.summary.record_bytes(),
            records => (u128::from(bytes) * u128::from(values) / u128::from(records)) as u64,
        };
        slab.set_class_bytes(account.slot, class_bytes);
        slab.note_dead_bytes(account.slot, dead, class_bytes.saturating_sub(bytes));
    }
}
