//! The file of a trained dictionary: the same block twice, so that a flipped byte does not cost a segment's worth of
//! values.

use wincode::{SchemaRead, SchemaWrite};
use xxhash_rust::xxh3::xxh3_64;

use super::{BLOCK_OVERHEAD, FormatError, Result, decode, encode, open_block, seal_block};

const MAGIC: &[u8; 8] = b"LARDDIC1";

/// Bytes around the content of each copy: the block's envelope, slot, id, length.
const COPY_OVERHEAD: usize = BLOCK_OVERHEAD + 1 + 8 + 8;

/// Largest dictionary, in bytes.
pub const DICTIONARY_BYTES_LIMIT: usize = 1 << 20;

#[derive(SchemaWrite, SchemaRead)]
struct Body {
    slot: u8,
    id: u64,
    bytes: Vec<u8>,
}

/// Identity of a dictionary: the hash of its content.
pub fn dictionary_id(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The whole file.
pub fn encode_dictionary(slot: u8, bytes: &[u8]) -> Vec<u8> {
    let body = Body { slot, id: dictionary_id(bytes), bytes: bytes.to_vec() };
    let block = seal_block(MAGIC, &encode(&body));
    [block.as_slice(), block.as_slice()].concat()
}

/// The dictionary of `bytes_len` bytes in a file, from whichever copy is whole; and whether anything was damaged. A file
/// that was cut or has grown still gives up the copy it holds.
///
/// # Errors
/// When both copies are damaged, or belong to another dictionary than `id`.
pub fn decode_dictionary(file: &[u8], id: u64, bytes_len: usize) -> Result<(Vec<u8>, bool)> {
    let copy_len = COPY_OVERHEAD + bytes_len;
    let copy = |at: usize| {
        let block = file.get(at..at.saturating_add(copy_len)).ok_or(FormatError::Short)?;
        decode_copy(block, id)
    };
    let (first, second) = (copy(0), copy(copy_len));
    let damaged = first.is_err() || second.is_err() || file.len() != 2 * copy_len;
    first.or(second).map(|bytes| (bytes, damaged))
}

/// Size of the content in a file of that length.
pub fn dictionary_bytes_of(file_len: usize) -> usize {
    (file_len / 2).saturating_sub(COPY_OVERHEAD)
}

fn decode_copy(block: &[u8], id: u64) -> Result<Vec<u8>> {
    let body: Body = decode(open_block(MAGIC, block)?)?;
    if body.id != id || dictionary_id(&body.bytes) != id {
        return Err(FormatError::Invalid("dictionary id"));
    }
    Ok(body.bytes)
}
