//! Bit packing of integer columns, least significant bit first (the footers' frame-of-reference encoding).

use super::{FormatError, Result};

/// Appends values of any width up to 64 bits.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u128,
    bits: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, bits: 0 }
    }

    /// Appends the low `width` bits of `value`; the others must be zero.
    pub(super) fn put(&mut self, value: u64, width: u32) {
        debug_assert!(width == 64 || value >> width == 0);
        self.pending |= u128::from(value) << self.bits;
        self.bits += width;
        while self.bits >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.bits -= 8;
        }
    }

    /// Fills up the last byte.
    pub(super) fn finish(self) {
        if self.bits > 0 {
            self.out.push(self.pending as u8);
        }
    }
}

/// Reads what [`BitWriter`] wrote.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits read so far.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `width` (at most 64) bits.
    pub(super) fn take(&mut self, width: u32) -> Result<u64> {
        let (first, skipped) = (self.at / 8, self.at % 8);
        self.at += width as usize;
        if self.at > 8 * self.bytes.len() {
            return Err(FormatError::Short);
        }
        let rest = &self.bytes[first..];
        let word = match rest.first_chunk::<8>() {
            Some(word) if skipped + width as usize <= 64 => u128::from(u64::from_le_bytes(*word)),
            _ => {
                let mut word = [0; 16];
                let len = rest.len().min(word.len());
                word[..len].copy_from_slice(&rest[..len]);
                u128::from_le_bytes(word)
            }
        };
        Ok(((word >> skipped) & ((1u128 << width) - 1)) as u64)
    }

    /// Bytes read so far; the bits left over in the last one are padding.
    pub(super) fn bytes_read(&self) -> usize {
        self.at.div_ceil(8)
    }
}

/// Bits needed for `value`.
pub(super) fn width_of(value: u64) -> u32 {
    64 - value.leading_zeros()
}
