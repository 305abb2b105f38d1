//! Runs with values and segments so large that the writer writes whole pieces of the page cache, which end within records.

use fastrand::Rng;

/// What the page cache keeps in one piece.
pub const PIECE_BYTES: u64 = 256 << 10;
/// Segments of two pieces and a rest.
pub const SEGMENT_BYTES: u64 = 600 << 10;

/// Length of a value there: some twenty make a piece.
pub fn value_len(rng: &mut Rng) -> usize {
    rng.usize(8000..24_000)
}
