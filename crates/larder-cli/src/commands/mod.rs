//! The commands, one a file, and the options of those that open a store.

pub mod bench;
pub mod del;
pub mod demo;
pub mod explain;
pub mod get;
pub mod inspect;
pub mod load;
pub mod put;
pub mod repair;
pub mod report;
pub mod stats;
pub mod tasks;
pub mod verify;
pub mod watch;

use std::path::Path;
use std::time::Duration;

use clap::Args;
use larder::{Admission, ColdTier, ColdTierConfig, Durability, Weights};

use crate::failure::Failure;
use crate::output;

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
    /// Bytes that the directory may take, as du counts them, such as 512M or 10G; entries worth least are evicted
    /// [default: no bound].
    #[arg(long, value_name = "BYTES", env = "LARDER_CAPACITY", value_parser = parse_bytes)]
    capacity: Option<u64>,
    /// Which new entries are stored once the capacity is reached: all, or by frequency, those that were offered before
    /// [default: all].
    #[arg(long, value_name = "all|frequency", env = "LARDER_ADMISSION", value_parser = parse_admission)]
    admission: Option<Admission>,
    /// Bytes that may be written in a day, such as 50G; beyond it new entries are not stored [default: no bound].
    #[arg(long, value_name = "BYTES", env = "LARDER_WRITE_BUDGET", value_parser = parse_bytes)]
    write_budget: Option<u64>,
    /// Dead or expired share of the bytes at which a compaction starts by itself, 0.05 to 0.95 [default: 0.25].
    #[arg(long, value_name = "SHARE", env = "LARDER_DEAD_RATIO", value_parser = parse_dead_ratio)]
    dead_ratio: Option<f64>,
}

/// Closes a store that was only looked at. What a full disk kept it from saving is told, and takes nothing from the answer.
fn close_after_a_look(store: ColdTier, dir: &Path) {
    if let Err(error) = store.close() {
        output::warn(&Failure::store("close", dir)(error).to_string());
    }
}

/// The capacity of a store that is only looked at: its files do not say it.
#[derive(Args, Debug)]
pub struct CapacityOption {
    /// Bytes that the directory may take, such as 512M or 10G, to show how much of it is free; nothing is evicted.
    #[arg(long, value_name = "BYTES", env = "LARDER_CAPACITY", value_parser = parse_bytes)]
    pub capacity: Option<u64>,
}

impl StoreOptions {
    /// Bytes that the directory may take.
    pub fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    /// Whether an entry that was put in may be gone before its time.
    pub fn may_lose_entries(&self) -> bool {
        self.capacity.is_some() || self.write_budget.is_some()
    }

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
        if let Some(capacity) = self.capacity {
            config = config.capacity_bytes(capacity);
        }
        if let Some(admission) = self.admission {
            config = config.admission(admission);
        }
        if let Some(budget) = self.write_budget {
            config = config.write_budget_bytes_per_day(budget);
        }
        if let Some(ratio) = self.dead_ratio {
            config = config.dead_ratio_max(ratio);
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

fn parse_admission(text: &str) -> Result<Admission, String> {
    match text {
        "all" => Ok(Admission::All),
        "frequency" => Ok(Admission::Frequency),
        _ => Err("use all or frequency".to_owned()),
    }
}

fn parse_dead_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.05..=0.95).contains(ratio));
    ratio.ok_or_else(|| "use a number from 0.05 to 0.95, such as 0.25".to_owned())
}

/// Parses bytes: a number, fractions allowed, with its unit. Units are those that are shown: K is 1024.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_uppercase();
    let power = match unit.as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 1,
        "M" | "MB" | "MIB" => 2,
        "G" | "GB" | "GIB" => 3,
        "T" | "TB" | "TIB" => 4,
        _ => return Err(format!("{unit:?} is no unit; use K, M, G and T, such as 512M or 10G; K is 1024")),
    };
    let number = digits.parse::<f64>().ok().filter(|number| *number > 0.0);
    let number = number.ok_or("use a number of bytes, such as 64M, 1.5G or 10G")?;
    let bytes = number * 1024f64.powi(power);
    if bytes > (1u64 << 60) as f64 { Err("use at most 1048576T".to_owned()) } else { Ok(bytes as u64) }
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
