//! Power cuts and crashes in mid-recovery: the states that the log of a scripted run may leave.

use std::cell::Cell;
use std::path::PathBuf;

use crate::fault::{Fault, unwinding};
use crate::recording::Event;
use crate::saved;
use crate::script::{self, Plan};
use crate::states::{self, Case, Share};
use crate::suite::{Count, Suite, Tell};

const SHARE: Share = Share { power_cuts: 125, kills: 31, pairs: 28 };
/// Broken states kept for each seed.
const SAVED_OF_A_SEED: usize = 3;

pub const SUITE: Suite = Suite {
    name: "power",
    jobs: 80,
    counts: &[(Count::PowerCutStates, SHARE.power_cuts), (Count::CrashPairs, SHARE.pairs)],
    run,
};

/// Records the run of one seed and tries its crash states.
fn run(seed: u64, tell: &Tell) {
    let plan = Plan::of(seed);
    let origin = format!("the script of seed {seed} itself ({plan:?})");
    tell.began(&origin);
    let trace = match unwinding(|| script::record(plan)) {
        Ok(trace) => trace,
        Err(fault) => return tell.broken(&origin, fault, None),
    };
    let kept = Cell::new(0);
    let save = |case: &Case<'_>, events: &[Event], fault: &Fault| -> Option<PathBuf> {
        kept.set(kept.get() + 1);
        (kept.get() <= SAVED_OF_A_SEED).then(|| saved::save(case, events, fault, kept.get()))
    };
    states::enumerate(plan, &trace, SHARE, save, tell);
}
