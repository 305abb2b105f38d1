//! The hand-over of a record: from in flight to the index, from segment to segment, and how a reader follows it.
//!
//! Callers, the writer and the compaction worker take these steps at the same time; `tests/handover` runs this very
//! code under shuttle's schedules (`docs/CONCURRENCY.md`).

use super::core::slab::Slab;
use super::in_flight::{EncodedRecord, InFlight};
use super::metadata_index::{EntryId, IndexEntry, Location, MetadataIndex, NOWHERE, SizeClass};

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
            match record {
                // A slot given out anew in between may have held another segment than the index meant, even if the
                // index means the same place again by now (S2).
                _ if self.slab.reuses() != reuses => failed = None,
                Some(record) => return Ok(Newest::Stored(record)),
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

    /// The record could not be written: it reads as a miss from now on. `place` is where it was going to be and what it
    /// replaced there, `None` if no place could be had. True if something older has to be buried; until then the key
    /// stays as a shadow.
    pub fn lose(self, id: EntryId, sequence: u64, place: Option<(Location, Option<IndexEntry>)>) -> bool {
        let bury = match place {
            // What it replaced may have been moved meanwhile, and its slot given out again.
            Some((location, Some(replaced))) => {
                let nowhere = Location { slot: NOWHERE, ..replaced.location };
                let shadow = IndexEntry { location: nowhere, size: SizeClass::SHADOW };
                // If it does not stand any more, a newer one in another segment has buried it already.
                self.index.replace_if(id, location, Some(shadow))
            }
            // With no older one there is nothing to bury.
            Some((location, None)) => {
                self.index.replace_if(id, location, None);
                false
            }
            // Wherever its older record has been moved to meanwhile.
            None => {
                let replaced = self.index.shadow(id);
                replaced.inspect(|replaced| self.slab.note_dead(*replaced)).is_some()
            }
        };
        self.in_flight.remove(id, sequence);
        bury
    }

    /// A compaction has copied a record: the index points at the copy, unless the entry was rewritten meanwhile.
    pub fn repoint(self, id: EntryId, from: Location, to: IndexEntry) {
        if !self.index.relocate(id, from, to) {
            self.slab.note_dead(to);
        }
    }
}
