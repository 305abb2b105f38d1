//! What a crash leaves, and what recovery makes of it.
//!
//! - [`script`] runs a store through a seeded script over a recording disk ([`recording`]);
//! - [`crash_fs`] works out what the files may be after a power cut or a kill at any point of that log;
//! - [`states`] recovers such states, and recoveries that crashed in their turn, and judges them ([`history`]);
//! - [`saved`] keeps a state that broke the promise, so that it can be recovered again exactly as it was.
//!
//! `LARDER_CRASH_STATES=n` tries n power-cut states (default 2,000) and kills and pairs in proportion;
//! `LARDER_CRASH_SEED=s` begins with that seed and, without a number of states, tries that seed alone.

#[path = "../support/contents.rs"]
mod contents;
#[path = "../support/crash_fs.rs"]
mod crash_fs;
#[path = "../support/fault.rs"]
mod fault;
#[path = "../support/history.rs"]
mod history;
#[path = "../support/recording.rs"]
mod recording;
mod saved;
#[path = "../support/scratch.rs"]
mod scratch;
mod script;
mod states;
#[path = "../support/values.rs"]
mod values;

use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde_json::json;

use fault::{Fault, FaultKind, unwinding};
use scratch::scratch_dir;
use script::Plan;
use states::{Kind, Report, Share};

/// Power-cut states of one seed; it has half as many kills and pairs.
const STATES_OF_A_SEED: u64 = 125;
/// A recovery that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(120);
/// Broken states printed; the others are counted.
const PRINTED: usize = 12;
/// Broken states kept for each seed.
const SAVED_OF_A_SEED: usize = 3;

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A line for the reader of the test's output, captured or not.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[test]
fn every_crash_state_recovers_to_a_state_each_key_had_and_none_older_than_acknowledged() {
    let seed = number_from_env("LARDER_CRASH_SEED");
    let states = number_from_env("LARDER_CRASH_STATES").unwrap_or(if seed.is_some() {
        STATES_OF_A_SEED
    } else {
        2000
    });
    let first = seed.unwrap_or(0);
    let seeds = first..first + states.div_ceil(STATES_OF_A_SEED);
    let share = Share {
        power_cuts: STATES_OF_A_SEED,
        kills: STATES_OF_A_SEED / 4,
        pairs: STATES_OF_A_SEED / 5 / 4 * 4,
    };

    let (mut power_cut_states, mut kills, mut crash_pairs) = (0, 0, 0);
    let mut faults = Vec::new();
    let (work, to_do) = unbounded();
    seeds.clone().for_each(|seed| work.send(seed).expect("the receiver is here"));
    drop(work);
    std::thread::scope(|scope| {
        let (report_to, reports) = unbounded();
        for worker in 0..std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8)) {
            let (to_do, report_to) = (to_do.clone(), report_to.clone());
            scope.spawn(move || {
                for seed in to_do {
                    try_seed(seed, share, |report| {
                        let _ = report_to.send((worker, report));
                    });
                }
            });
        }
        drop(report_to);
        let mut doing: std::collections::BTreeMap<usize, (String, PathBuf)> =
            std::collections::BTreeMap::new();
        loop {
            match reports.recv_timeout(HANG) {
                Ok((worker, Report::Began { origin, dir })) => {
                    doing.insert(worker, (origin, dir));
                }
                Ok((_, Report::Checked(Kind::PowerCut))) => power_cut_states += 1,
                Ok((_, Report::Checked(Kind::Kill))) => kills += 1,
                Ok((_, Report::Checked(Kind::Pair))) => crash_pairs += 1,
                Ok((_, Report::Broken { origin, fault, saved })) => {
                    if faults.len() < PRINTED {
                        print(&format!("{origin}\n  {fault}"));
                        saved.iter().for_each(|saved| print(&format!("  again: {}", replay_command(saved))));
                    }
                    faults.push(fault.kind);
                }
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => break,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                    print(&format!("nothing happens any more; being recovered: {doing:#?}"));
                    std::process::exit(101);
                }
            }
        }
    });

    let count = |kind| faults.iter().filter(|fault| **fault == kind).count();
    print(
        &json!({
            "test": "crash",
            "seeds": [seeds.start, seeds.end],
            "power_cut_states": power_cut_states,
            "crash_pairs": crash_pairs,
            "kills": kills,
            "lost": count(FaultKind::Lost),
            "wrong": count(FaultKind::Wrong),
            "resurrected": count(FaultKind::Resurrected),
            "expired_served": count(FaultKind::ExpiredServed),
            "failed": count(FaultKind::Failed),
            "panics": count(FaultKind::Panicked),
        })
        .to_string(),
    );
    assert!(faults.is_empty(), "{} broken states, see above", faults.len());
    assert_eq!(
        power_cut_states,
        states.div_ceil(STATES_OF_A_SEED) * STATES_OF_A_SEED,
        "no state was left out"
    );
}

/// Records the run of one seed and tries its crash states.
fn try_seed(seed: u64, share: Share, report: impl Fn(Report)) {
    let plan = Plan::of(seed);
    let scratch = scratch_dir();
    let dir = scratch.path().join("recorded");
    let origin = format!("LARDER_CRASH_SEED={seed}, the script itself ({plan:?})");
    report(Report::Began { origin: origin.clone(), dir: dir.clone() });
    let trace = match unwinding(|| script::record(plan, &dir)) {
        Ok(trace) => trace,
        Err(fault) => return report(Report::Broken { origin, fault, saved: None }),
    };
    let saved = Cell::new(0);
    let save = |case: &states::Case<'_>, events: &[recording::Event], fault: &Fault| {
        saved.set(saved.get() + 1);
        (saved.get() <= SAVED_OF_A_SEED).then(|| saved::save(case, events, fault, saved.get()))
    };
    states::enumerate(plan, &trace, share, &scratch.path().join("state"), save, report);
}

fn replay_command(saved: &std::path::Path) -> String {
    format!(
        "LARDER_CRASH_REPLAY={} cargo test --test crash -- --ignored --nocapture a_saved_state_recovers",
        saved.display()
    )
}

#[test]
#[ignore = "recovers the saved state that LARDER_CRASH_REPLAY names, as a failure prints it"]
fn a_saved_state_recovers() {
    let Some(saved) = std::env::var_os("LARDER_CRASH_REPLAY") else { return };
    let scratch = scratch_dir();
    if let Err(fault) = saved::replay(&PathBuf::from(saved), &scratch.path().join("state")) {
        panic!("{fault}");
    }
}
