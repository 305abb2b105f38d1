//! Keys and values. Nothing is kept: which document of a pool a value is, and whose it says it is, follows from the number
//! of its key and its version, so that it can be compared at any time.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

use crate::Result;
use crate::pool::{Pool, STAMP_BYTES, hexadecimal, text_stamp};

/// What values consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ContentsKind {
    /// Generated JSON: field names, words of a vocabulary of 2048, the frequent ones more often.
    Text,
    /// The 20,968 JSON records of `data/`, whole; again from the start when there are more entries. `--size` is not
    /// looked at.
    Records,
    /// Bytes that nothing compresses.
    Random,
}

/// Bytes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 200 to 4096, 660 on average: many short ones, few long ones.
    Mixed,
    /// All alike.
    Fixed(usize),
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "mixed" {
            return Ok(Self::Mixed);
        }
        let bytes = text.parse().ok().filter(|bytes| (1..=16 << 20).contains(bytes));
        bytes.map(Self::Fixed).ok_or_else(|| "use `mixed`, or a number from 1 to 16777216".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mixed => f.write_str("mixed"),
            Self::Fixed(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// Values shorter than this have no room for a document that says whose it is: they are bytes drawn by key and version.
const DOCUMENT_BYTES_MIN: usize = 64;
/// Bytes that a value of random ones begins with: its number and its version.
const RANDOM_STAMP_BYTES: usize = 12;

/// Makes keys and values, and checks them.
#[derive(Debug)]
pub struct Contents {
    kind: ContentsKind,
    size: Size,
    pool: Pool,
}

/// What a value begins with.
enum Stamp {
    Text([u8; STAMP_BYTES]),
    Random([u8; RANDOM_STAMP_BYTES]),
    /// A record is what it is.
    None,
}

impl Stamp {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Random(bytes) => bytes,
            Self::None => &[],
        }
    }
}

impl Contents {
    /// # Errors
    /// If the records cannot be read.
    pub fn new(kind: ContentsKind, size: Size) -> Result<Self> {
        let pool = match size {
            Size::Fixed(bytes) if is_tiny(kind, bytes) => Pool::default(),
            _ => Pool::new(kind, size)?,
        };
        Ok(Self { kind, size, pool })
    }

    /// 16 to 32 bytes, in no order.
    pub fn key(&self, id: u64, key: &mut Vec<u8>) {
        let mixed = mix(id);
        key.clear();
        key.extend_from_slice(&hexadecimal(mixed));
        // Another 0 to 16 bytes, which say nothing more.
        key.extend_from_slice(&b":profile:settings"[..key_tail_bytes(mixed)]);
    }

    /// What is stored under the key of `id` in its `version`-th state.
    pub fn value(&self, id: u64, version: u32, value: &mut Vec<u8>) {
        value.clear();
        if self.pool.count() == 0 {
            return value.extend_from_slice(&self.tiny(id, version)[..self.tiny_bytes()]);
        }
        value.extend_from_slice(self.document(id, version));
        let stamp = self.stamp(id, version);
        value[..stamp.bytes().len()].copy_from_slice(stamp.bytes());
    }

    /// Whether `value` is what [`Self::value`] would make.
    pub fn is_value(&self, id: u64, version: u32, value: &[u8]) -> bool {
        if self.pool.count() == 0 {
            return value == &self.tiny(id, version)[..self.tiny_bytes()];
        }
        let document = self.document(id, version);
        let stamp = self.stamp(id, version);
        let stamp = stamp.bytes();
        value.len() == document.len()
            && value[..stamp.len()] == *stamp
            && value[stamp.len()..] == document[stamp.len()..]
    }

    /// Bytes of the key and the value of an entry.
    pub fn entry_bytes(&self, id: u64, version: u32) -> u64 {
        let value = if self.pool.count() == 0 { self.tiny_bytes() } else { self.document(id, version).len() };
        (16 + key_tail_bytes(mix(id)) + value) as u64
    }

    /// Greatest mean of a key and its value, to say beforehand what a store has to hold.
    pub fn entry_bytes_mean(&self) -> u64 {
        let value = match (self.kind, self.size) {
            (ContentsKind::Records, _) => 960,
            (_, Size::Mixed) => 670,
            (_, Size::Fixed(bytes)) => bytes as u64,
        };
        value + 25
    }

    /// The documents that values are made of; none where values are tiny.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    fn document(&self, id: u64, version: u32) -> &[u8] {
        let index = match self.kind {
            // In their order, so that neighbours of the file are neighbours here.
            ContentsKind::Records => id.wrapping_add(u64::from(version) * 7919) % self.pool.count(),
            ContentsKind::Text | ContentsKind::Random => scaled(seed(id, version), self.pool.count()),
        };
        self.pool.document(index as usize)
    }

    fn stamp(&self, id: u64, version: u32) -> Stamp {
        match self.kind {
            ContentsKind::Records => Stamp::None,
            ContentsKind::Text => Stamp::Text(text_stamp(id, version)),
            ContentsKind::Random => {
                // Mixed, for a number that counts up would be something to compress.
                let mut bytes = [0; RANDOM_STAMP_BYTES];
                bytes[..8].copy_from_slice(&mix(id).to_le_bytes());
                bytes[8..].copy_from_slice(&(mix(id ^ u64::from(version)) as u32).to_le_bytes());
                Stamp::Random(bytes)
            }
        }
    }

    fn tiny(&self, id: u64, version: u32) -> [u8; DOCUMENT_BYTES_MIN] {
        let mut bytes = [0; DOCUMENT_BYTES_MIN];
        for (number, part) in bytes.chunks_exact_mut(16).enumerate() {
            let digits = hexadecimal(mix(seed(id, version) ^ number as u64));
            part.copy_from_slice(&digits);
        }
        bytes
    }

    fn tiny_bytes(&self) -> usize {
        match self.size {
            Size::Fixed(bytes) => bytes,
            Size::Mixed => 0,
        }
    }
}

fn is_tiny(kind: ContentsKind, bytes: usize) -> bool {
    kind != ContentsKind::Records && bytes < DOCUMENT_BYTES_MIN
}

fn key_tail_bytes(mixed: u64) -> usize {
    scaled(mix(mixed), 17) as usize
}

fn seed(id: u64, version: u32) -> u64 {
    mix(id ^ u64::from(version).rotate_left(40) ^ 0xf00d)
}

/// An even draw from all 64-bit numbers to one below `count`, without a division.
pub fn scaled(number: u64, count: u64) -> u64 {
    ((u128::from(number) * u128::from(count)) >> 64) as u64
}

/// A permutation of 64-bit numbers that leaves no order (the finalizer of SplitMix64).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
