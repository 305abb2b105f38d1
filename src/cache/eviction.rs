//! What a listener learns of evictions.

use bytes::Bytes;

/// Why an entry is not (or no longer) in the cache although its time has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum EvictionReason {
    /// The capacity is reached, and others were worth more: read more often for their bytes, or with longer to live.
    Capacity,
    /// Not stored: the frequency gate had not met the key before ([`Admission::Frequency`](crate::Admission)).
    Admission,
    /// Not stored: the day's write budget is spent.
    WriteBudget,
    /// Accepted, and then the disk refused it.
    WriteLost,
}

/// An entry that was evicted, or not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Eviction {
    /// Its key.
    pub key: Bytes,
    /// Bytes it took on disk; 0 if it was never stored.
    pub bytes: u64,
    /// Why.
    pub reason: EvictionReason,
}
