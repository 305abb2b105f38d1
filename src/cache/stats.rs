//! Statistics: plain figures, a copy of the moment they were asked for.

/// Figures of the cold tier.
///
/// Counters start at zero when the store is opened; gauges describe the moment. *Dead* means overwritten or deleted.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ColdStats {
    /// Entries in the index; some may have expired and not been cleaned up yet.
    pub entries: u64,
    /// Deletions and expiries that still have to be remembered, because older bytes of the same key are on disk.
    pub shadows: u64,
    /// Bytes of live records, headers and padding included. Estimated within a size class (25 %) between
    /// compactions.
    pub live_bytes: u64,
    /// Bytes of overwritten and deleted records, estimated likewise.
    pub dead_bytes: u64,
    /// Bytes of expired records that a cleanup has found and no compaction has reclaimed yet.
    pub expired_bytes: u64,
    /// Stored bytes of live keys and values, record headers apart. Exact while no record is dead, otherwise by count.
    pub live_payload_bytes: u64,
    /// The same before compression.
    pub live_raw_bytes: u64,
    /// Raw bytes (key and value, before compression) inserted since the store was opened.
    pub raw_bytes_inserted: u64,
    /// Bytes of the records stored for them, headers included.
    pub stored_bytes_inserted: u64,
    /// Bytes written to segment files since the store was opened, by compaction too.
    pub segment_bytes_written: u64,
    /// Segment files, active ones included.
    pub segments: u64,
    /// Bytes of the segment files (their lengths).
    pub segment_bytes: u64,
    /// Bytes of index snapshots.
    pub snapshot_bytes: u64,
    /// Dictionaries in use.
    pub dictionaries: u64,
    /// Bytes of dictionary files.
    pub dictionary_bytes: u64,
    /// Resident bytes of the index.
    pub index_bytes: u64,
    /// Bytes accepted and not yet written.
    pub queued_bytes: u64,
    /// Inserts accepted.
    pub inserts: u64,
    /// Removes accepted.
    pub removes: u64,
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Lookups that found an entry past its time (counted as misses too).
    pub expired_misses: u64,
    /// Lookups that found damaged bytes (counted as misses too).
    pub damaged_misses: u64,
    /// Lookups that found another key with the same hash (counted as misses too).
    pub collision_misses: u64,
    /// Writes that were accepted and could not be stored; they read as misses, and `flush` reports them.
    pub writes_lost: u64,
    /// Entries removed by expiry cleanups.
    pub expired_removed: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Bytes reclaimed by compactions and cleanups, as the file system had allocated them.
    pub bytes_reclaimed: u64,
    /// Bytes that the directory takes, what is accepted and not written yet included.
    pub disk_bytes: u64,
    /// Bytes that it may take; `None` = no bound.
    pub capacity_bytes: Option<u64>,
    /// Live entries evicted because the capacity was reached.
    pub evicted: u64,
    /// Bytes of their records.
    pub evicted_bytes: u64,
    /// Inserts that admission or the write budget did not let in.
    pub rejected: u64,
    /// Evictions that the listener's channel had no room for.
    pub evictions_untold: u64,
    /// Forward jumps of the wall clock that were refused.
    pub clock_jumps_refused: u64,
    /// What recovery found when the store was opened.
    pub recovery: RecoveryStats,
}

impl ColdStats {
    /// Bytes written to segment files, by maintenance too, for each byte of the records as first stored; 0 before the
    /// first insert.
    pub fn written_amplification(&self) -> f64 {
        ratio(self.segment_bytes_written, self.stored_bytes_inserted)
    }

    /// Bytes of the segment files for each byte of the live records in them; 0 if none is live.
    pub fn space_amplification(&self) -> f64 {
        ratio(self.segment_bytes, self.live_bytes)
    }
}

fn ratio(of: u64, to: u64) -> f64 {
    if to == 0 { 0.0 } else { of as f64 / to as f64 }
}

/// What recovery found and did when the store was opened.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecoveryStats {
    /// Segments known.
    pub segments: u64,
    /// Entries taken from a snapshot.
    pub snapshot_entries: u64,
    /// Rows replayed from footers.
    pub footer_rows: u64,
    /// Records read from segments that had no (valid) footer.
    pub scanned_records: u64,
    /// Bytes cut off as torn or unreadable ends of segments that were being written.
    pub torn_bytes: u64,
    /// Damaged records or footers met.
    pub damaged: u64,
    /// Segments named by the manifest and not there.
    pub missing_segments: u64,
    /// Files left behind by an interrupted task and deleted.
    pub orphans_removed: u64,
    /// Entries given up because no usable snapshot was left (see FORMAT.md, "W").
    pub given_up: u64,
}
