//! What the store ought to hold: every record that lives, its bytes, and what a read of it has to return.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Bytes of a record's header on disk, with short lengths;
const HEADER_BYTES: u64 = 15;
/// more where key or key and value are longer than these,
const LONG_BYTES: u64 = 5;
const SHORT_KEY_BYTES_MAX: usize = 256;
const SHORT_RAW_BYTES_MAX: usize = 65_535;
/// and where it expires.
const EXPIRY_BYTES: u64 = 6;
/// Records start at multiples of this.
const ALIGN_BYTES: u64 = 4;

/// A record that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Number of the write that made it: seeds its value.
    pub write: u64,
    /// When its time is up, unix ms; `u64::MAX` = never.
    pub expires_at_ms: u64,
    /// Length of the value.
    pub value_bytes: u32,
    /// Bytes on disk, header and padding included.
    pub record_bytes: u64,
}

/// Every live record.
#[derive(Debug, Default)]
pub struct Oracle {
    live: HashMap<u64, Live>,
    /// (expiry, key, write), soonest first; entries of records that are gone are met and skipped.
    expiries: BinaryHeap<Reverse<(u64, u64, u64)>>,
    live_bytes: u64,
    writes: u64,
}

/// Bytes that a record takes in a segment, stored as it is.
pub fn record_bytes(key_bytes: usize, value_bytes: usize, expires: bool) -> u64 {
    let raw = key_bytes + value_bytes;
    let is_long = key_bytes > SHORT_KEY_BYTES_MAX || raw > SHORT_RAW_BYTES_MAX;
    let header = HEADER_BYTES + u64::from(is_long) * LONG_BYTES + u64::from(expires) * EXPIRY_BYTES;
    (header + raw as u64).next_multiple_of(ALIGN_BYTES)
}

impl Oracle {
    /// The number of the next write.
    pub fn next_write(&self) -> u64 {
        self.writes
    }

    /// A write that the store has accepted.
    pub fn put(&mut self, key: u64, key_bytes: usize, value_bytes: u32, expires_at_ms: u64) {
        let record_bytes = record_bytes(key_bytes, value_bytes as usize, expires_at_ms != u64::MAX);
        let live = Live { write: self.writes, expires_at_ms, value_bytes, record_bytes };
        self.writes += 1;
        if expires_at_ms != u64::MAX {
            self.expiries.push(Reverse((expires_at_ms, key, live.write)));
        }
        self.live_bytes += record_bytes;
        if let Some(replaced) = self.live.insert(key, live) {
            self.live_bytes -= replaced.record_bytes;
        }
    }

    /// A removal that the store has accepted; or it has evicted the record, which it may where it has a capacity.
    pub fn remove(&mut self, key: u64) {
        if let Some(removed) = self.live.remove(&key) {
            self.live_bytes -= removed.record_bytes;
        }
    }

    /// Takes out what has expired by now.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some(Reverse((expires_at_ms, key, write))) = self.expiries.peek().copied()
            && expires_at_ms <= now_ms
        {
            self.expiries.pop();
            if self.live.get(&key).is_some_and(|live| live.write == write) {
                self.remove(key);
            }
        }
    }

    /// The record of a key, if one lives.
    pub fn get(&self, key: u64) -> Option<&Live> {
        self.live.get(&key)
    }

    /// Every key that has a live record, in no order.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.live.keys().copied()
    }

    /// How many records live.
    pub fn len(&self) -> u64 {
        self.live.len() as u64
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Their bytes on disk.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }
}

/// The bytes of a key: its number, filled up.
pub fn key_of(number: u64, key_bytes: usize, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(&number.to_le_bytes());
    key.resize(key_bytes.max(8), b'k');
}

/// The value of a write: noise that nothing compresses, different for every write of every key.
pub fn value_of(key: u64, write: u64, value_bytes: u32, value: &mut Vec<u8>) {
    value.clear();
    let mut state = key.rotate_left(32) ^ write.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while value.len() < value_bytes as usize {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    value.truncate(value_bytes as usize);
}
