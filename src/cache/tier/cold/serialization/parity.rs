//! Parity: what is lost of a file, found again from the rest of it.
//!
//! A body is followed by parity of a length of its own, `n`. Bytes whose positions in body and parity together are equal
//! modulo `n` XOR to zero, so any of them is the XOR of the others: the parity of RAID 4 and 5 (Patterson, Gibson, Katz
//! 1988) with stripe units of `n` bytes, the last one cut short. One gap of up to `n` bytes can be closed wherever it
//! lies, across the border to the parity too; several can if no two of them meet in a column. Which bytes are damaged is
//! not its business: checksums say that, and whether what it gave is right.

use std::ops::Range;

/// The parity of a body that is written from front to back.
#[derive(Debug)]
pub struct Parity {
    columns: Vec<u8>,
    /// Column of the next byte.
    next: usize,
}

impl Parity {
    /// Parity of so many bytes, at least one.
    pub fn new(bytes: usize) -> Self {
        Self { columns: vec![0; bytes.max(1)], next: 0 }
    }

    /// Takes in the next bytes of the body.
    pub fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let columns = &mut self.columns[self.next..];
            let (now, later) = bytes.split_at(bytes.len().min(columns.len()));
            xor(columns, now);
            self.next = (self.next + now.len()) % self.columns.len();
            bytes = later;
        }
    }

    /// The bytes to write behind the body.
    pub fn finish(mut self) -> Vec<u8> {
        self.columns.rotate_left(self.next);
        self.columns
    }
}

/// Adds `bytes` to as many of the sums.
pub fn xor(sums: &mut [u8], bytes: &[u8]) {
    for (sum, byte) in sums.iter_mut().zip(bytes) {
        *sum ^= byte;
    }
}

/// Where the bytes are whose XOR is what is lost at `lost`: ranges of positions in body and parity, of `total` bytes
/// together, each with the offset in what is lost where it begins. `None` if the gap is longer than the parity.
pub fn witnesses(
    lost: Range<u64>,
    parity_bytes: u64,
    total: u64,
) -> Option<impl Iterator<Item = (usize, Range<u64>)>> {
    let len = lost.end.checked_sub(lost.start)?;
    if parity_bytes == 0 || len > parity_bytes || lost.end > total {
        return None;
    }
    let column = lost.start % parity_bytes;
    // What reaches beyond the last column goes on in the first.
    let wrapped = (column + len).saturating_sub(parity_bytes);
    let first = (wrapped > 0).then_some(((len - wrapped) as usize, 0..wrapped));
    let starts = (column..total).step_by(parity_bytes as usize).filter(move |start| *start != lost.start);
    Some(first.into_iter().chain(starts.map(move |start| (0, start..(start + len).min(total)))))
}
