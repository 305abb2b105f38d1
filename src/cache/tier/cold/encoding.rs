//! Encoding by the parameters in force: what callers, the writer and the compaction worker store records by.

use std::cell::RefCell;
use std::sync::RwLockReadGuard;

use bytes::{Bytes, BytesMut};

use super::compression::{CompressionParameters, Encoding, compress_into};
use super::dictionary::Dictionary;
use super::in_flight::EncodedRecord;
use super::serialization::record::{RecordMeta, payload_sum};
use super::shared::{Shared, count};
use crate::clock::Clock;
use crate::io::Disk;

/// The writer encodes what comes while less than this is queued: it has time for it then, and the caller goes on. With
/// more in the queue callers encode what they bring, so that both work at once and neither waits for the other. The batch that
/// the writer is gathering counts as queued: raw, a piece of 256 KiB of it may be half a MiB.
const WRITER_ENCODES_BELOW: u64 = 768 << 10;
/// Larger records are the caller's work in any case: what is queued behind them would wait. Nor do they share a piece of
/// memory with others.
const SMALL_BYTES_MAX: usize = 16 << 10;
/// Small records of one thread lie in pieces of memory of this size, each given back with the last record in it: one
/// allocation for many, and the writer, which drops them, seldom takes the allocator's lock of another thread.
const PIECE_BYTES: usize = 64 << 10;

thread_local! {
    static PIECE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The parameters in force for a class, and their dictionary, which stays while this is held (D1).
pub(super) struct InForce<'a> {
    parameters: CompressionParameters,
    dictionary: RwLockReadGuard<'a, Option<Dictionary>>,
}

impl<'a> InForce<'a> {
    /// For a record of this raw length.
    pub(super) fn of<D: Disk, C: Clock>(shared: &'a Shared<D, C>, raw_len: usize) -> Self {
        // Locked only for the parameters in force: so a dictionary that has gone out of force for all classes is free to
        // go once its lock and the queue are.
        loop {
            let parameters = shared.parameters(raw_len);
            let dictionary = shared.dictionaries.read(parameters.dictionary);
            if shared.parameters(raw_len) == parameters {
                return Self { parameters, dictionary };
            }
        }
    }

    /// Appends key and value to `stored` as they are to be stored; how, and the identity of the dictionary that they
    /// need then (0 = none).
    pub(super) fn encode_into(&self, key: &[u8], value: &[u8], stored: &mut Vec<u8>) -> (Encoding, u64) {
        let encoding = compress_into(key, value, self.parameters, self.dictionary.as_ref(), stored);
        let id = self.dictionary.as_ref().filter(|_| encoding.dictionary != 0).map_or(0, Dictionary::id);
        (encoding, id)
    }
}

/// Whether a record of this raw length is left to the writer to encode.
pub(super) fn is_left_to_writer<D: Disk, C: Clock>(shared: &Shared<D, C>, raw_len: usize) -> bool {
    raw_len <= SMALL_BYTES_MAX && shared.budget.queued_bytes() < WRITER_ENCODES_BELOW
}

/// Gives a record its bytes as they are, for the writer to encode.
pub(super) fn leave_to_writer(record: &mut EncodedRecord, key: &[u8], value: &[u8]) {
    record.meta.stored_len = record.meta.raw_len;
    record.stored = kept(key, value);
    record.is_raw = true;
}

/// Encodes a record on the caller's thread. What is returned is held until the record is sent (D1).
pub(super) fn encode<'a, D: Disk, C: Clock>(
    shared: &'a Shared<D, C>,
    record: &mut EncodedRecord,
    key: &[u8],
    value: &[u8],
) -> InForce<'a> {
    let in_force = InForce::of(shared, key.len() + value.len());
    let mut set = |(encoding, id): (Encoding, u64), stored: &[u8]| {
        record.meta.encode_as(encoding.codec as u8, encoding.dictionary, stored.len());
        record.sum = payload_sum(id, stored);
        count(&shared.counters.stored_bytes_inserted, record.meta.record_bytes() as u64);
    };
    if key.len() + value.len() > SMALL_BYTES_MAX {
        let mut stored = Vec::new();
        set(in_force.encode_into(key, value, &mut stored), &stored);
        record.stored = Bytes::from(stored);
        return in_force;
    }
    record.stored = SCRATCH.with_borrow_mut(|stored| {
        stored.clear();
        set(in_force.encode_into(key, value, stored), stored);
        kept(stored, &[])
    });
    in_force
}

/// Encodes a record that was left to the writer, into `stored`; its header and payload sum then. The writer appends it
/// before it answers any barrier (D1).
pub(super) fn encode_raw<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    record: &EncodedRecord,
    stored: &mut Vec<u8>,
) -> (RecordMeta, u32) {
    let (key, value) = record.stored.split_at(record.meta.key_len as usize);
    stored.clear();
    let (encoding, id) = InForce::of(shared, record.stored.len()).encode_into(key, value, stored);
    let mut meta = record.meta;
    meta.encode_as(encoding.codec as u8, encoding.dictionary, stored.len());
    count(&shared.counters.stored_bytes_inserted, meta.record_bytes() as u64);
    (meta, payload_sum(id, stored))
}

/// Two parts as one, in the thread's piece of memory if they are small.
fn kept(front: &[u8], back: &[u8]) -> Bytes {
    let len = front.len() + back.len();
    PIECE.with_borrow_mut(|piece| {
        if piece.capacity() - piece.len() < len {
            *piece = BytesMut::with_capacity(PIECE_BYTES.max(len));
        }
        piece.extend_from_slice(front);
        piece.extend_from_slice(back);
        piece.split().freeze()
    })
}
