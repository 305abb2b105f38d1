//! Reading segments: one record, a footer, or every record of a segment that has no footer.
//!
//! Whatever is returned has passed its checksum for the very place it was read from.

use std::io;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::spread::{spread, threads_for};
use crate::cache::tier::cold::compression::{CodecId, FRAME_ROOM, decompress};
use crate::cache::tier::cold::courtesy::let_others_in;
use crate::cache::tier::cold::dictionary::DictionaryTable;
use crate::cache::tier::cold::serialization::footer::{FooterRow, TRAILER_BYTES, VerifiedTrailer};
use crate::cache::tier::cold::serialization::record::{
    Place, RECORD_ALIGN, RECORD_HEADER_BYTES_MAX, RECORD_HEADER_BYTES_MIN, RecordMeta, UnverifiedRecord,
    payload_sum,
};
use crate::cache::tier::cold::serialization::segment::{
    SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use crate::cache::tier::cold::serialization::{FormatError, Result as FormatResult};
use crate::io::DiskFile;

// What the decoder wants in front of the stored bytes is taken from the header.
const _: () = assert!(FRAME_ROOM <= RECORD_HEADER_BYTES_MIN);

/// Longest segment file: one largest record in a segment of its own, and its footer.
const SEGMENT_FILE_BYTES_MAX: u64 = 256 << 20;
/// Behind a damaged record, the next one is looked for among records up to this size.
const RESYNC_RECORD_BYTES: usize = 64 << 10;

/// A segment is read back in pieces of so many bytes, and of so many if several threads work at each.
const READ_BACK_BYTES: u64 = 32 << 10;
const READ_BACK_SHARED_BYTES: u64 = 8 << 20;

/// Records whose keys a thread decodes before it looks for more.
const RECORDS_A_PART: usize = 4096;

/// A record that has passed its checks, still in the buffer it was read into.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedRecord {
    /// What its header says.
    pub meta: RecordMeta,
    /// Its payload sum, to go with it when it is moved.
    pub sum: u32,
}

/// Why a record could not be had.
#[derive(Debug)]
pub enum ReadError {
    /// The operating system refused.
    Io(io::Error),
    /// The bytes are not a record that was written there.
    Damaged(FormatError),
}

impl From<FormatError> for ReadError {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error)
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Damaged(error) => error.fmt(f),
        }
    }
}

/// Hash of a key: 60 of its bits identify the entry.
pub fn key_hash(key: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// Place of a record in a segment.
pub fn place_of(identity: &SegmentIdentity, offset: u64) -> Place {
    Place { nonce: identity.nonce, base_sequence: identity.base_sequence, offset }
}

/// Reads the record at `offset` into `buffer` (grown as needed, never shrunk): one read of `bytes_hint` bytes if the
/// record is no larger than that, otherwise a second one.
pub fn read_record<F: DiskFile>(
    file: &F,
    identity: &SegmentIdentity,
    offset: u32,
    bytes_hint: usize,
    buffer: &mut Vec<u8>,
    dictionaries: &DictionaryTable,
) -> Result<VerifiedRecord, ReadError> {
    let read = |buffer: &mut [u8], offset| file.read_full_at(buffer, offset);
    read_record_by(read, identity, offset, bytes_hint, buffer, dictionaries)
}

/// As [`read_record`], by `read`: like [`DiskFile::read_full_at`], it fills a buffer from an offset of the segment on.
pub fn read_record_by(
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    identity: &SegmentIdentity,
    offset: u32,
    bytes_hint: usize,
    buffer: &mut Vec<u8>,
    dictionaries: &DictionaryTable,
) -> Result<VerifiedRecord, ReadError> {
    let hint = bytes_hint.max(RECORD_HEADER_BYTES_MAX);
    if buffer.len() < hint {
        buffer.resize(hint, 0);
    }
    let mut got = read(&mut buffer[..hint], offset.into()).map_err(ReadError::Io)?;
    let record = UnverifiedRecord::parse(&buffer[..got], identity.base_sequence)?;
    let end = record.stored_range().end;
    if end > got && got == hint {
        if buffer.len() < end {
            buffer.resize(end, 0);
        }
        let rest = read(&mut buffer[got..end], u64::from(offset) + got as u64);
        got += rest.map_err(ReadError::Io)?;
    }
    Ok(verify_at(record, &buffer[..got], identity, offset.into(), dictionaries)?)
}

/// Checks the record that `bytes` starts with.
fn verify_at(
    record: UnverifiedRecord,
    bytes: &[u8],
    identity: &SegmentIdentity,
    offset: u64,
    dictionaries: &DictionaryTable,
) -> FormatResult<VerifiedRecord> {
    let stored = bytes.get(record.stored_range()).ok_or(FormatError::Short)?;
    let dictionary_id = match record.dictionary() {
        0 => 0,
        slot => {
            dictionaries.read(slot).as_ref().ok_or(FormatError::Invalid("dictionary: it is missing"))?.id()
        }
    };
    let sum = payload_sum(dictionary_id, stored);
    let meta = record.verify(sum, identity.nonce, offset)?;
    Ok(VerifiedRecord { meta, sum })
}

/// Key and value of a verified record, decoded into `raw`. `bytes` is what [`read_record`] filled; the end of the
/// header in it is overwritten.
pub fn decode_record(
    meta: &RecordMeta,
    bytes: &mut [u8],
    dictionaries: &DictionaryTable,
    raw: &mut Vec<u8>,
) -> FormatResult<()> {
    let codec = CodecId::from_u8(meta.codec).ok_or(FormatError::Invalid("codec"))?;
    let Range { start, end } = meta.stored_range();
    let framed = bytes.get_mut(start - FRAME_ROOM..end).ok_or(FormatError::Short)?;
    let guard = (meta.dictionary != 0).then(|| dictionaries.read(meta.dictionary));
    let dictionary = guard.as_ref().and_then(|guard| guard.as_ref());
    decompress(codec, dictionary, framed, meta.raw_len as usize, raw)
        .map_err(|_| FormatError::Invalid("compressed bytes"))
}

/// Reads and checks a segment's footer.
pub fn read_footer<F: DiskFile>(
    file: &F,
    identity: &SegmentIdentity,
) -> Result<(SegmentSummary, Vec<FooterRow>), ReadError> {
    let trailer = read_trailer(file, identity)?;
    let (offset, len) = trailer.rows_at();
    let mut bytes = vec![0; len];
    let got = file.read_full_at(&mut bytes, offset).map_err(ReadError::Io)?;
    Ok(trailer.decode_rows(&bytes[..got])?)
}

fn read_trailer<F: DiskFile>(file: &F, identity: &SegmentIdentity) -> Result<VerifiedTrailer, ReadError> {
    let len = file.len().map_err(ReadError::Io)?;
    let offset = len.checked_sub(TRAILER_BYTES as u64).ok_or(FormatError::Short)?;
    let mut bytes = [0; TRAILER_BYTES];
    let got = file.read_full_at(&mut bytes, offset).map_err(ReadError::Io)?;
    Ok(VerifiedTrailer::decode(&bytes[..got], identity.nonce, len)?)
}

/// What reading all records of a segment found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The rows its footer has, or would have.
    pub rows: Vec<FooterRow>,
    /// What they add up to; `records_end` is the end of the last whole record.
    pub summary: SegmentSummary,
    /// Places where bytes were no record although records follow.
    pub damaged: u64,
    /// Bytes that belong to no whole record.
    pub torn_bytes: u64,
    /// Offset up to which whole records follow each other without a gap.
    pub gapless_end: u64,
    /// Records whose key could not be decoded; they are in no row.
    pub undecodable: u64,
}

/// Reads every record of a segment without its footer's help. Bytes that are no record are stepped over.
pub fn scan_records<F: DiskFile>(
    file: &F,
    identity: &SegmentIdentity,
    hash_seed: u64,
    dictionaries: &DictionaryTable,
) -> io::Result<Scan> {
    scan_records_on(1, file, identity, hash_seed, dictionaries)
}

/// As [`scan_records`], on up to so many threads: most of the time goes into decompressing records for their keys.
pub fn scan_records_on<F: DiskFile>(
    threads: usize,
    file: &F,
    identity: &SegmentIdentity,
    hash_seed: u64,
    dictionaries: &DictionaryTable,
) -> io::Result<Scan> {
    // What is longer than any segment can be is not all ours: its start may be.
    let mut bytes = vec![0; file.len()?.min(SEGMENT_FILE_BYTES_MAX) as usize];
    let got = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(got);
    let records = whole_records(&bytes, identity, dictionaries);
    let threads = threads.min(threads_for(records.len()));
    let hashes = key_hashes(threads, &mut bytes, &records, hash_seed, dictionaries);
    let mut scan = Scan::default();
    scan.summary.records_end = SEGMENT_HEADER_BYTES as u64;
    scan.gapless_end = scan.summary.records_end;
    for ((at, meta), hash) in records.iter().zip(hashes) {
        if *at as u64 != scan.summary.records_end {
            scan.damaged += 1;
            scan.torn_bytes += *at as u64 - scan.summary.records_end;
        }
        match hash {
            Some(hash) => {
                scan.summary.add(meta);
                scan.rows.push(FooterRow::new(hash, *at as u32, meta));
            }
            None => scan.undecodable += 1,
        }
        let end = (at + meta.record_bytes()) as u64;
        if scan.gapless_end == *at as u64 && scan.undecodable == 0 {
            scan.gapless_end = end;
        }
        scan.summary.records_end = end;
    }
    scan.torn_bytes += (bytes.len() as u64).saturating_sub(scan.summary.records_end);
    Ok(scan)
}

/// Whether the records of a segment are those of its footer's rows, whole, without a gap and up to `records_end`: whether a
/// scan would find just these. Up to so many threads decompress them for their keys; one alone lets in who waits for its
/// processor again and again.
pub fn reads_back<F: DiskFile>(
    threads: usize,
    file: &F,
    identity: &SegmentIdentity,
    (rows, records_end): (&[FooterRow], u64),
    hash_seed: u64,
    dictionaries: &DictionaryTable,
) -> io::Result<bool> {
    let threads = threads.min(threads_for(rows.len()));
    let piece_bytes = if threads > 1 { READ_BACK_SHARED_BYTES } else { READ_BACK_BYTES };
    let (mut bytes, mut at, mut next) = (Vec::new(), SEGMENT_HEADER_BYTES as u64, 0);
    while next < rows.len() {
        let first = next;
        while next < rows.len() && (next == first || u64::from(rows[next].offset) < at + piece_bytes) {
            next += 1;
        }
        let end = rows.get(next).map_or(records_end, |row| row.offset.into());
        bytes.resize(end.saturating_sub(at) as usize, 0);
        let got = file.read_full_at(&mut bytes, at)?;
        if !piece_reads_back(
            threads,
            &mut bytes[..got],
            (identity, at),
            &rows[first..next],
            hash_seed,
            dictionaries,
        ) {
            return Ok(false);
        }
        at = end;
        if threads == 1 {
            let_others_in();
        }
    }
    Ok(at == records_end)
}

fn piece_reads_back(
    threads: usize,
    bytes: &mut [u8],
    (identity, start): (&SegmentIdentity, u64),
    rows: &[FooterRow],
    hash_seed: u64,
    dictionaries: &DictionaryTable,
) -> bool {
    let mut records = Vec::with_capacity(rows.len());
    let mut at = 0;
    for _ in rows {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(record) = record_at(rest, identity, start + at as u64, dictionaries, true) else {
            return false;
        };
        records.push((at, record.meta));
        at += record.meta.record_bytes();
    }
    let hashes = key_hashes(threads, bytes, &records, hash_seed, dictionaries);
    let found = records
        .iter()
        .zip(hashes)
        .map(|((at, meta), hash)| hash.map(|hash| FooterRow::new(hash, (start + *at as u64) as u32, meta)));
    at == bytes.len() && found.eq(rows.iter().copied().map(Some))
}

/// The records of a segment that pass their checks, each with its offset, in order.
fn whole_records(
    bytes: &[u8],
    identity: &SegmentIdentity,
    dictionaries: &DictionaryTable,
) -> Vec<(usize, RecordMeta)> {
    let mut records = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    let mut in_step = true;
    while at + RECORD_HEADER_BYTES_MIN < bytes.len() {
        let record = record_at(&bytes[at..], identity, at as u64, dictionaries, in_step);
        in_step = record.is_some();
        match record {
            Some(record) => {
                records.push((at, record.meta));
                at += record.meta.record_bytes();
            }
            None => at += RECORD_ALIGN,
        }
    }
    records
}

/// The hash of each record's key; none where it cannot be decoded.
fn key_hashes(
    threads: usize,
    bytes: &mut [u8],
    records: &[(usize, RecordMeta)],
    hash_seed: u64,
    dictionaries: &DictionaryTable,
) -> Vec<Option<u64>> {
    let mut hashes = vec![None; records.len()];
    let (mut rest, mut rest_at) = (bytes, 0);
    let parts: Vec<_> = records
        .chunks(RECORDS_A_PART)
        .zip(hashes.chunks_mut(RECORDS_A_PART))
        .map(|(records, hashes)| {
            let (last_at, last) = records.last().expect("no chunk is empty");
            let end = (last_at + last.record_bytes() - rest_at).min(rest.len());
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(end);
            let part_at = rest_at;
            (rest, rest_at) = (behind, part_at + end);
            (part_at, part, records, hashes)
        })
        .collect();
    let hash_part = |raw: &mut Vec<u8>, (part_at, part, records, hashes): (usize, &mut [u8], _, &mut [_])| {
        let records: &[(usize, RecordMeta)] = records;
        for ((at, meta), hash) in records.iter().zip(hashes) {
            let start = at - part_at;
            let end = (start + meta.record_bytes()).min(part.len());
            if decode_record(meta, &mut part[start..end], dictionaries, raw).is_ok() {
                *hash = Some(key_hash(&raw[..meta.key_len as usize], hash_seed));
            }
        }
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(_) = spread(parts, threads, Vec::new, hash_part);
    hashes
}

/// The record that `bytes` starts with, if it is one. Out of step, only records of modest size are considered: every
/// place tried costs a checksum over the length it claims.
fn record_at(
    bytes: &[u8],
    identity: &SegmentIdentity,
    offset: u64,
    dictionaries: &DictionaryTable,
    in_step: bool,
) -> Option<VerifiedRecord> {
    let record = UnverifiedRecord::parse(bytes, identity.base_sequence).ok()?;
    if !in_step && record.record_bytes() > RESYNC_RECORD_BYTES {
        return None;
    }
    verify_at(record, bytes, identity, offset, dictionaries).ok()
}

/// Bytes each row's record takes at most: up to the next row, or to the end of the records.
pub fn row_bytes(rows: &[FooterRow], at: usize, records_end: u64) -> usize {
    let end = rows.get(at + 1).map_or(records_end, |next| next.offset.into());
    (end - u64::from(rows[at].offset)) as usize
}
