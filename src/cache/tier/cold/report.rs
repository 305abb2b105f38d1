//! What the maintenance tasks report: plain structs, whole tables, so that a decision can be read and explained.

use std::time::Duration;

use crate::config::{Codec, Weights};

/// A maintenance task of the cold tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum CompactionTask {
    /// Rewrites segments that hold dead bytes; gives their space back.
    CompactData,
    /// Checks every segment's footer against the live index and saves the index as a snapshot.
    RebuildIndex,
    /// Takes every entry past its time to live out of the index; drops segments that hold nothing else.
    CleanupExpired,
    /// Measures the live data and chooses how later writes and compactions store it.
    OptimizeCompression,
}

/// What a task did.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum TaskReport {
    /// Of [`CompactionTask::CompactData`].
    CompactData(CompactionReport),
    /// Of [`CompactionTask::RebuildIndex`].
    RebuildIndex(RebuildReport),
    /// Of [`CompactionTask::CleanupExpired`].
    CleanupExpired(CleanupReport),
    /// Of [`CompactionTask::OptimizeCompression`].
    OptimizeCompression(TuningReport),
}

/// What a compaction did. All zero: there was nothing to reclaim.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompactionReport {
    /// Segments removed.
    pub segments_removed: u64,
    /// Segments written in their place.
    pub segments_written: u64,
    /// Live entries copied.
    pub entries_copied: u64,
    /// Of those, entries stored anew with the current codec and dictionary.
    pub entries_recompressed: u64,
    /// Entries left out because they were deleted or overwritten.
    pub entries_dead: u64,
    /// Entries left out because their time had passed.
    pub entries_expired: u64,
    /// Live entries that could not be copied because their bytes are damaged; they are counted misses.
    pub entries_damaged: u64,
    /// Bytes of the removed files, as the file system had allocated them.
    pub bytes_before: u64,
    /// Bytes of the written files, as the file system has allocated them.
    pub bytes_after: u64,
    /// `bytes_before - bytes_after`; negative if the outputs take more.
    pub bytes_reclaimed: i64,
    /// Time taken; serialized as seconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub duration: Duration,
}

/// What an expiry cleanup did.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CleanupReport {
    /// Entries past their time that left the index.
    pub expired_removed: u64,
    /// Segments that held nothing else, dropped without reading a record.
    pub segments_dropped: u64,
    /// Bytes given back by those, as the file system had allocated them.
    pub bytes_reclaimed: u64,
    /// Segments looked into (their footers, not their records).
    pub segments_checked: u64,
    /// Time taken; serialized as seconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub duration: Duration,
}

/// What a rebuild of the saved index did.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RebuildReport {
    /// Segments whose footers were checked.
    pub segments_checked: u64,
    /// Rows in those footers.
    pub rows_checked: u64,
    /// Entries of the index.
    pub entries: u64,
    /// Index entries that pointed at no record and were removed.
    pub dangling_removed: u64,
    /// Segments whose footer was damaged; their records were read instead.
    pub footers_damaged: u64,
    /// Size of the snapshot, in bytes.
    pub snapshot_bytes: u64,
    /// Time taken; serialized as seconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub duration: Duration,
}

/// What a tuning of the compression measured and chose.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TuningReport {
    /// When, in unix milliseconds of the store's clock.
    pub at_ms: u64,
    /// What it weighed bytes by.
    pub weights: Weights,
    /// Share of reads among the operations observed, 0 to 1, that the cost model used.
    pub read_share: f64,
    /// Entries sampled.
    pub sampled_entries: u64,
    /// Their raw bytes, key and value.
    pub sampled_bytes: u64,
    /// All classes together: the choice of every class that has none of its own.
    pub common: Box<ClassReport>,
    /// Each class of records by raw size, the smallest first.
    pub classes: Vec<ClassReport>,
    /// Raw bytes / stored bytes that the choices promise for the live data, dictionaries not counted; 0 = unknown.
    pub expected_ratio: f64,
    /// Whether the choice of any class changed.
    pub changed: bool,
    /// Time taken; serialized as seconds.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub duration: Duration,
}

/// What a tuning measured and chose for the records of one class, or for all of them.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassReport {
    /// Largest raw length, key and value, of the class in bytes; `None` = no limit.
    pub raw_bytes_max: Option<u64>,
    /// Live entries, estimated.
    pub entries: u64,
    /// Their raw bytes, estimated.
    pub raw_bytes: u64,
    /// Entries sampled.
    pub sampled_entries: u64,
    /// Their raw bytes, key and value.
    pub sampled_bytes: u64,
    /// Order-0 entropy of the sample, in bits a byte (8 = random).
    pub entropy_bits: f64,
    /// Every candidate measured, cheapest first.
    pub candidates: Vec<Candidate>,
    /// Where the choice stands among the candidates; `None` if it was not measured on this class.
    pub chosen_at: Option<u32>,
    /// What is used from now on.
    pub chosen: CompressionChoice,
    /// What was used before.
    pub previous: CompressionChoice,
    /// Whether the choice changed (also: another dictionary of the same size).
    pub changed: bool,
    /// The class has a choice of its own; otherwise it follows the common one.
    pub is_own: bool,
    /// Each value is looked at before it is compressed, and stored as it is if it looks random.
    pub gate: bool,
    /// Why, in a sentence with the figures that decided.
    pub reason: String,
}

/// A way to compress: codec and, if any, dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompressionChoice {
    /// Codec and level.
    pub codec: Codec,
    /// Size of the trained dictionary, in bytes; 0 = none.
    pub dictionary_bytes: u32,
}

impl std::fmt::Display for CompressionChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.dictionary_bytes {
            0 => write!(f, "{}", self.codec),
            bytes => write!(f, "{} + {} KiB dictionary", self.codec, bytes.div_ceil(1024)),
        }
    }
}

/// One measured way to compress the sample.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Candidate {
    /// What was measured.
    pub choice: CompressionChoice,
    /// Its dictionary was trained on this sample; otherwise it is the one in use before, or none.
    pub newly_trained: bool,
    /// Raw bytes / stored bytes over the hold-out part (which no dictionary was trained on), dictionary not counted.
    pub ratio: f64,
    /// CPU time to store one entry, in nanoseconds.
    pub compress_ns: f64,
    /// CPU time to read one entry, in nanoseconds.
    pub decompress_ns: f64,
    /// Cost of one entry by the cost model, in nanoseconds (CPU time plus the price of its stored bytes).
    pub cost_ns: f64,
}

#[cfg(feature = "serde")]
fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
