//! The cold tier's storage: the active segments and the manifest.
//!
//! Owner: the writer; nobody else appends or commits. Order of a new segment (W1): its file and header, its edit, then
//! records; all of them durable before any record is acknowledged as durable. A crash before leaves an orphan, or a
//! tail that recovery cuts and seals.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::active::{ActiveSegment, Written};
use super::manifest::{LoadedManifest, Manifest, ROLL_BYTES, replace_file, sync_failed, sync_names};
use super::names;
use super::recovery::{Recovered, Tail};
use super::slab::OpenSegment;
use crate::cache::tier::cold::ledger::in_blocks;
use crate::cache::tier::cold::metadata_index::Location;
use crate::cache::tier::cold::serialization::dictionary::encode_dictionary;
use crate::cache::tier::cold::serialization::edit::{Edit, ManifestState, SegmentEntry, SyncedTail};
use crate::cache::tier::cold::serialization::footer::{FooterRow, encode_footer};
use crate::cache::tier::cold::serialization::record::{RECORD_ALIGN, RecordMeta};
use crate::cache::tier::cold::serialization::segment::{
    LogKind, SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use crate::cache::tier::cold::shared::{Shared, count};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, DiskFile, Pieces};

/// Bytes of a row in a footer, at most: hash, and three columns as wide as they can be; its block's header shared.
const FOOTER_ROW_BYTES_MAX: usize = 24;
/// What a footer takes besides its rows, and the padding before it.
const FOOTER_ROOM_BYTES: usize = 512;

/// The files that the writer writes.
pub struct ColdTierStorage<D: Disk> {
    dir: PathBuf,
    manifest: Manifest<D>,
    /// One a group, opened when the first record comes.
    actives: BTreeMap<u8, ActiveSegment<D::File>>,
    /// Bytes in their buffers.
    buffered_bytes: usize,
    /// One of the buffers has grown over the end of a piece.
    has_pieces: bool,
    /// Length of the manifest, as entered in the ledger.
    manifest_bytes: u64,
    /// Sequence numbers were written since they were saved.
    clock_dirty: bool,
}

/// A record that is going to be appended.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Its group.
    pub group: u8,
    /// When it was accepted, in milliseconds of the store's clock, if it expires.
    pub accepted_ms: u64,
    /// A segment opened for it is sealed so many milliseconds later.
    pub seal_age_ms: Option<u64>,
    /// Bytes it takes.
    pub bytes: usize,
    /// Size at which segments are sealed, looked at once: callers change it.
    pub segment_bytes: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// A segment opened for it counts sequence numbers from this one.
    pub base_sequence: u64,
}

impl<D: Disk> ColdTierStorage<D> {
    /// Starts a new store: a manifest that says it is empty.
    pub fn create(disk: &D, dir: PathBuf, state: ManifestState) -> Result<Self> {
        let manifest = Manifest::create(disk, &dir, 1, state)?;
        Ok(Self::new(dir, manifest))
    }

    fn new(dir: PathBuf, manifest: Manifest<D>) -> Self {
        let manifest_bytes = manifest.file_bytes();
        let actives = BTreeMap::new();
        Self {
            dir,
            manifest,
            actives,
            buffered_bytes: 0,
            has_pieces: false,
            manifest_bytes,
            clock_dirty: false,
        }
    }

    /// Puts a recovered store in order: seals its tails, forgets what is missing, deletes orphans.
    pub fn open(disk: &D, dir: PathBuf, loaded: &LoadedManifest, found: &mut Recovered<D>) -> Result<Self> {
        let manifest = if loaded.clean {
            Manifest::reopen(disk, &dir, loaded)?
        } else {
            // Never append behind bytes that were not read as edits.
            let damaged = loaded.broken || loaded.state.damaged;
            let state = ManifestState { damaged, ..loaded.state.clone() };
            Manifest::create(disk, &dir, loaded.highest_number + 1, state)?
        };
        let mut storage = Self::new(dir, manifest);
        // Nothing that was read is known to be durable: the last process may have died before it synced (W1). Names
        // first: no edit may survive that names a file which does not.
        sync_names(disk, &storage.dir)?;
        storage.manifest.sync_anew()?;
        // First what gives space back, then what the store must not count on, last what may wait.
        storage.remove_leftovers(disk, found)?;
        storage.forget_lost(disk, loaded, found)?;
        let mut outcome = storage.complete(disk, found);
        if outcome.as_ref().is_err_and(Error::is_full) && storage.give_up_reserve(disk) {
            outcome = storage.complete(disk, found);
        }
        match outcome {
            // What is not sealed is found by reading its records, now as at the next start.
            Err(error) if error.is_full() => tracing::warn!(%error, "the disk is full; opened as it is"),
            outcome => outcome?,
        }
        storage.manifest_bytes = storage.manifest.file_bytes();
        Ok(storage)
    }

    /// Forgets what is missing or empty, raises W, and gives up a snapshot that must not count as covering anything
    /// (N2, R4): whether or not there is room to write that down.
    fn forget_lost(&mut self, disk: &D, loaded: &LoadedManifest, found: &mut Recovered<D>) -> Result<()> {
        let mut dropped: Vec<u64> = found.missing.clone();
        let (empty, tails): (Vec<Tail>, Vec<Tail>) =
            std::mem::take(&mut found.tails).into_iter().partition(|tail| tail.rows.is_empty());
        found.tails = tails;
        dropped.extend(empty.iter().map(|tail| tail.segment_id));
        if !dropped.is_empty() || found.watermark > self.manifest.state().watermark {
            let (drop, watermark) = (dropped.clone(), found.watermark);
            self.manifest.append_or_owe(Edit::Replace { add: Vec::new(), drop, watermark })?;
        }
        if let Some(id) = found.unusable_snapshot {
            self.manifest.append_or_owe(Edit::DropSnapshot(id))?;
        }
        self.manifest.sync()?;
        // Useless whatever the manifest says.
        if let Some(id) = found.unusable_snapshot {
            remove_or_warn(disk, &names::snapshot(&self.dir, id));
        }
        if self.manifest.owes() {
            self.give_up_reserve(disk);
            match self.manifest.write_owed() {
                Err(error) if error.is_full() => tracing::warn!(%error, "edits wait for room"),
                outcome => outcome?,
            }
            self.manifest.sync()?;
        }
        for segment_id in dropped {
            let slot = loaded.state.segments[&segment_id].slot;
            found.slab.retire(slot);
            found.slab.release(slot);
            // What the manifest on disk still names stays; once it does not, the next start deletes it.
            if !self.manifest.owes() {
                remove_or_warn(disk, &names::segment(&self.dir, segment_id));
            }
        }
        Ok(())
    }

    /// Deletes what is kept for a full disk; true if it was there. Maintenance makes it anew.
    fn give_up_reserve(&self, disk: &D) -> bool {
        disk.remove(&self.dir.join(names::RESERVE)).is_ok()
    }

    /// Seals the tails and mends the dictionaries; those it has not come to stay in `found`.
    fn complete(&mut self, disk: &D, found: &mut Recovered<D>) -> Result<()> {
        while let Some(tail) = found.tails.first() {
            self.seal_tail(disk, tail, found)?;
            found.tails.remove(0);
        }
        self.manifest.sync()?;
        for slot in &found.dictionaries_to_mend {
            self.mend_dictionary(disk, *slot, found)?;
        }
        Ok(())
    }

    /// Writes both copies of a dictionary anew.
    fn mend_dictionary(&self, disk: &D, slot: u8, found: &Recovered<D>) -> Result<()> {
        let guard = found.dictionaries.read(slot);
        let Some(dictionary) = guard.as_ref() else { return Ok(()) };
        let path = names::dictionary(&self.dir, slot, dictionary.id());
        replace_file(disk, &self.dir, &path, &encode_dictionary(slot, dictionary.bytes()))
    }

    /// A cut tail is sealed where it ends, and never appended to.
    fn seal_tail(&mut self, disk: &D, tail: &Tail, found: &Recovered<D>) -> Result<()> {
        let entry = &self.manifest.state().segments[&tail.segment_id];
        let (identity, slot) = (entry.identity, entry.slot);
        let mut summary = tail.summary;
        let path = names::segment(&self.dir, tail.segment_id);
        if !tail.has_footer {
            let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
            let written = (|| {
                let footer_at = file.len()?.max(summary.records_end).next_multiple_of(RECORD_ALIGN as u64);
                let footer = encode_footer(identity.nonce, footer_at, &tail.rows, &mut summary);
                file.write_full_at(&footer, footer_at)?;
                file.sync()
            })();
            written.map_err(|error| Error::io("seal", &path, error))?;
        } else {
            // The footer was written, but nothing says that it was synced.
            let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
            file.sync().map_err(|error| Error::io("sync", &path, error))?;
        }
        found.slab.seal(slot, summary);
        self.manifest.append(&Edit::SealSegment { segment_id: tail.segment_id, summary })?;
        Ok(())
    }

    /// Deletes what an interrupted task left behind; nothing, if the manifest has lost edits: the file may be needed.
    fn remove_leftovers(&self, disk: &D, found: &mut Recovered<D>) -> Result<()> {
        if self.manifest.state().damaged {
            return Ok(());
        }
        let mut leftovers = std::mem::take(&mut found.orphans);
        let names = disk.list(&self.dir).map_err(|error| Error::io("list", &self.dir, error))?;
        leftovers.extend(names.into_iter().filter(|name| match names::kind_of(name) {
            names::FileKind::Manifest(number) => number != self.manifest.number(),
            _ => false,
        }));
        for name in &leftovers {
            remove_or_warn(disk, &self.dir.join(name));
        }
        found.stats.orphans_removed = leftovers.len() as u64;
        Ok(())
    }

    /// The manifest's state.
    pub fn state(&self) -> &ManifestState {
        self.manifest.state()
    }

    /// Makes sure that a record fits into its group's active segment; seals a full one and opens a new one. Returns
    /// where the record will be. Nothing may be left in the buffer of a segment that is sealed (the writer hands over
    /// first).
    pub fn place<C: Clock>(&mut self, shared: &Shared<D, C>, record: &Placement) -> Result<Location> {
        if self.wants_seal(record) {
            self.seal(shared, record.group)?;
        }
        if !self.actives.contains_key(&record.group) {
            let opened = self.open_segment(shared, record)?;
            self.actives.insert(record.group, opened);
        }
        let active = &self.actives[&record.group];
        Ok(Location { slot: active.slot, offset: active.end() as u32 })
    }

    /// Whether the group's active segment has to be sealed before this record.
    pub fn wants_seal(&self, record: &Placement) -> bool {
        // Of age by the record's own time: which segment takes it does not depend on when the writer looks.
        self.actives.get(&record.group).is_some_and(|active| {
            active.is_full_for(record.segment_bytes, record.bytes, record.sequence)
                || (active.seal_at_ms <= record.accepted_ms && !active.is_empty())
        })
    }

    /// Appends a record to the buffer of its group, at the place that `place` has named.
    pub fn append(&mut self, group: u8, hash: u64, meta: &RecordMeta, stored: &[u8], sum: u32) {
        let active = self.actives.get_mut(&group).expect("place has opened a segment");
        active.append(hash, meta, stored, sum);
        self.buffered_bytes += meta.record_bytes();
        self.has_pieces |= active.has_pieces();
    }

    /// Bytes in all buffers.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    fn open_segment<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        record: &Placement,
    ) -> Result<ActiveSegment<D::File>> {
        let slot = shared.slab.reserve().ok_or_else(|| {
            Error::new(ErrorKind::Io, "a quarter of a million segments are open: use larger segments")
        })?;
        let identity = SegmentIdentity {
            store_id: shared.store_id,
            segment_id: shared.take_file_id(),
            nonce: fastrand::u64(..),
            base_sequence: record.base_sequence,
            log: LogKind::Fresh,
            group: record.group,
        };
        let path = names::segment(&self.dir, identity.segment_id);
        let entered_bytes = active_bytes(SEGMENT_HEADER_BYTES as u64, 0);
        shared.ledger.enter(entered_bytes);
        let opened = (|| {
            let file = shared.disk.create(&path)?;
            file.write_full_at(&identity.encode(), 0)?;
            count(&shared.counters.segment_bytes_written, SEGMENT_HEADER_BYTES as u64);
            Ok((file, shared.disk.open_read(&path)?))
        })();
        let opened = opened.map_err(|error| Error::io("create", &path, error)).and_then(|files| {
            // The name before the edit: an edit that a power cut keeps must not name a file that it took.
            sync_names(&shared.disk, &self.dir)?;
            let entry = SegmentEntry { identity, slot, added_by: 0, sealed: None };
            self.manifest.append(&Edit::AddSegment(entry)).map(|_| files)
        });
        let (file, reader) = match opened {
            Ok(files) => files,
            Err(error) => {
                self.enter_manifest(shared);
                // What stays behind is an orphan that the next start deletes.
                drop(shared.disk.remove(&path));
                shared.ledger.strike(entered_bytes);
                shared.slab.release(slot);
                return Err(error);
            }
        };
        self.enter_manifest(shared);
        let seal_at_ms = record.seal_age_ms.map_or(u64::MAX, |age_ms| record.accepted_ms + age_ms);
        let active = ActiveSegment::new(identity, slot, path, file, (seal_at_ms, entered_bytes));
        shared.slab.install(slot, OpenSegment::new(identity, reader), *active.summary(), 0, None);
        Ok(active)
    }

    /// Whether a segment's buffer has grown over the end of a piece.
    pub fn has_pieces(&self) -> bool {
        self.has_pieces
    }

    /// Writes the buffers. Returns the slots of those that could not be written, and why;
    /// `discard` has to forget their records, the next ones are written in their place.
    pub fn write_out<C: Clock>(&mut self, shared: &Shared<D, C>) -> Vec<(u32, Error)> {
        self.write(shared, |active, pieces| (!active.is_written()).then(|| active.write_out(pieces)))
    }

    /// Writes what the buffers have of whole pieces, and all of a buffer that had none the last time; likewise.
    pub fn write_pieces<C: Clock>(&mut self, shared: &Shared<D, C>) -> Vec<(u32, Error)> {
        self.write(shared, ActiveSegment::write_pieces)
    }

    fn write<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        how: impl Fn(&mut ActiveSegment<D::File>, Pieces) -> Option<std::io::Result<Written>>,
    ) -> Vec<(u32, Error)> {
        let mut failed = Vec::new();
        for active in self.actives.values_mut() {
            match how(active, shared.pieces()) {
                None => {}
                Some(Ok(Written { bytes, expiry_min_ms })) => {
                    count(&shared.counters.segment_bytes_written, bytes);
                    let (end, rows) = active.in_file();
                    enter_growth(shared, active, active_bytes(end, rows));
                    let (summary, class_bytes) = active.stored();
                    shared.slab.publish(active.slot, *summary, class_bytes, expiry_min_ms);
                    self.clock_dirty = true;
                }
                Some(Err(error)) => failed.push((active.slot, Error::io("append to", &active.path, error))),
            }
        }
        self.has_pieces = false;
        self.buffered_bytes = self.actives.values().map(ActiveSegment::buffered_bytes).sum();
        failed
    }

    /// Whether a record at this place is in its file, as far as an active segment is concerned.
    pub fn is_written(&self, location: Location) -> bool {
        let active = self.actives.values().find(|active| active.slot == location.slot);
        active.is_none_or(|active| u64::from(location.offset) < active.stored().0.records_end)
    }

    /// Forgets the records that a failed write left in a segment's buffer.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] if the file cannot be blanked.
    pub fn discard<C: Clock>(&mut self, shared: &Shared<D, C>, slot: u32) -> Result<()> {
        let Some(active) = self.actives.values_mut().find(|active| active.slot == slot) else {
            return Ok(());
        };
        self.buffered_bytes -= active.buffered_bytes();
        let discarded = active.discard();
        let file_bytes = discarded.map_err(|error| {
            let error = Error::io("take back a failed write to", &active.path, error);
            Error::new(ErrorKind::ReadOnly, error.to_string())
        })?;
        // What was blanked is still there, until it is written over.
        enter_growth(shared, active, active_bytes(file_bytes, active.in_file().1));
        Ok(())
    }

    /// Completes a group's active segment: footer, sync, edit. A crash in between leaves a tail. Its buffer must have
    /// been written.
    pub fn seal<C: Clock>(&mut self, shared: &Shared<D, C>, group: u8) -> Result<()> {
        let Some(active) = self.actives.get_mut(&group).filter(|active| !active.is_empty()) else {
            return Ok(());
        };
        debug_assert!(active.is_written(), "the writer hands over first");
        let footer = active.write_footer().map_err(|error| Error::io("seal", &active.path, error));
        let (summary, footer_bytes) = footer?;
        if footer_bytes > 0 {
            count(&shared.counters.segment_bytes_written, footer_bytes);
            // In one step: what is struck out in between, a caller could take.
            shared.ledger.resize(active.entered_bytes, summary.file_bytes);
            active.entered_bytes = summary.file_bytes;
        }
        active.sync().map_err(|error| sync_failed(&active.path, error))?;
        let segment_id = active.identity.segment_id;
        self.manifest.append(&Edit::SealSegment { segment_id, summary })?;
        shared.slab.seal(active.slot, summary);
        self.actives.remove(&group);
        self.enter_manifest(shared);
        if shared.ledger.capacity_bytes().is_some() && self.wants_roll(shared) {
            // Without syncs it would grow with every segment, and take the room that was kept for records.
            return self.sync_manifest(shared);
        }
        Ok(())
    }

    /// The groups whose active segment is to be sealed: all, or those that have come of age.
    pub fn groups_to_seal(&self, aged_at_ms: Option<u64>) -> Vec<u8> {
        let aged =
            |active: &ActiveSegment<D::File>| aged_at_ms.is_none_or(|now_ms| active.seal_at_ms <= now_ms);
        self.actives.iter().filter(|(_, active)| aged(active)).map(|(group, _)| *group).collect()
    }

    /// Store time at which the next active segment comes of age; `u64::MAX` if none does.
    pub fn next_seal_ms(&self) -> u64 {
        // One that a failed write has left empty waits for its first record.
        let filled = self.actives.values().filter(|active| !active.is_empty());
        filled.map(|active| active.seal_at_ms).min().unwrap_or(u64::MAX)
    }

    /// Makes everything written so far durable, and saves the clock with it.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] when a sync fails: what the kernel has dropped cannot be known, so nothing may be
    /// acknowledged on these files again.
    pub fn sync<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        for active in self.actives.values_mut() {
            active.sync().map_err(|error| sync_failed(&active.path, error))?;
        }
        let observed = shared.condition.expiry_observed.swap(false, Ordering::SeqCst);
        if self.clock_dirty || observed {
            let saved = self.save_clock(shared);
            if saved.is_err() && observed {
                shared.condition.expiry_observed.store(true, Ordering::SeqCst);
            }
            saved?;
        }
        self.sync_manifest(shared)
    }

    fn sync_manifest<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        self.manifest.sync()?;
        if self.wants_roll(shared) {
            self.manifest.roll(&shared.disk)?;
        }
        self.enter_manifest(shared);
        Ok(())
    }

    fn wants_roll<C: Clock>(&self, shared: &Shared<D, C>) -> bool {
        self.manifest.wants_roll(shared.ledger.manifest_bytes_max(ROLL_BYTES))
    }

    /// Follows the manifest's length: it grows with every segment, whether or not anything is synced.
    fn enter_manifest<C: Clock>(&mut self, shared: &Shared<D, C>) {
        let bytes = self.manifest.file_bytes();
        shared.ledger.resize(std::mem::replace(&mut self.manifest_bytes, bytes), bytes);
    }

    /// Saves, behind the sync of the data, the clock and how far the active segments are durable.
    fn save_clock<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        let tails = self.actives.values().map(|active| SyncedTail {
            segment_id: active.identity.segment_id,
            records_end: active.stored().0.records_end,
            shadow_max: active.stored().0.shadow_max,
        });
        self.manifest.append(&Edit::SaveClock {
            clock_ms: shared.clock.now_ms(),
            next_sequence: shared.in_flight.next_sequence(),
            tails: tails.collect(),
        })?;
        self.clock_dirty = false;
        Ok(())
    }

    /// Makes everything so far durable, then an edit: the commit point.
    pub fn commit<C: Clock>(&mut self, shared: &Shared<D, C>, edit: &Edit) -> Result<u64> {
        self.sync(shared)?;
        let number = self.manifest.append(edit)?;
        self.sync_manifest(shared)?;
        Ok(number)
    }

    /// Whether something waits for a sync.
    pub fn is_dirty(&self) -> bool {
        self.clock_dirty || self.manifest.is_dirty() || self.actives.values().any(ActiveSegment::is_dirty)
    }

    /// Group of an active segment, and what it holds, the buffer included; `None` if the slot's segment is not active.
    pub fn active_of(&self, slot: u32) -> Option<(u8, SegmentSummary)> {
        let (group, active) = self.actives.iter().find(|(_, active)| active.slot == slot)?;
        Some((*group, *active.summary()))
    }

    /// Rows and end of records of the active segment in a slot; `None` if there is none (any more).
    pub fn active_rows(&self, slot: u32) -> Option<(&[FooterRow], u64)> {
        let active = self.actives.values().find(|active| active.slot == slot)?;
        Some((active.rows(), active.summary().records_end))
    }
}

/// Has the ledger know of so many bytes of an active segment, unless it knows of more.
fn enter_growth<D: Disk, C: Clock>(shared: &Shared<D, C>, active: &mut ActiveSegment<D::File>, bytes: u64) {
    shared.ledger.enter(bytes.saturating_sub(active.entered_bytes));
    active.entered_bytes = active.entered_bytes.max(bytes);
}

/// Bytes that an active segment takes, with those that its footer is going to take.
fn active_bytes(end: u64, rows: usize) -> u64 {
    in_blocks(end + (rows * FOOTER_ROW_BYTES_MAX + FOOTER_ROOM_BYTES) as u64)
}

fn remove_or_warn<D: Disk>(disk: &D, path: &std::path::Path) {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not be removed");
        }
        _ => {}
    }
}
