//! Walking all entries, one partition of the index at a time.

use bytes::{Buf, Bytes};

use super::core::segment::key_hash;
use super::handle::Entry;
use super::lookup::{Lookup, lookup};
use super::metadata_index::{EntryId, PARTITIONS};
use super::shared::Shared;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::io::Disk;

/// Iterator over all entries; see `ColdTier::iter`.
pub struct Iter<'a, D: Disk, C: Clock> {
    shared: &'a Shared<D, C>,
    partition: usize,
    batch: std::vec::IntoIter<EntryId>,
    failed: Option<Error>,
}

impl<'a, D: Disk, C: Clock> Iter<'a, D, C> {
    pub(super) fn new(shared: &'a Shared<D, C>, ready: Result<()>) -> Self {
        Self { shared, partition: 0, batch: Vec::new().into_iter(), failed: ready.err() }
    }

    fn next_id(&mut self) -> Option<EntryId> {
        loop {
            if let Some(id) = self.batch.next() {
                return Some(id);
            }
            if self.partition == PARTITIONS {
                return None;
            }
            // Only identities are kept: where an entry is may change before its turn comes, what it is may not.
            let entries = self.shared.index.partition(self.partition as u16);
            let values = entries.into_iter().filter(|(_, entry)| !entry.is_shadow()).map(|(id, _)| id);
            self.batch = values.collect::<Vec<_>>().into_iter();
            self.partition += 1;
        }
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
            let (meta, raw) = match lookup(self.shared, id, false) {
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
