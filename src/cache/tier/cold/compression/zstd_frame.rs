//! What stands around the one block of a small zstd frame: all of it follows from two lengths, so none of it is stored.
//!
//! Source: RFC 8878, sections 3.1.1 (frame header) and 3.1.1.2 (block header).

/// Most bytes that stand in front of a block: magic, frame header, block header.
pub const PREFIX_BYTES_MAX: usize = 4 + 5 + 3;

/// Frame magic.
pub const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// A block holds no more, compressed or not.
const BLOCK_BYTES_MAX: usize = 128 << 10;

/// The frame is one piece of memory, and names its content's size.
const SINGLE_SEGMENT: u8 = 1 << 5;
/// The size in two or four bytes instead of one; two hold what is over 256.
const TWO_BYTES: u8 = 1 << 6;
const FOUR_BYTES: u8 = 2 << 6;
const TWO_BYTES_BASE: usize = 256;

/// The last block, compressed.
const LAST_COMPRESSED: u32 = 1 | 2 << 1;

/// What stands in front of the block.
pub struct Prefix {
    bytes: [u8; PREFIX_BYTES_MAX],
    len: usize,
}

impl Prefix {
    /// Of a frame of one compressed block of `block_len` bytes, no checksum and no dictionary's id, which decodes to
    /// `raw_len`. None if there is no such frame.
    pub fn new(raw_len: usize, block_len: usize) -> Option<Self> {
        if raw_len > BLOCK_BYTES_MAX || block_len > BLOCK_BYTES_MAX {
            return None;
        }
        let mut prefix = Self { bytes: [0; PREFIX_BYTES_MAX], len: 0 };
        prefix.push(&MAGIC);
        let two_bytes = raw_len.checked_sub(TWO_BYTES_BASE).map(u16::try_from);
        match two_bytes {
            None => prefix.push(&[SINGLE_SEGMENT, raw_len as u8]),
            Some(Ok(above)) => {
                prefix.push(&[SINGLE_SEGMENT | TWO_BYTES]);
                prefix.push(&above.to_le_bytes());
            }
            Some(Err(_)) => {
                prefix.push(&[SINGLE_SEGMENT | FOUR_BYTES]);
                prefix.push(&(raw_len as u32).to_le_bytes());
            }
        }
        let block_header = LAST_COMPRESSED | (block_len as u32) << 3;
        prefix.push(&block_header.to_le_bytes()[..3]);
        Some(prefix)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Where in a frame that decodes to `raw_len` its only block lies, if all that stands in front of it follows from the
/// two lengths.
pub fn only_block(frame: &[u8], raw_len: usize) -> Option<std::ops::Range<usize>> {
    // The prefix's own length depends on `raw_len` alone.
    let prefix_len = Prefix::new(raw_len, 0)?.len;
    let prefix = Prefix::new(raw_len, frame.len().checked_sub(prefix_len)?)?;
    frame.starts_with(prefix.as_bytes()).then_some(prefix_len..frame.len())
}
