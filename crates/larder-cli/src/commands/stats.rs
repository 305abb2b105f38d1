//! `larder stats`: the figures of a store, grouped. Opens it, as an application would, and starts no maintenance.

use std::path::PathBuf;

use clap::Args;
use larder::{ColdTier, ColdTierConfig, Maintenance};
use serde::Serialize;

use super::{CapacityOption, close_after_a_look, require_store};
use crate::failure::{Exit, Failure};
use crate::figures::{self, Derived};
use crate::glance::Glance;
use crate::output::{self, Output};

/// Arguments of `larder stats`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  larder stats cache
  larder stats cache --json | jq .stats.entries

Opens the store: of one that another process has open, `larder watch --once DIR` shows what its files say.")]
pub struct StatsArgs {
    /// Directory of the store.
    dir: PathBuf,
    #[command(flatten)]
    capacity: CapacityOption,
}

#[derive(Serialize)]
struct StatsReport<'a> {
    #[serde(flatten)]
    glance: &'a Glance,
    derived: Derived,
}

/// Runs the command.
pub fn run(args: &StatsArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let config = ColdTierConfig::new(&args.dir).maintenance(Maintenance::Manual);
    let store = ColdTier::open(config).map_err(Failure::store("open", &args.dir))?;
    let mut glance = Glance::of_open(&args.dir, &store)?;
    glance.stats.capacity_bytes = args.capacity.capacity;
    close_after_a_look(store, &args.dir);
    output.object(&StatsReport { glance: &glance, derived: Derived::of(&glance) })?;
    for group in figures::groups(&glance) {
        let mut table = output::table(&[group.title, ""], 1);
        for figure in &group.figures {
            table.add_row([figure.label, figure.text.as_str()]);
        }
        output.line(table)?;
    }
    Ok(Exit::Done)
}
