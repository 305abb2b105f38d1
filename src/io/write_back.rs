//! What is appended to a file is written out bit by bit, not all at once by the sync at its end.
//!
//! A disk serves what it is asked for in turn, and a sync asks for everything at once: a disk of
//! 1 GB/s has nothing else to do for 60 ms with the 64 MiB of a segment, and reads wait. Little by little the same bytes keep it for
//! a tenth of a millisecond at a time, the sync at the end finds little left to do, and what is durable when is as before.

use super::DiskFile;

/// The kernel is asked to write whenever so much has been appended.
const STEP_BYTES: u64 = 128 << 10;
/// The page at the end is still being filled.
const PAGE_BYTES: u64 = 4 << 10;

/// How much of a file that is being appended to the kernel has been asked to write.
#[derive(Debug, Default)]
pub(crate) struct WriteBack {
    begun: u64,
}

impl WriteBack {
    /// Takes note of how long the file is now.
    pub(crate) fn appended<F: DiskFile>(&mut self, file: &F, len: u64) {
        let end = len - len % PAGE_BYTES;
        if end.saturating_sub(self.begun) >= STEP_BYTES {
            file.begin_write_back(self.begun, end - self.begun);
            self.begun = end;
        }
    }
}

/// The page cache keeps in one piece (a folio) what is written to its place in one go, up to this size. So much fills a node of the
/// tree that it finds them by, whose place the one piece then takes: with smaller ones a read of a cached page looks at one
/// node more, of which there are too many for the processor's caches once a store has gigabytes.
const FOLIO_BYTES: u64 = 256 << 10;

/// How much of a buffer, whose beginning goes to `offset` of a file, ends where such a piece ends; 0 if it reaches no end.
pub(crate) fn whole_pieces(offset: u64, len: usize) -> usize {
    let end = offset + len as u64;
    (end - end % FOLIO_BYTES).saturating_sub(offset) as usize
}
