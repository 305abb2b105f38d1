//! The file that explains the last tuning: one block.

use wincode::{SchemaRead, SchemaWrite};

use super::{Result, decode, encode, open_block, seal_block};

const MAGIC: &[u8; 8] = b"LARDTUN1";

/// A tuning.
#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub struct TuningEntry {
    /// Unix ms of the store's clock.
    pub at_ms: u64,
    /// 0 speed, 1 balanced, 2 space.
    pub weights: u8,
    /// Share of reads.
    pub read_share: f64,
    /// Entries sampled.
    pub sampled_entries: u64,
    /// Their raw bytes.
    pub sampled_bytes: u64,
    /// All classes together.
    pub common: ClassEntry,
    /// Each class, the smallest first.
    pub classes: Vec<ClassEntry>,
    /// Raw / stored bytes promised; 0 = unknown.
    pub expected_ratio: f64,
    /// Whether anything changed.
    pub changed: bool,
    /// Time taken.
    pub duration_ns: u64,
}

/// A class of records.
#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub struct ClassEntry {
    /// Largest raw length; none = no limit.
    pub raw_bytes_max: Option<u64>,
    /// Live entries, estimated.
    pub entries: u64,
    /// Their raw bytes, estimated.
    pub raw_bytes: u64,
    /// Entries sampled.
    pub sampled_entries: u64,
    /// Their raw bytes.
    pub sampled_bytes: u64,
    /// Bits a byte.
    pub entropy_bits: f64,
    /// What was measured, cheapest first.
    pub candidates: Vec<CandidateEntry>,
    /// Index of the choice among them.
    pub chosen_at: Option<u32>,
    /// What is used from then on.
    pub chosen: WayEntry,
    /// What was used before.
    pub previous: WayEntry,
    /// Whether they differ.
    pub changed: bool,
    /// Not the common choice.
    pub is_own: bool,
    /// Values are looked at before they are compressed.
    pub gate: bool,
    /// Why.
    pub reason: String,
}

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct WayEntry {
    /// Codec number.
    pub codec: u8,
    /// Its level.
    pub level: i8,
    /// Size of its dictionary; 0 = none.
    pub dictionary_bytes: u32,
}

/// A way to compress, measured.
#[derive(Clone, Copy, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub struct CandidateEntry {
    /// The way.
    pub way: WayEntry,
    /// Its dictionary was trained for this tuning.
    pub newly_trained: bool,
    /// Raw / stored bytes.
    pub ratio: f64,
    /// Time to store an entry, ns.
    pub compress_ns: f64,
    /// Time to read one, ns.
    pub decompress_ns: f64,
    /// Cost of an entry by the cost model, ns.
    pub cost_ns: f64,
}

/// The whole file.
pub fn encode_tuning(entry: &TuningEntry) -> Vec<u8> {
    seal_block(MAGIC, &encode(entry))
}

/// The tuning in a file.
///
/// # Errors
/// When it is damaged, or of a newer version.
pub fn decode_tuning(file: &[u8]) -> Result<TuningEntry> {
    decode(open_block(MAGIC, file)?)
}
