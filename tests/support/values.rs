//! Keys and values of the scripted runs: each value names the operation that wrote it, so that a read tells which
//! version it saw.

use fastrand::Rng;

const WORDS: [&str; 24] = [
    "\"name\":\"",
    "\"support\":{",
    "\"chrome\":",
    "\"firefox\":",
    "\"safari\":",
    "version_added",
    "version_removed",
    "true",
    "false",
    "null",
    "https://developer.example.org/docs/Web/API/",
    "\"status\":{\"experimental\":",
    "standard_track",
    "deprecated",
    "HTMLElement",
    "addEventListener",
    "\",\"",
    "\":{\"",
    "\"},",
    "}}",
    "118",
    "79",
    "16.4",
    "partial_implementation",
];

/// The key of that number. Lengths differ, so that records of every alignment are met.
pub fn key(number: u64) -> Vec<u8> {
    let mut key = format!("key:{number:04}").into_bytes();
    key.resize(key.len() + (number as usize * 7) % 23, b'x');
    key
}

/// The value that operation `op` writes: its first eight bytes are the number, the rest is text of a small
/// vocabulary or noise.
pub fn value(op: u64, len: usize, compressible: bool) -> Vec<u8> {
    let mut rng = Rng::with_seed(op ^ 0x6c61_7264_6572);
    let mut value = op.to_le_bytes().to_vec();
    while value.len() < len {
        if compressible {
            value.extend_from_slice(WORDS[rng.usize(..WORDS.len())].as_bytes());
        } else {
            value.extend_from_slice(&rng.u64(..).to_le_bytes());
        }
    }
    value.truncate(len);
    value
}
