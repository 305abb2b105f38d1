//! `larder load`: inserts the records of a JSONL file or of stdin, or the files of a directory.
//!
//! However it ends (end of input, bad line, Ctrl-C, full disk), it flushes what was accepted, closes the store and says
//! what is stored.

mod files;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use larder::ColdTier;
use serde::Serialize;

use super::{StoreOptions, parse_ttl};
use crate::failure::{Exit, Failure};
use crate::input::Input;
use crate::output::{self, Output};
use crate::records::{BadLine, Line, Record, Records};
use crate::{interrupt, progress};
use files::{Content, SkippedFile, Tree};

/// Bad lines told one by one; further ones are only counted.
const BAD_LINES_TOLD: usize = 100;

/// Arguments of `larder load`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  larder load cache records.jsonl.zst           one record a line, {\"key\": \"...\", \"value\": ...}
  larder load cache site/ --ttl 30d             every file below site/: key = its path, value = its content
  zcat dump.gz | larder load cache -            from stdin

Of a directory, symbolic links and special files are passed over; files over 64 MiB are told and counted as skipped.")]
pub struct LoadArgs {
    /// Directory of the store; created if there is none.
    dir: PathBuf,
    /// A JSONL file, plain or zstd, one `{"key": "...", "value": ...}` a line; or a directory, every file of which is
    /// an entry; `-` is stdin [default: -].
    input: Option<PathBuf>,
    /// The same as INPUT.
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    from: Option<PathBuf>,
    /// Time to live of the entries: seconds, or with a unit as in 90s, 15m, 1h, 30d [default: they never expire].
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// Report bad lines and unreadable files and go on, instead of stopping at the first.
    #[arg(long)]
    skip_bad: bool,
    /// Store a value that is a JSON string as that string's bytes, without quotes and escapes.
    #[arg(long)]
    string_values: bool,
    #[command(flatten)]
    store: StoreOptions,
}

impl LoadArgs {
    fn source(&self) -> &Path {
        self.input.as_deref().or(self.from.as_deref()).unwrap_or(Path::new("-"))
    }
}

/// What a load did.
#[derive(Debug, Default, Serialize)]
struct LoadReport {
    dir: String,
    source: String,
    records: u64,
    raw_bytes: u64,
    bad_lines: u64,
    bad: Vec<BadLine>,
    /// Files of a directory that were not stored: too large, or unreadable.
    skipped: u64,
    skipped_files: Vec<SkippedFile>,
    /// Symbolic links and special files of a directory.
    passed_over: u64,
    interrupted: bool,
    error: Option<String>,
    entries: u64,
    segments: u64,
    segment_bytes: u64,
    put_per_s: f64,
    seconds: f64,
}

/// Why inserting stopped before the end of the input.
enum Stop {
    Bad(BadLine),
    BadFile(SkippedFile),
    Failed(Failure),
}

/// Runs the command.
pub fn run(args: &LoadArgs, output: &Output) -> Result<Exit, Failure> {
    if args.source().is_dir() {
        let tree = Tree::find(args.source(), &args.dir)?;
        let bar = progress::input_bar("loading", Some(tree.bytes), output);
        let name = args.source().display().to_string();
        return load(name, args, &bar, output, |store, report| {
            insert_files(store, &tree, args, report, &bar)
        });
    }
    let input = Input::open(args.source())?;
    let bar = progress::input_bar("loading", input.total_bytes, output);
    let mut records = Records::new(input, args.string_values, &bar)?;
    let name = records.name.clone();
    load(name, args, &bar, output, |store, report| insert_all(store, &mut records, args, report, &bar))
}

/// Opens the store, lets `insert` fill it, and closes it however that went.
fn load(
    source: String,
    args: &LoadArgs,
    bar: &ProgressBar,
    output: &Output,
    insert: impl FnOnce(&ColdTier, &mut LoadReport) -> Result<(), Stop>,
) -> Result<Exit, Failure> {
    let store = ColdTier::open(args.store.config(&args.dir)).map_err(Failure::store("open", &args.dir))?;
    let started = Instant::now();
    let mut report = LoadReport { dir: args.dir.display().to_string(), source, ..LoadReport::default() };
    let stopped = insert(&store, &mut report).err();
    bar.finish_and_clear();
    let closed = finish(store, args, &mut report, started);

    let mut exit = Exit::Done;
    if let Some(stop) = stopped {
        exit = explain(stop, args, &mut report);
    }
    if let Err(failure) = closed {
        let text = failure.to_string();
        output::warn(&text);
        report.error.get_or_insert(text);
        exit = failure.exit();
    }
    print(&report, args, output)?;
    Ok(exit)
}

fn insert_files(
    store: &ColdTier,
    tree: &Tree,
    args: &LoadArgs,
    report: &mut LoadReport,
    bar: &ProgressBar,
) -> Result<(), Stop> {
    report.passed_over = tree.passed_over;
    for (at, file) in tree.files.iter().enumerate() {
        interrupt::check().map_err(Stop::Failed)?;
        let skipped = match tree.read(file) {
            Content::Value(value) => {
                let record = Record { key: file.key().to_vec(), value };
                let refused = insert(store, &record, args, 0, report)?;
                refused.map(|bad| SkippedFile { file: file.path.display().to_string(), problem: bad.problem })
            }
            Content::TooLarge(skipped) => Some(skipped),
            Content::Unreadable(skipped) if args.skip_bad => Some(skipped),
            Content::Unreadable(skipped) => return Err(Stop::BadFile(skipped)),
        };
        if let Some(skipped) = skipped {
            note_skipped(skipped, args, report, bar);
        }
        bar.inc(file.bytes);
        if at.is_multiple_of(64) {
            bar.set_message(format!("{} files", output::count(report.records)));
        }
    }
    Ok(())
}

/// Counts a file that is not stored, and tells it.
fn note_skipped(skipped: SkippedFile, args: &LoadArgs, report: &mut LoadReport, bar: &ProgressBar) {
    report.skipped += 1;
    match report.skipped.cmp(&(BAD_LINES_TOLD as u64 + 1)) {
        std::cmp::Ordering::Less => {
            let file = args.source().join(&skipped.file);
            bar.suspend(|| output::warn(&format!("{}: {}; skipped", file.display(), skipped.problem)));
            report.skipped_files.push(skipped);
        }
        std::cmp::Ordering::Equal => {
            bar.suspend(|| output::warn("further skipped files are counted, not shown"));
        }
        std::cmp::Ordering::Greater => {}
    }
}

fn insert_all(
    store: &ColdTier,
    records: &mut Records,
    args: &LoadArgs,
    report: &mut LoadReport,
    bar: &ProgressBar,
) -> Result<(), Stop> {
    while let Some(line) = records.next_line().map_err(Stop::Failed)? {
        interrupt::check().map_err(Stop::Failed)?;
        let bad = match line {
            Line::Bad(bad) => Some(bad),
            Line::Record(record) => insert(store, &record, args, records.line(), report)?,
        };
        if let Some(bad) = bad {
            note_bad(bad, args, records, report, bar)?;
        }
        if records.line().is_multiple_of(1024) {
            bar.set_message(format!("{} records", output::count(report.records)));
        }
    }
    Ok(())
}

/// Inserts a record; one that the store does not take (an empty key, too large a value) counts as a bad line.
fn insert(
    store: &ColdTier,
    record: &Record,
    args: &LoadArgs,
    line: u64,
    report: &mut LoadReport,
) -> Result<Option<BadLine>, Stop> {
    let result = match args.ttl {
        Some(ttl) => store.insert_with_ttl(&record.key, &record.value, ttl),
        None => store.insert(&record.key, &record.value),
    };
    match result {
        Ok(()) => {
            report.records += 1;
            report.raw_bytes += (record.key.len() + record.value.len()) as u64;
            Ok(None)
        }
        Err(error) if error.is_config() => Ok(Some(BadLine { line, problem: error.to_string() })),
        Err(error) => Err(Stop::Failed(Failure::store("insert into", &args.dir)(error))),
    }
}

/// Counts a bad line and tells it; without `--skip-bad` it ends the load.
fn note_bad(
    bad: BadLine,
    args: &LoadArgs,
    records: &Records,
    report: &mut LoadReport,
    bar: &ProgressBar,
) -> Result<(), Stop> {
    report.bad_lines += 1;
    if report.bad.len() < BAD_LINES_TOLD {
        report.bad.push(bad.clone());
    }
    if !args.skip_bad {
        return Err(Stop::Bad(bad));
    }
    match report.bad_lines.cmp(&(BAD_LINES_TOLD as u64 + 1)) {
        std::cmp::Ordering::Less => {
            bar.suspend(|| output::warn(&format!("{}:{}: {}; skipped", records.name, bad.line, bad.problem)));
        }
        std::cmp::Ordering::Equal => {
            bar.suspend(|| output::warn("further bad lines are counted, not shown"));
        }
        std::cmp::Ordering::Greater => {}
    }
    Ok(())
}

/// Flushes and closes, whatever happened before, and takes the figures.
fn finish(
    store: ColdTier,
    args: &LoadArgs,
    report: &mut LoadReport,
    started: Instant,
) -> Result<(), Failure> {
    let flushed = store.flush().map_err(Failure::store("flush", &args.dir));
    let time = started.elapsed();
    let stats = store.stats();
    report.entries = stats.entries;
    report.segments = stats.segments;
    report.segment_bytes = stats.segment_bytes;
    report.put_per_s = output::rate(report.records, time);
    report.seconds = time.as_secs_f64();
    let closed = store.close().map_err(Failure::store("close", &args.dir));
    flushed.and(closed)
}

/// Says why the load stopped early.
fn explain(stop: Stop, args: &LoadArgs, report: &mut LoadReport) -> Exit {
    let (exit, text) = match stop {
        Stop::Bad(bad) => {
            let advice = "correct it, or skip such lines with --skip-bad";
            (Exit::Failed, format!("{}:{}: {}; {advice}", args.source().display(), bad.line, bad.problem))
        }
        Stop::BadFile(bad) => {
            let file = args.source().join(&bad.file);
            let advice = "make it readable, or skip such files with --skip-bad";
            (Exit::Failed, format!("read {}: {}; {advice}", file.display(), bad.problem))
        }
        Stop::Failed(failure) => (failure.exit(), failure.to_string()),
    };
    output::warn(&text);
    report.interrupted = exit == Exit::Interrupted;
    report.error = (!report.interrupted).then_some(text);
    exit
}

fn print(report: &LoadReport, args: &LoadArgs, output: &Output) -> Result<(), Failure> {
    output.object(report)?;
    let ttl = args.ttl.map_or("no expiry".to_owned(), |ttl| format!("expiry in {}", output::duration(ttl)));
    let outcome = match (&report.error, report.interrupted) {
        (Some(_), _) => "stopped by an error; accepted",
        (None, true) => "stopped; stored",
        (None, false) => "stored",
    };
    // After an error not all of them may have reached the disk; the next line says what the store holds.
    let flushed = if report.error.is_some() { "which may not all be on disk" } else { "flushed to disk" };
    output.line(format_args!(
        "{outcome} {} records of {} in {}: {} raw, {ttl}, {:.0} a second, {flushed}",
        output::count(report.records),
        report.source,
        report.dir,
        output::bytes(report.raw_bytes),
        report.put_per_s,
    ))?;
    if report.bad_lines > 0 {
        output.line(format_args!("{} bad lines were not stored", output::count(report.bad_lines)))?;
    }
    if report.skipped > 0 {
        output.line(format_args!("{} files were skipped", output::count(report.skipped)))?;
    }
    if report.passed_over > 0 {
        let links = output::count(report.passed_over);
        output.line(format_args!("{links} symbolic links and special files were passed over"))?;
    }
    output.line(format_args!(
        "the store holds {} entries in {} segments of {} together",
        output::count(report.entries),
        report.segments,
        output::bytes(report.segment_bytes),
    ))
}
