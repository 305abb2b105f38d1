//! A segment that is being written.
//!
//! Owner: the writer, through its storage. Records go to a buffer and from there to the file, in whole pieces of the page
//! cache while more of them come, with what is left at the end of a batch; a seal ends the segment with its footer. A failed
//! write is forgotten record by record: what was written before it stands.

use std::path::PathBuf;

use super::segment::place_of;
use crate::cache::tier::cold::metadata_index::SizeClass;
use crate::cache::tier::cold::serialization::footer::{FooterRow, encode_footer};
use crate::cache::tier::cold::serialization::record::{RECORD_ALIGN, RecordMeta, append_record};
use crate::cache::tier::cold::serialization::segment::{
    SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use crate::io::{DiskFile, Pieces, WriteBack, whole_pieces};

/// What the first so many records come to.
#[derive(Clone, Copy)]
struct Extent {
    rows: usize,
    summary: SegmentSummary,
    /// What their values' size classes add up to.
    class_bytes: u64,
}

impl Extent {
    fn add(&mut self, meta: &RecordMeta, end: u64) {
        self.rows += 1;
        self.summary.add(meta);
        self.summary.records_end = end;
        if !meta.tombstone {
            self.class_bytes += SizeClass::of(meta.record_bytes()).bytes_estimate();
        }
    }
}

/// A segment that is being written.
pub(super) struct ActiveSegment<F> {
    pub identity: SegmentIdentity,
    pub slot: u32,
    pub path: PathBuf,
    /// Bytes of it that the ledger knows of.
    pub entered_bytes: u64,
    file: F,
    /// What is not in the file yet. It may begin within a record.
    buffer: Vec<u8>,
    /// Where the buffer goes.
    written: u64,
    write_back: WriteBack,
    rows: Vec<FooterRow>,
    /// All its records.
    all: Extent,
    /// Those that are in the file, whole: what a failed write falls back to.
    stored: Extent,
    /// Those that will be once the whole pieces of the buffer are written; `None` if it has none.
    in_pieces: Option<Extent>,
    /// It had records, but no whole piece, when others' were written.
    was_left_out: bool,
    /// Bytes wait for a sync.
    dirty: bool,
    /// A seal has begun: where its footer goes, and what that says once it is written. No record follows (W2).
    footer_at: Option<u64>,
    footed: Option<SegmentSummary>,
    /// Store time at which it is sealed whatever it holds; `u64::MAX` = only when it is full.
    pub seal_at_ms: u64,
}

/// What a write has made readable.
pub(super) struct Written {
    pub bytes: u64,
    /// Earliest expiry among the records; `u64::MAX` if none of them expires.
    pub expiry_min_ms: u64,
}

impl<F: DiskFile> ActiveSegment<F> {
    /// A segment whose header has just been written to `file`.
    pub fn new(
        identity: SegmentIdentity,
        slot: u32,
        path: PathBuf,
        file: F,
        (seal_at_ms, entered_bytes): (u64, u64),
    ) -> Self {
        let summary =
            SegmentSummary { records_end: SEGMENT_HEADER_BYTES as u64, ..SegmentSummary::default() };
        let nothing = Extent { rows: 0, summary, class_bytes: 0 };
        Self {
            identity,
            slot,
            path,
            entered_bytes,
            file,
            buffer: Vec::new(),
            written: SEGMENT_HEADER_BYTES as u64,
            write_back: WriteBack::default(),
            rows: Vec::new(),
            all: nothing,
            stored: nothing,
            in_pieces: None,
            was_left_out: false,
            dirty: true,
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

    /// Whether all its records are in the file.
    pub fn is_written(&self) -> bool {
        self.stored.rows == self.rows.len()
    }

    /// Whether a write of whole pieces would take something with it.
    pub fn has_pieces(&self) -> bool {
        self.in_pieces.is_some()
    }

    /// How long the file is, and rows of the records in it.
    pub fn in_file(&self) -> (u64, usize) {
        (self.written, self.stored.rows)
    }

    /// Its rows, those of the buffer included.
    pub fn rows(&self) -> &[FooterRow] {
        &self.rows
    }

    /// What it holds, the buffer included.
    pub fn summary(&self) -> &SegmentSummary {
        &self.all.summary
    }

    /// What of it is in the file, and what the size classes of its values add up to.
    pub fn stored(&self) -> (&SegmentSummary, u64) {
        (&self.stored.summary, self.stored.class_bytes)
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
        let end = self.end();
        let pieces_end = self.written + whole_pieces(self.written, self.buffer.len()) as u64;
        // A piece ends within the record: without its other half it does not count.
        if offset < pieces_end && pieces_end < end {
            self.in_pieces = Some(self.all);
        }
        self.all.add(meta, end);
        if pieces_end == end {
            self.in_pieces = Some(self.all);
        }
    }

    /// Writes the whole pieces that are in the buffer. Without any it is left out once, then written as it is: its records
    /// must not wait for as long as others come.
    pub fn write_pieces(&mut self, pieces: Pieces) -> Option<std::io::Result<Written>> {
        if let Some(extent) = self.in_pieces {
            return Some(self.write(whole_pieces(self.written, self.buffer.len()), extent, pieces));
        }
        if self.was_left_out {
            return Some(self.write_out(pieces));
        }
        self.was_left_out = !self.is_written();
        None
    }

    /// Writes the buffer.
    pub fn write_out(&mut self, pieces: Pieces) -> std::io::Result<Written> {
        self.write(self.buffer.len(), self.all, pieces)
    }

    fn write(&mut self, bytes: usize, extent: Extent, pieces: Pieces) -> std::io::Result<Written> {
        self.dirty = true;
        self.write_back.append(&self.file, &self.buffer[..bytes], self.written, pieces)?;
        self.written += bytes as u64;
        self.buffer.drain(..bytes);
        let new = &self.rows[self.stored.rows..extent.rows];
        let expiring = new.iter().map(|row| row.expires_at_ms).filter(|expires_at_ms| *expires_at_ms != 0);
        let expiry_min_ms = expiring.min().unwrap_or(u64::MAX);
        self.stored = extent;
        self.in_pieces = None;
        self.was_left_out = false;
        Ok(Written { bytes: bytes as u64, expiry_min_ms })
    }

    /// Forgets the records that are not in the file, and blanks what there is of them: a whole record there would be found
    /// by a recovery although its caller was told that it is lost. Returns the length of the file.
    pub fn discard(&mut self) -> std::io::Result<u64> {
        self.buffer.clear();
        self.rows.truncate(self.stored.rows);
        self.all = self.stored;
        (self.in_pieces, self.was_left_out) = (None, false);
        // Half a record may have been written before.
        self.written = self.stored.summary.records_end;
        let file_bytes = self.file.len()?;
        let left = file_bytes.saturating_sub(self.written);
        self.file.write_full_at(&vec![0; left as usize], self.written)?;
        Ok(file_bytes)
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
        let mut summary = self.all.summary;
        let footer_at = match self.footer_at {
            Some(footer_at) => footer_at,
            // A failed write may have left the file longer than its records; the footer goes to its very end.
            None => self.file.len()?.max(self.written).next_multiple_of(RECORD_ALIGN as u64),
        };
        self.footer_at = Some(footer_at);
        let footer = encode_footer(self.identity.nonce, footer_at, &self.rows, &mut summary);
        self.dirty = true;
        self.file.write_full_at(&footer, footer_at)?;
        self.footed = Some(summary);
        Ok((summary, footer.len() as u64))
    }
}
