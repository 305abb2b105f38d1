//! `larder compact`, `expire` and `tune`: one maintenance task each on a store that no process has open.
//!
//! Ctrl-C cancels the task. What it had committed stays, everything else is as it was.

use std::path::PathBuf;

use clap::Args;
use larder::{
    CleanupReport, ColdStats, ColdTier, CompactionReport, CompactionTask, ErrorKind, Maintenance,
    RebuildReport, TaskReport, TuningReport,
};
use serde::Serialize;

use super::{StoreOptions, explain, require_store};
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::progress;

/// Arguments of `larder compact`, `expire` and `tune`.
#[derive(Args, Debug)]
pub struct TaskArgs {
    /// Directory of the store.
    dir: PathBuf,
    #[command(flatten)]
    store: StoreOptions,
}

/// The maintenance tasks that are commands.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// Give the space of dead and expired records back.
    Compact,
    /// Remove expired entries.
    Expire,
    /// Choose codec and dictionary.
    Tune,
}

impl Task {
    fn verb(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Expire => "expire",
            Self::Tune => "tune",
        }
    }

    fn library_task(self) -> CompactionTask {
        match self {
            Self::Compact => CompactionTask::CompactData,
            Self::Expire => CompactionTask::CleanupExpired,
            Self::Tune => CompactionTask::OptimizeCompression,
        }
    }

    /// Runs it. A compaction is followed by `RebuildIndex`: the saved index shrinks with the data, a damaged one is
    /// replaced, and the next start is quick.
    fn run(self, store: &ColdTier, output: &Output) -> larder::Result<(TaskReport, Option<RebuildReport>)> {
        let report = progress::run_task(store, self.library_task(), self.verb(), output)?;
        if !matches!(self, Self::Compact) {
            return Ok((report, None));
        }
        let index = progress::run_task(store, CompactionTask::RebuildIndex, "save the index", output)?;
        let index = if let TaskReport::RebuildIndex(index) = index { Some(index) } else { None };
        Ok((report, index))
    }
}

#[derive(Serialize)]
struct TaskResult<'a> {
    dir: String,
    task: &'static str,
    interrupted: bool,
    report: Option<serde_json::Value>,
    index: Option<&'a RebuildReport>,
    before: &'a ColdStats,
    after: &'a ColdStats,
}

/// Runs a task on the store.
pub fn run(task: Task, args: &TaskArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let config = args.store.config(&args.dir).maintenance(Maintenance::Manual);
    let store = ColdTier::open(config).map_err(Failure::store("open", &args.dir))?;
    let before = store.stats();
    let result = task.run(&store, output);
    let flushed = store.flush().map_err(Failure::store("flush", &args.dir));
    let after = store.stats();
    let closed = store.close().map_err(Failure::store("close", &args.dir));

    let (report, index) = match result {
        Ok((report, index)) => (Some(report), index),
        Err(error) if error.kind() == ErrorKind::Cancelled => (None, None),
        Err(error) => return Err(Failure::store(task.verb(), &args.dir)(error)),
    };
    flushed.and(closed)?;
    output.object(&TaskResult {
        dir: args.dir.display().to_string(),
        task: task.verb(),
        interrupted: report.is_none(),
        report: report.as_ref().map(plain),
        index: index.as_ref(),
        before: &before,
        after: &after,
    })?;
    let Some(report) = report else {
        output::warn("interrupted; nothing is lost: what was committed stays, the rest is as it was");
        return Ok(Exit::Interrupted);
    };
    print(&report, &before, &after, args, output)?;
    Ok(Exit::Done)
}

/// The report as JSON without the name of its kind, which `task` says already.
fn plain(report: &TaskReport) -> serde_json::Value {
    let value = match report {
        TaskReport::CompactData(report) => serde_json::to_value(report),
        TaskReport::CleanupExpired(report) => serde_json::to_value(report),
        TaskReport::OptimizeCompression(report) => serde_json::to_value(report),
        other => serde_json::to_value(other),
    };
    value.unwrap_or_default()
}

fn print(
    report: &TaskReport,
    before: &ColdStats,
    after: &ColdStats,
    args: &TaskArgs,
    output: &Output,
) -> Result<(), Failure> {
    match report {
        TaskReport::CompactData(report) => print_compaction(report, output)?,
        TaskReport::CleanupExpired(report) => print_cleanup(report, after, args, output)?,
        TaskReport::OptimizeCompression(report) => return print_tuning(report, args, output),
        other => output.line(format_args!("{other:?}"))?,
    }
    output.line(stats_table(before, after))
}

/// The figures that maintenance moves, before and after.
pub fn stats_table(before: &ColdStats, after: &ColdStats) -> comfy_table::Table {
    let mut table = output::table(&["", "before", "after"], 1);
    let mut row = |name: &str, show: fn(u64) -> String, figure: fn(&ColdStats) -> u64| {
        table.add_row([name.to_owned(), show(figure(before)), show(figure(after))]);
    };
    row("entries", output::count, |stats| stats.entries);
    row("live bytes", output::bytes, |stats| stats.live_bytes);
    row("dead bytes", output::bytes, |stats| stats.dead_bytes);
    row("expired bytes", output::bytes, |stats| stats.expired_bytes);
    row("segments", output::count, |stats| stats.segments);
    row("segment bytes", output::bytes, |stats| stats.segment_bytes);
    row("dictionary bytes", output::bytes, |stats| stats.dictionary_bytes);
    row("snapshot bytes", output::bytes, |stats| stats.snapshot_bytes);
    row("index in memory", output::bytes, |stats| stats.index_bytes);
    table
}

fn print_compaction(report: &CompactionReport, output: &Output) -> Result<(), Failure> {
    if report.segments_removed == 0 {
        return output.line("nothing to compact: no segment holds dead or expired bytes worth a rewrite");
    }
    output.line(format_args!(
        "reclaimed {} in {}: {} segments became {}; {} entries copied ({} of them compressed anew), \
         {} dead and {} expired left out",
        output::signed_bytes(report.bytes_reclaimed),
        output::duration(report.duration),
        report.segments_removed,
        report.segments_written,
        output::count(report.entries_copied),
        output::count(report.entries_recompressed),
        output::count(report.entries_dead),
        output::count(report.entries_expired),
    ))?;
    match report.entries_damaged {
        0 => Ok(()),
        damaged => {
            output.line(format_args!("{damaged} entries were damaged and are gone; put them in again"))
        }
    }
}

fn print_cleanup(
    report: &CleanupReport,
    after: &ColdStats,
    args: &TaskArgs,
    output: &Output,
) -> Result<(), Failure> {
    output.line(format_args!(
        "removed {} expired entries in {}; {} of {} segments checked were dropped whole and gave {} back",
        output::count(report.expired_removed),
        output::duration(report.duration),
        report.segments_dropped,
        report.segments_checked,
        output::bytes(report.bytes_reclaimed),
    ))?;
    match after.expired_bytes + after.dead_bytes {
        0 => Ok(()),
        bytes => output.line(format_args!(
            "`larder compact {}` gives back up to {} more",
            args.dir.display(),
            output::bytes(bytes)
        )),
    }
}

fn print_tuning(report: &TuningReport, args: &TaskArgs, output: &Output) -> Result<(), Failure> {
    explain::print(report, output)?;
    if report.changed {
        let dir = args.dir.display();
        output.line(format_args!(
            "what is stored already changes when it is compacted: `larder compact {dir}`"
        ))?;
    }
    Ok(())
}
