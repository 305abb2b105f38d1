//! What theory says of the figures, and what they have to be. One table: a better policy tightens it here.
//!
//! Theory of uniform overwrites under greedy cleaning: written 1.88 / 2.69 / 5.18 at space 1.43 / 1.25 / 1.11; of 90:10
//! overwrites with hot and cold records apart: 1.22 / 1.48 / 2.34; of records that die together: 1.00.

use crate::figures::{Figures, figure};
use crate::workload::Workload;

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bar {
    /// Whether a value meets it.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bar) => value <= bar,
            Self::AtLeast(bar) => value >= bar,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bar) => write!(f, "<= {bar}"),
            Self::AtLeast(bar) => write!(f, ">= {bar}"),
        }
    }
}

/// A figure with what is expected of it.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Its name.
    pub figure: &'static str,
    /// What theory says, if it does.
    pub theory: Option<f64>,
    /// What it has to be, if it matters.
    pub bar: Option<Bar>,
}

const fn at_most(figure: &'static str, theory: f64, bar: f64) -> Expected {
    Expected { figure, theory: Some(theory), bar: Some(Bar::AtMost(bar)) }
}

const fn at_most_alone(figure: &'static str, bar: f64) -> Expected {
    Expected { figure, theory: None, bar: Some(Bar::AtMost(bar)) }
}

const fn at_least_alone(figure: &'static str, bar: f64) -> Expected {
    Expected { figure, theory: None, bar: Some(Bar::AtLeast(bar)) }
}

/// Whatever the workload: the store's count of what it wrote is the disk's, and what it answers is right.
const ALWAYS: [Expected; 4] = [
    at_most("count_disagreement", 0.0, 0.0),
    at_most("unreadable_segments", 0.0, 0.0),
    at_most("lost", 0.0, 0.0),
    at_most("wrong", 0.0, 0.0),
];

/// What saved indexes may take, of the disk and of what is written.
const SNAPSHOTS: [Expected; 2] =
    [at_most_alone("snapshot_share_max", 0.12), at_most_alone("snapshot_share_written", 0.12)];

const TTL_ONLY: &[Expected] = &[
    at_most("written_amplification", 1.0, 1.02),
    at_most_alone("reclaim_p99_share", 1.0),
    at_most("record_bytes_read_by_cleanup", 0.0, 0.0),
    SNAPSHOTS[0],
    SNAPSHOTS[1],
];

const TTL_MIXED: &[Expected] = &[
    at_most("written_amplification", 1.0, 1.1),
    at_most_alone("reclaim_p99_ttls", 1.0),
    SNAPSHOTS[0],
    SNAPSHOTS[1],
];

const UNIFORM: &[Expected] = &[
    at_most("written_amplification", 2.69, 2.8),
    at_most("space_amplification", 1.25, 1.25),
    SNAPSHOTS[0],
    SNAPSHOTS[1],
];

const NINETY_TEN: &[Expected] = &[
    at_most("written_amplification", 1.48, 1.6),
    at_most("space_amplification", 1.25, 1.25),
    SNAPSHOTS[0],
    SNAPSHOTS[1],
];

const ZIPF_CAPACITY: &[Expected] = &[
    at_most("written_amplification", 1.0, 1.25),
    at_least_alone("hit_ratio_over_fifo", 1.1),
    at_most_alone("du_over_capacity_max", 1.0),
    SNAPSHOTS[0],
    SNAPSHOTS[1],
];

const DELETE_ALL: &[Expected] =
    &[at_most("segments_after_delete", 0.0, 2.0), at_most("segments_over_bound", 0.0, 0.0)];

const YEAR: &[Expected] = &[
    at_most("written_amplification", 1.0, 1.02),
    at_most("space_growth", 1.0, 1.05),
    at_most("index_growth", 1.0, 1.05),
    // So small a store is smaller than the least snapshot; what is written counts.
    SNAPSHOTS[1],
];

/// What is expected of a workload.
pub fn expected(workload: Workload) -> impl Iterator<Item = &'static Expected> {
    let own = match workload {
        Workload::TtlOnly => TTL_ONLY,
        Workload::TtlMixed => TTL_MIXED,
        Workload::Uniform => UNIFORM,
        Workload::NinetyTen => NINETY_TEN,
        Workload::ZipfCapacity => ZIPF_CAPACITY,
        Workload::DeleteAll => DELETE_ALL,
        Workload::Year => YEAR,
    };
    own.iter().chain(&ALWAYS)
}

/// The bars that are missed, in words. A figure that was not measured misses its bar.
pub fn missed(workload: Workload, figures: &Figures) -> Vec<String> {
    let judge = |expected: &Expected| {
        let bar = expected.bar?;
        match figure(figures, expected.figure) {
            Some(value) if bar.is_met(value) => None,
            Some(value) => Some(format!("{} is {value:.4}, has to be {bar}", expected.figure)),
            None => Some(format!("{} was not measured, has to be {bar}", expected.figure)),
        }
    };
    expected(workload).filter_map(judge).collect()
}
