//! The gate before compression: a look at a few bytes of a value that tells whether it looks like random ones.
//!
//! Used only where tuning has measured that a class holds such values among others, and that the gate costs the others
//! nothing (`CompressionParameters::gate`).

/// Values are looked at in pieces of this size, spread evenly.
const PIECE_BYTES: usize = 32;
/// Pieces looked at before anything is concluded, and at most.
const PIECES_FIRST: usize = 2;
const PIECES_MAX: usize = 8;
/// Values shorter than this are not judged: too few bytes to tell.
const BYTES_MIN: usize = PIECE_BYTES * PIECES_FIRST;
/// Standard deviations that random bytes may have more equal pairs than expected: 1 value in 30,000 of random bytes has
/// more.
const DEVIATIONS: f64 = 4.0;

/// Highest number of equal pairs among the bytes looked at up to each piece, for bytes that count as random.
///
/// Of n independent, evenly spread bytes, `n (n - 1) / 2` pairs are equal by a chance of 1 in 256 each (the collision
/// entropy: Renyi 1961); pairs are as good as independent, so the variance is the expectation.
const PAIRS_MAX: [u32; PIECES_MAX + 1] = {
    let mut limits = [0; PIECES_MAX + 1];
    let mut pieces = 0;
    while pieces <= PIECES_MAX {
        let bytes = (pieces * PIECE_BYTES) as f64;
        let expected = bytes * (bytes - 1.0) / 512.0;
        // Newton's iteration: there is no square root at compile time. From above, so it falls to the root.
        let (mut root, mut step) = (expected + 1.0, 0);
        while step < 40 {
            root = (root + expected / root) / 2.0;
            step += 1;
        }
        limits[pieces] = (expected + DEVIATIONS * root) as u32;
        pieces += 1;
    }
    limits
};

/// Whether key ++ value looks like random bytes: no byte is more frequent than chance has it.
///
/// Text is recognized after 64 bytes; random values take 256. Cost: see `benches/tuning.rs` (tens of nanoseconds for
/// text, up to 0.2 us for random bytes). Values under 64 bytes never look random. What it cannot see is repetition of
/// pieces that are random in themselves; that is why tuning measures what the gate would lose.
pub fn looks_random(key: &[u8], value: &[u8]) -> bool {
    // The value alone: keys are text more often, and short.
    let bytes = if value.len() >= BYTES_MIN { value } else { key };
    if bytes.len() < BYTES_MIN {
        return false;
    }
    let pieces = (bytes.len() / PIECE_BYTES).min(PIECES_MAX);
    // Between the first and the last piece, both of which are looked at.
    let step = (bytes.len() - PIECE_BYTES) / (pieces - 1);
    let mut seen = [0_u8; 256];
    let mut pairs = 0;
    for piece in 0..pieces {
        for &byte in &bytes[piece * step..][..PIECE_BYTES] {
            let count = &mut seen[usize::from(byte)];
            pairs += u32::from(*count);
            *count = count.saturating_add(1);
        }
        if piece + 1 >= PIECES_FIRST && pairs > PAIRS_MAX[piece + 1] {
            return false;
        }
    }
    true
}
