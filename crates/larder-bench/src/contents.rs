//! What a segment file holds, read from outside the store. The only module that knows the format on disk.

use std::io;

use larder::DiskFile;
use larder::internals::core::segment::{read_footer, row_bytes, scan_records};
use larder::internals::dictionary::DictionaryTable;
use larder::internals::serialization::segment::{SEGMENT_HEADER_BYTES, SegmentIdentity};

use crate::ledger::Gone;

/// Records begin behind this many bytes.
pub const HEADER_BYTES: u64 = SEGMENT_HEADER_BYTES as u64;

/// The records of a segment.
#[derive(Debug)]
pub struct SegmentContents {
    /// In the order of writing, deletions included.
    pub records: Vec<Gone>,
}

fn identity_of<F: DiskFile>(file: &F) -> io::Result<SegmentIdentity> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let got = file.read_full_at(&mut header, 0)?;
    SegmentIdentity::decode(&header[..got])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("a segment's header: {error}")))
}

impl SegmentContents {
    /// Where the records end and the footer begins; `None` while there is no footer.
    pub fn records_end<F: DiskFile>(file: &F) -> io::Result<Option<u64>> {
        // A file that is being begun has no header yet.
        let Ok(identity) = identity_of(file) else { return Ok(None) };
        Ok(read_footer(file, &identity).ok().map(|(summary, _)| summary.records_end))
    }
}

/// Reads a segment: its footer, or its records while it has none.
pub fn read_segment<F: DiskFile>(file: &F) -> io::Result<SegmentContents> {
    let identity = identity_of(file)?;
    let (records_end, rows) = match read_footer(file, &identity) {
        Ok((summary, rows)) => (summary.records_end, rows),
        Err(_) => {
            let scan = scan_records(file, &identity, 0, &DictionaryTable::new())?;
            (scan.summary.records_end, scan.rows)
        }
    };
    let records = rows.iter().enumerate().map(|(at, row)| Gone {
        sequence: row.sequence,
        expires_at_ms: row.expires_at_ms,
        bytes: row_bytes(&rows, at, records_end) as u64,
    });
    Ok(SegmentContents { records: records.collect() })
}
