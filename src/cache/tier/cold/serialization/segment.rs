//! The header of a segment file, and the summary of a sealed one.

use wincode::{SchemaRead, SchemaWrite};

use super::footer::FooterRow;
use super::record::RecordMeta;
use super::{BLOCK_OVERHEAD, Result, decode, encode, open_block, seal_block};

const MAGIC: &[u8; 8] = b"LARDSEG1";

/// Bytes of the header; the first record follows.
pub const SEGMENT_HEADER_BYTES: usize = 52;

/// Which log a segment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, SchemaWrite, SchemaRead)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[wincode(tag_encoding = "u8")]
#[non_exhaustive]
pub enum LogKind {
    /// Records as callers wrote them.
    Fresh,
    /// Records that a compaction moved.
    Survivors,
}

/// Who a segment is. Every record's checksum depends on `nonce`, so that a record of another file never passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct SegmentIdentity {
    /// The store it belongs to.
    pub store_id: u64,
    /// Number of the segment; never used again in this store.
    pub segment_id: u64,
    /// Random.
    pub nonce: u64,
    /// Records hold their sequence number as a difference from this one.
    pub base_sequence: u64,
    /// Which log.
    pub log: LogKind,
    /// Which of the log's groups: records that are likely to die together (see `groups.rs`).
    pub group: u8,
}

#[derive(SchemaWrite, SchemaRead)]
struct Header {
    identity: SegmentIdentity,
    /// The first record lies at a multiple of 4.
    padding: [u8; 2],
}

impl SegmentIdentity {
    /// The bytes at the start of the file.
    pub fn encode(&self) -> Vec<u8> {
        let header = seal_block(MAGIC, &encode(&Header { identity: *self, padding: [0; 2] }));
        assert_eq!(header.len(), SEGMENT_HEADER_BYTES, "the header's size is part of the format");
        header
    }

    /// Reads the start of a file.
    ///
    /// # Errors
    /// When the bytes are no header, are damaged, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let header = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(super::FormatError::Short)?;
        decode::<Header>(open_block(MAGIC, header)?).map(|header| header.identity)
    }
}

/// What is known of a segment without opening it: once it is sealed, in the manifest. Its footer tells the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct SegmentSummary {
    /// Offset behind the last record.
    pub records_end: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Records, tombstones included.
    pub records: u32,
    /// Tombstones among them.
    pub tombstones: u32,
    /// Records that never expire, tombstones included.
    pub unexpiring: u32,
    /// Earliest expiry of those that do, unix ms; 0 if there is none.
    pub expiry_min_ms: u64,
    /// Latest expiry of those that do, unix ms; 0 if there is none.
    pub expiry_max_ms: u64,
    /// Lowest sequence number.
    pub sequence_min: u64,
    /// Highest sequence number.
    pub sequence_max: u64,
    /// Highest sequence number of a shadow (a record that replaced something); 0 if there is none.
    pub shadow_max: u64,
    /// Highest sequence number of a record whose expiry could expose something older; 0 if there is none.
    pub exposing_max: u64,
    /// Bytes of keys and values before compression.
    pub raw_bytes: u64,
    /// Bytes of keys and values as stored.
    pub payload_bytes: u64,
    /// Bit n is set if a record needs dictionary n.
    pub dictionaries: [u64; 4],
}

impl SegmentSummary {
    /// Whether a record of the segment needs this dictionary.
    pub fn uses_dictionary(&self, slot: u8) -> bool {
        self.dictionaries[usize::from(slot >> 6)] >> (slot & 63) & 1 == 1
    }

    /// The dictionaries its records need.
    pub fn dictionary_slots(&self) -> Vec<u8> {
        // Maintenance asks at every look, of every segment: nearly all words are 0.
        let words = (0..4u8).filter(|word| self.dictionaries[usize::from(*word)] != 0);
        let slots = words.flat_map(|word| 64 * word..=64 * word + 63);
        slots.filter(|slot| *slot != 0 && self.uses_dictionary(*slot)).collect()
    }

    /// Bytes of records, headers and padding included.
    pub fn record_bytes(&self) -> u64 {
        self.records_end.saturating_sub(SEGMENT_HEADER_BYTES as u64)
    }

    /// Takes one more record into account.
    pub fn add(&mut self, record: &RecordMeta) {
        self.add_row(&FooterRow::new(0, 0, record));
        self.raw_bytes += u64::from(record.raw_len);
        self.payload_bytes += u64::from(record.stored_len);
        if record.dictionary != 0 {
            self.dictionaries[usize::from(record.dictionary >> 6)] |= 1 << (record.dictionary & 63);
        }
    }

    /// Takes into account what a record's row says of it.
    pub fn add_row(&mut self, row: &FooterRow) {
        let first = self.records == 0;
        self.records += 1;
        self.tombstones += u32::from(row.tombstone);
        if row.expires_at_ms == 0 {
            self.unexpiring += 1;
        } else {
            let known = self.expiry_min_ms != 0;
            self.expiry_min_ms =
                if known { self.expiry_min_ms.min(row.expires_at_ms) } else { row.expires_at_ms };
            self.expiry_max_ms = self.expiry_max_ms.max(row.expires_at_ms);
        }
        self.sequence_min = if first { row.sequence } else { self.sequence_min.min(row.sequence) };
        self.sequence_max = self.sequence_max.max(row.sequence);
        if row.is_shadow() {
            self.shadow_max = self.shadow_max.max(row.sequence);
        }
        if row.is_exposing() {
            self.exposing_max = self.exposing_max.max(row.sequence);
        }
    }
}

const _: () = assert!(SEGMENT_HEADER_BYTES == BLOCK_OVERHEAD + 34 + 2);
