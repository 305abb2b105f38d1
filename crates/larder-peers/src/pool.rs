//! Values made beforehand, so that making one while a store is measured is a copy, and checking one a comparison.

use std::io::{BufRead, BufReader, Write};

use fastrand::Rng;

use crate::contents::{ContentsKind, Size};
use crate::{Failure, Result};

/// Documents of a pool, where they are small enough. Four times as many cost a third more time an operation, for they are in
/// no cache; with a quarter of them one value in forty would be found whole in a dictionary of 64 KiB.
const DOCUMENTS: usize = 1 << 14;
/// Bytes of a pool, where they are not: at least `DOCUMENTS_MIN` documents all the same.
const POOL_BYTES: usize = 64 << 20;
const DOCUMENTS_MIN: usize = 16;
const WORDS: usize = 2048;
const MIXED_BYTES: std::ops::Range<usize> = 200..4097;
/// With it the lengths of `MIXED_BYTES` come to 660 on average.
const MIXED_TAIL: f64 = 460.0;
/// Shorter documents have their text alone.
const FIELDS_BYTES_MIN: usize = 200;
/// Up to where events go; what follows is text.
const EVENTS_SHARE: f64 = 0.85;
const EVENT_BYTES_MAX: usize = 100;
const STATES: [&str; 5] = ["new", "confirmed", "shipped", "returned", "closed"];
const KINDS: [&str; 8] =
    ["created", "viewed", "changed", "paid", "sent", "received", "commented", "archived"];
static RECORDS: &[u8] = include_bytes!("../../../data/mdn-compat.jsonl.zst");

/// What is in front of the number of its key in a document, and between that and its version; each is as long whatever
/// the numbers are, so that a document is made another's by writing over its beginning.
const STAMP_ID: &[u8] = b"{\"id\":\"";
const STAMP_VERSION: &[u8] = b"\",\"version\":\"";
const ID_DIGITS: usize = 16;
const VERSION_DIGITS: usize = 8;
/// Bytes of a document that say whose it is.
pub const STAMP_BYTES: usize = STAMP_ID.len() + ID_DIGITS + STAMP_VERSION.len() + VERSION_DIGITS;

/// Documents one after another in one piece of memory.
#[derive(Debug, Default)]
pub struct Pool {
    bytes: Vec<u8>,
    /// Where each ends; it begins where the one before ends.
    ends: Vec<u32>,
}

impl Pool {
    /// # Errors
    /// If the records cannot be read.
    pub fn new(kind: ContentsKind, size: Size) -> Result<Self> {
        match kind {
            ContentsKind::Records => Self::records(),
            ContentsKind::Text | ContentsKind::Random => Ok(Self::generated(kind, size)),
        }
    }

    /// Documents in it.
    pub fn count(&self) -> u64 {
        self.ends.len() as u64
    }

    /// The document at `index`, below [`Self::count`].
    pub fn document(&self, index: usize) -> &[u8] {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[begin..self.ends[index] as usize]
    }

    fn end(&mut self) {
        self.ends.push(self.bytes.len() as u32);
    }

    fn generated(kind: ContentsKind, size: Size) -> Self {
        let mut rng = Rng::with_seed(0x5eed);
        let words: Vec<String> = (0..WORDS).map(|_| word(&mut rng)).collect();
        let mut pool = Self::default();
        while pool.ends.len() < DOCUMENTS
            && (pool.bytes.len() < POOL_BYTES || pool.ends.len() < DOCUMENTS_MIN)
        {
            let bytes = match size {
                Size::Fixed(bytes) => bytes,
                Size::Mixed => mixed_bytes(&mut rng),
            };
            let begin = pool.bytes.len();
            if kind == ContentsKind::Random {
                pool.bytes.resize(begin + bytes, 0);
                rng.fill(&mut pool.bytes[begin..]);
            } else {
                text(&words, bytes, &mut rng, &mut pool.bytes);
            }
            pool.end();
        }
        pool.bytes.shrink_to_fit();
        pool
    }

    fn records() -> Result<Self> {
        let mut pool = Self::default();
        for line in BufReader::new(zstd::Decoder::new(RECORDS)?).lines() {
            let record: serde_json::Value =
                serde_json::from_str(&line?).map_err(|error| Failure(format!("a record: {error}")))?;
            // A `Vec` takes whatever is written to it.
            let _ = write!(pool.bytes, "{}", record["value"]);
            pool.end();
        }
        Ok(pool)
    }
}

/// The beginning of a document of text.
pub fn text_stamp(id: u64, version: u32) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    let (name, rest) = stamp.split_at_mut(STAMP_ID.len());
    let (id_digits, rest) = rest.split_at_mut(ID_DIGITS);
    let (between, version_digits) = rest.split_at_mut(STAMP_VERSION.len());
    name.copy_from_slice(STAMP_ID);
    id_digits.copy_from_slice(&hexadecimal(id));
    between.copy_from_slice(STAMP_VERSION);
    version_digits.copy_from_slice(&hexadecimal(u64::from(version))[ID_DIGITS - VERSION_DIGITS..]);
    stamp
}

/// Sixteen digits.
pub fn hexadecimal(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&PAIRS[byte as usize]);
    }
    digits
}

/// The two digits of each byte.
static PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let digits = b"0123456789abcdef";
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// A document as a program would store it: fields, then events that have the same fields each, then free text. How much
/// of which was chosen for zstd to shrink it about as it shrinks documents that programs do store; see `ratios`.
fn text(words: &[String], bytes: usize, rng: &mut Rng, pool: &mut Vec<u8>) {
    let (begin, end) = (pool.len(), pool.len() + bytes);
    pool.extend_from_slice(&text_stamp(0, 0));
    pool.push(b'"');
    if bytes >= FIELDS_BYTES_MIN {
        pool.extend_from_slice(b",\"name\":\"");
        some_words(words, 2, rng, pool);
        let score = rng.u32(0..1000);
        let status = STATES[rng.usize(..STATES.len())];
        // A `Vec` takes whatever is written to it.
        let _ = write!(
            pool,
            "\",\"status\":\"{status}\",\"active\":{},\"score\":{score}",
            score.is_multiple_of(3)
        );
        let events_end = begin + (bytes as f64 * EVENTS_SHARE) as usize;
        let mut separator = ",\"events\":[";
        while pool.len() + EVENT_BYTES_MAX < events_end {
            let _ = write!(pool, "{separator}");
            event(words, rng, pool);
            separator = ",";
        }
        if separator == "," {
            pool.push(b']');
        }
    }
    pool.extend_from_slice(b",\"text\":\"");
    while pool.len() < end {
        some_words(words, 1, rng, pool);
        pool.push(b' ');
    }
    pool.truncate(end - 2);
    pool.extend_from_slice(b"\"}");
}

fn event(words: &[String], rng: &mut Rng, pool: &mut Vec<u8>) {
    let kind = KINDS[rng.usize(..KINDS.len())];
    let (hour, minute, second) = (rng.u32(0..24), rng.u32(0..60), rng.u32(0..60));
    let day = rng.u32(1..29);
    let _ = write!(
        pool,
        "{{\"type\":\"{kind}\",\"at\":\"2026-11-{day:02}T{hour:02}:{minute:02}:{second:02}Z\",\"by\":\""
    );
    some_words(words, 1, rng, pool);
    let _ = write!(pool, "\",\"count\":{}}}", rng.u32(1..20));
}

fn some_words(words: &[String], count: usize, rng: &mut Rng, pool: &mut Vec<u8>) {
    for n in 0..count {
        if n > 0 {
            pool.push(b' ');
        }
        // The product of two even draws prefers small numbers, as language prefers few words.
        let draw = rng.u64(..);
        let at = ((draw >> 32) * (draw & 0xffff_ffff)) >> 53;
        pool.extend_from_slice(words[at as usize % WORDS].as_bytes());
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
