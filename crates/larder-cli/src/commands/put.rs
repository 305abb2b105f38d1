//! `larder put`: one entry from the command line, a file or stdin; durable when the command ends.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use indicatif::ProgressBar;
use larder::{ColdTier, Maintenance};
use serde::Serialize;

use super::{StoreOptions, parse_ttl};
use crate::failure::{Exit, Failure};
use crate::input::Input;
use crate::keys::{self, JsonBytes, KeyOptions};
use crate::output::{self, Output};
use crate::progress;

/// One byte more than a value may have, so that too much is noticed and not cut off.
const READ_MAX: u64 = (64 << 20) + 1;

/// Arguments of `larder put`.
#[derive(Args, Debug)]
#[command(
    override_usage = "larder put [OPTIONS] DIR KEY <VALUE | --file FILE | ->",
    group(ArgGroup::new("what").required(true).args(["value", "file"])),
    after_help = "\
Examples:
  larder put cache greeting 'hello, world'
  larder put cache session:9 token --ttl 1h
  larder put cache logo.png --file logo.png
  curl -s example.org | larder put cache page -
  larder put cache 00ff10 value --hex

Creates the store if there is none. A value that begins with a dash goes behind --."
)]
pub struct PutArgs {
    /// Directory of the store; created if there is none.
    dir: PathBuf,
    /// Key of the entry, 1 B to 64 KiB.
    key: OsString,
    /// The value, up to 64 MiB; `-` reads it from stdin.
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Take the value from this file, byte for byte.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Time to live: seconds, or with a unit as in 500ms, 90s, 15m, 1h, 30d [default: it never expires].
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    keys: KeyOptions,
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Serialize)]
struct PutReport {
    dir: String,
    key: String,
    key_encoding: &'static str,
    size: u64,
    ttl_seconds: Option<f64>,
    replaced: bool,
    entries: u64,
}

/// Runs the command.
pub fn run(args: &PutArgs, output: &Output) -> Result<Exit, Failure> {
    let key = args.keys.bytes(&args.key)?;
    let value = value(args)?;
    let config = args.store.config(&args.dir).maintenance(Maintenance::Manual);
    let store = ColdTier::open(config).map_err(Failure::store("open", &args.dir))?;
    let replaced = store.contains_key(&key).map_err(Failure::store("put into", &args.dir))?;
    match args.ttl {
        Some(ttl) => store.insert_with_ttl(&key, &value, ttl),
        None => store.insert(&key, &value),
    }
    .map_err(Failure::store("put into", &args.dir))?;
    store.flush().map_err(Failure::store("flush", &args.dir))?;
    let entries = store.len();
    maintain(&store, output);
    store.close().map_err(Failure::store("close", &args.dir))?;

    let shown_key = JsonBytes::new(&key);
    output.object(&PutReport {
        dir: args.dir.display().to_string(),
        key: shown_key.text,
        key_encoding: shown_key.encoding,
        size: value.len() as u64,
        ttl_seconds: args.ttl.map(|ttl| ttl.as_secs_f64()),
        replaced,
        entries,
    })?;
    output.line(format_args!(
        "{} {:?} in {}: {}, {}; the store holds {} entries",
        if replaced { "replaced" } else { "stored" },
        keys::shown(&key),
        args.dir.display(),
        output::bytes(value.len() as u64),
        args.ttl.map_or("no expiry".to_owned(), |ttl| format!("expires in {}", output::duration(ttl))),
        output::count(entries),
    ))?;
    Ok(Exit::Done)
}

/// Does what maintenance is due. A process that ends at once leaves automatic maintenance no time, and a store that only
/// such processes feed would grow by a segment each. What cannot be done now is due the next time.
pub fn maintain(store: &ColdTier, output: &Output) {
    if let Err(error) = progress::run_due(store, output) {
        output::warn(&format!(
            "stored, but maintenance did not finish: {error}; it is due again the next time"
        ));
    }
}

fn value(args: &PutArgs) -> Result<Vec<u8>, Failure> {
    let input = match (&args.value, &args.file) {
        (Some(text), _) if text != "-" => return Ok(text.as_encoded_bytes().to_vec()),
        (_, Some(path)) => Input::open(path)?,
        _ => Input::open("-".as_ref())?,
    };
    let name = input.name.clone();
    let mut value = Vec::new();
    let read = input.into_raw_reader(&ProgressBar::hidden()).take(READ_MAX).read_to_end(&mut value);
    read.map_err(|error| match crate::interrupt::requested() {
        true => Failure::Interrupted,
        false => {
            Failure::Other(format!("read {name}: {error}; name a file that can be read, or - for stdin"))
        }
    })?;
    Ok(value)
}
