//! What the targets share. Checksums are made right here: a fuzzer does not find them, and behind them lie the decoders
//! that have to stand any content.
//!
//! The decoders are reached through `larder::internals`, which the tests use too: nothing is public for fuzzing's sake.

use larder::internals::serialization::FORMAT_VERSION;

/// A structure with its checksum, as every block of the format has it.
pub fn sealed(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let mut block = magic.to_vec();
    block.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    block.extend_from_slice(body);
    let check = crc32c::crc32c(&block);
    block.extend_from_slice(&check.to_le_bytes());
    block
}
