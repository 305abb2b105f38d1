//! `larder-bench`: runs the simulator and says how the store did against theory and bars.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use larder_bench::figures::figures;
use larder_bench::report::Report;
use larder_bench::simulate::{Outcome, real, simulate, simulate_real};
use larder_bench::ttl::TtlSet;
use larder_bench::workload::{Options, Plan, Workload};
use larder_bench::{Failure, Result};

const EXIT_CODES: &str = "\
Exit codes: 0 every bar met; 1 a wrong value was read, or the run failed; 2 a bar missed (or wrong arguments).";

/// The directory that a real run makes in the one it is given, and removes.
const REAL_DIR: &str = "larder-bench-store";

#[derive(Parser)]
#[command(name = "larder-bench", version, about = "The real store by virtual time", after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the real store over a disk in memory and a clock that is turned by hand, and measure it.
    Simulate(SimulateArgs),
}

#[derive(clap::Args)]
struct SimulateArgs {
    /// What the store is made to do.
    workload: Workload,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The same seed gives the same operations and counts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Size: keys, rates and segments grow with it.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Which times to live the ttl workloads use.
    #[arg(long)]
    ttl_set: Option<TtlSet>,
    /// Length of the values, in bytes; the workload's own otherwise.
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    value_bytes: Option<u32>,
    /// Values of a quarter to seven quarters of that length.
    #[arg(long)]
    mixed_values: bool,
    /// Exponent of the Zipf distribution (zipf-capacity).
    #[arg(long, default_value_t = 0.9)]
    exponent: f64,
    /// Share of the writes that replace a recent key (ttl workloads), or of the requests that write (zipf-capacity).
    #[arg(long)]
    replaced: Option<f64>,
    /// Share of dead bytes at which compaction starts (uniform, ninety-ten).
    #[arg(long)]
    dead_ratio: Option<f64>,
    /// Run it in this directory and by the machine's clock too (one to three minutes), and compare.
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Command::Simulate(args) = Arguments::parse().command;
    match run(&args) {
        Ok(report) => {
            let text = if args.json { report.json().to_string() } else { report.table() };
            println!("{text}");
            match (report.wrong(), report.missed().is_empty()) {
                (0, true) => ExitCode::SUCCESS,
                (0, false) => ExitCode::from(2),
                _ => ExitCode::from(1),
            }
        }
        Err(failure) => {
            eprintln!("larder-bench: {failure}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &SimulateArgs) -> Result<Report> {
    let SimulateArgs { workload, seed, scale, ttl_set, value_bytes, .. } = *args;
    let SimulateArgs { mixed_values, exponent, replaced, dead_ratio, .. } = *args;
    if !(0.01..=100.0).contains(&scale) {
        return Err(Failure(format!("--scale {scale} is outside 0.01 to 100")));
    }
    if !(0.01..=5.0).contains(&exponent) {
        return Err(Failure(format!("--exponent {exponent} is outside 0.01 to 5")));
    }
    if let Some(share) = replaced.filter(|share| !(0.0..=1.0).contains(share)) {
        return Err(Failure(format!("--replaced {share} is outside 0 to 1")));
    }
    let real_time = args.real.is_some();
    let options = Options {
        seed,
        scale,
        ttl_set,
        real_time,
        value_bytes,
        mixed_values,
        exponent,
        replaced,
        dead_ratio,
    };
    let figures_of =
        |outcome: &Outcome| figures(&Plan::new(workload, &options, Path::new("/")), &options, outcome);
    let Some(dir) = &args.real else {
        let outcome = simulate(workload, &options)?;
        let seconds = outcome.wall.as_secs_f64();
        return Ok(Report { workload, options, simulated: figures_of(&outcome), seconds, real: None });
    };
    if workload == Workload::Year {
        return Err(Failure("a year takes a year by a real clock; leave --real out".to_owned()));
    }
    let store = dir.join(REAL_DIR);
    if store.exists() {
        let store = store.display();
        return Err(Failure(format!("{store} exists; remove it or name another directory")));
    }
    let simulated = simulate_real(workload, &options)?;
    let outcome = real(workload, &options, &store);
    // What the run has written is of no use to anybody.
    let removed = std::fs::remove_dir_all(&store);
    let outcome = outcome?;
    removed.map_err(|error| Failure(format!("remove {}: {error}", store.display())))?;
    Ok(Report {
        workload,
        options,
        simulated: figures_of(&simulated),
        seconds: simulated.wall.as_secs_f64(),
        real: Some((figures_of(&outcome), outcome.wall.as_secs_f64())),
    })
}
