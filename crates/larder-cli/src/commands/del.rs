//! `larder del`: removes entries; durable when the command ends.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use larder::{ColdTier, Maintenance};
use serde::Serialize;

use super::put::maintain;
use super::{StoreOptions, require_store};
use crate::failure::{Exit, Failure};
use crate::interrupt;
use crate::keys::{self, KeyOptions};
use crate::output::{self, Output};

/// Arguments of `larder del`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  larder del cache user:17
  larder del cache user:17 user:18 --json
  larder del cache 00ff10 --hex

A key that is not there is no error: it is counted. The bytes go when the store is compacted.")]
pub struct DelArgs {
    /// Directory of the store.
    dir: PathBuf,
    /// Keys of the entries.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    options: KeyOptions,
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Serialize)]
struct DelReport {
    dir: String,
    removed: u64,
    absent: Vec<String>,
    entries: u64,
}

/// Runs the command.
pub fn run(args: &DelArgs, output: &Output) -> Result<Exit, Failure> {
    let keys = args.keys.iter().map(|key| args.options.bytes(key)).collect::<Result<Vec<_>, _>>()?;
    require_store(&args.dir)?;
    let config = args.store.config(&args.dir).maintenance(Maintenance::Manual);
    let store = ColdTier::open(config).map_err(Failure::store("open", &args.dir))?;
    let mut report =
        DelReport { dir: args.dir.display().to_string(), removed: 0, absent: Vec::new(), entries: 0 };
    for key in &keys {
        interrupt::check()?;
        let present = store.contains_key(key).map_err(Failure::store("delete from", &args.dir))?;
        // Also where no value can be read: a damaged entry goes too.
        store.remove(key).map_err(Failure::store("delete from", &args.dir))?;
        if present {
            report.removed += 1;
        } else {
            report.absent.push(keys::shown(key));
        }
    }
    store.flush().map_err(Failure::store("flush", &args.dir))?;
    report.entries = store.len();
    maintain(&store, output);
    store.close().map_err(Failure::store("close", &args.dir))?;

    output.object(&report)?;
    let absent = match report.absent.len() {
        0 => String::new(),
        many => format!("; {} not there: {}", output::count(many as u64), report.absent.join(", ")),
    };
    output.line(format_args!(
        "removed {} of {} keys from {}{absent}; the store holds {} entries",
        output::count(report.removed),
        output::count(keys.len() as u64),
        args.dir.display(),
        output::count(report.entries),
    ))?;
    Ok(Exit::Done)
}
