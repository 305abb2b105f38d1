//! The footer of a sealed segment: one compact row a record, so that recovery, expiry and compaction know every
//! record without reading it.
//!
//! Rows are packed in blocks of up to 128, each column as wide as the block needs (frame of reference): what identifies
//! the key of its hash, then flags, offset, sequence number and expiry as bit-packed differences. About 12 bytes a row.

use wincode::{SchemaRead, SchemaWrite};

use super::bits::{BitReader, BitWriter, width_of};
use super::record::{RECORD_ALIGN, RecordMeta};
use super::segment::SegmentSummary;
use super::{BLOCK_OVERHEAD, FormatError, Result, decode, encode, open_block, seal_block};

const MAGIC: &[u8; 8] = b"LARDFTR1";
const BLOCK_ROWS: usize = 128;
const BLOCK_HEADER_BYTES: usize = 24;
/// The upper bytes of a hash: those that identify an entry.
const HASH_BYTES: usize = 7;
const FLAG_BITS: u32 = 3;

/// One record, as the footer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterRow {
    /// Hash of the key, its last byte 0: nothing depends on that.
    pub hash: u64,
    /// Sequence number.
    pub sequence: u64,
    /// Expiry, unix ms; 0 = never.
    pub expires_at_ms: u64,
    /// Offset of the record in the segment.
    pub offset: u32,
    /// A deletion.
    pub tombstone: bool,
    /// Nothing of this key was known when it was written.
    pub first: bool,
    /// Whatever older of the key is on disk expires no later than this.
    pub outlasts: bool,
}

impl FooterRow {
    /// The row of a record.
    pub fn new(hash: u64, offset: u32, meta: &RecordMeta) -> Self {
        Self {
            hash: hash & !0xff,
            sequence: meta.sequence,
            expires_at_ms: meta.expires_at_ms,
            offset,
            tombstone: meta.tombstone,
            first: meta.first,
            outlasts: meta.outlasts,
        }
    }

    /// Whether its time has passed.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms != 0 && self.expires_at_ms <= now_ms
    }

    /// Whether its disappearance could expose an older version of the key.
    pub fn is_shadow(&self) -> bool {
        self.tombstone || !self.first
    }

    /// Whether something older of the key may still be in force when it has expired.
    pub fn is_exposing(&self) -> bool {
        self.is_shadow() && !self.outlasts
    }

    /// Whether nothing older of the key can come back once it has expired.
    pub fn ends_its_key(&self) -> bool {
        self.first || self.outlasts
    }
}

/// What ends the file: of the summary, what the rows do not tell.
#[derive(Clone, Copy, Debug, SchemaWrite, SchemaRead)]
struct Trailer {
    nonce: u64,
    records_end: u64,
    raw_bytes: u64,
    payload_bytes: u64,
    dictionaries: [u64; 4],
    rows_bytes: u32,
    rows_check: u32,
}

/// Bytes of the trailer that ends a sealed segment.
pub const TRAILER_BYTES: usize = BLOCK_OVERHEAD + 8 + 8 + 8 + 8 + 32 + 4 + 4;

/// The footer's bytes, to be written at `footer_at`: the end of the records, or, behind a torn end that was cut, the
/// end of the file. Sets the summary's `file_bytes`.
pub fn encode_footer(
    nonce: u64,
    footer_at: u64,
    rows: &[FooterRow],
    summary: &mut SegmentSummary,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 16 + TRAILER_BYTES);
    for block in rows.chunks(BLOCK_ROWS) {
        encode_block(block, &mut out);
    }
    assert!(footer_at >= summary.records_end, "a footer never covers records");
    summary.file_bytes = footer_at + (out.len() + TRAILER_BYTES) as u64;
    let rows_bytes = u32::try_from(out.len()).expect("a segment's rows take less than 4 GiB");
    let SegmentSummary { records_end, raw_bytes, payload_bytes, dictionaries, .. } = *summary;
    let rows_check = crc32c::crc32c(&out);
    let trailer =
        Trailer { nonce, records_end, raw_bytes, payload_bytes, dictionaries, rows_bytes, rows_check };
    let trailer = seal_block(MAGIC, &encode(&trailer));
    assert_eq!(trailer.len(), TRAILER_BYTES, "the trailer's size is part of the format");
    out.extend_from_slice(&trailer);
    out
}

/// The end of a sealed segment, verified; its rows are still to be read.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedTrailer {
    trailer: Trailer,
    file_bytes: u64,
}

impl VerifiedTrailer {
    /// Reads the last [`TRAILER_BYTES`] of a segment file.
    ///
    /// # Errors
    /// When they are no trailer of this very segment, or damaged.
    pub fn decode(bytes: &[u8], nonce: u64, file_bytes: u64) -> Result<Self> {
        let trailer: Trailer = decode(open_block(MAGIC, bytes)?)?;
        if trailer.nonce != nonce {
            return Err(FormatError::Invalid("footer: it belongs to another segment"));
        }
        let footer_bytes = u64::from(trailer.rows_bytes) + TRAILER_BYTES as u64;
        if file_bytes.checked_sub(footer_bytes) < Some(trailer.records_end) {
            return Err(FormatError::Invalid("footer length"));
        }
        Ok(Self { trailer, file_bytes })
    }

    /// Where the rows are: offset and length.
    pub fn rows_at(&self) -> (u64, usize) {
        let rows_bytes = self.trailer.rows_bytes;
        (self.file_bytes - u64::from(rows_bytes) - TRAILER_BYTES as u64, rows_bytes as usize)
    }

    /// Reads the rows, given their bytes, and what the segment holds.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn decode_rows(&self, bytes: &[u8]) -> Result<(SegmentSummary, Vec<FooterRow>)> {
        let Trailer { records_end, raw_bytes, payload_bytes, dictionaries, .. } = self.trailer;
        if bytes.len() != self.trailer.rows_bytes as usize || crc32c::crc32c(bytes) != self.trailer.rows_check
        {
            return Err(FormatError::Checksum);
        }
        // A row takes seven bytes at least.
        let mut rows = Vec::with_capacity(bytes.len() / HASH_BYTES);
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = decode_block(rest, &mut rows)?;
            rest = &rest[used..];
        }
        let ascending = rows.windows(2).all(|pair| pair[0].offset < pair[1].offset);
        if !ascending || rows.last().is_some_and(|last| u64::from(last.offset) >= records_end) {
            return Err(FormatError::Invalid("row offsets"));
        }
        let file_bytes = self.file_bytes;
        let mut summary = SegmentSummary {
            records_end,
            file_bytes,
            raw_bytes,
            payload_bytes,
            dictionaries,
            ..SegmentSummary::default()
        };
        rows.iter().for_each(|row| summary.add_row(row));
        Ok((summary, rows))
    }
}

/// Block header: rows, widths of the three columns, then the values the columns count from.
fn encode_block(rows: &[FooterRow], out: &mut Vec<u8>) {
    let unit = |offset: u32| u64::from(offset) / RECORD_ALIGN as u64;
    let base_sequence = rows.iter().map(|row| row.sequence).min().unwrap_or(0);
    let base_expiry =
        rows.iter().map(|row| row.expires_at_ms).filter(|expiry| *expiry != 0).min().unwrap_or(0);
    let expiry_column = |row: &FooterRow| match row.expires_at_ms {
        0 => 0,
        expiry => expiry - base_expiry + 1,
    };
    let steps = || {
        rows.iter().scan(unit(rows[0].offset), |last, row| {
            Some(unit(row.offset) - std::mem::replace(last, unit(row.offset)))
        })
    };
    let widths = [
        width_of(steps().max().unwrap_or(0)),
        width_of(rows.iter().map(|row| row.sequence - base_sequence).max().unwrap_or(0)),
        width_of(rows.iter().map(expiry_column).max().unwrap_or(0)),
    ];
    out.push((rows.len() - 1) as u8);
    out.extend(widths.map(|width| width as u8));
    out.extend_from_slice(&(unit(rows[0].offset) as u32).to_le_bytes());
    out.extend_from_slice(&base_sequence.to_le_bytes());
    out.extend_from_slice(&base_expiry.to_le_bytes());
    for row in rows {
        out.extend_from_slice(&row.hash.to_le_bytes()[8 - HASH_BYTES..]);
    }
    let mut columns = BitWriter::new(out);
    for (row, step) in rows.iter().zip(steps()) {
        columns.put(flags_of(row), FLAG_BITS);
        columns.put(step, widths[0]);
        columns.put(row.sequence - base_sequence, widths[1]);
        columns.put(expiry_column(row), widths[2]);
    }
    columns.finish();
}

/// A hash from its upper bytes.
fn hash_of(upper: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[8 - HASH_BYTES..].copy_from_slice(upper);
    u64::from_le_bytes(bytes)
}

fn flags_of(row: &FooterRow) -> u64 {
    u64::from(row.tombstone) | u64::from(row.first) << 1 | u64::from(row.outlasts) << 2
}

/// Appends the rows of the block at the start of `bytes`; returns the bytes it took.
fn decode_block(bytes: &[u8], rows: &mut Vec<FooterRow>) -> Result<usize> {
    let header = bytes.first_chunk::<BLOCK_HEADER_BYTES>().ok_or(FormatError::Short)?;
    let count = usize::from(header[0]) + 1;
    let widths = [header[1], header[2], header[3]].map(u32::from);
    if count > BLOCK_ROWS || widths.iter().any(|width| *width > 64) {
        return Err(FormatError::Invalid("footer block"));
    }
    let word = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("inside the block header"));
    let (base_sequence, base_expiry) = (word(8), word(16));
    let mut unit = u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
    let columns_at = BLOCK_HEADER_BYTES + count * HASH_BYTES;
    let hashes = bytes.get(BLOCK_HEADER_BYTES..columns_at).ok_or(FormatError::Short)?;
    let mut columns = BitReader::new(&bytes[columns_at..]);
    for hash in hashes.chunks_exact(HASH_BYTES) {
        let flags = columns.take(FLAG_BITS)?;
        let step = columns.take(widths[0])?;
        unit = unit.checked_add(step).ok_or(FormatError::Invalid("row offset"))?;
        let sequence = base_sequence.wrapping_add(columns.take(widths[1])?);
        let expires_at_ms = match columns.take(widths[2])? {
            0 => 0,
            step => base_expiry.wrapping_add(step - 1),
        };
        let offset = unit.checked_mul(RECORD_ALIGN as u64).and_then(|offset| u32::try_from(offset).ok());
        rows.push(FooterRow {
            hash: hash_of(hash),
            sequence,
            expires_at_ms,
            offset: offset.ok_or(FormatError::Invalid("row offset"))?,
            tombstone: flags & 1 != 0,
            first: flags & 2 != 0,
            outlasts: flags & 4 != 0,
        });
    }
    Ok(columns_at + columns.bytes_read())
}
