//! Records that have been accepted and are not in a file yet. Readers look here first.
//!
//! Sequence numbers are given out under the lock of the key's shard here, so that for one key the entry always holds
//! its newest record (invariant Q1). The writer takes a record out only after the index points at its place in a file
//! that has the bytes: a reader that finds nothing here finds the record, or a newer one, through the index.

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;

use super::metadata_index::EntryId;
use super::serialization::record::RecordMeta;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{ConcurrentMap, Entry};

/// A record on its way to a segment. `Bytes`, because the queue and the readers look at the same immutable bytes.
#[derive(Clone, Debug)]
pub struct EncodedRecord {
    /// Its header; the sequence number is set when the record is placed, `first` by the writer.
    pub meta: RecordMeta,
    /// Hash of its key.
    pub hash: u64,
    /// Key and value as they will be stored; of a raw record, as they came.
    pub stored: Bytes,
    /// Checksum of the stored bytes and their dictionary; of a raw record, none yet.
    pub sum: u32,
    /// Key and value are as they came: the writer encodes them before it appends the record.
    pub is_raw: bool,
    /// Its time to live, in milliseconds; 0 = for ever. With it the writer chooses the record's group.
    pub ttl_ms: u64,
}

impl EncodedRecord {
    /// A record with nothing stored yet; lengths in bytes, times in milliseconds, 0 = never.
    pub fn new(hash: u64, key_len: usize, raw_len: usize, expires_at_ms: u64, ttl_ms: u64) -> Self {
        let meta = RecordMeta {
            sequence: 0,
            expires_at_ms,
            key_len: key_len as u32,
            raw_len: raw_len as u32,
            stored_len: 0,
            codec: 0,
            dictionary: 0,
            tombstone: false,
            first: false,
            outlasts: false,
        };
        Self { meta, hash, stored: Bytes::new(), sum: 0, is_raw: false, ttl_ms }
    }
}

/// Locks, as many as the index has and for the same reason.
const SHARDS: usize = 512;

/// The records in flight.
#[derive(Debug)]
pub struct InFlight {
    records: ConcurrentMap<EntryId, EncodedRecord, ByHash>,
    next_sequence: AtomicU64,
}

impl InFlight {
    /// Nothing is in flight; `next_sequence` is given out next.
    pub fn new(next_sequence: u64) -> Self {
        Self {
            records: ConcurrentMap::with_hasher_and_shard_amount(ByHash, SHARDS),
            next_sequence: AtomicU64::new(next_sequence),
        }
    }

    /// Gives the record its sequence number and makes it the newest of its key. Returns it, ready to be sent.
    pub fn place(&self, mut record: EncodedRecord) -> EncodedRecord {
        let entry = self.records.entry(EntryId::of(record.hash));
        record.meta.sequence = self.next_sequence.fetch_add(1, Ordering::SeqCst);
        drop(entry.insert(record.clone()));
        record
    }

    /// The newest record of a key, if it is in flight.
    pub fn get(&self, id: EntryId) -> Option<EncodedRecord> {
        self.records.get(&id).map(|record| record.clone())
    }

    /// Takes a record out, unless a newer one of its key has taken its place.
    pub fn remove(&self, id: EntryId, sequence: u64) {
        self.records.remove_if(&id, |_, record| record.meta.sequence == sequence);
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The lowest sequence number not given out yet.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::SeqCst)
    }

    /// Gives out a sequence number for a record of the writer's own, unless a newer record of the key is in flight.
    pub fn sequence_for_writer(&self, id: EntryId) -> Option<u64> {
        // The entry's lock keeps a caller from placing a record of this key in between.
        match self.records.entry(id) {
            Entry::Occupied(_) => None,
            Entry::Vacant(_) => Some(self.next_sequence.fetch_add(1, Ordering::SeqCst)),
        }
    }
}

/// Entry identities are hashes already; multiplying spreads their low bits over the shards.
#[derive(Clone, Copy, Debug, Default)]
struct ByHash;

#[derive(Debug)]
struct ByHashHasher(u64);

impl BuildHasher for ByHash {
    type Hasher = ByHashHasher;

    fn build_hasher(&self) -> ByHashHasher {
        ByHashHasher(0)
    }
}

impl Hasher for ByHashHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
