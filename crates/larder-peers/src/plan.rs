//! What is done, and how much of it.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::contents::{ContentsKind, Size};

/// What a store is made to do. In the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Workload {
    /// Put every entry, then flush; then wait until the store has settled.
    Load,
    /// Read keys drawn evenly, one thread, whatever the page cache holds.
    Get,
    /// Likewise, two threads.
    Get2,
    /// Read keys by popularity, one thread.
    Zipf,
    /// Likewise, two threads.
    Zipf2,
    /// Read keys that were never put, one thread.
    Miss,
    /// Four reads to an overwrite by popularity, two threads, until the data was overwritten (`--mixed-data`); then until
    /// the store has settled.
    Mixed,
    /// Read keys drawn evenly after the page cache was dropped, one thread.
    Cold,
    /// Close, open in a new process, read a thousand keys; then check a sample.
    Restart,
    /// Overwrite until the process is killed, then as Restart.
    Kill,
    /// Delete every entry, and see what of the disk comes back.
    Delete,
    /// On a fresh store: most entries expire; see what of the disk comes back, and when.
    Ttl,
    /// On a fresh store in a group with less memory than data (`--memory-share`): reads of keys drawn evenly, alone and
    /// beside overwrites at an even pace. Needs to be permitted to make such a group.
    Limited,
}

impl Workload {
    /// As it is called on the command line and in tables.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// How the page cache is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Caches {
    /// The whole machine's, where that is permitted, otherwise the store's files.
    Auto,
    /// Of the store's files alone (`posix_fadvise`): pages that are mapped or not yet written stay.
    Files,
}

/// Amounts, the same for all stores.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// Entries that are loaded.
    #[arg(long, default_value_t = 100_000)]
    pub entries: u64,
    /// Bytes of a value: a number, or `mixed` (200 to 4096, 660 on average).
    #[arg(long, default_value = "mixed")]
    pub size: Size,
    /// What values consist of.
    #[arg(long, value_enum, default_value = "text")]
    pub contents: ContentsKind,
    /// No workload but load, delete, mixed and limited goes on for longer than this.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Nor for more operations a thread than this.
    #[arg(long, default_value_t = 1_000_000)]
    pub operations: u64,
    /// `mixed` goes on until so many times the data was overwritten.
    #[arg(long, default_value_t = 2.0)]
    pub mixed_data: f64,
    /// But for no longer than this.
    #[arg(long, default_value_t = 40.0)]
    pub mixed_seconds: f64,
    /// Memory in `limited`, as a share of the keys and values.
    #[arg(long, default_value_t = 0.25)]
    pub memory_share: f64,
    /// `limited` overwrites this share of the entries, at an even pace.
    #[arg(long, default_value_t = 0.5)]
    pub busy_data: f64,
    /// And takes so long for it, if the store can.
    #[arg(long, default_value_t = 30.0)]
    pub busy_seconds: f64,
    /// Memory for the stores' own caches.
    #[arg(long, default_value_t = 64)]
    pub cache_mib: usize,
    /// Exponent of the popularity.
    #[arg(long, default_value_t = 0.99)]
    pub exponent: f64,
    /// Time to live of the entries that expire.
    #[arg(long, default_value_t = 10.0)]
    pub ttl_seconds: f64,
    /// How the page cache is emptied, where that is part of a workload.
    #[arg(long, value_enum, default_value = "auto")]
    pub caches: Caches,
    /// The same seed draws the same keys.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Plan {
    /// Longest duration of a bounded workload.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Overwritten bytes after which `mixed` ends, of a store that holds `logical_bytes`, and the time after which it ends
    /// all the same.
    pub fn mixed_goal(&self, logical_bytes: u64) -> (u64, Duration) {
        ((logical_bytes as f64 * self.mixed_data) as u64, Duration::from_secs_f64(self.mixed_seconds))
    }

    /// The arguments that give this plan again, for a process of its own.
    pub fn arguments(&self) -> Vec<String> {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let pairs = [
            ("--entries", self.entries.to_string()),
            ("--size", self.size.to_string()),
            ("--contents", name(self.contents.to_possible_value())),
            ("--seconds", self.seconds.to_string()),
            ("--operations", self.operations.to_string()),
            ("--mixed-data", self.mixed_data.to_string()),
            ("--mixed-seconds", self.mixed_seconds.to_string()),
            ("--memory-share", self.memory_share.to_string()),
            ("--busy-data", self.busy_data.to_string()),
            ("--busy-seconds", self.busy_seconds.to_string()),
            ("--cache-mib", self.cache_mib.to_string()),
            ("--exponent", self.exponent.to_string()),
            ("--ttl-seconds", self.ttl_seconds.to_string()),
            ("--caches", name(self.caches.to_possible_value())),
            ("--seed", self.seed.to_string()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}
