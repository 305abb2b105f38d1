//! `larder verify`: reads every record of a store that no process has open, and says what is damaged.
//!
//! It never writes, so a signal ends it on the spot.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use larder::VerifyReport;
use serde::Serialize;

use super::require_store;
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::{interrupt, progress};

/// Damaged places listed for people; `--json` has them all.
const DAMAGE_SHOWN: usize = 50;

/// Arguments of `larder verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Directory of the store.
    dir: PathBuf,
}

#[derive(Serialize)]
struct Verified<'a> {
    dir: String,
    clean: bool,
    seconds: f64,
    #[serde(flatten)]
    report: &'a VerifyReport,
}

/// Runs the command.
pub fn run(args: &VerifyArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let started = Instant::now();
    let bar = progress::share_bar("verifying", output);
    let result = larder::verify(&args.dir, &mut |share| {
        progress::set_share(&bar, share);
        if interrupt::requested() {
            bar.finish_and_clear();
            stop_at_once(output);
        }
    });
    bar.finish_and_clear();
    let report = match result {
        Ok(report) => report,
        Err(error) if error.is_corruption() => return beyond_reading(&error, args, output),
        Err(error) => return Err(Failure::store("verify", &args.dir)(error)),
    };
    let seconds = started.elapsed().as_secs_f64();
    let clean = report.is_clean();
    output.object(&Verified { dir: args.dir.display().to_string(), clean, seconds, report: &report })?;
    print(&report, args, seconds, output)?;
    Ok(if clean { Exit::Done } else { Exit::Damaged })
}

/// The store cannot even be read so far as to list its records.
fn beyond_reading(error: &larder::Error, args: &VerifyArgs, output: &Output) -> Result<Exit, Failure> {
    let failure = Failure::Other(format!("verify {}: {error}", args.dir.display()));
    output::warn(&failure.to_string());
    output.object(&failure.to_json())?;
    output.line("DAMAGED so that its records cannot be found")?;
    Ok(Exit::Damaged)
}

/// The library's call has no way to be told to stop, and needs none: it only reads.
fn stop_at_once(output: &Output) -> ! {
    output::warn(&Failure::Interrupted.to_string());
    drop(output.object(&Failure::Interrupted.to_json()));
    std::process::exit(130)
}

fn print(report: &VerifyReport, args: &VerifyArgs, seconds: f64, output: &Output) -> Result<(), Failure> {
    output.line(format_args!(
        "read {} records ({} live entries) in {} segments, {} in {seconds:.2} s",
        output::count(report.records),
        output::count(report.live_entries),
        report.segments,
        output::bytes(report.bytes),
    ))?;
    for warning in &report.warnings {
        output.line(format_args!("warning: {warning}"))?;
    }
    if report.is_clean() {
        return output.line("no damage");
    }
    if report.damaged.is_empty() {
        return output.line("DAMAGED as the warnings say; no record that the store knows of is damaged");
    }
    print_damage(report, output)?;
    // Values are in segments, and need dictionaries; what else there is helps to find them.
    let holds_values = |file: &str| file.starts_with("seg-") || file.starts_with("dict-");
    if !report.damaged.iter().any(|damage| holds_values(&damage.file)) {
        return output.line(format_args!(
            "DAMAGED in {} places, in no record: if that costs entries, a warning above counts them. \
             `larder compact {}` writes anew what is damaged there.",
            output::count(report.damaged.len() as u64),
            args.dir.display(),
        ));
    }
    output.line(format_args!(
        "DAMAGED in {} places: entries there read as misses, all others are served; put them in again. \
         `larder compact {}` clears damaged segments away once it rewrites them.",
        output::count(report.damaged.len() as u64),
        args.dir.display(),
    ))
}

fn print_damage(report: &VerifyReport, output: &Output) -> Result<(), Failure> {
    let mut table = output::table(&["file", "offset", "problem"], 3);
    for damage in report.damaged.iter().take(DAMAGE_SHOWN) {
        table.add_row([damage.file.clone(), damage.offset.to_string(), damage.problem.clone()]);
    }
    output.line(table)?;
    match report.damaged.len().saturating_sub(DAMAGE_SHOWN) {
        0 => Ok(()),
        hidden => output.line(format_args!("and {hidden} more; --json lists all")),
    }
}
