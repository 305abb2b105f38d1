//! The commands, one a file, and the options of those that open a store.

pub mod bench;
pub mod del;
pub mod demo;
pub mod explain;
pub mod get;
pub mod inspect;
pub mod load;
pub mod put;
pub mod report;
pub mod stats;
pub mod tasks;
pub mod verify;
pub mod watch;

use std::path::Path;
use std::time::Duration;

use clap::Args;
use larder::{ColdTierConfig, Durability, Weights};

use crate::failure::Failure;

/// Options of every command that opens a store for writing.
#[derive(Args, Debug)]
pub struct StoreOptions {
    /// Size at which segment files are sealed, in MiB (1 to 64) [default: 16].
    #[arg(long, value_name = "MIB", env = "LARDER_SEGMENT_MIB", value_parser = clap::value_parser!(u64).range(1..=64))]
    segment_mib: Option<u64>,
    /// When accepted writes become durable: never, always, or within this many ms [default: 1000].
    #[arg(long, value_name = "never|always|MS", env = "LARDER_DURABILITY", value_parser = parse_durability)]
    durability: Option<Durability>,
    /// What tuning weighs a stored byte by: speed, balanced or space [default: balanced].
    #[arg(long, value_name = "WORD", env = "LARDER_WEIGHTS")]
    weights: Option<Weights>,
}

impl StoreOptions {
    /// The configuration of the store in `dir` with these options.
    pub fn config(&self, dir: &Path) -> ColdTierConfig {
        let mut config = ColdTierConfig::new(dir);
        if let Some(mib) = self.segment_mib {
            config = config.segment_bytes(mib << 20);
        }
        if let Some(durability) = self.durability {
            config = config.durability(durability);
        }
        if let Some(weights) = self.weights {
            config = config.weights(weights);
        }
        config
    }
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "never" => Ok(Durability::Never),
        "always" => Ok(Durability::Always),
        _ => match text.parse() {
            Ok(ms @ 1..=3_600_000) => Ok(Durability::Interval(Duration::from_millis(ms))),
            _ => Err("use never, always, or a number of milliseconds from 1 to 3600000".to_owned()),
        },
    }
}

/// Parses a time to live: seconds, fractions allowed, or a number with its unit.
pub fn parse_ttl(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds_a_unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        unit => return Err(format!("{unit:?} is no unit; use ms, s, m, h or d, such as 90s or 1h")),
    };
    let number: f64 =
        digits.parse().map_err(|_| "use a number of seconds, such as 60 or 0.5, or 90s, 15m, 1h, 30d")?;
    match Duration::try_from_secs_f64(number * seconds_a_unit) {
        Ok(ttl) if ttl >= Duration::from_millis(1) => Ok(ttl),
        _ => Err("use at least 0.001 seconds".to_owned()),
    }
}

/// `dir`, if a command may fill it with what it knows and nothing else: absent or empty.
pub fn empty_dir(dir: &Path) -> Result<&Path, Failure> {
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(dir),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(dir),
        Ok(true) => {
            Err(Failure::Other(format!("{}: not empty; name a new or empty directory", dir.display())))
        }
        Err(error) => Err(Failure::Other(format!("list {}: {error}; name a directory", dir.display()))),
    }
}

/// An error unless `dir` holds a store, damaged or not: a mistyped path must not create one.
pub fn require_store(dir: &Path) -> Result<(), Failure> {
    let is_ours =
        |name: &[u8]| name == b"CURRENT" || name.starts_with(b"MANIFEST-") || name.starts_with(b"seg-");
    let problem = match std::fs::read_dir(dir) {
        Ok(entries) => {
            if entries.flatten().any(|entry| is_ours(entry.file_name().as_encoded_bytes())) {
                return Ok(());
            }
            "there is no store in it".to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(Failure::Other(format!(
        "{}: {problem}; `larder put {0} KEY VALUE` or `larder load {0} INPUT` makes one",
        dir.display()
    )))
}
