//! Walking all entries, a few partitions of the index at a time. Neighbours in the index lie anywhere on the disk, so a disk
//! that has to be waited for is asked for the next few dozen records as well.

use bytes::{Buf, Bytes};

use super::core::segment::key_hash;
use super::handle::Entry;
use super::lookup::{Lookup, ask_for, lookup, lookup_cached};
use super::metadata_index::{EntryId, PARTITIONS};
use super::shared::Shared;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::io::Disk;

/// Records, and their bytes, that the disk is asked for before the first is waited for.
const AHEAD: usize = 64;
const AHEAD_BYTES: u64 = 4 << 20;
/// Entries of a batch, at least: at its end nothing is asked for.
const BATCH: usize = 4 * AHEAD;

/// Iterator over all entries; see `ColdTier::iter`.
pub struct Iter<'a, D: Disk, C: Clock> {
    shared: &'a Shared<D, C>,
    partition: usize,
    batch: Vec<EntryId>,
    /// How much of the batch has had its turn, and how much the disk has been asked for.
    next: usize,
    asked: usize,
    failed: Option<Error>,
}

impl<'a, D: Disk, C: Clock> Iter<'a, D, C> {
    pub(super) fn new(shared: &'a Shared<D, C>, ready: Result<()>) -> Self {
        Self { shared, partition: 0, batch: Vec::new(), next: 0, asked: 0, failed: ready.err() }
    }

    fn next_id(&mut self) -> Option<EntryId> {
        if self.next == self.batch.len() {
            self.fill();
        }
        let id = self.batch.get(self.next)?;
        self.next += 1;
        Some(*id)
    }

    /// The next partitions.
    fn fill(&mut self) {
        self.batch.clear();
        (self.next, self.asked) = (0, 0);
        while self.batch.len() < BATCH && self.partition < PARTITIONS {
            // Only identities are kept: where an entry is may change before its turn comes, what it is may not.
            let entries = self.shared.index.partition(self.partition as u16);
            self.batch.extend(entries.into_iter().filter(|(_, entry)| !entry.is_shadow()).map(|(id, _)| id));
            self.partition += 1;
        }
    }

    /// Reads the entry that `next_id` gave.
    fn read(&mut self, id: EntryId) -> Result<Lookup> {
        if let Some(found) = lookup_cached(self.shared, id, false)? {
            return Ok(found);
        }
        if self.asked < self.next {
            self.asked = self.next;
            let mut bytes = 0;
            for ahead in self.batch[self.next..].iter().take(AHEAD) {
                bytes += ask_for(self.shared, *ahead);
                self.asked += 1;
                if bytes > AHEAD_BYTES {
                    break;
                }
            }
        }
        lookup(self.shared, id, false)
    }
}

impl<D: Disk, C: Clock> Iterator for Iter<'_, D, C> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.partition = PARTITIONS;
            return Some(Err(error));
        }
        loop {
            let id = self.next_id()?;
            let (meta, raw) = match self.read(id) {
                Ok(Lookup::Found(meta, raw)) => (meta, raw),
                Ok(_) => continue,
                Err(error) => return Some(Err(error)),
            };
            let mut value = Bytes::from(raw);
            let key = value.split_to(meta.key_len as usize);
            // A slot can only lead here by damage that no checksum sees; the key decides.
            if EntryId::of(key_hash(&key, self.shared.hash_seed)) != id {
                continue;
            }
            let expires_at_ms = (meta.expires_at_ms != 0).then_some(meta.expires_at_ms);
            debug_assert!(value.remaining() == meta.raw_len as usize - key.len());
            return Some(Ok(Entry { key, value, expires_at_ms }));
        }
    }
}

impl<D: Disk, C: Clock> std::fmt::Debug for Iter<'_, D, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter").field("partition", &self.partition).finish_non_exhaustive()
    }
}
