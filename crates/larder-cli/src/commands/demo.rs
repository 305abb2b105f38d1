//! `larder demo`: the whole life of a store on real data, every read judged by an oracle.
//!
//! Insert with mixed lives, overwrite, delete, let a third expire, tune, clean up, compact, save the index, verify, open
//! again, verify again. The exit code says whether everything demanded was met.

mod oracle;
mod report;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use larder::{ColdTier, ColdTierConfig, CompactionTask, Maintenance, SegmentState, TaskReport};

use super::empty_dir;
use crate::failure::{Exit, Failure};
use crate::input::Input;
use crate::output::{self, Output};
use crate::records::{Line, Record, Records};
use crate::{disk_use, interrupt, progress};
use oracle::{Checked, Life, Oracle, Period};
use report::{DemoReport, Moment};

/// The records that come with the program; `data/README.md` says what they are.
static RECORDS: &[u8] = include_bytes!("../../../../data/mdn-compat.jsonl.zst");
const SEGMENT_BYTES: u64 = 1 << 20;

/// Arguments of `larder demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Records to use instead of those that come with the program: JSONL, plain or zstd; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Keep the store in this directory, which must be empty or absent [default: a temporary one, removed].
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &DemoArgs, output: &Output) -> Result<Exit, Failure> {
    let started = Instant::now();
    let input = match &args.from {
        Some(path) => Input::open(path)?,
        None => Input::memory("built-in mdn-compat.jsonl.zst", RECORDS),
    };
    // Removed when it goes out of scope, on errors and signals too.
    let temporary = tempfile::Builder::new().prefix("larder-demo-").tempdir();
    let temporary =
        temporary.map_err(|error| Failure::Other(format!("make a temporary directory: {error}")))?;
    let dir = match &args.dir {
        // The oracle knows only what the demo does: a directory with content would make it wrong.
        Some(dir) => empty_dir(dir)?,
        None => temporary.path(),
    };
    let source = input.name.clone();
    let records = read_all(input, output)?;
    let report = DemoReport { source, records: records.len() as u64, ..DemoReport::default() };
    let mut demo = Demo { dir, output, records, oracle: Oracle::default(), report };
    let undecided_at_end = demo.live()?;

    let Demo { oracle, mut report, .. } = demo;
    report.seconds = started.elapsed().as_secs_f64();
    report.judge(oracle.short_entries(), undecided_at_end, args.from.is_none());
    report.print(output)?;
    output.object(&report)?;
    Ok(if report.passed() { Exit::Done } else { Exit::Failed })
}

fn read_all(input: Input, output: &Output) -> Result<Vec<Record>, Failure> {
    let bar = progress::input_bar("reading", input.total_bytes, output);
    let mut records = Records::new(input, false, &bar)?;
    let mut all = Vec::new();
    while let Some(line) = records.next_line()? {
        interrupt::check()?;
        match line {
            Line::Record(record) => all.push(record),
            Line::Bad(bad) => {
                let text =
                    format!("{}:{}: {}; the demo needs good records", records.name, bad.line, bad.problem);
                return Err(Failure::Other(text));
            }
        }
    }
    bar.finish_and_clear();
    if all.is_empty() {
        return Err(Failure::Other(format!("{}: no records in it; the demo needs some", records.name)));
    }
    Ok(all)
}

struct Demo<'a> {
    dir: &'a Path,
    output: &'a Output,
    records: Vec<Record>,
    oracle: Oracle,
    report: DemoReport,
}

impl Demo<'_> {
    /// All steps; gives the number of reads after the wait that could not be judged.
    fn live(&mut self) -> Result<u64, Failure> {
        let store = self.open()?;
        self.fill(&store)?;
        let mut checked = self.let_expire(&store)?;
        self.maintain(&store)?;
        self.time_reads(&store)?;
        checked.add(&self.verify(&store, "6/7 verified after maintenance")?);
        store.close().map_err(Failure::store("close", self.dir))?;

        let started = Instant::now();
        let store = self.open()?;
        self.report.restart_ms = started.elapsed().as_secs_f64() * 1e3;
        checked.add(&self.verify(&store, "7/7 opened again and verified")?);
        store.close().map_err(Failure::store("close", self.dir))?;
        Ok(checked.undecided)
    }

    fn open(&self) -> Result<ColdTier, Failure> {
        let config =
            ColdTierConfig::new(self.dir).segment_bytes(SEGMENT_BYTES).maintenance(Maintenance::Manual);
        ColdTier::open(config).map_err(Failure::store("open", self.dir))
    }

    fn failed<'d>(&'d self, what: &'d str) -> impl FnOnce(larder::Error) -> Failure + use<'d> {
        Failure::store(what, self.dir)
    }

    /// Steps 1 and 2: insert everything; then overwrite 30 % and delete 10 %.
    fn fill(&mut self, store: &ColdTier) -> Result<(), Failure> {
        let records = std::mem::take(&mut self.records);
        let (first, first_time) = self.insert_all(store, &records, Life::first, |_| true)?;
        let new: Vec<Record> =
            records.iter().enumerate().map(|(index, record)| revised(record, index)).collect();
        let (second, second_time) = self.insert_all(store, &new, Life::second, oracle::is_overwritten)?;

        let started = Instant::now();
        for record in
            records.iter().enumerate().filter(|(index, _)| oracle::is_deleted(*index)).map(|(_, r)| r)
        {
            interrupt::check()?;
            store.remove(&record.key).map_err(self.failed("remove from"))?;
            self.oracle.remove(&record.key);
            self.report.deleted += 1;
        }
        let removing = started.elapsed();
        let started = Instant::now();
        store.flush().map_err(self.failed("flush"))?;
        let put_time = first_time + second_time + started.elapsed();

        let report = &mut self.report;
        report.overwritten = second;
        report.put_per_s = output::rate(first + second, put_time);
        report.steps.insert = first_time.as_secs_f64();
        report.steps.overwrite_delete = (second_time + removing).as_secs_f64();
        let per_s = report.put_per_s;
        let counts = [first, second, report.deleted].map(output::count);
        self.output.line(format_args!("1/7 inserted {} records from {}", counts[0], self.report.source))?;
        self.output.line(format_args!(
            "2/7 overwrote {} and deleted {} of them; flushed; {per_s:.0} puts/s on one thread",
            counts[1], counts[2]
        ))
    }

    /// Inserts the records whose index `chosen` picks; gives their number and the time of the inserts alone.
    fn insert_all(
        &mut self,
        store: &ColdTier,
        records: &[Record],
        life: fn(usize) -> Life,
        chosen: fn(usize) -> bool,
    ) -> Result<(u64, Duration), Failure> {
        let chosen = || records.iter().enumerate().filter(|(index, _)| chosen(*index));
        let from = Instant::now();
        for (index, record) in chosen() {
            interrupt::check()?;
            match life(index).ttl() {
                Some(ttl) => store.insert_with_ttl(&record.key, &record.value, ttl),
                None => store.insert(&record.key, &record.value),
            }
            .map_err(self.failed("insert into"))?;
        }
        let inserted = Period { from, to: Instant::now() };
        let mut number = 0;
        for (index, record) in chosen() {
            self.oracle.insert(record, life(index), inserted);
            number += 1;
        }
        Ok((number, inserted.to - inserted.from))
    }

    /// Steps 3 and 4: everything can be read; then real time passes until the short lives are over, and what has
    /// expired is a miss at once, cleaned up or not.
    fn let_expire(&mut self, store: &ColdTier) -> Result<Checked, Failure> {
        self.verify(store, "3/7 verified before anything expires")?;
        let started = Instant::now();
        if let Some(over) = self.oracle.all_short_over() {
            progress::wait_until(over, "waiting for expiry", self.output);
            interrupt::check()?;
        }
        self.report.steps.wait = started.elapsed().as_secs_f64();
        let (expired, waited) = (output::count(self.oracle.short_entries()), self.report.steps.wait);
        let what = format!("4/7 waited {waited:.1} s until {expired} entries had expired");
        self.verify(store, &what)
    }

    /// Step 5: the four tasks, with the directory measured before and after.
    fn maintain(&mut self, store: &ColdTier) -> Result<(), Failure> {
        self.report.before = self.moment(store)?;
        let mut changed = Vec::new();
        for (task, label) in [
            (CompactionTask::OptimizeCompression, "tuning"),
            (CompactionTask::CleanupExpired, "cleaning up"),
            (CompactionTask::CompactData, "compacting"),
            (CompactionTask::RebuildIndex, "saving the index"),
        ] {
            let done = progress::run_task(store, task, label, self.output).map_err(self.failed(label))?;
            changed.push(self.note(done));
        }
        store.flush().map_err(self.failed("flush"))?;
        self.report.after = self.moment(store)?;
        self.output.line(format_args!("5/7 {}", changed.join(",\n    ")))?;
        self.weigh()
    }

    /// Takes a task's report into the demo's, and says it in a few words.
    fn note(&mut self, done: TaskReport) -> String {
        let report = &mut self.report;
        match done {
            TaskReport::OptimizeCompression(tuning) => {
                report.steps.tune = tuning.duration.as_secs_f64();
                report.codec = tuning.common.chosen.to_string();
                report.reason = tuning.common.reason;
                format!("tuned in {}: {}", output::duration(tuning.duration), report.codec)
            }
            TaskReport::CleanupExpired(cleanup) => {
                report.steps.cleanup = cleanup.duration.as_secs_f64();
                report.expired_removed = cleanup.expired_removed;
                report.bytes_reclaimed += cleanup.bytes_reclaimed.cast_signed();
                let removed = output::count(cleanup.expired_removed);
                format!("removed {removed} expired entries in {}", output::duration(cleanup.duration))
            }
            TaskReport::CompactData(compaction) => {
                report.steps.compact = compaction.duration.as_secs_f64();
                report.bytes_reclaimed += compaction.bytes_reclaimed;
                let (removed, written) = (compaction.segments_removed, compaction.segments_written);
                format!(
                    "compacted {removed} segments into {written} in {}",
                    output::duration(compaction.duration)
                )
            }
            TaskReport::RebuildIndex(rebuild) => {
                report.steps.rebuild = rebuild.duration.as_secs_f64();
                format!(
                    "saved an index of {} in {}",
                    output::bytes(rebuild.snapshot_bytes),
                    output::duration(rebuild.duration)
                )
            }
            other => format!("{other:?}"),
        }
    }

    /// The figures that follow from the store before and after maintenance.
    fn weigh(&mut self) -> Result<(), Failure> {
        let report = &mut self.report;
        let stats = &report.after.stats;
        report.disk_bytes_before = report.before.disk.bytes;
        report.disk_bytes_after = report.after.disk.bytes;
        let (before, after) = (report.before.disk.segment_bytes, report.after.disk.segment_bytes);
        report.du_reclaimed = before.cast_signed() - after.cast_signed();
        report.segment_bytes_after = stats.segment_bytes;
        report.live_bytes = stats.live_bytes;
        report.dictionary_bytes = stats.dictionary_bytes;
        let (entries, raw_bytes, zstd3_bytes) = zstd3(&self.oracle)?;
        report.live_entries = entries;
        report.raw_bytes = raw_bytes;
        let stored_bytes = stats.live_payload_bytes + stats.dictionary_bytes;
        report.ratio = raw_bytes as f64 / stored_bytes.max(1) as f64;
        report.ratio_zstd3 = raw_bytes as f64 / zstd3_bytes.max(1) as f64;
        Ok(())
    }

    fn moment(&self, store: &ColdTier) -> Result<Moment, Failure> {
        let disk = disk_use::measure(self.dir)
            .map_err(|error| Failure::Other(format!("list {}: {error}", self.dir.display())))?;
        let open = store.segments().into_iter().filter(|segment| segment.state == SegmentState::Active);
        Ok(Moment { stats: store.stats(), disk, open_records: open.map(|segment| segment.records).sum() })
    }

    /// Everything that lives, read twice in random order by one thread.
    fn time_reads(&mut self, store: &ColdTier) -> Result<(), Failure> {
        let mut keys: Vec<&[u8]> = self.oracle.lasting().map(|(key, _)| key).collect();
        fastrand::Rng::with_seed(20_968).shuffle(&mut keys);
        let mut found = 0;
        let started = Instant::now();
        for key in keys.iter().chain(&keys) {
            found += u64::from(store.get(key).map_err(self.failed("read"))?.is_some());
        }
        self.report.get_per_s = output::rate(found, started.elapsed());
        Ok(())
    }

    /// Holds the store against the oracle.
    fn verify(&mut self, store: &ColdTier, what: &str) -> Result<Checked, Failure> {
        let started = Instant::now();
        let checked = self.oracle.check(store).map_err(self.failed("read"))?;
        interrupt::check()?;
        self.report.steps.verify += started.elapsed().as_secs_f64();
        self.report.add(&checked);
        let (right, wrong) = (output::count(checked.verified), checked.wrong);
        self.output.line(format_args!("{what}: {right} reads right, {wrong} wrong"))?;
        Ok(checked)
    }
}

fn revised(record: &Record, index: usize) -> Record {
    Record { key: record.key.clone(), value: oracle::overwritten_value(&record.value, index) }
}

/// Number and raw bytes of the lasting entries, and their bytes if zstd 3 stored each (key and value) by itself.
fn zstd3(oracle: &Oracle) -> Result<(u64, u64, u64), Failure> {
    let failed = |error| Failure::Other(format!("compress with zstd 3: {error}"));
    let mut compressor = zstd::bulk::Compressor::new(3).map_err(failed)?;
    let (mut entries, mut raw, mut stored) = (0, 0, 0);
    let mut joined = Vec::new();
    for (key, value) in oracle.lasting() {
        joined.clear();
        joined.extend_from_slice(key);
        joined.extend_from_slice(value);
        let bytes = compressor.compress(&joined).map_err(failed)?.len();
        entries += 1;
        raw += joined.len() as u64;
        stored += bytes.min(joined.len()) as u64;
    }
    Ok((entries, raw, stored))
}
