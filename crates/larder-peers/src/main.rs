//! `larder-peers`: Larder beside other embedded stores.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use larder_peers::contents::Size;
use larder_peers::peer::Kind;
use larder_peers::picture::{Per, picture};
use larder_peers::plan::{Plan, Workload};
use larder_peers::rounds::Rounds;
use larder_peers::stages::{Job, Stage};
use larder_peers::table::Results;
use larder_peers::{Failure, Result, peers, ratios, scale};
use serde_json::Value;

#[derive(Parser)]
#[command(name = "larder-peers", about = "Larder beside other embedded stores, every value checked")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run workloads on stores, in turns, and compare.
    Run(RunArgs),
    /// Load, read, restart and kill stores of several numbers of entries: what grows with them.
    Scale(ScaleArgs),
    /// How far zstd shrinks the values that are generated, and the real records.
    Ratios(RatioArgs),
    /// Compare what earlier runs wrote with --json.
    Compare(CompareArgs),
    /// The stores that were built in, and how they are configured.
    Peers,
    /// One process of a run.
    #[command(hide = true)]
    Stage(StageArgs),
}

#[derive(clap::Args)]
struct RunArgs {
    /// What to measure, by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "load,get,get2,miss,mixed,restart")]
    workload: Vec<Workload>,
    /// Which stores, by commas; `all` that were built in.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    peers: Vec<String>,
    /// How often each store runs, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Where the stores go; each is removed after its turn.
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    plan: Plan,
    /// Every single result, an object a line.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct ScaleArgs {
    /// Numbers of entries, by commas; `--entries` is not looked at.
    #[arg(long, value_delimiter = ',', default_value = "1000000,3000000,10000000,30000000")]
    sizes: Vec<u64>,
    /// Which stores, by commas.
    #[arg(long, value_delimiter = ',', default_value = "larder")]
    peers: Vec<String>,
    /// How often each store runs, in turns.
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Where the stores go; each is removed after its turn.
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    plan: Plan,
    /// Every single result, an object a line.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The table, for people; on the terminal it comes anyway.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RatioArgs {
    /// So many values.
    #[arg(long, default_value_t = 20_000)]
    entries: u64,
    /// Bytes of a generated value.
    #[arg(long, default_value = "mixed")]
    size: Size,
}

#[derive(clap::Args)]
struct OutputArgs {
    /// The tables, for people; on the terminal they come anyway.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// The rates as bars, an SVG.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// What the bars are rates of.
    #[arg(long, value_enum, default_value = "second")]
    svg_per: Per,
}

#[derive(clap::Args)]
struct CompareArgs {
    /// Files of results; all of them together, so that a store may come from another run.
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct StageArgs {
    #[arg(value_enum)]
    stage: Stage,
    #[arg(long)]
    peer: String,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<Workload>,
    #[command(flatten)]
    plan: Plan,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Scale(arguments) => scale(&arguments),
        Command::Ratios(arguments) => ratios::markdown(arguments.entries, arguments.size).map(|table| {
            println!("{table}");
            true
        }),
        Command::Compare(arguments) => compare(&arguments),
        Command::Peers => {
            for kind in peers::all() {
                println!("{:18} {}: {}", kind.name, kind.version, kind.configuration);
            }
            Ok(true)
        }
        Command::Stage(arguments) => stage(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("larder-peers: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Result<Kind> {
    let kinds = peers::all();
    let found = kinds.iter().find(|kind| kind.name == name).copied();
    found.ok_or_else(|| {
        let built: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        Failure(format!("no store {name}; built in are {}; others are features", built.join(", ")))
    })
}

/// Whether nothing was wrong.
fn run(arguments: &RunArgs) -> Result<bool> {
    let kinds = kinds(&arguments.peers)?;
    let mut workloads = arguments.workload.clone();
    workloads.sort_unstable();
    workloads.dedup();
    let mut file = arguments.json.as_ref().map(File::create).transpose()?;
    let rounds = Rounds {
        kinds: &kinds,
        workloads: &workloads,
        plan: &arguments.plan,
        dir: &arguments.dir,
        rounds: arguments.rounds,
    };
    let results = collect(&rounds, file.as_mut())?;
    show(&results, &arguments.output)
}

fn kinds(names: &[String]) -> Result<Vec<Kind>> {
    match names {
        [all] if all == "all" => Ok(peers::all()),
        names => names.iter().map(|name| named(name)).collect(),
    }
}

/// Runs all; each result is shown, and written to `file`, as soon as there is one.
fn collect(rounds: &Rounds<'_>, mut file: Option<&mut File>) -> Result<Results> {
    fs::create_dir_all(rounds.dir)?;
    let mut results = Results::default();
    rounds.run(&mut |result| {
        if let Some(file) = &mut file {
            writeln!(file, "{}", Value::Object(result.clone()))?;
        }
        eprintln!("{}", Results::line(result));
        results.add(result.clone());
        Ok(())
    })?;
    Ok(results)
}

/// Whether nothing was wrong.
fn scale(arguments: &ScaleArgs) -> Result<bool> {
    let kinds = kinds(&arguments.peers)?;
    let mut file = arguments.json.as_ref().map(File::create).transpose()?;
    let mut sizes = Vec::new();
    for entries in &arguments.sizes {
        let rounds = Rounds {
            kinds: &kinds,
            workloads: &[Workload::Load, Workload::Get, Workload::Restart, Workload::Kill],
            plan: &Plan { entries: *entries, ..arguments.plan.clone() },
            dir: &arguments.dir,
            rounds: arguments.rounds,
        };
        sizes.push((*entries, collect(&rounds, file.as_mut())?));
    }
    let table = scale::markdown(&sizes);
    if let Some(path) = &arguments.markdown {
        fs::write(path, &table)?;
    }
    println!("{table}");
    Ok(sizes.iter().all(|(_, results)| results.wrong() == 0))
}

fn compare(arguments: &CompareArgs) -> Result<bool> {
    let mut results = Results::default();
    for file in &arguments.files {
        for line in fs::read_to_string(file)?.lines() {
            match serde_json::from_str(line) {
                Ok(Value::Object(result)) => results.add(result),
                _ => return Err(Failure(format!("{}: a line that is no result", file.display()))),
            }
        }
    }
    show(&results, &arguments.output)
}

fn show(results: &Results, output: &OutputArgs) -> Result<bool> {
    let markdown = results.markdown(&peers::all());
    if let Some(path) = &output.markdown {
        fs::write(path, &markdown)?;
    }
    if let Some(path) = &output.svg {
        fs::write(path, picture(results, output.svg_per))?;
    }
    println!("{markdown}");
    Ok(results.wrong() == 0)
}

fn stage(arguments: &StageArgs) -> Result<bool> {
    let kind = named(&arguments.peer)?;
    let job = Job { kind: &kind, dir: &arguments.dir, plan: &arguments.plan, workloads: &arguments.workload };
    job.run(arguments.stage, &mut |result| println!("{}", Value::Object(result)))?;
    Ok(true)
}
