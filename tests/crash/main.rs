//! What faults leave, and what the store makes of it: one program, which prints what it counted as one line of JSON.
//!
//! - [`power`]: every crash state of scripted runs. [`script`] runs a store over a recording disk ([`recording`]),
//!   [`crash_fs`] works out what a power cut or a kill may leave, [`states`] recovers that, and crashes again, and
//!   judges ([`history`]); [`saved`] keeps what broke the promise.
//! - [`kills`]: `kill -9` of children at work, on the real file system.
//! - [`damage`]: every byte of sample files changed, files exchanged, cut, missing, planted, of a newer version.
//! - [`faults`]: full disks, failed syncs, every call refused with every error, short reads and writes.
//! - [`clock`]: a clock that is turned in both directions, across restarts and kills.
//! - [`ext4`], [`syscalls`]: by hand, through `tests/ext4.sh` and `tests/syscalls.sh`; [`witness`] is the child of both.
//!
//! `cargo test --release --test crash` tries everything (`-- power damage` only these suites); a debug build tries a
//! twentieth. `LARDER_CRASH_PERCENT=n` tries n % of a full run, `LARDER_CRASH_SEED=s` begins with that seed and, without
//! a percentage, tries that one alone; `LARDER_CRASH_REPLAY=dir` recovers a saved state again.

mod clock;
#[path = "../support/contents.rs"]
mod contents;
#[path = "../support/crash_fs.rs"]
mod crash_fs;
mod damage;
mod ext4;
#[path = "../support/fault.rs"]
mod fault;
mod faults;
#[path = "../support/history.rs"]
mod history;
mod kills;
mod life;
#[path = "../support/memory.rs"]
mod memory;
mod pieces;
mod power;
#[path = "../support/recording.rs"]
mod recording;
mod saved;
mod script;
mod states;
mod suite;
mod syscalls;
#[path = "../support/values.rs"]
mod values;
mod witness;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, unbounded};
use serde_json::{Map, Value};

use fault::FaultKind;
use suite::{Count, Report, Suite, Tell};

/// Kills first: they wait for other processes, and the others fill the processors meanwhile.
const SUITES: [Suite; 5] = [kills::SUITE, power::SUITE, damage::SUITE, faults::SUITE, clock::SUITE];
/// Share of a full run that a debug build tries, in percent: the rest of the workspace's tests wait for it.
const DEBUG_PERCENT: u64 = 5;
/// If nothing is told for so many seconds in a row, something hangs. Counted second by second: a machine that stands
/// still for a while is no hang.
const HANG_SECONDS: u32 = 120;
/// Broken cases printed; the others are counted.
const PRINTED: usize = 12;

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn main() -> ExitCode {
    if let Ok(work) = std::env::var(kills::CHILD) {
        kills::live(&work);
        return ExitCode::SUCCESS;
    }
    if let Ok(work) = std::env::var(witness::CHILD) {
        witness::live(&work);
        return ExitCode::SUCCESS;
    }
    for (name, run) in [(ext4::WORK, ext4::run as fn(&str) -> bool), (syscalls::WORK, syscalls::run)] {
        if let Ok(work) = std::env::var(name) {
            return if run(&work) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    }
    if let Some(saved) = std::env::var_os("LARDER_CRASH_REPLAY") {
        let replayed = saved::replay(Path::new(&saved));
        return match replayed {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                println!("{fault}");
                ExitCode::FAILURE
            }
        };
    }
    // What `cargo test` passes on to every harness.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        SUITES.iter().for_each(|suite| println!("{}: test", suite.name));
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |suite: &&Suite| names.is_empty() || names.iter().any(|name| suite.name.contains(&**name));
    let suites: Vec<&Suite> = SUITES.iter().filter(chosen).collect();
    if suites.is_empty() {
        return ExitCode::SUCCESS;
    }
    if run(&suites) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the suites and prints the line; whether all went well.
fn run(suites: &[&Suite]) -> bool {
    let seed = number_from_env("LARDER_CRASH_SEED");
    let percent = match number_from_env("LARDER_CRASH_PERCENT") {
        None if seed.is_some() => None,
        None if cfg!(debug_assertions) => Some(DEBUG_PERCENT),
        percent => Some(percent.unwrap_or(100)),
    };
    let (first, mut demanded) = (seed.unwrap_or(0), BTreeMap::new());
    let (work, to_do) = unbounded();
    for suite in suites {
        let jobs = jobs_of(suite, percent);
        for seed in first..first + jobs {
            work.send((*suite, seed)).expect("the receiver is here");
        }
        for (count, of_a_job) in suite.counts {
            demanded.insert(*count, jobs * of_a_job);
        }
    }
    drop(work);

    let (mut counts, mut faults, mut hangs) = (BTreeMap::new(), Vec::new(), 0);
    let jobs_left = |suite: &&Suite| (suite.name, (jobs_of(suite, percent), Duration::ZERO));
    let mut left: BTreeMap<&str, (u64, Duration)> =
        suites.iter().copied().map(|suite| jobs_left(&suite)).collect();
    std::thread::scope(|scope| {
        let (to, reports) = unbounded();
        // More than there are cores: much of a case is waiting for the store's own threads, or for a disk.
        for worker in 0..std::thread::available_parallelism().map_or(4, |cores| (2 * cores.get()).min(16)) {
            let (to_do, to) = (to_do.clone(), to.clone());
            scope.spawn(move || {
                for (suite, seed) in to_do {
                    let tell = Tell { suite: suite.name, seed, worker, to: to.clone() };
                    let began = Instant::now();
                    (suite.run)(seed, &tell);
                    tell.ended(began.elapsed());
                }
            });
        }
        drop(to);
        let mut doing: BTreeMap<usize, String> = BTreeMap::new();
        let mut quiet_seconds = 0;
        loop {
            let report = reports.recv_timeout(Duration::from_secs(1));
            quiet_seconds = if report.is_ok() { 0 } else { quiet_seconds + 1 };
            match report {
                Ok(Report::Began { worker, origin }) => drop(doing.insert(worker, origin)),
                Ok(Report::Checked { count, cases }) => *counts.entry(count).or_insert(0) += cases,
                Ok(Report::Broken { origin, fault, again }) => {
                    if faults.len() < PRINTED {
                        println!("{origin}\n  {fault}\n  again: {again}");
                    }
                    faults.push(fault.kind);
                }
                Ok(Report::Ended { suite, took }) => {
                    let (jobs, time) = left.get_mut(suite).expect("a chosen suite");
                    (*jobs, *time) = (*jobs - 1, *time + took);
                    if *jobs == 0 {
                        eprintln!("{suite}: done, {} s of one thread", time.as_secs());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if quiet_seconds < HANG_SECONDS => {}
                Err(RecvTimeoutError::Timeout) => {
                    println!("nothing happens any more; being checked: {doing:#?}");
                    hangs = 1;
                    // The threads that hang cannot be joined.
                    print_line(&counts, &faults, hangs);
                    std::process::exit(101);
                }
            }
        }
    });
    print_line(&counts, &faults, hangs);
    let short = demanded.iter().filter(|(count, demanded)| counts.get(*count).unwrap_or(&0) < *demanded);
    let short: Vec<_> = short.collect();
    if !short.is_empty() {
        println!("cases were left out, of each at least so many were to be tried: {short:?}");
    }
    faults.is_empty() && short.is_empty()
}

fn jobs_of(suite: &Suite, percent: Option<u64>) -> u64 {
    percent.map_or(1, |percent| (suite.jobs * percent).div_ceil(100))
}

fn print_line(counts: &BTreeMap<Count, u64>, faults: &[FaultKind], hangs: u64) {
    let mut line = Map::new();
    for (count, name) in Count::ALL {
        line.insert(name.into(), Value::from(counts.get(&count).copied().unwrap_or(0)));
    }
    for (name, cases) in suite::faults_by_name(faults) {
        line.insert(name.into(), Value::from(cases));
    }
    line.insert("hangs".into(), Value::from(hangs));
    println!("{}", Value::Object(line));
}
