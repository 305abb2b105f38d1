//! The cold tier's storage: the active segment and the manifest.
//!
//! Owner: the writer; nobody else appends or commits. Order of a new segment (W1): its file and header, its edit, then
//! records; all of them durable before any record is acknowledged as durable. A crash before leaves an orphan, or a
//! tail that recovery cuts and seals.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::manifest::{LoadedManifest, Manifest, replace_file};
use super::names;
use super::recovery::{Recovered, Tail};
use super::segment::place_of;
use super::slab::OpenSegment;
use crate::cache::tier::cold::metadata_index::Location;
use crate::cache::tier::cold::serialization::dictionary::encode_dictionary;
use crate::cache::tier::cold::serialization::edit::{Edit, ManifestState, SegmentEntry, SyncedTail};
use crate::cache::tier::cold::serialization::footer::{FooterRow, encode_footer};
use crate::cache::tier::cold::serialization::record::{RECORD_ALIGN, RecordMeta, append_record};
use crate::cache::tier::cold::serialization::segment::{
    LogKind, SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use crate::cache::tier::cold::shared::{Shared, count};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, DiskFile};

/// A segment that is being written.
struct ActiveSegment<F> {
    identity: SegmentIdentity,
    slot: u32,
    path: PathBuf,
    file: F,
    /// Records that are not in the file yet.
    buffer: Vec<u8>,
    /// Where the buffer goes.
    written: u64,
    rows: Vec<FooterRow>,
    summary: SegmentSummary,
    /// As of the last write: what a failed write falls back to.
    written_rows: usize,
    written_summary: SegmentSummary,
    /// Bytes wait for a sync.
    dirty: bool,
    /// Earliest expiry among the rows not published yet.
    expiry_min_ms: u64,
}

/// The files that the writer writes.
pub struct ColdTierStorage<D: Disk> {
    dir: PathBuf,
    manifest: Manifest<D>,
    active: Option<ActiveSegment<D::File>>,
    /// Sequence numbers were written since they were saved.
    clock_dirty: bool,
}

impl<D: Disk> ColdTierStorage<D> {
    /// Starts a new store: a manifest that says it is empty.
    pub fn create(disk: &D, dir: PathBuf, state: ManifestState) -> Result<Self> {
        let manifest = Manifest::create(disk, &dir, 1, state)?;
        Ok(Self { dir, manifest, active: None, clock_dirty: false })
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
        let mut storage = Self { dir, manifest, active: None, clock_dirty: false };
        // Nothing that was read is known to be durable: the last process may have died before it synced (W1). Names
        // first: no edit may survive that names a file which does not.
        disk.sync_dir(&storage.dir).map_err(|error| sync_failed(&storage.dir, error))?;
        storage.manifest.sync_anew()?;
        match storage.put_in_order(disk, loaded, found) {
            // What is not sealed is found by reading its records, now as at the next start.
            Err(error) if error.is_full() => tracing::warn!(%error, "the disk is full; opened as it is"),
            outcome => outcome?,
        }
        Ok(storage)
    }

    fn put_in_order(&mut self, disk: &D, loaded: &LoadedManifest, found: &mut Recovered<D>) -> Result<()> {
        let mut dropped: Vec<u64> = found.missing.clone();
        for tail in std::mem::take(&mut found.tails) {
            if tail.rows.is_empty() {
                dropped.push(tail.segment_id);
            } else {
                self.seal_tail(disk, tail, found)?;
            }
        }
        let state = self.manifest.state();
        if !dropped.is_empty() || found.watermark > state.watermark {
            let (drop, watermark) = (dropped.clone(), found.watermark);
            self.manifest.append(&Edit::Replace { add: Vec::new(), drop, watermark })?;
        }
        if !found.unusable_snapshots.is_empty() {
            // They must not count as covering anything (N2).
            self.manifest.append(&Edit::DropSnapshots(found.unusable_snapshots.clone()))?;
        }
        self.manifest.sync()?;
        for segment_id in dropped {
            let slot = loaded.state.segments[&segment_id].slot;
            found.slab.retire(slot);
            found.slab.release(slot);
            remove_or_warn(disk, &names::segment(&self.dir, segment_id));
        }
        for id in &found.unusable_snapshots {
            remove_or_warn(disk, &names::snapshot(&self.dir, *id));
        }
        for slot in &found.dictionaries_to_mend {
            self.mend_dictionary(disk, *slot, found)?;
        }
        self.remove_leftovers(disk, found)
    }

    /// Writes both copies of a dictionary anew.
    fn mend_dictionary(&self, disk: &D, slot: u8, found: &Recovered<D>) -> Result<()> {
        let guard = found.dictionaries.read(slot);
        let Some(dictionary) = guard.as_ref() else { return Ok(()) };
        let path = names::dictionary(&self.dir, slot, dictionary.id());
        replace_file(disk, &self.dir, &path, &encode_dictionary(slot, dictionary.bytes()))
    }

    /// A cut tail is sealed where it ends, and never appended to.
    fn seal_tail(&mut self, disk: &D, tail: Tail, found: &Recovered<D>) -> Result<()> {
        let entry = &self.manifest.state().segments[&tail.segment_id];
        let (identity, slot) = (entry.identity, entry.slot);
        let mut summary = tail.summary;
        let path = names::segment(&self.dir, tail.segment_id);
        if !tail.has_footer {
            let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
            let written = (|| {
                let footer_at = file.len()?.max(summary.records_end).next_multiple_of(RECORD_ALIGN as u64);
                let footer =
                    encode_footer(tail.segment_id, identity.nonce, footer_at, &tail.rows, &mut summary);
                file.write_full_at(&footer, footer_at)?;
                file.sync()
            })();
            written.map_err(|error| Error::io("seal", &path, error))?;
        } else {
            // The footer was written, but nothing says that it was synced.
            let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
            file.sync().map_err(|error| Error::io("sync", &path, error))?;
        }
        found.slab.publish(slot, summary, true, u64::MAX);
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

    /// Makes sure that a record fits into the active segment; seals a full one and opens a new one. Returns where the
    /// record will be. Nothing may be left in the buffer when a segment is sealed (the writer hands over first).
    pub fn place<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        record_bytes: usize,
        base_sequence: u64,
        sequence: u64,
    ) -> Result<Location> {
        if self.wants_seal(shared.config.segment_bytes, record_bytes, sequence) {
            self.seal(shared)?;
        }
        let active = match &mut self.active {
            Some(active) => active,
            None => {
                let opened = self.open_segment(shared, base_sequence)?;
                self.active.insert(opened)
            }
        };
        Ok(Location { slot: active.slot, offset: (active.written + active.buffer.len() as u64) as u32 })
    }

    /// Whether the active segment has to be sealed before a record of this size and sequence number.
    pub fn wants_seal(&self, segment_bytes: u64, record_bytes: usize, sequence: u64) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let end = active.written + (active.buffer.len() + record_bytes) as u64;
            let fits = end <= segment_bytes || active.rows.is_empty();
            !fits || u32::try_from(sequence - active.identity.base_sequence).is_err()
        })
    }

    /// Appends a record to the buffer, at the place that `place` has named.
    pub fn append(&mut self, hash: u64, meta: &RecordMeta, stored: &[u8], sum: u32) {
        let active = self.active.as_mut().expect("place has opened a segment");
        let offset = active.written + active.buffer.len() as u64;
        append_record(&mut active.buffer, meta, stored, sum, place_of(&active.identity, offset));
        active.rows.push(FooterRow::new(hash, offset as u32, meta));
        active.summary.add(meta);
        active.summary.records_end = active.written + active.buffer.len() as u64;
        if meta.expires_at_ms != 0 {
            active.expiry_min_ms = active.expiry_min_ms.min(meta.expires_at_ms);
        }
    }

    /// Bytes in the buffer.
    pub fn buffered_bytes(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.buffer.len())
    }

    fn open_segment<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        base_sequence: u64,
    ) -> Result<ActiveSegment<D::File>> {
        let slot = shared.slab.reserve().ok_or_else(|| {
            Error::new(ErrorKind::Io, "a quarter of a million segments are open: use larger segments")
        })?;
        let identity = SegmentIdentity {
            store_id: shared.store_id,
            segment_id: shared.take_file_id(),
            nonce: fastrand::u64(..),
            base_sequence,
            log: LogKind::Fresh,
            group: 0,
        };
        let path = names::segment(&self.dir, identity.segment_id);
        let opened = (|| {
            let file = shared.disk.create(&path)?;
            file.write_full_at(&identity.encode(), 0)?;
            Ok((file, shared.disk.open_read(&path)?))
        })();
        let opened = opened.map_err(|error| Error::io("create", &path, error)).and_then(|files| {
            // The name before the edit: an edit that a power cut keeps must not name a file that it took.
            shared.disk.sync_dir(&self.dir).map_err(|error| sync_failed(&self.dir, error))?;
            let entry = SegmentEntry { identity, slot, added_by: 0, sealed: None };
            self.manifest.append(&Edit::AddSegment(entry)).map(|_| files)
        });
        let (file, reader) = match opened {
            Ok(files) => files,
            Err(error) => {
                // What stays behind is an orphan that the next start deletes.
                drop(shared.disk.remove(&path));
                shared.slab.release(slot);
                return Err(error);
            }
        };
        let summary =
            SegmentSummary { records_end: SEGMENT_HEADER_BYTES as u64, ..SegmentSummary::default() };
        shared.slab.install(slot, OpenSegment { identity, file: reader }, summary, false);
        Ok(ActiveSegment {
            identity,
            slot,
            path,
            file,
            buffer: Vec::new(),
            written: SEGMENT_HEADER_BYTES as u64,
            rows: Vec::new(),
            summary,
            written_rows: 0,
            written_summary: summary,
            dirty: true,
            expiry_min_ms: u64::MAX,
        })
    }

    /// Writes the buffer: one write.
    ///
    /// # Errors
    /// When it fails; then `discard` forgets the buffered records and the next ones are written in their place.
    pub fn write_out<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.buffer.is_empty() {
            return Ok(());
        }
        active.dirty = true;
        active
            .file
            .write_full_at(&active.buffer, active.written)
            .map_err(|error| Error::io("append to", &active.path, error))?;
        count(&shared.counters.segment_bytes_written, active.buffer.len() as u64);
        active.written += active.buffer.len() as u64;
        active.buffer.clear();
        active.written_rows = active.rows.len();
        active.written_summary = active.summary;
        shared.slab.publish(active.slot, active.summary, false, active.expiry_min_ms);
        active.expiry_min_ms = u64::MAX;
        self.clock_dirty = true;
        Ok(())
    }

    /// Forgets the records that a failed write left in the buffer, and blanks what it left in the file: a whole record
    /// there would be found by a recovery although its caller was told that it is lost.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] if that fails.
    pub fn discard(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        active.buffer.clear();
        active.rows.truncate(active.written_rows);
        active.summary = active.written_summary;
        active.expiry_min_ms = u64::MAX;
        let blanked = (|| {
            let left = active.file.len()?.saturating_sub(active.written);
            active.file.write_full_at(&vec![0; left as usize], active.written)
        })();
        blanked.map_err(|error| {
            let error = Error::io("take back a failed write to", &active.path, error);
            Error::new(ErrorKind::ReadOnly, error.to_string())
        })
    }

    /// Completes the active segment: footer, sync, edit. A crash in between leaves a tail.
    pub fn seal<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        self.write_out(shared)?;
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.rows.is_empty() {
            return Ok(());
        }
        let mut summary = active.summary;
        // A failed write may have left the file longer than its records; the footer goes to its very end.
        let len = active.file.len().map_err(|error| Error::io("stat", &active.path, error))?;
        let footer_at = len.max(active.written).next_multiple_of(RECORD_ALIGN as u64);
        let ActiveSegment { identity, rows, .. } = active;
        let footer = encode_footer(identity.segment_id, identity.nonce, footer_at, rows, &mut summary);
        active
            .file
            .write_full_at(&footer, footer_at)
            .map_err(|error| Error::io("seal", &active.path, error))?;
        count(&shared.counters.segment_bytes_written, footer.len() as u64);
        active.file.sync().map_err(|error| sync_failed(&active.path, error))?;
        let segment_id = active.identity.segment_id;
        self.manifest.append(&Edit::SealSegment { segment_id, summary })?;
        shared.slab.publish(active.slot, summary, true, u64::MAX);
        self.active = None;
        Ok(())
    }

    /// Makes everything written so far durable, and saves the clock with it.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] when a sync fails: what the kernel has dropped cannot be known, so nothing may be
    /// acknowledged on these files again.
    pub fn sync<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        self.write_out(shared)?;
        if let Some(active) = &mut self.active
            && active.dirty
        {
            active.file.sync().map_err(|error| sync_failed(&active.path, error))?;
            active.dirty = false;
        }
        let observed = shared.condition.expiry_observed.swap(false, Ordering::SeqCst);
        if self.clock_dirty || observed {
            let saved = self.save_clock(shared);
            if saved.is_err() && observed {
                shared.condition.expiry_observed.store(true, Ordering::SeqCst);
            }
            saved?;
        }
        self.manifest.sync()?;
        if self.manifest.wants_roll() {
            self.manifest.roll(&shared.disk)?;
        }
        Ok(())
    }

    /// Saves, behind the sync of the data, the clock and how far the active segment is durable.
    fn save_clock<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        let tails = self.active.iter().map(|active| SyncedTail {
            segment_id: active.identity.segment_id,
            records_end: active.written,
            shadow_max: active.written_summary.shadow_max,
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
        self.manifest.sync()?;
        Ok(number)
    }

    /// Whether something waits for a sync.
    pub fn is_dirty(&self) -> bool {
        self.clock_dirty
            || self.manifest.is_dirty()
            || self.active.as_ref().is_some_and(|active| active.dirty || !active.buffer.is_empty())
    }

    /// The active segment's slot, number, rows and end of records.
    pub fn active_rows(&self) -> Option<(u32, u64, &[FooterRow], u64)> {
        let active = self.active.as_ref()?;
        Some((active.slot, active.identity.segment_id, &active.rows, active.summary.records_end))
    }
}

fn remove_or_warn<D: Disk>(disk: &D, path: &std::path::Path) {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not be removed");
        }
        _ => {}
    }
}

fn sync_failed(path: &std::path::Path, error: std::io::Error) -> Error {
    let error = Error::io("sync", path, error);
    Error::new(ErrorKind::ReadOnly, format!("{error}; writes are refused until the store is reopened"))
}
