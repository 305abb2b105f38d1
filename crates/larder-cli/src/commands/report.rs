//! `larder report`: a store in pictures, as one HTML file that needs nothing else.
//!
//! Looking changes nothing and works on a store in use, from its files. `--watch` and `--tune` open the store, and say
//! so.

mod charts;
mod compression;
mod html;
mod page;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use larder::{ColdTier, CompactionTask, ErrorKind, Maintenance, TuningReport};
use serde::Serialize;

use super::{StoreOptions, parse_ttl, require_store};
use crate::disk_use::{self, SegmentFile};
use crate::failure::{Exit, Failure};
use crate::figures::Derived;
use crate::forecast::Forecast;
use crate::glance::Glance;
use crate::output::{self, Output};
use crate::{interrupt, progress};

/// Samples of a watched store at most.
const SAMPLES_MAX: u32 = 600;
const STEP_MIN: Duration = Duration::from_millis(50);

/// Arguments of `larder report`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  larder report cache                       writes report.html
  larder report cache --out cache.html
  larder report cache --watch 60            samples the disk for a minute first; Ctrl-C ends that earlier
  larder report cache --tune                measures ways to compress first, as `larder tune` does

The file holds pictures of segments, disk over time, remaining lives and compression, and says what can be reclaimed,
when and why. It loads nothing from anywhere. Without --watch and --tune nothing of the store is changed, and a store
that another process has open is shown as its files say.")]
pub struct ReportArgs {
    /// Directory of the store.
    dir: PathBuf,
    /// The file to write, replaced if it exists; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Sample the bytes on disk for this long first. Opens the store, with its maintenance running, unless another
    /// process has it.
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    watch: Option<Duration>,
    /// Measure ways to compress first, and use the best one from then on.
    #[arg(long)]
    tune: bool,
    #[command(flatten)]
    store: StoreOptions,
}

/// Bytes on disk at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// When, unix ms.
    at_ms: u64,
    /// All files, as du counts.
    disk_bytes: u64,
}

/// What the page shows.
#[derive(Debug, Serialize)]
pub struct Contents {
    #[serde(flatten)]
    glance: Glance,
    derived: Derived,
    forecast: Forecast,
    /// When the segment files there are were last written.
    files: Vec<SegmentFile>,
    /// Of the time watched; empty without `--watch`.
    samples: Vec<Sample>,
    /// The last tuning of the store, if there was one.
    tuning: Option<TuningReport>,
}

#[derive(Serialize)]
struct ReportResult<'a> {
    out: String,
    html_bytes: u64,
    #[serde(flatten)]
    contents: &'a Contents,
}

/// Runs the command.
pub fn run(args: &ReportArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let to_stdout = args.out.as_os_str() == "-";
    if to_stdout && !output.for_people() {
        return Err(Failure::Other("--out - and --json both want stdout; name a file with --out".to_owned()));
    }
    let samples = prepare(args, output)?;
    let glance = Glance::of_dir(&args.dir, args.store.capacity())?;
    let files = disk_use::segment_files(&args.dir);
    let files = files.map_err(|error| Failure::Other(format!("list {}: {error}", args.dir.display())))?;
    let tuning = larder::explain(&args.dir).map_err(Failure::store("explain", &args.dir))?;
    let (derived, forecast) = (Derived::of(&glance), Forecast::of(&glance));
    let contents = Contents { derived, forecast, glance, files, samples, tuning };
    let page = page::page(&contents);
    if to_stdout {
        output.raw(page.as_bytes())?;
    } else {
        save(&args.out, &page)?;
    }
    let out = args.out.display().to_string();
    output.object(&ReportResult { out, html_bytes: page.len() as u64, contents: &contents })?;
    if !to_stdout {
        output.line(format_args!(
            "{}: {}, {} entries in {} segments, {} on disk, {} samples; open it in a browser",
            args.out.display(),
            output::bytes(page.len() as u64),
            output::count(contents.glance.stats.entries),
            contents.glance.stats.segments,
            output::bytes(contents.glance.disk.bytes),
            contents.samples.len(),
        ))?;
    }
    Ok(if interrupt::requested() { Exit::Interrupted } else { Exit::Done })
}

/// What has to be done on an open store before it is looked at.
fn prepare(args: &ReportArgs, output: &Output) -> Result<Vec<Sample>, Failure> {
    if args.watch.is_none() && !args.tune {
        return Ok(Vec::new());
    }
    let maintenance = if args.watch.is_some() { Maintenance::Automatic } else { Maintenance::Manual };
    let store = match ColdTier::open(args.store.config(&args.dir).maintenance(maintenance)) {
        Ok(store) => Some(store),
        // Its own process maintains it; it can be watched all the same.
        Err(error) if error.kind() == ErrorKind::Locked && !args.tune => None,
        Err(error) => return Err(Failure::store("open", &args.dir)(error)),
    };
    if let (Some(store), true) = (&store, args.tune) {
        let report = progress::run_task(store, CompactionTask::OptimizeCompression, "tune", output);
        report.map_err(Failure::store("tune", &args.dir))?;
    }
    let samples = match args.watch {
        Some(time) => sample(&args.dir, time, output)?,
        None => Vec::new(),
    };
    if let Some(store) = store {
        store.close().map_err(Failure::store("close", &args.dir))?;
    }
    Ok(samples)
}

fn sample(dir: &Path, time: Duration, output: &Output) -> Result<Vec<Sample>, Failure> {
    let bar = progress::share_bar("watching the disk", output);
    let started = Instant::now();
    let step = (time / SAMPLES_MAX).max(STEP_MIN);
    let mut samples = Vec::new();
    loop {
        let used = disk_use::measure(dir);
        let used = used.map_err(|error| Failure::Other(format!("list {}: {error}", dir.display())))?;
        samples.push(Sample { at_ms: output::unix_now_ms(), disk_bytes: used.bytes });
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() || interrupt::requested() {
            break;
        }
        progress::set_share(&bar, 1.0 - left.as_secs_f32() / time.as_secs_f32());
        thread::sleep(step.min(left));
    }
    bar.finish_and_clear();
    Ok(samples)
}

#[expect(clippy::disallowed_methods, reason = "the user's file is no part of a store")]
fn save(path: &Path, page: &str) -> Result<(), Failure> {
    let advice = "name a file in a directory that exists and belongs to you with --out";
    std::fs::write(path, page)
        .map_err(|error| Failure::Other(format!("write {}: {error}; {advice}", path.display())))
}
