//! Of many rows, the newest of each key.
//!
//! Rows are kept in buckets by the first bits of their identities. Sorted, the rows of a bucket meet the partitions of the
//! index one after the other, and each partition is laid out once: one row after the other into a large index would wait
//! for memory each time.

use std::cmp::Reverse;
use std::convert::Infallible;

use super::live_counts::LiveCounts;
use super::spread::{spread, threads_for};
use crate::cache::tier::cold::metadata_index::{EntryId, IndexEntry, MetadataIndex, NOWHERE, PARTITIONS};

const BUCKETS: usize = 256;
/// In place of the sequence number of a row that was moved. No record has it, and it is lower than any.
const MOVED: u64 = 0;

struct Row {
    id: EntryId,
    sequence: u64,
    entry: IndexEntry,
}

/// Rows that are to be entered in the index.
pub struct NewestRows {
    buckets: Vec<Vec<Row>>,
    rows: usize,
}

impl NewestRows {
    pub fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), rows: 0 }
    }

    /// How many have been added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the row of a record with this sequence number, and the entry that it would have.
    pub fn add(&mut self, id: EntryId, sequence: u64, entry: IndexEntry) {
        self.buckets[usize::from(id.partition()) * BUCKETS / PARTITIONS].push(Row { id, sequence, entry });
        self.rows += 1;
    }

    /// Adds a row that may only take the place of an entry whose segment is gone.
    pub fn add_moved(&mut self, id: EntryId, entry: IndexEntry) {
        self.add(id, MOVED, entry);
    }

    /// Sets the entry of each key to that of its newest row, whatever the index had.
    pub fn enter(self, index: &MetadataIndex, live: &mut LiveCounts) {
        let enter_bucket = |changes: &mut LiveCounts, mut rows: Vec<Row>| {
            // Stable: of two rows of one record, the one that was met first counts.
            rows.sort_by_key(|row| (row.id, Reverse(row.sequence)));
            rows.dedup_by_key(|row| row.id);
            for rows in rows.chunk_by(|one, next| one.id.partition() == next.id.partition()) {
                let number = rows[0].id.partition();
                index.amend(number, rows.iter().map(|row| (row.id, row)), |old, row| {
                    let dangles = old.is_some_and(|old| old.location.slot == NOWHERE);
                    if row.sequence == MOVED && !dangles {
                        return None;
                    }
                    old.into_iter().for_each(|old| changes.take(old));
                    changes.add(row.entry);
                    Some(row.entry)
                });
            }
            Ok::<(), Infallible>(())
        };
        let Ok(changes) = spread(self.buckets, threads_for(self.rows), LiveCounts::default, enter_bucket);
        changes.iter().for_each(|changes| live.merge(changes));
    }
}
