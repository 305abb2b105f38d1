//! Keys and values. Nothing is kept: a value is made again from the number of its key and its version to be compared.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::str::FromStr;

use clap::ValueEnum;
use fastrand::Rng;

use crate::{Failure, Result};

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
        let bytes = text.parse().ok().filter(|bytes| (64..=16 << 20).contains(bytes));
        bytes.map(Self::Fixed).ok_or_else(|| "use `mixed`, or a number from 64 to 16777216".to_owned())
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

static RECORDS: &[u8] = include_bytes!("../../../data/mdn-compat.jsonl.zst");
const WORDS: usize = 2048;
const MIXED_BYTES: std::ops::Range<usize> = 200..4097;
/// With it the lengths of `MIXED_BYTES` come to 660 on average.
const MIXED_TAIL: f64 = 460.0;

/// Makes keys and values.
#[derive(Debug)]
pub struct Contents {
    kind: ContentsKind,
    size: Size,
    words: Vec<String>,
    records: Vec<Vec<u8>>,
}

impl Contents {
    /// # Errors
    /// If the records cannot be read.
    pub fn new(kind: ContentsKind, size: Size) -> Result<Self> {
        let mut rng = Rng::with_seed(0x5eed);
        let words = (0..WORDS).map(|_| word(&mut rng)).collect();
        let records = if kind == ContentsKind::Records { read_records()? } else { Vec::new() };
        Ok(Self { kind, size, words, records })
    }

    /// 16 to 32 bytes, in no order.
    pub fn key(&self, id: u64, key: &mut Vec<u8>) {
        let mixed = mix(id);
        key.clear();
        for place in (0..16).rev() {
            key.push(b"0123456789abcdef"[(mixed >> (place * 4)) as usize & 15]);
        }
        // Another 0 to 16 bytes, which say nothing more.
        let more = (mix(mixed) % 17) as usize;
        key.extend_from_slice(&b":profile:settings"[..more]);
    }

    /// What is stored under the key of `id` in its `version`-th state.
    pub fn value(&self, id: u64, version: u32, value: &mut Vec<u8>) {
        value.clear();
        let seed = mix(id ^ u64::from(version).rotate_left(40) ^ 0xf00d);
        if self.kind == ContentsKind::Records {
            let at = (id + u64::from(version) * 7919) % self.records.len() as u64;
            return value.extend_from_slice(&self.records[at as usize]);
        }
        let mut rng = Rng::with_seed(seed);
        let bytes = match self.size {
            Size::Fixed(bytes) => bytes,
            Size::Mixed => mixed_bytes(&mut rng),
        };
        if self.kind == ContentsKind::Random {
            value.resize(bytes, 0);
            return rng.fill(value);
        }
        self.text(id, version, bytes, &mut rng, value);
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

    fn text(&self, id: u64, version: u32, bytes: usize, rng: &mut Rng, value: &mut Vec<u8>) {
        // A `Vec` takes whatever is written to it.
        let _ = write!(value, "{{\"id\":\"{id:016x}\",\"version\":{version}");
        if bytes >= 200 {
            value.extend_from_slice(b",\"name\":\"");
            self.words(2, rng, value);
            let score = rng.u32(0..1000);
            let _ = write!(value, "\",\"active\":{},\"score\":{score},\"tags\":[\"", score.is_multiple_of(3));
            self.words(1, rng, value);
            value.extend_from_slice(b"\",\"");
            self.words(1, rng, value);
            value.extend_from_slice(b"\"]");
        }
        value.extend_from_slice(b",\"text\":\"");
        while value.len() < bytes {
            self.words(1, rng, value);
            value.push(b' ');
        }
        value.truncate(bytes - 2);
        value.extend_from_slice(b"\"}");
    }

    fn words(&self, count: usize, rng: &mut Rng, value: &mut Vec<u8>) {
        for n in 0..count {
            if n > 0 {
                value.push(b' ');
            }
            // The product of two even draws prefers small numbers, as language prefers few words.
            let draw = rng.u64(..);
            let at = ((draw >> 32) * (draw & 0xffff_ffff)) >> 53;
            value.extend_from_slice(self.words[at as usize % WORDS].as_bytes());
        }
    }
}

fn word(rng: &mut Rng) -> String {
    let mut word = String::new();
    for _ in 0..rng.usize(1..=4) {
        word.push(char::from(b"bcdfghklmnprstvw"[rng.usize(..16)]));
        word.push(char::from(b"aeiou"[rng.usize(..5)]));
    }
    word
}

fn mixed_bytes(rng: &mut Rng) -> usize {
    let tail = -MIXED_TAIL * (1.0 - rng.f64()).ln();
    (MIXED_BYTES.start + tail as usize).min(MIXED_BYTES.end - 1)
}

fn read_records() -> Result<Vec<Vec<u8>>> {
    let lines = BufReader::new(zstd::Decoder::new(RECORDS)?);
    lines
        .lines()
        .map(|line| {
            let line = line?;
            let record: serde_json::Value =
                serde_json::from_str(&line).map_err(|error| Failure(format!("a record: {error}")))?;
            Ok(record["value"].to_string().into_bytes())
        })
        .collect()
}

/// A permutation of 64-bit numbers that leaves no order (the finalizer of SplitMix64).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
