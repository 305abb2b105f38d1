//! One record: a header of 15 to 26 bytes in bincode's fixed-width layout, the stored bytes, padding to 4.
//!
//! The header has one of four shapes: lengths in 5 bytes or, of long keys and values, in 10; an expiry of 6 bytes or none.
//! Which, the record's raw length, key length and expiry alone decide, so that its size is known before it is encoded, and a
//! header of another shape than its fields ask for is damage.
//!
//! One stored checksum does the work of two. The *payload sum* (dictionary content and stored bytes) is computed by
//! the caller and goes with the record through the queue and through relocations; the *check* in the header is seeded
//! with the segment's nonce and the offset and covers the header and the payload sum. So a record that lies where it
//! was not written fails, and a relocation passes on the sum it verified instead of computing a new one over bytes
//! that may have changed in memory.

use std::ops::Range;

use wincode::{SchemaRead, SchemaWrite};

use super::{FormatError, Result, decode, encode_into};
use crate::config::{KEY_BYTES_LIMIT, VALUE_BYTES_LIMIT};

/// Records start at multiples of this.
pub const RECORD_ALIGN: usize = 4;
/// Bytes of the smallest header.
pub const RECORD_HEADER_BYTES_MIN: usize = START_BYTES + SHORT_BYTES;
/// Bytes of the largest header.
pub const RECORD_HEADER_BYTES_MAX: usize = START_BYTES + LONG_BYTES + EXPIRY_BYTES;

/// Largest raw length (key and value) a record may name; what is larger is damage.
pub const RAW_BYTES_LIMIT: usize = KEY_BYTES_LIMIT + VALUE_BYTES_LIMIT;

/// What every header starts with.
#[derive(SchemaWrite, SchemaRead)]
struct Start {
    check: u32,
    sequence_delta: u32,
    /// Flags in bits 0 to 4, the codec in bits 5 to 7.
    flags: u8,
    dictionary: u8,
}

const START_BYTES: usize = 10;
const TOMBSTONE: u8 = 1;
const FIRST: u8 = 1 << 1;
const OUTLASTS: u8 = 1 << 2;
/// An expiry follows the lengths.
const EXPIRES: u8 = 1 << 3;
/// The lengths are [`LongLengths`].
const LONG: u8 = 1 << 4;
const CODEC_SHIFT: u32 = 5;

/// Lengths of keys up to 256 bytes and raw lengths up to 65,535.
#[derive(SchemaWrite, SchemaRead)]
struct ShortLengths {
    key_less_one: u8,
    stored: u16,
    raw: u16,
}

const SHORT_BYTES: usize = 5;

/// All other lengths.
#[derive(SchemaWrite, SchemaRead)]
struct LongLengths {
    key_less_one: u16,
    stored: u32,
    raw: u32,
}

const LONG_BYTES: usize = 10;

/// 48 bits of unix ms, behind the lengths.
const EXPIRY_BYTES: usize = 6;

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

    fn has_long_lengths(&self) -> bool {
        self.key_len > 1 << 8 || self.raw_len > u32::from(u16::MAX)
    }

    /// Bytes of its header.
    pub fn header_bytes(&self) -> usize {
        header_bytes(self.has_long_lengths(), self.expires_at_ms != 0)
    }

    /// Where in the record its stored bytes lie.
    pub fn stored_range(&self) -> Range<usize> {
        let start = self.header_bytes();
        start..start + self.stored_len as usize
    }

    /// Bytes the record takes in a segment.
    pub fn record_bytes(&self) -> usize {
        self.stored_range().end.next_multiple_of(RECORD_ALIGN)
    }
}

fn header_bytes(is_long: bool, expires: bool) -> usize {
    let lengths = if is_long { LONG_BYTES } else { SHORT_BYTES };
    START_BYTES + lengths + if expires { EXPIRY_BYTES } else { 0 }
}

/// Checksum of the stored bytes and of the dictionary they need (0 = none).
pub fn payload_sum(dictionary_id: u64, stored: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&dictionary_id.to_le_bytes()), stored)
}

/// The payload sum goes in front of the header. Behind it, a CRC takes it in as if the payload's end lay over the header's,
/// and the same flaw in both would cancel out.
fn check_of(header: &[u8], payload_sum: u32, nonce: u64, offset: u64) -> u32 {
    let mut seed = [0; 20];
    seed[..8].copy_from_slice(&nonce.to_le_bytes());
    seed[8..16].copy_from_slice(&offset.to_le_bytes());
    seed[16..].copy_from_slice(&payload_sum.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), header)
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
    assert!(meta.codec < 1 << 3, "three bits name the codec");
    let delta = meta.sequence.checked_sub(place.base_sequence).and_then(|delta| u32::try_from(delta).ok());
    let mut bytes = [0; RECORD_HEADER_BYTES_MAX];
    let header = &mut bytes[..meta.header_bytes()];
    put_header(meta, delta.expect("the sequence number fits the segment"), header);
    let check = check_of(&header[4..], sum, place.nonce, place.offset);
    header[..4].copy_from_slice(&check.to_le_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(stored);
    out.resize(out.len().next_multiple_of(RECORD_ALIGN), 0);
}

/// A header but for its check.
fn put_header(meta: &RecordMeta, sequence_delta: u32, place: &mut [u8]) {
    let (expires, is_long) = (meta.expires_at_ms != 0, meta.has_long_lengths());
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(meta.tombstone, TOMBSTONE)
        | flag(meta.first, FIRST)
        | flag(meta.outlasts, OUTLASTS)
        | flag(expires, EXPIRES)
        | flag(is_long, LONG)
        | meta.codec << CODEC_SHIFT;
    let (start, rest) = place.split_at_mut(START_BYTES);
    encode_into(&Start { check: 0, sequence_delta, flags, dictionary: meta.dictionary }, start);
    let (key_less_one, stored, raw) = (meta.key_len - 1, meta.stored_len, meta.raw_len);
    let (lengths, expiry) = rest.split_at_mut(if is_long { LONG_BYTES } else { SHORT_BYTES });
    if is_long {
        encode_into(&LongLengths { key_less_one: key_less_one as u16, stored, raw }, lengths);
    } else {
        let (key_less_one, stored, raw) = (key_less_one as u8, stored as u16, raw as u16);
        encode_into(&ShortLengths { key_less_one, stored, raw }, lengths);
    }
    let expiry_len = expiry.len();
    expiry.copy_from_slice(&meta.expires_at_ms.to_le_bytes()[..expiry_len]);
}

/// A record header nobody has vouched for: its lengths may be trusted to read bytes with, nothing more.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedRecord {
    meta: RecordMeta,
    check: u32,
    header: [u8; RECORD_HEADER_BYTES_MAX],
}

impl UnverifiedRecord {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// When a field holds what was never written.
    pub fn parse(bytes: &[u8], base_sequence: u64) -> Result<Self> {
        let (start, rest) = bytes.split_first_chunk::<START_BYTES>().ok_or(FormatError::Short)?;
        let start: Start = decode(start)?;
        let (expires, is_long) = (start.flags & EXPIRES != 0, start.flags & LONG != 0);
        let (lengths, rest) = if is_long {
            let (lengths, rest) = rest.split_first_chunk::<LONG_BYTES>().ok_or(FormatError::Short)?;
            (decode(lengths)?, rest)
        } else {
            let (lengths, rest) = rest.split_first_chunk::<SHORT_BYTES>().ok_or(FormatError::Short)?;
            let ShortLengths { key_less_one, stored, raw } = decode(lengths)?;
            let (key_less_one, stored, raw) = (key_less_one.into(), stored.into(), raw.into());
            (LongLengths { key_less_one, stored, raw }, rest)
        };
        let mut expires_at_ms = [0; 8];
        if expires {
            let expiry = rest.first_chunk::<EXPIRY_BYTES>().ok_or(FormatError::Short)?;
            expires_at_ms[..EXPIRY_BYTES].copy_from_slice(expiry);
        }
        let meta = RecordMeta {
            sequence: base_sequence.saturating_add(start.sequence_delta.into()),
            expires_at_ms: u64::from_le_bytes(expires_at_ms),
            key_len: u32::from(lengths.key_less_one) + 1,
            raw_len: lengths.raw,
            stored_len: lengths.stored,
            codec: start.flags >> CODEC_SHIFT,
            dictionary: start.dictionary,
            tombstone: start.flags & TOMBSTONE != 0,
            first: start.flags & FIRST != 0,
            outlasts: start.flags & OUTLASTS != 0,
        };
        if meta.raw_len as usize > RAW_BYTES_LIMIT || meta.raw_len < meta.key_len {
            return Err(FormatError::Invalid("raw length"));
        }
        if meta.stored_len == 0 || meta.stored_len > meta.raw_len {
            return Err(FormatError::Invalid("stored length"));
        }
        if (meta.expires_at_ms != 0, meta.has_long_lengths()) != (expires, is_long) {
            return Err(FormatError::Invalid("record header's shape"));
        }
        let mut header = [0; RECORD_HEADER_BYTES_MAX];
        let header_bytes = meta.header_bytes();
        header[..header_bytes].copy_from_slice(&bytes[..header_bytes]);
        Ok(Self { meta, check: start.check, header })
    }

    /// Where in the record its stored bytes are said to lie.
    pub fn stored_range(&self) -> Range<usize> {
        self.meta.stored_range()
    }

    /// Bytes it is said to take in a segment.
    pub fn record_bytes(&self) -> usize {
        self.meta.record_bytes()
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
        if check_of(&self.header[4..self.meta.header_bytes()], sum, nonce, offset) != self.check {
            return Err(FormatError::Checksum);
        }
        Ok(self.meta)
    }
}
