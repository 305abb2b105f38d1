//! `larder get`: the value of one key, byte for byte on stdout or in a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use larder::{ColdTier, ColdTierConfig, Maintenance, Ttl};
use serde::Serialize;

use super::{close_after_a_look, require_store};
use crate::failure::{Exit, Failure};
use crate::keys::{self, JsonBytes, KeyOptions};
use crate::output::{self, Output};

/// Arguments of `larder get`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  larder get cache user:17                  the value, byte for byte, on stdout
  larder get cache logo.png --out logo.png  into a file
  larder get cache user:17 --json           with size and time to live
  larder get cache 00ff10 --hex             a key that is no text

Exit code 1 if there is no such entry. The store must not be open elsewhere.")]
pub struct GetArgs {
    /// Directory of the store.
    dir: PathBuf,
    /// Key of the entry.
    key: OsString,
    /// Write the value to this file instead of stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyOptions,
}

#[derive(Serialize)]
struct Got {
    dir: String,
    key: String,
    key_encoding: &'static str,
    /// Left out when the value went to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<String>,
    size: u64,
    /// `null`: it does not expire.
    ttl_seconds: Option<f64>,
}

/// Runs the command.
pub fn run(args: &GetArgs, output: &Output) -> Result<Exit, Failure> {
    let key = args.keys.bytes(&args.key)?;
    require_store(&args.dir)?;
    // A look must not start to rewrite the store.
    let config = ColdTierConfig::new(&args.dir).maintenance(Maintenance::Manual);
    let store = ColdTier::open(config).map_err(Failure::store("open", &args.dir))?;
    let value = store.get(&key).map_err(Failure::store("read from", &args.dir))?;
    let ttl = store.ttl(&key).map_err(Failure::store("read from", &args.dir))?;
    let damaged = store.stats().damaged_misses > 0;
    close_after_a_look(store, &args.dir);
    let Some(value) = value else {
        return Err(absent(&args.dir, &key, damaged));
    };
    if let Some(path) = &args.out {
        save(path, &value)?;
    }
    let to_file = args.out.is_some();
    let (shown_key, shown) = (JsonBytes::new(&key), JsonBytes::new(&value));
    output.object(&Got {
        dir: args.dir.display().to_string(),
        key: shown_key.text,
        key_encoding: shown_key.encoding,
        value: (!to_file).then_some(shown.text),
        value_encoding: (!to_file).then_some(shown.encoding),
        out: args.out.as_ref().map(|path| path.display().to_string()),
        size: value.len() as u64,
        ttl_seconds: match ttl {
            Some(Ttl::Remaining(left)) => Some(left.as_secs_f64()),
            _ => None,
        },
    })?;
    match &args.out {
        Some(path) => {
            output.line(format_args!(
                "{} written to {}",
                output::bytes(value.len() as u64),
                path.display()
            ))?;
        }
        None if output.for_people() => output.raw(&value)?,
        None => {}
    }
    Ok(Exit::Done)
}

fn absent(dir: &Path, key: &[u8], damaged: bool) -> Failure {
    let (key, dir) = (keys::shown(key), dir.display());
    Failure::Absent(if damaged {
        format!(
            "get {key:?} from {dir}: its bytes on disk are damaged, so it reads as a miss; put it in again"
        )
    } else {
        format!(
            "get {key:?} from {dir}: there is no such entry (never put in, removed, or past its time to live)"
        )
    })
}

#[expect(clippy::disallowed_methods, reason = "the user's file is no part of a store")]
fn save(path: &Path, value: &[u8]) -> Result<(), Failure> {
    let advice = "name a file in a directory that exists and belongs to you";
    std::fs::write(path, value)
        .map_err(|error| Failure::Other(format!("write {}: {error}; {advice}", path.display())))
}
