//! Larder beside other embedded stores: the same keys and values, the same operations in the same order, every value
//! that is read compared with what was written, each store in a process of its own, in turns.
//!
//! ```text
//! cargo run --release --features light,foyer,rocksdb -- run --peers all --workload load,get,mixed,restart --dir DIR
//! ```
//!
//! - `peer`: what a store has to do here; `peers/`: one adapter a store, each behind a feature of its name
//! - `contents`: keys and values, by number, from documents of a `pool`; `ratios`: how far zstd shrinks them
//! - `plan`: what is done, and how much of it; `rounds`: who runs when; `scale`: the same at several numbers of entries
//! - `stages`: what one process does; `serve`: with a store that stays open; `limited`: with less memory than data; `ttl`
//! - `driver`: operations, timed and checked; `settle`: when a store has nothing more to do
//! - `machine`: what the kernel counts; `measure`: one line of results; `table`, `picture`: what people read
//!
//! The heavy engines are never built by the workspace: this crate is not a member, and has a lock file of its own.

pub mod contents;
pub mod driver;
pub mod limited;
pub mod machine;
pub mod measure;
pub mod peer;
pub mod peers;
pub mod picture;
pub mod plan;
pub mod pool;
pub mod ratios;
pub mod rounds;
pub mod scale;
mod serve;
pub mod settle;
pub mod stages;
pub mod table;
mod ttl;

pub use larder_bench::{Failure, Result};

/// An error of a peer.
pub fn failed(error: impl std::fmt::Display) -> Failure {
    Failure(error.to_string())
}
