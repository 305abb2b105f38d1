//! What the store is made to do: plans of phases, and the operations of each.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use larder::{Codec, ColdTierConfig, Compression, Durability, Maintenance};

use crate::oracle::record_bytes;
use crate::ttl::TtlSet;
use crate::zipf::Zipf;

/// The workloads, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Fresh keys that expire, of few different times to live (`--ttl-set`, cluster4 by default).
    TtlOnly,
    /// Fresh keys that expire, at times that form a continuum (`--ttl-set`, log-uniform by default).
    TtlMixed,
    /// Every key overwritten as often as every other.
    Uniform,
    /// A tenth of the keys takes nine tenths of the overwrites.
    NinetyTen,
    /// A cache of a tenth of its keys, read through by a Zipf distribution of exponent 0.9.
    ZipfCapacity,
    /// Everything deleted; and all but a few scattered records deleted.
    DeleteAll,
    /// One time to live, for a year.
    Year,
}

impl Workload {
    /// As it is called on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How a workload is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The same seed gives the same operations.
    pub seed: u64,
    /// Size: keys, rates and segments grow with it, so that what is measured does not.
    pub scale: f64,
    /// Which times to live; `None` = the workload's own.
    pub ttl_set: Option<TtlSet>,
    /// Laid out so that it can run by a real clock.
    pub real_time: bool,
    /// By a real clock, milliseconds between two rounds of maintenance, and so how fast an overwrite workload goes
    /// (`uniform`, `ninety-ten`, `zipf-capacity`); `None` = in a hurry, a minute and a half long.
    pub real_step_ms: Option<u64>,
    /// Length of the values; `None` = the workload's own.
    pub value_bytes: Option<u32>,
    /// Values of a quarter of that length to seven quarters of it, each key's its own.
    pub mixed_values: bool,
    /// Exponent of the Zipf distribution.
    pub exponent: f64,
    /// Share of the writes that replace a recent key (ttl workloads), or of the requests that overwrite their key (zipf);
    /// `None` = the workload's own.
    pub replaced: Option<f64>,
    /// The share of dead bytes at which compaction starts; `None` = the workload's own.
    pub dead_ratio: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            scale: 1.0,
            ttl_set: None,
            real_time: false,
            real_step_ms: None,
            value_bytes: None,
            mixed_values: false,
            exponent: ZIPF_EXPONENT,
            replaced: None,
            dead_ratio: None,
        }
    }
}

impl Options {
    /// Time between two rounds of maintenance of the overwrite workloads.
    fn step_us(&self) -> u64 {
        match (self.real_time, self.real_step_ms) {
            (false, _) => STEP_US,
            (true, None) => REAL_STEP_US,
            (true, Some(step_ms)) => step_ms * 1000,
        }
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Insert a value.
    Put {
        /// Number of the key.
        key: u64,
        /// Time to live; 0 = it does not expire.
        ttl_ms: u64,
    },
    /// Read this key, and check what comes back.
    Get(u64),
    /// Read this key; insert what was missed.
    ReadThrough(u64),
    /// Write this key anew, whether it is there or not.
    WriteThrough(u64),
    /// Delete this key.
    Remove(u64),
    /// Ask for a compaction and wait for it.
    Compact,
    /// Let time pass.
    Idle,
}

/// A stretch of operations.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What the figures taken at its end are called.
    pub name: &'static str,
    /// Operations.
    pub ops: u64,
    /// Time between two of them, in microseconds.
    pub us_per_op: u64,
    /// Whether it counts: the store has settled.
    pub measured: bool,
}

/// A workload, ready to run.
#[derive(Debug)]
pub struct Plan {
    /// Which one.
    pub workload: Workload,
    /// How the store is opened; the directory is a name on the virtual disk.
    pub config: ColdTierConfig,
    /// Target size of a segment.
    pub segment_bytes: u64,
    /// One after the other.
    pub phases: Vec<Phase>,
    /// Maintenance runs this often, in microseconds; figures are taken as often.
    pub step_us: u64,
    /// Length of the keys.
    pub key_bytes: usize,
    /// Length of the values, on average.
    pub value_bytes: u32,
    /// They differ from key to key.
    pub mixed_values: bool,
    /// What the cache may hold; beyond it, it has to evict.
    pub capacity_bytes: Option<u64>,
    /// The library can do what the workload needs.
    pub supported: bool,
    /// Where the operations come from.
    pub stream: Stream,
}

const HOUR_US: u64 = 3_600_000_000;
const KEY_BYTES: usize = 24;
const VALUE_BYTES: u32 = 1024;
/// Values of the overwrite workloads: with smaller ones, what is measured is also what a footer and the last block of a
/// file take of a space of 1.25, a figure of the format and not of the policy.
const OVERWRITE_VALUE_BYTES: u32 = 4096;
/// Overwrites of each key, on average: the first eight let it settle, the last two are measured.
const OVERWRITES: u64 = 10;
const OVERWRITES_MEASURED: u64 = 2;
/// Overwrites between two rounds of maintenance: half a percent of the keys at scale 1. A store that maintains itself
/// looks twice a second.
const OVERWRITES_A_STEP: u64 = 250;
/// Share of the reclaimable bytes at which compaction starts, so that space comes to 1.25.
const DEAD_RATIO_MAX: f64 = 0.19;
/// Of the requests to a cache that is read through.
const ZIPF_EXPONENT: f64 = 0.9;
/// Requests between two rounds of maintenance.
const REQUESTS_A_STEP: u64 = 2000;
/// One operation in sixteen reads, and is checked.
const READ_SHARE: f64 = 1.0 / 16.0;
/// With times to live, one write in twenty replaces a recent key.
const REPLACED_SHARE: f64 = 0.05;
/// Writes a second. Cluster 4 takes 5,260 requests a second, 7 % of them writes: 368. A 32nd of that goes with segments
/// of a 32nd of 16 MiB: so as many seconds of writes lie in a segment as in the real one.
const TTL_PUTS_A_SECOND: f64 = 368.0 / 32.0;
const TTL_SEGMENT_BYTES: f64 = (16 << 20) as f64 / 32.0;
/// By a real clock, times to live are divided by this, and rates multiplied.
const REAL_TIME_DIVISOR: u64 = 960;
/// Time between two rounds of maintenance of the overwrite workloads: a store that maintains itself looks as often.
const STEP_US: u64 = 500_000;
/// By a real clock and in a hurry. Maintenance takes time there, which it does not in the simulator: the closer its
/// rounds, the more that shows in what they find.
const REAL_STEP_US: u64 = 40_000;
/// By a real clock, an hour of `year` takes eight seconds: the sixteenth of it after which a segment is sealed is then
/// half a second, the least there is. It lasts for so many hours.
const REAL_YEAR_DIVISOR: u64 = 450;
const REAL_YEAR_HOURS: u64 = 96;
/// One in so many records survives in `delete-all`.
pub const SCATTER: u64 = 500;

/// Size of the segments: with fewer than a few dozen of them, what is measured is their size.
fn segment_bytes(at_scale_1: f64, scale: f64) -> u64 {
    ((at_scale_1 * scale) as u64).clamp(64 << 10, 16 << 20)
}

fn scaled(count: u64, scale: f64) -> u64 {
    ((count as f64 * scale) as u64).max(1)
}

impl Plan {
    /// Lays a workload out, for a store in `dir`.
    pub fn new(workload: Workload, options: &Options, dir: &Path) -> Self {
        let mut plan = Self::of(workload, options);
        plan.config = plan.configured(options, dir);
        plan
    }

    fn of(workload: Workload, options: &Options) -> Self {
        match workload {
            Workload::TtlOnly => Self::ttl(workload, options, options.ttl_set.unwrap_or(TtlSet::Cluster4)),
            Workload::TtlMixed => Self::ttl(workload, options, options.ttl_set.unwrap_or(TtlSet::LogUniform)),
            Workload::Uniform => Self::overwrites(workload, options, 0.0, 0.0),
            Workload::NinetyTen => Self::overwrites(workload, options, 0.1, 0.9),
            Workload::ZipfCapacity => Self::zipf(options),
            Workload::DeleteAll => Self::deletes(options),
            Workload::Year => Self::year(options),
        }
    }

    /// Length of a key's values: always the same, so that what is replaced is as long as what replaces it.
    pub fn value_bytes_of(&self, key: u64) -> u32 {
        if !self.mixed_values {
            return self.value_bytes;
        }
        // 24 bits of a hash, spread over a quarter to seven quarters.
        let share = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24);
        (f64::from(self.value_bytes) * (0.25 + 1.5 * share)) as u32
    }

    /// Bytes that a record of this key takes, which never expires.
    pub fn record_bytes_of(&self, key: u64) -> u64 {
        record_bytes(self.key_bytes, self.value_bytes_of(key) as usize, false)
    }

    fn base(workload: Workload, segment_bytes: u64, step_us: u64, stream: Stream) -> Self {
        Self {
            workload,
            config: ColdTierConfig::new(""),
            segment_bytes,
            phases: Vec::new(),
            step_us,
            key_bytes: KEY_BYTES,
            value_bytes: VALUE_BYTES,
            mixed_values: false,
            capacity_bytes: None,
            supported: true,
            stream,
        }
    }

    /// What every workload has in common: nothing is compressed, nothing is synced that need not be.
    fn configured(&mut self, options: &Options, dir: &Path) -> ColdTierConfig {
        let maintenance = if options.real_time { Maintenance::Automatic } else { Maintenance::Manual };
        let config = ColdTierConfig::new(dir)
            .segment_bytes(self.segment_bytes)
            .compression(Compression::Fixed(Codec::None))
            .durability(Durability::Never)
            .maintenance(maintenance)
            .maintenance_interval(Duration::from_micros(self.step_us.clamp(1000, HOUR_US)));
        match (self.workload, self.capacity_bytes) {
            (Workload::Uniform | Workload::NinetyTen, _) => {
                config.dead_ratio_max(options.dead_ratio.unwrap_or(DEAD_RATIO_MAX))
            }
            (_, Some(capacity_bytes)) => {
                let (config, supported) = with_capacity(config, capacity_bytes);
                self.supported = supported;
                config
            }
            (_, None) => config,
        }
    }

    fn ttl(workload: Workload, options: &Options, set: TtlSet) -> Self {
        let divisor = if options.real_time { REAL_TIME_DIVISOR } else { 1 };
        let puts_a_second = TTL_PUTS_A_SECOND * options.scale * divisor as f64;
        let us_per_op = (1e6 * (1.0 - READ_SHARE) / puts_a_second) as u64;
        // A second: half of what the quickest bar allows. A store that maintains itself looks twice as often.
        let step_us = if options.real_time { 5_000 } else { 1_000_000 };
        let replaced = options.replaced.unwrap_or(REPLACED_SHARE);
        let stream = Stream::Ttl { set, divisor, next_key: 0, replaced };
        let bytes = segment_bytes(TTL_SEGMENT_BYTES, options.scale);
        let mut plan = Self::base(workload, bytes, step_us, stream);
        plan.value_bytes = options.value_bytes.unwrap_or(set.value_bytes());
        plan.mixed_values = options.mixed_values;
        let settling = set.settling_ms() * 1000 / divisor / us_per_op;
        plan.phases = vec![
            Phase { name: "settling", ops: settling, us_per_op, measured: false },
            Phase { name: "measured", ops: 2 * settling, us_per_op, measured: true },
        ];
        plan
    }

    fn overwrites(workload: Workload, options: &Options, hot_keys: f64, hot_share: f64) -> Self {
        let keys = scaled(50_000, options.scale);
        let step_us = options.step_us();
        let us_per_op = (step_us / scaled(OVERWRITES_A_STEP, options.scale)).max(1);
        let stream = Stream::Overwrites { keys, hot_keys: (keys as f64 * hot_keys) as u64, hot_share };
        let value_bytes = options.value_bytes.unwrap_or(OVERWRITE_VALUE_BYTES);
        // As many segments whatever the size of the values.
        let size = f64::from(value_bytes) / f64::from(OVERWRITE_VALUE_BYTES);
        let bytes = segment_bytes((512 << 10) as f64, options.scale * size);
        let mut plan = Self::base(workload, bytes, step_us, stream);
        plan.value_bytes = value_bytes;
        plan.mixed_values = options.mixed_values;
        let settling = (OVERWRITES - OVERWRITES_MEASURED) * keys;
        plan.phases = vec![
            Phase { name: "load", ops: keys, us_per_op, measured: false },
            Phase { name: "settling", ops: settling, us_per_op, measured: false },
            Phase { name: "measured", ops: OVERWRITES_MEASURED * keys, us_per_op, measured: true },
        ];
        plan
    }

    fn zipf(options: &Options) -> Self {
        let keys = scaled(500_000, options.scale);
        let step_us = options.step_us();
        let us_per_op = (step_us / scaled(REQUESTS_A_STEP, options.scale)).max(1);
        let written = options.replaced.unwrap_or(0.0);
        let stream = Stream::Zipf { zipf: Zipf::new(keys, options.exponent), written };
        let bytes = segment_bytes((256 << 10) as f64, options.scale);
        let mut plan = Self::base(Workload::ZipfCapacity, bytes, step_us, stream);
        plan.value_bytes = options.value_bytes.unwrap_or(VALUE_BYTES);
        plan.mixed_values = options.mixed_values;
        let capacity_bytes = keys * record_bytes(KEY_BYTES, plan.value_bytes as usize, false) / 10;
        plan.capacity_bytes = Some(capacity_bytes);
        plan.phases = vec![
            Phase { name: "settling", ops: 3 * keys, us_per_op, measured: false },
            Phase { name: "measured", ops: 5 * keys, us_per_op, measured: true },
        ];
        plan
    }

    fn deletes(options: &Options) -> Self {
        let keys = scaled(100_000, options.scale);
        let step_us = STEP_US;
        // Bursts: at scale 0.1 loading and deleting both fall between two rounds of maintenance.
        let us_per_op = 20;
        let bytes = segment_bytes((1 << 20) as f64, options.scale);
        let mut plan = Self::base(Workload::DeleteAll, bytes, step_us, Stream::Deletes(keys));
        let phase = |name, ops, us_per_op| Phase { name, ops, us_per_op, measured: false };
        plan.phases = vec![
            phase("loaded", keys, us_per_op),
            phase("deleted", keys, us_per_op),
            phase("five_seconds_later", 10, step_us),
            phase("loaded_again", keys, us_per_op),
            phase("scattered", keys, us_per_op),
            phase("scattered_compacted", 1, us_per_op),
        ];
        plan
    }

    fn year(options: &Options) -> Self {
        let puts_an_hour = scaled(300, options.scale);
        let (divisor, measured_hours) =
            if options.real_time { (REAL_YEAR_DIVISOR, REAL_YEAR_HOURS) } else { (1, 8760) };
        let hour_us = HOUR_US / divisor;
        let us_per_op = hour_us / puts_an_hour;
        let stream = Stream::Ttl { set: TtlSet::Hour, divisor, next_key: 0, replaced: REPLACED_SHARE };
        // A quarter of an hour a step: the year has 35,040 of them.
        let bytes = segment_bytes((64 << 10) as f64, options.scale);
        let mut plan = Self::base(Workload::Year, bytes, hour_us / 4, stream);
        let hours = |hours: u64| hours * puts_an_hour;
        plan.phases = vec![
            Phase { name: "settling", ops: hours(24), us_per_op, measured: false },
            Phase { name: "measured", ops: hours(measured_hours), us_per_op, measured: true },
        ];
        plan
    }
}

/// Gives the cold tier a capacity.
fn with_capacity(config: ColdTierConfig, capacity_bytes: u64) -> (ColdTierConfig, bool) {
    (config.capacity_bytes(capacity_bytes), true)
}

/// Where the operations of a workload come from.
#[derive(Debug)]
pub enum Stream {
    /// Fresh keys with times to live, some replaced, some read.
    Ttl {
        /// Which times to live.
        set: TtlSet,
        /// What they are divided by.
        divisor: u64,
        /// The next fresh key.
        next_key: u64,
        /// Share of the writes that replace a recent key.
        replaced: f64,
    },
    /// All keys once, then overwrites.
    Overwrites {
        /// How many keys.
        keys: u64,
        /// The first so many are hot.
        hot_keys: u64,
        /// Share of the operations that go to them.
        hot_share: f64,
    },
    /// So many keys, all deleted; the same again, all but every `SCATTER`th deleted.
    Deletes(u64),
    /// Requests for Zipf-distributed keys.
    Zipf {
        /// Which keys.
        zipf: Zipf,
        /// Share of the requests that write.
        written: f64,
    },
}

impl Stream {
    /// Operation `at` of phase `phase`.
    pub fn next(&mut self, phase: usize, at: u64, rng: &mut Rng) -> Op {
        match self {
            Self::Ttl { set, divisor, next_key, replaced } => {
                // Recent: of the last 500 keys, most of which live.
                let recent = |next_key: u64, rng: &mut Rng| next_key - 1 - rng.u64(..next_key.min(500));
                if *next_key > 0 && rng.f64() < READ_SHARE {
                    return Op::Get(recent(*next_key, rng));
                }
                let ttl_ms = (set.draw(rng) / *divisor).max(1);
                if *next_key > 0 && rng.f64() < *replaced {
                    return Op::Put { key: recent(*next_key, rng), ttl_ms };
                }
                *next_key += 1;
                Op::Put { key: *next_key - 1, ttl_ms }
            }
            Self::Overwrites { .. } if phase == 0 => Op::Put { key: at, ttl_ms: 0 },
            Self::Overwrites { keys, hot_keys, hot_share } => {
                let hot = rng.f64() < *hot_share;
                let key = if hot { rng.u64(..*hot_keys) } else { rng.u64(*hot_keys..*keys) };
                if rng.f64() < READ_SHARE { Op::Get(key) } else { Op::Put { key, ttl_ms: 0 } }
            }
            Self::Deletes(keys) => match phase {
                0 | 3 => Op::Put { key: at, ttl_ms: 0 },
                1 => Op::Remove(at),
                4 if at.is_multiple_of(SCATTER) => Op::Get(*keys - 1 - (*keys - 1) % SCATTER),
                4 => Op::Remove(at),
                5 => Op::Compact,
                _ => Op::Idle,
            },
            Self::Zipf { zipf, written } => {
                let key = zipf.draw(rng);
                match *written > 0.0 && rng.f64() < *written {
                    true => Op::WriteThrough(key),
                    false => Op::ReadThrough(key),
                }
            }
        }
    }
}
