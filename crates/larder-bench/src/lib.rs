//! The simulator: **the real store**, opened with `ColdTier::open_with` over a disk in memory and a clock that is
//! turned by hand, so that the code that decides is the code that ships. A day of expiry takes seconds, and the same
//! seed gives the same counts.
//!
//! ```text
//! larder-bench simulate ttl-only | ttl-mixed | uniform | ninety-ten | zipf-capacity | delete-all | year
//! ```
//!
//! - `disk`: files in memory; `ledger`: what is written to any disk and what leaves it, counted below the store
//! - `workload`, `ttl`, `zipf`: what the store is made to do; `oracle`: what it has to hold and to answer
//! - `fifo`: the cache that capacity eviction has to beat
//! - `simulate`: the driver; `figures`, `bars`, `report`: what came out, what theory says, what it has to be
//! - `pace`: what maintenance costs readers and writers, on a real file system by the machine's clock
//! - `page_cache`: whether maintenance had better keep its files out of the page cache, likewise
//! - `multi_get`: what many keys at once gain, likewise
//! - `contents`: reads segment files, and is the only module that knows their format
//!
//! With `--real DIR` the same operations run on the file system by the machine's clock, the store maintaining itself: a
//! figure of the simulator counts where the two agree within 5 %.

pub mod bars;
pub mod contents;
pub mod disk;
pub mod fifo;
pub mod figures;
pub mod ledger;
pub mod multi_get;
pub mod oracle;
pub mod pace;
pub mod page_cache;
pub mod report;
pub mod simulate;
pub mod ttl;
pub mod workload;
pub mod zipf;

/// Why a run could not be finished.
#[derive(Debug)]
pub struct Failure(pub String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<larder::Error> for Failure {
    fn from(error: larder::Error) -> Self {
        Self(format!("the store: {error}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What a run gives, or why it could not be finished.
pub type Result<T> = std::result::Result<T, Failure>;
