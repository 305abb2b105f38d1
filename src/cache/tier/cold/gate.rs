//! The gate before compression: a look at a few bytes of a value that tells whether it looks like random ones.
//!
//! Used only where tuning has measured that a class holds such values among others, and that the gate costs the others
//! nothing (`CompressionParameters::gate`).

/// Values are looked at in pieces of this size, spread evenly; in two pieces at least and four at most.
const PIECE_BYTES: usize = 32;
const PIECES_MIN: usize = 2;
const PIECES_MAX: usize = 4;
/// Standard deviations by which random bytes may repeat more than expected: few in 10,000 random values do.
const DEVIATIONS: f64 = 4.0;

/// Fewest different bytes, by pieces looked at, for bytes that count as random.
///
/// Of n independent, evenly spread bytes, a value of 256 is missing with the probability `(255/256)^n`, two given ones
/// with `(254/256)^n` (occupancy: Feller, "An Introduction to Probability Theory", volume 1, section IV.2). 128 random
/// bytes have 101 different ones and must have 85 here; 7 bits of order-0 entropy, the most that saves an eighth, make
/// 81, base64 makes 55, text 40.
const DISTINCT_MIN: [u32; PIECES_MAX + 1] = {
    let mut limits = [0; PIECES_MAX + 1];
    let mut pieces = PIECES_MIN;
    while pieces <= PIECES_MAX {
        let (mut one, mut two, mut byte) = (1.0, 1.0, 0);
        while byte < pieces * PIECE_BYTES {
            one *= 255.0 / 256.0;
            two *= 254.0 / 256.0;
            byte += 1;
        }
        let missing = 256.0 * one;
        let variance = missing + 256.0 * 255.0 * two - missing * missing;
        // Newton's iteration: there is no square root at compile time.
        let (mut root, mut step) = (variance + 1.0, 0);
        while step < 40 {
            root = (root + variance / root) / 2.0;
            step += 1;
        }
        limits[pieces] = (256.0 - missing - DEVIATIONS * root) as u32;
        pieces += 1;
    }
    limits
};

/// Whether a value looks like random bytes: hardly any of those looked at is there twice.
///
/// Up to 128 bytes are looked at, of the key if the value is too short. Below 64 bytes nothing looks random. What this
/// cannot see is repetition of pieces that are random in themselves; that is why tuning measures what the gate would
/// lose. Cost: `benches/tuning.rs` measures it.
pub fn looks_random(key: &[u8], value: &[u8]) -> bool {
    let bytes = if value.len() >= PIECES_MIN * PIECE_BYTES { value } else { key };
    let pieces = (bytes.len() / PIECE_BYTES).min(PIECES_MAX);
    if pieces < PIECES_MIN {
        return false;
    }
    // The first and the last piece, and what lies evenly between them.
    let step = (bytes.len() - PIECE_BYTES) / (pieces - 1);
    let mut seen = [0_u8; 256];
    for piece in 0..pieces {
        // Stores only: counting would wait for each byte's own count.
        for &byte in &bytes[piece * step..][..PIECE_BYTES] {
            seen[usize::from(byte)] = 1;
        }
    }
    // Eight counters side by side in a word: none can pass 32.
    let (words, _) = seen.as_chunks::<8>();
    let counters = words.iter().fold(0, |sum, word| sum + u64::from_le_bytes(*word)).to_le_bytes();
    let distinct: u32 = counters.into_iter().map(u32::from).sum();
    distinct >= DISTINCT_MIN[pieces]
}
