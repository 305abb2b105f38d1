//! Times to live, as production caches mix them.
//!
//! The shares are those of Twitter's cache clusters in March 2020: J. Yang, Y. Yue, K. V. Rashmi, "A large scale
//! analysis of hundreds of in-memory cache clusters at Twitter", OSDI 2020; statistics of the published traces
//! (CC-BY-4.0), columns "common TTL" and "value size".

use clap::ValueEnum;
use fastrand::Rng;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Cluster 4: (time to live, share of its writes). The shares sum to 1.00; values of 2,439 B on average.
const CLUSTER4: [(u64, f64); 6] = [
    (MINUTE_MS, 0.39),
    (5 * MINUTE_MS, 0.24),
    (HOUR_MS, 0.13),
    (10 * MINUTE_MS, 0.12),
    (4 * HOUR_MS, 0.09),
    (DAY_MS, 0.03),
];

/// A mix of times to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TtlSet {
    /// Six of them, from a minute (39 %) to a day (3 %).
    Cluster4,
    /// Two hours, all of them.
    Cluster10,
    /// 490 to 600 s, every second of it: a common time with jitter.
    Cluster6,
    /// Two hours (79 %), or anything from 1.1 to 1.9 hours.
    Cluster9,
    /// Anything from a minute to a day, each order of magnitude alike.
    LogUniform,
    /// One hour, all of them.
    Hour,
}

impl TtlSet {
    /// The mean length of the values that go with it, in bytes. The clusters' own, where they have one; 1 KiB for the
    /// mixes that are nobody's, and for cluster 6 and 9, whose values (252 B and 39 B) would make the simulation one of
    /// record headers.
    pub fn value_bytes(self) -> u32 {
        match self {
            Self::Cluster4 => 2439,
            Self::Cluster10 => 2333,
            Self::Cluster6 | Self::Cluster9 | Self::LogUniform | Self::Hour => 1024,
        }
    }

    /// The longest-but-one of its times, or the longest where there is a continuum: how long it takes until what
    /// expires and what is written balance, but for the rarest.
    pub fn settling_ms(self) -> u64 {
        match self {
            Self::Cluster4 => 4 * HOUR_MS,
            Self::Cluster10 | Self::Cluster9 => 2 * HOUR_MS,
            Self::Cluster6 => 10 * MINUTE_MS,
            Self::LogUniform => 8 * HOUR_MS,
            Self::Hour => HOUR_MS,
        }
    }

    /// A time to live, in milliseconds.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        match self {
            Self::Cluster4 => {
                let mut left = rng.f64();
                for (ttl_ms, share) in CLUSTER4 {
                    left -= share;
                    if left < 0.0 {
                        return ttl_ms;
                    }
                }
                MINUTE_MS
            }
            Self::Cluster10 => 2 * HOUR_MS,
            Self::Cluster6 => rng.u64(490..=600) * 1000,
            Self::Cluster9 if rng.f64() < 0.79 => 2 * HOUR_MS,
            // 1.1 to 1.9 hours in steps of 0.1.
            Self::Cluster9 => rng.u64(11..=19) * HOUR_MS / 10,
            Self::LogUniform => {
                let (low, high) = ((MINUTE_MS as f64).ln(), (DAY_MS as f64).ln());
                (low + rng.f64() * (high - low)).exp() as u64
            }
            Self::Hour => HOUR_MS,
        }
    }
}
