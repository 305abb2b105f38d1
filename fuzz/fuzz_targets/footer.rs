//! Any summary and any rows of a footer, checksums made right: refused, or rows that a second footer gives back.
#![no_main]

mod parts;

use larder::internals::serialization::footer::{TRAILER_BYTES, VerifiedTrailer, encode_footer};
use larder::internals::serialization::segment::SegmentSummary;
use libfuzzer_sys::fuzz_target;

const SUMMARY_BYTES: usize = 124;

fuzz_target!(|data: &[u8]| {
    let _ = VerifiedTrailer::decode(data, 1, 2, data.len() as u64);
    let Some((summary, rows)) = data.split_at_checked(SUMMARY_BYTES) else { return };
    let file_bytes = (1 << 20) + (rows.len() + TRAILER_BYTES) as u64;
    let mut body = [1u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
    body.extend_from_slice(summary);
    // The lengths have to agree with the file.
    body[16..24].copy_from_slice(&(1u64 << 20).to_le_bytes());
    body[24..32].copy_from_slice(&file_bytes.to_le_bytes());
    body.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    body.extend_from_slice(&crc32c::crc32c(rows).to_le_bytes());
    let trailer = parts::sealed(b"LARDFTR1", &body);
    let Ok(trailer) = VerifiedTrailer::decode(&trailer, 1, 2, file_bytes) else { return };
    let Ok(decoded) = trailer.decode_rows(rows) else { return };
    assert!(decoded.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    let mut summary = SegmentSummary { records_end: 1 << 20, ..trailer.summary };
    let again = encode_footer(1, 2, 1 << 20, &decoded, &mut summary);
    let (rows, end) = again.split_at(again.len() - TRAILER_BYTES);
    let trailer = VerifiedTrailer::decode(end, 1, 2, summary.file_bytes).expect("what is encoded decodes");
    assert!(trailer.decode_rows(rows).expect("what is encoded decodes") == decoded);
});
