//! A segment that is being written.
//!
//! Owner: the writer, through its storage. Records go to a buffer and from there to the file, one write a batch; a seal
//! ends the segment with its footer. A failed write is forgotten record by record: what was written before it stands.

use std::path::PathBuf;

use super::segment::place_of;
use crate::cache::tier::cold::metadata_index::SizeClass;
use crate::cache::tier::cold::serialization::footer::{FooterRow, encode_footer};
use crate::cache::tier::cold::serialization::record::{RECORD_ALIGN, RecordMeta, append_record};
use crate::cache::tier::cold::serialization::segment::{
    SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use crate::io::{DiskFile, WriteBack};

/// A segment that is being written.
pub(super) struct ActiveSegment<F> {
    pub identity: SegmentIdentity,
    pub slot: u32,
    pub path: PathBuf,
    file: F,
    /// Records that are not in the file yet.
    buffer: Vec<u8>,
    /// Where the buffer goes.
    written: u64,
    write_back: WriteBack,
    rows: Vec<FooterRow>,
    summary: SegmentSummary,
    /// As of the last write: what a failed write falls back to.
    written_rows: usize,
    written_summary: SegmentSummary,
    /// What its values' size classes add up to.
    class_bytes: u64,
    written_class_bytes: u64,
    /// Bytes wait for a sync.
    dirty: bool,
    /// Earliest expiry among the rows not published yet.
    expiry_min_ms: u64,
    /// A seal has begun: where its footer goes, and what that says once it is written. No record follows (W2).
    footer_at: Option<u64>,
    footed: Option<SegmentSummary>,
    /// Store time at which it is sealed whatever it holds; `u64::MAX` = only when it is full.
    pub seal_at_ms: u64,
}

impl<F: DiskFile> ActiveSegment<F> {
    /// A segment whose header has just been written to `file`.
    pub fn new(identity: SegmentIdentity, slot: u32, path: PathBuf, file: F, seal_at_ms: u64) -> Self {
        let summary =
            SegmentSummary { records_end: SEGMENT_HEADER_BYTES as u64, ..SegmentSummary::default() };
        Self {
            identity,
            slot,
            path,
            file,
            buffer: Vec::new(),
            written: SEGMENT_HEADER_BYTES as u64,
            write_back: WriteBack::default(),
            rows: Vec::new(),
            summary,
            written_rows: 0,
            written_summary: summary,
            class_bytes: 0,
            written_class_bytes: 0,
            dirty: true,
            expiry_min_ms: u64::MAX,
            footer_at: None,
            footed: None,
            seal_at_ms,
        }
    }

    /// Where the next record goes.
    pub fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Bytes in the buffer.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Whether it holds no records.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether bytes wait for a sync.
    pub fn is_dirty(&self) -> bool {
        self.dirty || !self.buffer.is_empty()
    }

    /// Rows of the records in the file.
    pub fn written_rows(&self) -> usize {
        self.written_rows
    }

    /// Its rows, those of the buffer included.
    pub fn rows(&self) -> &[FooterRow] {
        &self.rows
    }

    /// What it holds, the buffer included.
    pub fn summary(&self) -> &SegmentSummary {
        &self.summary
    }

    /// What of it is in the file.
    pub fn written_summary(&self) -> &SegmentSummary {
        &self.written_summary
    }

    /// What the size classes of its values add up to.
    pub fn class_bytes(&self) -> u64 {
        self.class_bytes
    }

    /// Whether a record of this size and sequence number needs another segment.
    pub fn is_full_for(&self, segment_bytes: u64, record_bytes: usize, sequence: u64) -> bool {
        let fits = self.end() + record_bytes as u64 <= segment_bytes || self.rows.is_empty();
        self.footer_at.is_some() || !fits || u32::try_from(sequence - self.identity.base_sequence).is_err()
    }

    /// Appends a record to the buffer.
    pub fn append(&mut self, hash: u64, meta: &RecordMeta, stored: &[u8], sum: u32) {
        let offset = self.end();
        append_record(&mut self.buffer, meta, stored, sum, place_of(&self.identity, offset));
        self.rows.push(FooterRow::new(hash, offset as u32, meta));
        self.summary.add(meta);
        self.summary.records_end = self.end();
        if !meta.tombstone {
            self.class_bytes += SizeClass::of(meta.record_bytes()).bytes_estimate();
        }
        if meta.expires_at_ms != 0 {
            self.expiry_min_ms = self.expiry_min_ms.min(meta.expires_at_ms);
        }
    }

    /// Writes the buffer: one write. Returns the bytes written and the earliest expiry among them.
    pub fn write_out(&mut self) -> std::io::Result<(u64, u64)> {
        self.dirty = true;
        self.file.write_full_at(&self.buffer, self.written)?;
        let bytes = self.buffer.len() as u64;
        self.written += bytes;
        self.write_back.appended(&self.file, self.written);
        self.buffer.clear();
        self.written_rows = self.rows.len();
        self.written_summary = self.summary;
        self.written_class_bytes = self.class_bytes;
        Ok((bytes, std::mem::replace(&mut self.expiry_min_ms, u64::MAX)))
    }

    /// Forgets the buffered records, and blanks what a failed write left of them in the file: a whole record there
    /// would be found by a recovery although its caller was told that it is lost.
    pub fn discard(&mut self) -> std::io::Result<()> {
        self.buffer.clear();
        self.rows.truncate(self.written_rows);
        self.summary = self.written_summary;
        self.class_bytes = self.written_class_bytes;
        self.expiry_min_ms = u64::MAX;
        let left = self.file.len()?.saturating_sub(self.written);
        self.file.write_full_at(&vec![0; left as usize], self.written)
    }

    /// Makes what is written durable.
    pub fn sync(&mut self) -> std::io::Result<()> {
        if self.dirty {
            self.file.sync()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Writes the footer behind the records, once; returns the final summary and the bytes written. The buffer must be
    /// empty. What fails is tried again in the same place.
    pub fn write_footer(&mut self) -> std::io::Result<(SegmentSummary, u64)> {
        if let Some(summary) = self.footed {
            return Ok((summary, 0));
        }
        let mut summary = self.summary;
        let footer_at = match self.footer_at {
            Some(footer_at) => footer_at,
            // A failed write may have left the file longer than its records; the footer goes to its very end.
            None => self.file.len()?.max(self.written).next_multiple_of(RECORD_ALIGN as u64),
        };
        self.footer_at = Some(footer_at);
        let SegmentIdentity { segment_id, nonce, .. } = self.identity;
        let footer = encode_footer(segment_id, nonce, footer_at, &self.rows, &mut summary);
        self.dirty = true;
        self.file.write_full_at(&footer, footer_at)?;
        self.footed = Some(summary);
        Ok((summary, footer.len() as u64))
    }
}
