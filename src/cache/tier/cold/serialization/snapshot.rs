//! A snapshot of the index: its slots, in 256 chunks of partitions, each with its own checksum; see [`chunk`](super::chunk).
//!
//! Behind the chunks stands which segment each slab slot held at the time, so that an entry that points at a segment
//! since replaced is recognised whatever has taken its slot. Parity follows, by which chunks and table can be put together
//! again ([`Parity`](super::parity::Parity)), and the head once more: it is the only part that is stored twice.

use wincode::{SchemaRead, SchemaWrite};

use super::{BLOCK_OVERHEAD, FormatError, Result, decode, encode, open_block, seal_block};

const MAGIC: &[u8; 8] = b"LARDSNP1";
const SLOTS_MAGIC: &[u8; 8] = b"LARDSLT1";

/// Chunks in a snapshot.
pub const CHUNKS: usize = 256;

/// The head of a snapshot file.
#[derive(Clone, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct SnapshotHeader {
    /// The store it belongs to.
    pub store_id: u64,
    /// Its number.
    pub snapshot_id: u64,
    /// L0.
    pub covers: u64,
    /// E0.
    pub covers_edit: u64,
    /// Entries in it.
    pub entries: u64,
    /// Length of each chunk, in bytes.
    pub chunk_bytes: [u32; CHUNKS],
    /// Length of the slot table behind them, in bytes.
    pub slot_table_bytes: u32,
    /// Length of the parity behind that, in bytes; not 0.
    pub parity_bytes: u32,
    /// CRC-32C of the parity.
    pub parity_check: u32,
}

impl SnapshotHeader {
    /// Bytes that the parity speaks for: chunks and slot table.
    pub fn body_bytes(&self) -> u64 {
        self.chunk_bytes.iter().chain([&self.slot_table_bytes]).map(|bytes| u64::from(*bytes)).sum()
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        2 * SNAPSHOT_HEADER_BYTES as u64 + self.body_bytes() + u64::from(self.parity_bytes)
    }
}

/// Bytes of the head.
pub const SNAPSHOT_HEADER_BYTES: usize = BLOCK_OVERHEAD + 5 * 8 + 4 * CHUNKS + 3 * 4;

/// The bytes of the head.
pub fn encode_header(header: &SnapshotHeader) -> Vec<u8> {
    let block = seal_block(MAGIC, &encode(header));
    assert_eq!(block.len(), SNAPSHOT_HEADER_BYTES, "the header's size is part of the format");
    block
}

/// Reads the head at the start of `bytes`.
///
/// # Errors
/// When it is damaged, or of another version.
pub fn decode_header(bytes: &[u8]) -> Result<SnapshotHeader> {
    let header: SnapshotHeader =
        decode(open_block(MAGIC, bytes.get(..SNAPSHOT_HEADER_BYTES).ok_or(FormatError::Short)?)?)?;
    match header.parity_bytes {
        0 => Err(FormatError::Invalid("parity length")),
        _ => Ok(header),
    }
}

/// The bytes of the table that says which segment each slab slot held: (slot, segment number).
pub fn encode_slot_table(slots: &[(u32, u64)]) -> Vec<u8> {
    seal_block(SLOTS_MAGIC, &encode(&slots.to_vec()))
}

/// Reads the slot table.
///
/// # Errors
/// When it is damaged.
pub fn decode_slot_table(bytes: &[u8]) -> Result<Vec<(u32, u64)>> {
    decode(open_block(SLOTS_MAGIC, bytes)?)
}
