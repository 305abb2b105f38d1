//! Streams of reads and of writes at a fixed rate, and what each operation took.
//!
//! Open loop: operation n is due n intervals after the stream began, whatever became of those before it. Two times are
//! kept of each. *Due*: from that moment to the end of the call; a stream that was kept waiting pays for everything it
//! could not do meanwhile. *Call*: of the call alone, with the calls that a long one kept from being made added
//! (`Histogram::record_correct`): what the store did, without what the scheduler did to the thread that asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use larder::ColdTier;

use crate::{Failure, Result};

/// Three significant digits, up to a minute.
const DIGITS: u8 = 3;
const LONGEST_NS: u64 = 60_000_000_000;
/// Writes come in bursts this far apart: a thread that slept before each of 200,000 a second would measure the
/// scheduler.
const WRITE_BURST: Duration = Duration::from_micros(500);
/// Length of a spinner's turn and rest together.
const SPIN_PERIOD: Duration = Duration::from_millis(1);
/// Bytes that values are cut from.
const TEXT_BYTES: usize = 4 << 20;
/// Number and version of the key before a value's text.
const HEAD_BYTES: usize = 16;
const WORDS: [&str; 12] = [
    "cache ",
    "segment ",
    "value ",
    "\"name\":",
    "\"id\":",
    "true ",
    "null ",
    "2026-",
    "active ",
    "user ",
    "https://",
    "record ",
];

/// What is written: keys by number, values that say which key they belong to.
#[derive(Debug)]
pub struct Records {
    /// Number of keys.
    pub entries: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    text: Vec<u8>,
}

impl Records {
    /// Values of words and numbers: about as compressible as JSON.
    pub fn new(entries: u64, value_bytes: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut text = Vec::with_capacity(TEXT_BYTES + 32);
        while text.len() < TEXT_BYTES {
            let draw = random.u64(..);
            text.extend_from_slice(WORDS[(draw % WORDS.len() as u64) as usize].as_bytes());
            text.extend_from_slice(format!("{:x}", draw >> 40).as_bytes());
        }
        text.truncate(TEXT_BYTES);
        Self { entries, value_bytes: value_bytes.max(HEAD_BYTES), text }
    }

    /// Bytes of a key and its value.
    pub fn raw_bytes(&self) -> u64 {
        (key_of(0).len() + self.value_bytes) as u64
    }

    fn make(&self, number: u64, version: u64, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(&version.to_le_bytes());
        while value.len() < self.value_bytes {
            let at = ((number ^ version).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24) as usize % TEXT_BYTES;
            let bytes = (self.value_bytes - value.len()).min(TEXT_BYTES - at);
            value.extend_from_slice(&self.text[at..at + bytes]);
        }
    }

    fn is_whole(&self, number: u64, value: &[u8], room: &mut Vec<u8>) -> bool {
        let Some(version) = value.get(8..HEAD_BYTES).and_then(|bytes| bytes.try_into().ok()) else {
            return false;
        };
        self.make(number, u64::from_le_bytes(version), room);
        value == room
    }

    /// Writes every key once.
    ///
    /// # Errors
    /// What the store refused.
    pub fn load(&self, store: &ColdTier) -> Result<()> {
        let mut value = Vec::new();
        for number in 0..self.entries {
            self.make(number, 0, &mut value);
            store.insert(&key_of(number), &value)?;
        }
        Ok(store.flush()?)
    }
}

fn key_of(number: u64) -> [u8; 16] {
    let mut key = *b"pace:00000000000";
    for (at, place) in key[5..].iter_mut().enumerate() {
        *place = b"0123456789abcdef"[(number >> (40 - 4 * at) & 15) as usize];
    }
    key
}

/// The times of a stream's operations, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Times {
    /// From the moment each was due.
    pub due: Histogram<u64>,
    /// Of the calls alone, corrected for those that were held up.
    pub call: Histogram<u64>,
    /// Reads of values that were never written to the key, and reads that found nothing.
    pub wrong: u64,
}

impl Times {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("bounds that it allows");
        Self { due: histogram(), call: histogram(), wrong: 0 }
    }
}

/// Makes the calls of a stream when they are due, or as soon as the burst after it is, until told to stop.
fn at_rate(
    a_second: f64,
    burst: Duration,
    stop: &AtomicBool,
    times: &mut Times,
    mut call: impl FnMut(u64) -> Result<bool>,
) -> Result<()> {
    // The kernel rounds sleeps up by 50 us otherwise: as long as the interval between two calls.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).ok();
    let interval = 1e9 / a_second;
    let started = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = started + Duration::from_nanos((number as f64 * interval) as u64);
        let now = Instant::now();
        if now < due {
            std::thread::sleep((due - now).max(burst));
            continue;
        }
        let begun = Instant::now();
        let right = call(number)?;
        let ended = Instant::now();
        times.wrong += u64::from(!right);
        times.due.saturating_record((ended - due).as_nanos() as u64);
        let took = (ended - begun).as_nanos() as u64;
        times
            .call
            .record_correct(took.clamp(1, LONGEST_NS), interval as u64)
            .map_err(|error| Failure(error.to_string()))?;
        number += 1;
    }
    Ok(())
}

/// Reads keys drawn evenly, so many a second.
///
/// # Errors
/// What the store refused.
pub fn reads(
    store: &ColdTier,
    records: &Records,
    seed: u64,
    a_second: f64,
    stop: &AtomicBool,
) -> Result<Times> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut times, mut room) = (Times::new(), Vec::new());
    at_rate(a_second, Duration::ZERO, stop, &mut times, |at| {
        let number = random.u64(..records.entries);
        let found = store.get(&key_of(number))?;
        // One in sixteen is compared byte by byte: more would be work of the stream, not of the store.
        Ok(found.is_some_and(|value| at % 16 != 0 || records.is_whole(number, &value, &mut room)))
    })?;
    Ok(times)
}

/// Overwrites keys drawn evenly, so many a second.
///
/// # Errors
/// What the store refused.
pub fn writes(
    store: &ColdTier,
    records: &Records,
    seed: u64,
    a_second: f64,
    stop: &AtomicBool,
) -> Result<Times> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut times, mut value) = (Times::new(), Vec::new());
    at_rate(a_second, WRITE_BURST, stop, &mut times, |_| {
        let number = random.u64(..records.entries);
        records.make(number, random.u64(..), &mut value);
        store.insert(&key_of(number), &value)?;
        Ok(true)
    })?;
    Ok(times)
}

/// Keeps a processor busy for a share of each millisecond, and touches nothing.
pub fn spin(share: f64, stop: &AtomicBool) {
    let share = share.clamp(0.0, 1.0);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        while began.elapsed() < SPIN_PERIOD.mul_f64(share) {
            std::hint::spin_loop();
        }
        std::thread::sleep(SPIN_PERIOD.mul_f64(1.0 - share));
    }
}

/// Overwrites as fast as the store accepts, counting in `accepted`.
///
/// # Errors
/// What the store refused.
pub fn flood(
    store: &ColdTier,
    records: &Records,
    seed: u64,
    accepted: &AtomicU64,
    stop: &AtomicBool,
) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut value = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = random.u64(..records.entries);
        records.make(number, random.u64(..), &mut value);
        store.insert(&key_of(number), &value)?;
        accepted.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
