//! `larder repair`: saves what can be saved of a damaged store into a fresh one.
//!
//! The damaged files are only read. In place means that the fresh store takes the directory's name, and the damaged one
//! stays beside it under another.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use larder::RepairReport;
use serde::Serialize;

use super::{StoreOptions, empty_dir, require_store};
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::progress;

/// Warnings listed for people; `--json` has them all.
const WARNINGS_SHOWN: usize = 20;

/// Arguments of `larder repair`.
#[derive(Args, Debug)]
pub struct RepairArgs {
    /// Directory of the damaged store, which no process may have open.
    dir: PathBuf,
    /// New directory for what is saved.
    #[arg(long, value_name = "COPY", required_unless_present = "in_place", conflicts_with = "in_place")]
    to: Option<PathBuf>,
    /// Put the fresh store in the place of the damaged one, which is kept beside it.
    #[arg(long, requires = "yes")]
    in_place: bool,
    /// Yes, change the directory.
    #[arg(long)]
    yes: bool,
    /// Leave out entries that something lost may have deleted or overwritten.
    #[arg(long)]
    only_sure: bool,
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Serialize)]
struct Repaired<'a> {
    dir: String,
    saved_to: String,
    damaged_kept_in: String,
    seconds: f64,
    #[serde(flatten)]
    report: &'a RepairReport,
}

/// Runs the command.
pub fn run(args: &RepairArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let started = Instant::now();
    // Beside the store, so that it can take its name.
    let copy = match &args.to {
        Some(to) => to.clone(),
        None => beside(&args.dir, "repaired")?,
    };
    let config = args.store.config(empty_dir(&copy)?);
    let bar = progress::share_bar("saving", output);
    let result = larder::repair(&args.dir, config, args.only_sure, &mut |share| {
        progress::set_share(&bar, share);
    });
    bar.finish_and_clear();
    let report = result.map_err(Failure::store("repair", &args.dir))?;
    let (saved_to, kept_in) = if args.in_place {
        let kept = beside(&args.dir, "damaged")?;
        change_places(&args.dir, &copy, &kept)?;
        (args.dir.clone(), kept)
    } else {
        (copy, args.dir.clone())
    };
    output.object(&Repaired {
        dir: args.dir.display().to_string(),
        saved_to: saved_to.display().to_string(),
        damaged_kept_in: kept_in.display().to_string(),
        seconds: started.elapsed().as_secs_f64(),
        report: &report,
    })?;
    print(&report, &saved_to, &kept_in, output)?;
    Ok(Exit::Done)
}

/// A name beside the store that nothing has yet.
fn beside(dir: &Path, what: &str) -> Result<PathBuf, Failure> {
    let whole = std::path::absolute(dir)
        .map_err(|error| Failure::Other(format!("{}: {error}; name the directory", dir.display())))?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = (1..1000)
        .map(|number| whole.with_file_name(format!("{name}.{what}-{number}")))
        .find(|path| std::fs::symlink_metadata(path).is_err());
    free.ok_or_else(|| Failure::Other(format!("{}: a thousand repairs lie beside it", dir.display())))
}

/// A crash in between leaves both under their new or old names, and nothing lost.
fn change_places(dir: &Path, copy: &Path, kept: &Path) -> Result<(), Failure> {
    let rename = |from: &Path, to: &Path| {
        larder::Disk::rename(&larder::OsDisk, from, to).map_err(|error| {
            let (from, to) = (from.display(), to.display());
            Failure::Other(format!("rename {from} to {to}: {error}; what was saved is in {}", copy.display()))
        })
    };
    rename(dir, kept)?;
    rename(copy, dir)
}

fn print(report: &RepairReport, saved_to: &Path, kept_in: &Path, output: &Output) -> Result<(), Failure> {
    for warning in report.warnings.iter().take(WARNINGS_SHOWN) {
        output.line(format_args!("warning: {warning}"))?;
    }
    if let hidden @ 1.. = report.warnings.len().saturating_sub(WARNINGS_SHOWN) {
        output.line(format_args!("and {hidden} more warnings; --json lists all"))?;
    }
    output.line(format_args!(
        "read {} records in {} segments, {} of them in no manifest",
        output::count(report.records),
        report.segments,
        report.segments_unknown
    ))?;
    output.line(format_args!(
        "saved {} entries in {}; {} damaged, {} expired",
        output::count(report.saved),
        saved_to.display(),
        output::count(report.damaged),
        output::count(report.expired)
    ))?;
    if report.doubtful_saved > 0 {
        output.line(format_args!(
            "{} of them are doubtful: something lost may have deleted or overwritten them; --only-sure leaves them out",
            output::count(report.doubtful_saved)
        ))?;
    }
    if report.doubtful_left > 0 {
        output
            .line(format_args!("{} doubtful entries were left out", output::count(report.doubtful_left)))?;
    }
    output.line(format_args!("the damaged files are in {}", kept_in.display()))
}
