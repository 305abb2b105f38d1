//! The hand-over of a record: from in flight to the index, from segment to segment, and how a reader follows it.
//!
//! Callers, the writer and the compaction worker take these steps at the same time; `tests/handover` runs this very
//! code under shuttle's schedules (`docs/CONCURRENCY.md`).

use super::core::slab::Slab;
use super::in_flight::{EncodedRecord, InFlight};
use super::metadata_index::{EntryId, IndexEntry, Location, MetadataIndex, SizeClass};

/// Lookups of one key that may fail in a row because its record is being moved before it is given up as damaged.
const LOOKUP_ATTEMPTS: usize = 1000;

/// What a record goes through.
pub struct HandOver<'a, F> {
    /// Where the newest records are.
    pub index: &'a MetadataIndex,
    /// What is not in a file yet.
    pub in_flight: &'a InFlight,
    /// The segments that can be read.
    pub slab: &'a Slab<F>,
}

impl<F> Clone for HandOver<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for HandOver<'_, F> {}

/// What a reader finds of a key.
#[derive(Debug)]
pub enum Newest<R> {
    /// It is not in a file yet.
    InFlight(EncodedRecord),
    /// Read from its segment.
    Stored(R),
    /// No such entry.
    Absent,
    /// Its bytes are damaged.
    Damaged,
}

impl<F> HandOver<'_, F> {
    /// The newest record of a hash; `read` gets it from where an entry points, `None` if it is not there (any more).
    ///
    /// In flight first, then the index, then the segment. A read that fails because the record is being written, moved
    /// or retired is followed by another look; only an entry that fails twice unchanged is damaged (invariant G1):
    /// between the two looks its in-flight copy was gone, so its bytes were in the file.
    ///
    /// With `counts` it is a read that the entry is valued by.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn newest<R, E>(
        self,
        id: EntryId,
        counts: bool,
        mut read: impl FnMut(IndexEntry) -> Result<Option<R>, E>,
    ) -> Result<Newest<R>, E> {
        let mut failed = None;
        for _ in 0..LOOKUP_ATTEMPTS {
            if let Some(record) = self.in_flight.get(id) {
                return Ok(Newest::InFlight(record));
            }
            let reuses = self.slab.reuses();
            let Some(entry) = self.entry_of(id, counts && failed.is_none()) else {
                return Ok(Newest::Absent);
            };
            if entry.is_shadow() {
                return Ok(Newest::Absent);
            }
            let record = read(entry)?;
            // A slot given out anew in between may hold another segment than the index meant.
            let moved = self.slab.reuses() != reuses && self.index.get(id) != Some(entry);
            match record {
                Some(record) if !moved => return Ok(Newest::Stored(record)),
                Some(_) => failed = None,
                None if failed == Some(entry) => return Ok(Newest::Damaged),
                None => failed = Some(entry),
            }
        }
        Ok(Newest::Damaged)
    }

    fn entry_of(self, id: EntryId, counts: bool) -> Option<IndexEntry> {
        if !counts {
            return self.index.get(id);
        }
        let (entry, counted) = self.index.get_and_count(id)?;
        if counted {
            self.slab.note_hit(entry.location.slot);
        }
        Some(entry)
    }

    /// The writer has given a record its place: the index points there, before the bytes do. Returns the entry that
    /// it took the place of.
    pub fn point(self, id: EntryId, entry: IndexEntry) -> Option<IndexEntry> {
        let replaced = self.index.set(id, entry);
        if let Some(replaced) = replaced {
            self.slab.note_dead(replaced);
        }
        replaced
    }

    /// The bytes are in the file.
    pub fn let_go(self, id: EntryId, sequence: u64) {
        self.in_flight.remove(id, sequence);
    }

    /// The record could not be written, at the place it had or for want of one: it reads as a miss from now on. True if
    /// what it replaced has to be buried, and stays as a shadow until it is.
    pub fn lose(
        self,
        id: EntryId,
        sequence: u64,
        place: Option<Location>,
        replaced: Option<IndexEntry>,
    ) -> bool {
        let shadow = replaced.map(|replaced| IndexEntry { size: SizeClass::SHADOW, ..replaced });
        let standing = place.or(replaced.map(|replaced| replaced.location));
        let stood = standing.is_some_and(|standing| self.index.replace_if(id, standing, shadow));
        self.in_flight.remove(id, sequence);
        // With no older one there is nothing to bury; a newer one in another segment has buried it already.
        stood && replaced.is_some()
    }

    /// A compaction has copied a record: the index points at the copy, unless the entry was rewritten meanwhile.
    pub fn repoint(self, id: EntryId, from: Location, to: IndexEntry) {
        if !self.index.relocate(id, from, to) {
            self.slab.note_dead(to);
        }
    }
}
