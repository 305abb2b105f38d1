//! Any trailer and any rows of a footer, checksums made right: refused, or rows that a second footer gives back.
#![no_main]

mod parts;

use larder::internals::serialization::footer::{TRAILER_BYTES, VerifiedTrailer, encode_footer};
use libfuzzer_sys::fuzz_target;

/// What is between the nonce and the length of the rows.
const FIELDS_BYTES: usize = 8 + 8 + 8 + 32;

fuzz_target!(|data: &[u8]| {
    let _ = VerifiedTrailer::decode(data, 2, data.len() as u64);
    let Some((fields, rows)) = data.split_at_checked(FIELDS_BYTES) else { return };
    let file_bytes = (1 << 20) + (rows.len() + TRAILER_BYTES) as u64;
    let mut body = 2u64.to_le_bytes().to_vec();
    body.extend_from_slice(fields);
    // The end of the records has to agree with the file.
    body[8..16].copy_from_slice(&(1u64 << 20).to_le_bytes());
    body.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    body.extend_from_slice(&crc32c::crc32c(rows).to_le_bytes());
    let trailer = parts::sealed(b"LARDFTR1", &body);
    let Ok(trailer) = VerifiedTrailer::decode(&trailer, 2, file_bytes) else { return };
    let Ok((mut summary, decoded)) = trailer.decode_rows(rows) else { return };
    assert!(decoded.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    let again = encode_footer(2, 1 << 20, &decoded, &mut summary);
    let (rows, end) = again.split_at(again.len() - TRAILER_BYTES);
    let trailer = VerifiedTrailer::decode(end, 2, summary.file_bytes).expect("what is encoded decodes");
    assert!(trailer.decode_rows(rows).expect("what is encoded decodes") == (summary, decoded));
});
