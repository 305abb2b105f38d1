//! The cold tier: a log-structured store of compressed records with an index in memory.
//!
//! ```text
//!  callers (any thread)                 writer thread                      compaction thread
//!  --------------------                 -------------                      -----------------
//!  get ──> in flight? index? slab ──> one positional read
//!  insert, remove                       owns: active segment,              owns: scheduling, samples,
//!    reserve queue bytes                      manifest, queue receiver           policy, task receiver
//!    encode, place in flight
//!    ──── Append ───────────────────>   encode if it has the time for it,
//!                                       append, write what has come together
//!                                       point the index, let go of
//!                                       the in-flight copies
//!  flush ── Barrier ────────────────>   sync, answer
//!  run, schedule ── Run ────────────────────────────────────────────────>  compact, clean up, tune, rebuild
//!                                       sync, edit, sync, answer  <─ Commit, Seal, ExpiredRows, HandOver ─
//!                                       (before whatever is queued)
//! ```
//!
//! The compaction thread waits for the writer; the writer waits for nobody. What callers and workers look at together
//! is in `shared.rs`, owned by the [`ColdTier`] and borrowed by its threads, which it joins before it drops (`crew.rs`).

mod admission;
pub mod brake;
pub mod classes;
mod compaction_system;
pub mod compression;
pub mod core;
mod courtesy;
mod crew;
pub mod dictionary;
mod encoding;
pub mod frontier;
pub mod gate;
mod groups;
pub mod hand_over;
mod handle;
pub mod in_flight;
mod inspect;
mod iter;
mod ledger;
mod lookup;
mod message;
pub mod metadata_index;
mod open;
mod parameters;
mod queue;
mod repair;
pub mod report;
pub mod serialization;
mod shared;
mod state;
mod view;
mod worker;
mod writer;

pub use handle::{ColdTier, Entry, Ttl};
pub use inspect::{
    Damage, Inspection, VerifyReport, explain, inspect, inspect_shared, inspect_shared_on, verify,
};
pub use iter::Iter;
pub use repair::{RepairReport, repair};
pub use serialization::segment::LogKind;
pub use state::CompactionState;
pub use view::{SegmentGroup, SegmentInfo, SegmentState};
