//! `larder explain`: shows why records are compressed as they are: the last tuning of a store, which may be in use,
//! with everything it measured. It never writes.

use std::path::PathBuf;

use clap::Args;
use larder::{ClassReport, TuningReport};
use serde::Serialize;

use super::require_store;
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};

/// Arguments of `larder explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Directory of the store.
    dir: PathBuf,
}

#[derive(Serialize)]
struct Explained<'a> {
    dir: String,
    tuning: Option<&'a TuningReport>,
}

/// Runs the command.
pub fn run(args: &ExplainArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let report = larder::explain(&args.dir).map_err(Failure::store("explain", &args.dir))?;
    output.object(&Explained { dir: args.dir.display().to_string(), tuning: report.as_ref() })?;
    match &report {
        Some(report) if output.for_people() => {
            output.line(format_args!("tuned {}", output::moment(report.at_ms)))?;
            print(report, output)?;
        }
        Some(_) => {}
        None => output.line(format_args!(
            "this store was never tuned, or its record of it is gone: `larder tune {}`",
            args.dir.display()
        ))?,
    }
    Ok(Exit::Done)
}

/// A tuning for people: the table and the reason of the common choice, then of each class that holds anything.
pub fn print(report: &TuningReport, output: &Output) -> Result<(), Failure> {
    let classes: Vec<&ClassReport> =
        report.classes.iter().filter(|class| class.sampled_entries > 0).collect();
    output.line(format_args!(
        "{} entries sampled ({}), {:.0} % reads, weights: {}, {}",
        output::count(report.sampled_entries),
        output::bytes(report.sampled_bytes),
        report.read_share * 100.0,
        report.weights,
        output::duration(report.duration),
    ))?;
    output.line(format_args!("all records: {}", verdict(&report.common)))?;
    output.line(table(&report.common))?;
    for class in &classes {
        output.line(format_args!("{}: {}", heading(class), verdict(class)))?;
        // One class only: its table is the one above.
        if classes.len() > 1 {
            output.line(table(class))?;
        }
    }
    Ok(())
}

/// Which records a class is about.
pub fn heading(class: &ClassReport) -> String {
    let bound = match class.raw_bytes_max {
        Some(bytes) => format!("records up to {}", output::bytes(bytes)),
        None => "larger records".to_owned(),
    };
    let gate = if class.gate { "; values that look random are not tried" } else { "" };
    format!(
        "{bound} (about {} entries, {}; {:.2} bits of entropy a byte{gate})",
        output::count(class.entries),
        output::bytes(class.raw_bytes),
        class.entropy_bits,
    )
}

/// What was chosen, and why.
pub fn verdict(class: &ClassReport) -> String {
    match class.changed {
        true => format!("{} replaces {}: {}", class.chosen, class.previous, class.reason),
        false => format!("{} stays: {}", class.chosen, class.reason),
    }
}

fn table(class: &ClassReport) -> comfy_table::Table {
    let mut table = output::table(&["candidate", "ratio", "compress", "decompress", "cost an entry"], 1);
    let time = |ns: f64| format!("{:.2} us", ns / 1000.0);
    for (at, candidate) in class.candidates.iter().enumerate() {
        let new = if candidate.newly_trained { " (new)" } else { "" };
        let chosen = if class.chosen_at == Some(at as u32) { " <- chosen" } else { "" };
        table.add_row([
            format!("{}{new}{chosen}", candidate.choice),
            format!("{:.2}", candidate.ratio),
            time(candidate.compress_ns),
            time(candidate.decompress_ns),
            time(candidate.cost_ns),
        ]);
    }
    table
}
