//! A time of expiry in front of the value, for the stores that have no time to live but a compaction filter.

use std::time::{Duration, SystemTime};

/// Bytes of the time.
const STAMP_BYTES: usize = 8;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The value behind its time of expiry (0: never).
pub fn stamp(value: &[u8], ttl: Option<Duration>) -> Vec<u8> {
    let expires_at_ms = ttl.map_or(0, |ttl| now_ms() + ttl.as_millis() as u64);
    let mut stamped = Vec::with_capacity(STAMP_BYTES + value.len());
    stamped.extend_from_slice(&expires_at_ms.to_le_bytes());
    stamped.extend_from_slice(value);
    stamped
}

/// The value, unless it has expired.
pub fn unstamp(stamped: &[u8]) -> Option<&[u8]> {
    let (stamp, value) = stamped.split_first_chunk::<STAMP_BYTES>()?;
    let expires_at_ms = u64::from_le_bytes(*stamp);
    (expires_at_ms == 0 || now_ms() < expires_at_ms).then_some(value)
}
