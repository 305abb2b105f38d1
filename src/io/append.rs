//! How files are appended to: in what pieces the page cache gets the bytes, and when the disk does.
//!
//! **The page cache** keeps and forgets together what one call has written (a folio, 256 KiB at most here). 256 KiB at a
//! multiple of that take the place of a node of the tree that pages are found by: with smaller pieces a read looks at one node
//! more, of which there are too many for the processor's caches once a store has gigabytes. But where the store is larger than
//! the memory, a piece is kept for the sake of one record in it, and a thousand others with it.
//!
//! **The disk** serves what it is asked for in turn, and a sync asks for everything at once: a disk of 1 GB/s has nothing else to
//! do for 60 ms with the 64 MiB of a segment, and reads wait. Little by little the same bytes keep it for a tenth of a
//! millisecond at a time, the sync at the end finds little left to do, and what is durable when is as before.

use std::io;

use super::DiskFile;

/// The kernel is asked to write whenever so much has been appended.
const STEP_BYTES: u64 = 128 << 10;
/// The page at the end is still being filled.
const PAGE_BYTES: u64 = 4 << 10;
const LARGE_PIECE_BYTES: u64 = 256 << 10;
const SMALL_PIECE_BYTES: u64 = 16 << 10;

/// In what pieces the page cache gets what is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// Found faster: for what fits into memory.
    Large,
    /// Kept and forgotten one by one: for what does not.
    Small,
}

impl Pieces {
    /// For files of so many bytes, of which the page cache and whoever else needs memory may hold so many. What was written
    /// large stays so: it must not be much of the memory by the time the files do not fit any more.
    pub(crate) fn for_files(bytes: u64, memory_bytes: u64) -> Self {
        if bytes <= memory_bytes / 4 { Self::Large } else { Self::Small }
    }
}

/// How much of a buffer, whose beginning goes to `offset` of a file, ends where a large piece ends; 0 if it reaches no end.
pub(crate) fn whole_pieces(offset: u64, len: usize) -> usize {
    let end = offset + len as u64;
    (end - end % LARGE_PIECE_BYTES).saturating_sub(offset) as usize
}

/// How much of a file that is being appended to the kernel has been asked to write.
#[derive(Debug, Default)]
pub(crate) struct WriteBack {
    begun: u64,
}

impl WriteBack {
    /// Writes bytes to the end of a file, `at`.
    pub(crate) fn append<F: DiskFile>(
        &mut self,
        file: &F,
        bytes: &[u8],
        at: u64,
        pieces: Pieces,
    ) -> io::Result<()> {
        let (mut rest, mut offset) = (bytes, at);
        while !rest.is_empty() {
            let len = match pieces {
                Pieces::Large => rest.len(),
                Pieces::Small => rest.len().min((SMALL_PIECE_BYTES - offset % SMALL_PIECE_BYTES) as usize),
            };
            file.write_full_at(&rest[..len], offset)?;
            (rest, offset) = (&rest[len..], offset + len as u64);
        }
        self.appended(file, offset);
        Ok(())
    }

    /// Takes note of how long the file is now.
    fn appended<F: DiskFile>(&mut self, file: &F, len: u64) {
        let end = len - len % PAGE_BYTES;
        if end.saturating_sub(self.begun) >= STEP_BYTES {
            file.begin_write_back(self.begun, end - self.begun);
            self.begun = end;
        }
    }
}
