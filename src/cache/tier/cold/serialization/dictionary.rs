//! The file of a trained dictionary: the same block twice, so that a flipped byte does not cost a segment's worth of
//! values.

use wincode::{SchemaRead, SchemaWrite};
use xxhash_rust::xxh3::xxh3_64;

use super::{FormatError, Result, decode, encode, open_block, seal_block};

const MAGIC: &[u8; 8] = b"LARDDIC1";

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

/// The dictionary in a file, from whichever copy is whole; and whether one of them was damaged.
///
/// # Errors
/// When both copies are damaged, or belong to another dictionary than `id`.
pub fn decode_dictionary(file: &[u8], id: u64) -> Result<(Vec<u8>, bool)> {
    let (first, second) = file.split_at(file.len() / 2);
    let copies = [decode_copy(first, id), decode_copy(second, id)];
    let damaged = copies.iter().any(Result::is_err);
    let [first, second] = copies;
    first.or(second).map(|bytes| (bytes, damaged))
}

fn decode_copy(block: &[u8], id: u64) -> Result<Vec<u8>> {
    let body: Body = decode(open_block(MAGIC, block)?)?;
    if body.id != id || dictionary_id(&body.bytes) != id {
        return Err(FormatError::Invalid("dictionary id"));
    }
    Ok(body.bytes)
}
