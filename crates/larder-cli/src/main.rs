//! `larder`: demonstrates, fills, reads, watches, measures, checks and maintains a cold tier on disk.
//!
//! This file holds the arguments and the exit codes; each command is a file of `commands/`. Results go to stdout (with
//! `--json` one object and nothing else), bars, warnings and errors to stderr. The program starts threads only inside
//! `std::thread::scope`; what a signal says reaches it through one atomic flag (`interrupt`).

mod commands;
mod disk_use;
mod failure;
mod figures;
mod forecast;
mod glance;
mod input;
mod interrupt;
mod keys;
mod output;
mod progress;
mod records;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

use commands::tasks::{Task, TaskArgs};
use commands::{
    bench, del, demo, explain, get, inspect, load, put, repair, report, stats, tasks, verify, watch,
};
use failure::{Exit, Failure};
use output::Output;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 error, or `get` found no such entry; 2 wrong arguments; 3 `verify` found damage; 130 interrupted (nothing is lost).
Bars are drawn on stderr, and only if it is a terminal; NO_COLOR is respected.
Options may also be set as variables named LARDER_..., see the help of each command.";

/// An embedded cache's cold tier on disk: demonstrate, fill, read, watch, measure, check and maintain it.
#[derive(Parser)]
#[command(name = "larder", version, after_help = EXIT_CODES)]
struct Arguments {
    /// Print one JSON object on stdout, and no bars.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Live through a whole cache life on real data: fill, overwrite, delete, expire, maintain, verify, restart.
    #[command(after_help = "\
Examples:
  larder demo                              on a temporary directory, with the data that come along
  larder demo --from records.jsonl.zst --dir kept")]
    Demo(demo::DemoArgs),
    /// Insert the records of a JSONL file or of stdin, or the files of a directory; creates the store if there is none.
    Load(load::LoadArgs),
    /// Write the value of a key to stdout or to a file; exit code 1 if there is none.
    Get(get::GetArgs),
    /// Store one entry, from an argument, a file or stdin; creates the store if there is none.
    Put(put::PutArgs),
    /// Remove entries.
    Del(del::DelArgs),
    /// Show the figures of a store, grouped.
    Stats(stats::StatsArgs),
    /// Watch a store live: what its space is used for, what can be reclaimed and when, what maintenance does.
    Watch(watch::WatchArgs),
    /// Write a report of a store with pictures: one HTML file that needs nothing else.
    Report(report::ReportArgs),
    /// Measure speed on generated data, on this machine; every value read is checked.
    Bench(bench::BenchArgs),
    /// Show segments, expiry, live and dead bytes and codecs of a store that no process has open.
    #[command(after_help = "\
Examples:
  larder inspect cache
  larder inspect cache --json | jq .segments")]
    Inspect(inspect::InspectArgs),
    /// Read every record of a store that no process has open; exit code 3 if anything is damaged.
    #[command(after_help = "\
Examples:
  larder verify cache && echo sound
  larder verify cache --json | jq .damaged")]
    Verify(verify::VerifyArgs),
    /// Save what can be saved of a damaged store into a fresh one; the damaged files stay as they are.
    #[command(after_help = "\
Examples:
  larder repair cache --to saved
  larder repair cache --in-place --yes     the damaged files are kept beside it, as cache.damaged-1

Opening a store already serves all that is sure. A repair also reads what opening gives up: segments that no readable
manifest names, and entries that a lost record may have deleted or overwritten. Such entries are doubtful: they are
saved and counted, and may be stale. With --only-sure they are left out.")]
    Repair(repair::RepairArgs),
    /// Rewrite segments that hold dead or expired bytes, give their space back, and save the index anew.
    #[command(after_help = "\
Examples:
  larder compact cache
  larder compact cache --segment-mib 64   writes segments of 64 MiB")]
    Compact(TaskArgs),
    /// Remove every entry past its time to live; drop segments that hold nothing else.
    #[command(after_help = "\
Examples:
  larder expire cache
  larder expire cache --json | jq .report.expired_removed")]
    Expire(TaskArgs),
    /// Measure the live data and choose codec and dictionary for later writes and compactions.
    #[command(after_help = "\
Examples:
  larder tune cache && larder compact cache
  larder tune cache --json | jq .report.candidates")]
    Tune(TaskArgs),
    /// Show what the last tuning measured and chose, and why; the store may be in use.
    Explain(explain::ExplainArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    let result = interrupt::install().and_then(|()| run(&arguments.command, &output));
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => tell(failure, &output).into(),
    }
}

fn run(command: &Command, output: &Output) -> Result<Exit, Failure> {
    match command {
        Command::Demo(args) => demo::run(args, output),
        Command::Load(args) => load::run(args, output),
        Command::Get(args) => get::run(args, output),
        Command::Put(args) => put::run(args, output),
        Command::Del(args) => del::run(args, output),
        Command::Stats(args) => stats::run(args, output),
        Command::Watch(args) => watch::run(args, output),
        Command::Report(args) => report::run(args, output),
        Command::Bench(args) => bench::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Verify(args) => verify::run(args, output),
        Command::Repair(args) => repair::run(args, output),
        Command::Compact(args) => tasks::run(Task::Compact, args, output),
        Command::Expire(args) => tasks::run(Task::Expire, args, output),
        Command::Tune(args) => tasks::run(Task::Tune, args, output),
        Command::Explain(args) => explain::run(args, output),
    }
}

/// Says what went wrong, on stderr and with `--json` on stdout too. A reader that left early is no error.
fn tell(failure: Failure, output: &Output) -> Exit {
    if matches!(failure, Failure::BrokenPipe) {
        return Exit::Done;
    }
    output::warn(&failure.to_string());
    // stdout may be what failed; the exit code says enough then.
    drop(output.object(&failure.to_json()));
    failure.exit()
}
