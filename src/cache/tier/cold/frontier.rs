//! The order of sequence numbers at the writer.
//!
//! Numbers are given out under a shard lock and sent outside of it (no lock is held across a channel operation), so
//! they may arrive out of order. The frontier knows up to where every number has arrived, and keeps the few that came
//! early, with their keys: a record that arrives after a newer one of its key is stale and must not be written (Q2).

use std::collections::BTreeMap;

use super::metadata_index::EntryId;

/// How far the writer has come.
#[derive(Debug)]
pub struct Frontier {
    /// Every number below this has arrived.
    next: u64,
    ahead: BTreeMap<u64, EntryId>,
}

impl Frontier {
    /// Every number below `next` has arrived.
    pub fn new(next: u64) -> Self {
        Self { next, ahead: BTreeMap::new() }
    }

    /// The lowest number that has not arrived: what is yet to come is not below it.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes a number in; false if a newer record of the same key has arrived before.
    pub fn arrive(&mut self, sequence: u64, id: EntryId) -> bool {
        let stale = self.ahead.range(sequence..).any(|(_, ahead)| *ahead == id);
        if sequence == self.next {
            self.next += 1;
            while self.ahead.remove(&self.next).is_some() {
                self.next += 1;
            }
        } else {
            self.ahead.insert(sequence, id);
        }
        !stale
    }
}
