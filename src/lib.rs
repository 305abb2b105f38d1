//! Larder: an embedded cache that is larger than memory, survives restarts and keeps its own disk small.
//!
//! This release is its heart, the [`ColdTier`]: a log-structured store of compressed records on local disk, and the
//! work that keeps it small: **compaction** gives the space of dead records back, **expiry cleanup** removes what is
//! past its time to live, **compression tuning** measures the data and picks how it is stored.
//!
//! ```
//! # fn main() -> larder::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! use larder::{ColdTier, ColdTierConfig, CompactionTask, TaskReport};
//!
//! let cold = ColdTier::open(ColdTierConfig::new(dir.path()))?;
//! for n in 0..1000u32 {
//!     cold.insert(&n.to_le_bytes(), format!("{{\"number\":{n},\"even\":{}}}", n % 2 == 0).as_bytes())?;
//! }
//! for n in 0..500u32 {
//!     cold.remove(&n.to_le_bytes())?;
//! }
//! if let TaskReport::CompactData(report) = cold.run(CompactionTask::CompactData)? {
//!     assert_eq!(report.entries_copied, 500);
//! }
//! assert_eq!(cold.len(), 500);
//! cold.close()?;
//! # Ok(()) }
//! ```
//!
//! All methods take `&self` and may be called from any thread. See [`ColdTier`] for what a crash can lose, and
//! `docs/` in the repository for the architecture, the format on disk and the invariants.

mod cache;
mod clock;
mod config;
mod error;
pub mod io;
mod sync;

pub use cache::eviction::{Eviction, EvictionReason};
pub use cache::stats::{ColdStats, RecoveryStats};
pub use cache::tier::cold::report::{
    Candidate, ClassReport, CleanupReport, CompactionReport, CompactionTask, CompressionChoice,
    RebuildReport, TaskReport, TuningReport,
};
pub use cache::tier::cold::{
    ColdTier, CompactionState, Damage, Entry, Inspection, Iter, LogKind, RepairReport, SegmentGroup,
    SegmentInfo, SegmentState, Ttl, VerifyReport, explain, inspect, inspect_shared, repair, verify,
};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{
    Admission, CacheConfig, Codec, ColdTierConfig, Compression, Durability, Maintenance, QueueFull, Weights,
};
pub use error::{Error, ErrorKind, Result};
pub use io::{Disk, DiskFile, OsDisk};

/// The parts under test and fuzzing. No promise is made about them.
#[doc(hidden)]
pub mod internals {
    pub use crate::cache::memory::efficiency_analyzer;
    pub use crate::cache::tier::cold::{
        brake, classes, compression, core, dictionary, frontier, gate, inspect_shared_on, metadata_index,
        report, serialization,
    };
    /// What `tests/handover` models; in such builds alone.
    #[cfg(larder_model)]
    pub use crate::cache::tier::cold::{hand_over, in_flight};
}
