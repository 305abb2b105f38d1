//! One record: a 25-byte header in bincode's fixed-width layout, the stored bytes, padding to 4.
//!
//! One stored checksum does the work of two. The *payload sum* (dictionary content and stored bytes) is computed by
//! the caller and goes with the record through the queue and through relocations; the *check* in the header is seeded
//! with the segment's nonce and the offset and covers the header and the payload sum. So a record that lies where it
//! was not written fails, and a relocation passes on the sum it verified instead of computing a new one over bytes
//! that may have changed in memory.

use wincode::{SchemaRead, SchemaWrite};

use super::{FormatError, Result, decode, encode_into};
use crate::config::{KEY_BYTES_LIMIT, VALUE_BYTES_LIMIT};

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 25;
/// Records start at multiples of this.
pub const RECORD_ALIGN: usize = 4;

const LEN_BITS: u32 = 27;
const LEN_MASK: u32 = (1 << LEN_BITS) - 1;
const TOMBSTONE: u32 = 1 << LEN_BITS;
const FIRST: u32 = 1 << (LEN_BITS + 1);
const OUTLASTS: u32 = 1 << (LEN_BITS + 2);

/// Largest raw length (key and value) a record may name; what is larger is damage.
pub const RAW_BYTES_LIMIT: usize = KEY_BYTES_LIMIT + VALUE_BYTES_LIMIT;

#[derive(SchemaWrite, SchemaRead)]
struct Header {
    check: u32,
    sequence_delta: u32,
    expires_at_ms: [u8; 6],
    key_len_less_one: u16,
    dictionary: u8,
    stored_len_and_flags: u32,
    raw_len_and_codec: u32,
}

/// Everything a record's header says, in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// Sequence number; the highest one of a key wins.
    pub sequence: u64,
    /// When it expires, unix ms; 0 = never. At most 48 bits.
    pub expires_at_ms: u64,
    /// Length of the key.
    pub key_len: u32,
    /// Length of key and value before compression.
    pub raw_len: u32,
    /// Length of key and value as stored.
    pub stored_len: u32,
    /// Codec number.
    pub codec: u8,
    /// Dictionary slot; 0 = none.
    pub dictionary: u8,
    /// A deletion.
    pub tombstone: bool,
    /// Nothing of this key was known when it was written: its disappearance exposes nothing older.
    pub first: bool,
    /// Every older version of its key that may be on disk expires no later than this one does: once this one has
    /// expired, nothing older can come back.
    pub outlasts: bool,
}

impl RecordMeta {
    /// Says how the stored bytes are encoded, and how many there are.
    pub fn encode_as(&mut self, codec: u8, dictionary: u8, stored_len: usize) {
        (self.codec, self.dictionary, self.stored_len) = (codec, dictionary, stored_len as u32);
    }

    /// Whether its disappearance could expose an older version of the key.
    pub fn is_shadow(&self) -> bool {
        self.tombstone || !self.first
    }

    /// Whether something older of the key may still be in force when this record has expired.
    pub fn is_exposing(&self) -> bool {
        self.is_shadow() && !self.outlasts
    }

    /// Bytes the record takes in a segment.
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.stored_len as usize)
    }
}

/// Bytes that a record with this many stored bytes takes in a segment.
pub fn record_bytes(stored_len: usize) -> usize {
    (RECORD_HEADER_BYTES + stored_len).next_multiple_of(RECORD_ALIGN)
}

/// Checksum of the stored bytes and of the dictionary they need (0 = none).
pub fn payload_sum(dictionary_id: u64, stored: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&dictionary_id.to_le_bytes()), stored)
}

fn check_of(header: &[u8], payload_sum: u32, nonce: u64, offset: u64) -> u32 {
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&nonce.to_le_bytes());
    seed[8..].copy_from_slice(&offset.to_le_bytes());
    let check = crc32c::crc32c_append(crc32c::crc32c(&seed), header);
    crc32c::crc32c_append(check, &payload_sum.to_le_bytes())
}

/// Where a record stands: what its check is seeded with.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The segment's nonce.
    pub nonce: u64,
    /// The segment's base sequence number.
    pub base_sequence: u64,
    /// Offset in the segment.
    pub offset: u64,
}

/// Appends a record: header, stored bytes, padding.
///
/// # Panics
/// When the sequence number or a length does not fit: the writer must have opened another segment.
pub fn append_record(out: &mut Vec<u8>, meta: &RecordMeta, stored: &[u8], sum: u32, place: Place) {
    assert_eq!(stored.len(), meta.stored_len as usize);
    assert!((1..=KEY_BYTES_LIMIT as u32).contains(&meta.key_len) && meta.raw_len as usize <= RAW_BYTES_LIMIT);
    let delta = meta.sequence.checked_sub(place.base_sequence).and_then(|delta| u32::try_from(delta).ok());
    let mut flags = 0;
    if meta.tombstone {
        flags |= TOMBSTONE;
    }
    if meta.first {
        flags |= FIRST;
    }
    if meta.outlasts {
        flags |= OUTLASTS;
    }
    let mut expires_at_ms = [0; 6];
    expires_at_ms.copy_from_slice(&meta.expires_at_ms.to_le_bytes()[..6]);
    let mut bytes = [0; RECORD_HEADER_BYTES];
    let header = Header {
        check: 0,
        sequence_delta: delta.expect("the sequence number fits the segment"),
        expires_at_ms,
        key_len_less_one: (meta.key_len - 1) as u16,
        dictionary: meta.dictionary,
        stored_len_and_flags: meta.stored_len | flags,
        raw_len_and_codec: meta.raw_len | u32::from(meta.codec) << LEN_BITS,
    };
    encode_into(&header, &mut bytes);
    let check = check_of(&bytes[4..], sum, place.nonce, place.offset);
    bytes[..4].copy_from_slice(&check.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(stored);
    out.resize(out.len().next_multiple_of(RECORD_ALIGN), 0);
}

/// A record header nobody has vouched for: its lengths may be trusted to read bytes with, nothing more.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedRecord {
    meta: RecordMeta,
    check: u32,
    header: [u8; RECORD_HEADER_BYTES],
}

impl UnverifiedRecord {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// When a field holds what was never written.
    pub fn parse(bytes: &[u8], base_sequence: u64) -> Result<Self> {
        let raw = bytes.first_chunk::<RECORD_HEADER_BYTES>().ok_or(FormatError::Short)?;
        let header: Header = decode(raw)?;
        let mut expires_at_ms = [0; 8];
        expires_at_ms[..6].copy_from_slice(&header.expires_at_ms);
        let flags = header.stored_len_and_flags & !LEN_MASK;
        let meta = RecordMeta {
            sequence: base_sequence.saturating_add(header.sequence_delta.into()),
            expires_at_ms: u64::from_le_bytes(expires_at_ms),
            key_len: u32::from(header.key_len_less_one) + 1,
            raw_len: header.raw_len_and_codec & LEN_MASK,
            stored_len: header.stored_len_and_flags & LEN_MASK,
            codec: (header.raw_len_and_codec >> LEN_BITS) as u8,
            dictionary: header.dictionary,
            tombstone: flags & TOMBSTONE != 0,
            first: flags & FIRST != 0,
            outlasts: flags & OUTLASTS != 0,
        };
        if flags & !(TOMBSTONE | FIRST | OUTLASTS) != 0 {
            return Err(FormatError::Invalid("record flags"));
        }
        if meta.raw_len as usize > RAW_BYTES_LIMIT || meta.raw_len < meta.key_len {
            return Err(FormatError::Invalid("raw length"));
        }
        if meta.stored_len == 0 || meta.stored_len > meta.raw_len {
            return Err(FormatError::Invalid("stored length"));
        }
        Ok(Self { meta, check: header.check, header: *raw })
    }

    /// Stored bytes that follow the header.
    pub fn stored_len(&self) -> usize {
        self.meta.stored_len as usize
    }

    /// Dictionary slot the stored bytes need; 0 = none.
    pub fn dictionary(&self) -> u8 {
        self.meta.dictionary
    }

    /// Checks the header against the stored bytes' sum and the place the record was read from.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] when this record was not written there.
    pub fn verify(self, sum: u32, nonce: u64, offset: u64) -> Result<RecordMeta> {
        if check_of(&self.header[4..], sum, nonce, offset) != self.check {
            return Err(FormatError::Checksum);
        }
        Ok(self.meta)
    }
}
