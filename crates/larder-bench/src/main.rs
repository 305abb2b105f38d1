//! `larder-bench`: runs the simulator and says how the store did against theory and bars.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use larder_bench::figures::figures;
use larder_bench::multi_get::{MultiGetOptions, multi_get};
use larder_bench::pace::{PaceOptions, pace, report};
use larder_bench::page_cache::{PageCacheOptions, page_cache};
use larder_bench::report::Report;
use larder_bench::simulate::{Outcome, real, simulate, simulate_real};
use larder_bench::ttl::TtlSet;
use larder_bench::workload::{Options, Plan, Workload};
use larder_bench::{Failure, Result};
use serde_json::Value;

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
    /// Measure reads and inserts while maintenance runs, on a file system and by the machine's clock.
    Pace(PaceArgs),
    /// Measure what readers have to fetch from the device, by how maintenance handles its files.
    PageCache(PageCacheArgs),
    /// Measure `multi_get` against `get`, with the store's files in the page cache and dropped from it.
    MultiGet(MultiGetArgs),
}

#[derive(clap::Args)]
struct MultiGetArgs {
    /// Where the store goes; it is removed afterwards.
    dir: PathBuf,
    /// Number of keys.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Bytes of a value, which do not shrink.
    #[arg(long, default_value_t = 700)]
    value_bytes: u32,
    /// Keys read by each way in a turn.
    #[arg(long, default_value_t = 10_000)]
    reads: usize,
    /// Turns that the ways take; medians of them count.
    #[arg(long, default_value_t = 5)]
    turns: usize,
}

#[derive(clap::Args)]
struct PageCacheArgs {
    /// Where the store goes; it is removed afterwards.
    dir: PathBuf,
    /// Number of keys.
    #[arg(long, default_value_t = 600_000)]
    entries: u64,
    /// Exponent of the reads' Zipf distribution.
    #[arg(long, default_value_t = 0.9)]
    exponent: f64,
    /// Reads a second.
    #[arg(long, default_value_t = 5_000.0)]
    reads: f64,
    /// Overwrites a second.
    #[arg(long, default_value_t = 20_000.0)]
    writes: f64,
    /// Length of each turn.
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// Turns of each handling.
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

#[derive(clap::Args)]
struct PaceArgs {
    /// Where the stores go; they are removed afterwards.
    dir: PathBuf,
    /// Number of keys.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1000)]
    value_bytes: usize,
    /// Length of each phase.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Turns that the phases take; medians of them count.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Reads a second.
    #[arg(long, default_value_t = 20_000.0)]
    reads: f64,
    /// Writes while maintenance runs, as a share of the sustained rate.
    #[arg(long, default_value_t = 0.8)]
    write_share: f64,
    /// Take this for the sustained rate, in MB of raw bytes a second, instead of measuring it.
    #[arg(long, value_name = "MB_S")]
    sustained: Option<f64>,
    /// Target size of a segment, in MiB.
    #[arg(long, value_name = "MIB")]
    segment_mib: Option<u64>,
    /// Share of garbage at which compaction starts.
    #[arg(long, default_value_t = 0.25)]
    dead_ratio: f64,
    /// Let the store choose how it compresses, instead of LZ4.
    #[arg(long)]
    tuned: bool,
    /// Leave out the store that does not maintain itself.
    #[arg(long)]
    maintained_only: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
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
    /// Run it in this directory and by the machine's clock too (a minute and a half; a year is four days of it, and
    /// takes a quarter of an hour), and compare.
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    /// Milliseconds between two rounds of maintenance of that run (uniform, ninety-ten, zipf-capacity), and so how slowly
    /// it goes: 500 is as the simulator has it without `--real`, and takes 20 minutes.
    #[arg(long, value_name = "MS", requires = "real", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    real_step_ms: Option<u64>,
}

fn main() -> ExitCode {
    let args = match Arguments::parse().command {
        Command::Simulate(args) => args,
        Command::Pace(args) => return run_pace(&args),
        Command::PageCache(args) => return run_page_cache(&args),
        Command::MultiGet(args) => return run_multi_get(&args),
    };
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

fn run_pace(args: &PaceArgs) -> ExitCode {
    let options = PaceOptions {
        entries: args.entries.max(1),
        value_bytes: args.value_bytes,
        phase: Duration::from_secs_f64(args.seconds.clamp(1.0, 3600.0)),
        turns: args.turns.max(1),
        reads: args.reads.max(1.0),
        write_share: args.write_share,
        sustained: args.sustained.map(|mb| mb * 1e6),
        segment_bytes: args.segment_mib.map(|mib| mib << 20),
        dead_ratio_max: args.dead_ratio,
        tuned: args.tuned,
        unmaintained: !args.maintained_only,
    };
    match in_store_dir(&args.dir, |dir| pace(dir, &options)) {
        Ok(told) => {
            println!("{}", if args.json { told.to_string() } else { report::table(&told) });
            let met = told["met"].as_object().is_some_and(|met| met.values().all(|it| it == true));
            match (told["wrong"].as_u64(), met) {
                (Some(0), true) => ExitCode::SUCCESS,
                (Some(0), false) => ExitCode::from(2),
                _ => ExitCode::from(1),
            }
        }
        Err(failure) => {
            eprintln!("larder-bench: {failure}");
            ExitCode::from(1)
        }
    }
}

fn run_page_cache(args: &PageCacheArgs) -> ExitCode {
    let options = PageCacheOptions {
        entries: args.entries.max(1),
        value_bytes: 1000,
        reads: args.reads.max(1.0),
        exponent: args.exponent.max(0.01),
        writes: args.writes.max(1.0),
        phase: Duration::from_secs_f64(args.seconds.clamp(1.0, 3600.0)),
        turns: args.turns.max(1),
    };
    print_run(in_store_dir(&args.dir, |dir| page_cache(dir, &options)))
}

fn run_multi_get(args: &MultiGetArgs) -> ExitCode {
    let options = MultiGetOptions {
        entries: args.entries.max(1),
        value_bytes: args.value_bytes,
        reads: args.reads.max(1),
        turns: args.turns.max(1),
    };
    print_run(in_store_dir(&args.dir, |dir| multi_get(dir, &options)))
}

fn print_run(told: Result<Value>) -> ExitCode {
    match told {
        Ok(told) => {
            println!("{told:#}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("larder-bench: {failure}");
            ExitCode::from(1)
        }
    }
}

/// Runs something in a directory of its own in `dir`, and removes it: what the run has written is of no use to anybody.
fn in_store_dir<T>(dir: &Path, run: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let store = dir.join(REAL_DIR);
    let shown = store.display();
    if store.exists() {
        return Err(Failure(format!("{shown} exists; remove it or name another directory")));
    }
    let told = run(&store);
    let removed = std::fs::remove_dir_all(&store);
    let told = told?;
    removed.map_err(|error| Failure(format!("remove {shown}: {error}")))?;
    Ok(told)
}

fn run(args: &SimulateArgs) -> Result<Report> {
    let SimulateArgs { workload, seed, scale, ttl_set, value_bytes, .. } = *args;
    let SimulateArgs { mixed_values, exponent, replaced, dead_ratio, real_step_ms, .. } = *args;
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
        real_step_ms,
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
    let simulated = simulate_real(workload, &options)?;
    let outcome = in_store_dir(dir, |store| real(workload, &options, store))?;
    Ok(Report {
        workload,
        options,
        simulated: figures_of(&simulated),
        seconds: simulated.wall.as_secs_f64(),
        real: Some((figures_of(&outcome), outcome.wall.as_secs_f64())),
    })
}
