//! What the cold tier has on disk: segments, manifest, dictionaries; how it is written, and how it is found again.
//!
//! `storage` is owned by the writer and is the only one that appends and commits. `recovery` reads, decides, and
//! writes nothing. `slab` holds the open files that readers share.

mod active;
pub(super) mod adoption;
mod live_counts;
pub mod manifest;
pub mod names;
mod newest_rows;
pub mod recovery;
pub mod segment;
pub mod slab;
pub mod snapshot;
pub(in crate::cache) mod spread;
pub(super) mod storage;
pub(super) mod tuning_file;
