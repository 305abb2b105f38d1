//! `larder bench`: generated load on a store of its own: a fill, then reads and overwrites from several threads, then a
//! walk over everything. Every value read is checked.

mod work;
mod zipf;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use larder::{ColdStats, ColdTier};
use serde::Serialize;

use super::{StoreOptions, empty_dir, parse_ttl};
use crate::disk_use::{self, DiskUse};
use crate::failure::{Exit, Failure};
use crate::glance::quotient;
use crate::output::{self, Output};
use crate::{interrupt, progress};
use work::{Load, Tally};
use zipf::Zipf;

/// Arguments of `larder bench`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  larder bench                                          on a temporary directory, removed afterwards
  larder bench /mnt/ssd/bench --seconds 30 --threads 8  on the disk to be measured; the store stays there
  larder bench --ttl 5s --read-share 0.5                entries expire meanwhile
  larder bench --capacity 32M --zipf 0.9                a cache that holds less than is asked for: its hit share

The figures are those of this machine, this disk and this moment; other work on it changes them. Keys are drawn evenly, or
with --zipf by popularity, and then nothing is filled in first: what a read misses is put in, as a cache does. Values are generated text that compresses by about a half: your data will differ. What was written lately is read from
the page cache. Latencies are those of the calls alone; operations a second include making and checking the values.")]
pub struct BenchArgs {
    /// Directory of the store, which must be empty or absent [default: a temporary one, removed].
    dir: Option<PathBuf>,
    /// Entries to fill it with.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    entries: u64,
    /// Bytes of each value, 32 to 16777216.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(32..=16 << 20))]
    value_bytes: u64,
    /// Share of reads after the fill, 0 to 1; the rest are overwrites [default: 0.8; with --zipf 1].
    #[arg(long, value_parser = parse_share)]
    read_share: Option<f64>,
    /// Draw keys by popularity, the k-th in proportion to k^-EXPONENT (0.1 to 3; most caches 0.7 to 1.1), with no fill;
    /// what a read misses is put in.
    #[arg(long, value_name = "EXPONENT", value_parser = parse_zipf)]
    zipf: Option<f64>,
    /// Threads that read and write [default: one for each CPU, at most 8].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: Option<u64>,
    /// Time to live of the entries: seconds, or with a unit as in 500ms, 90s, 1h [default: they never expire].
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// How long to read and overwrite after the fill.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    #[command(flatten)]
    store: StoreOptions,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "use a number from 0 to 1, such as 0.8".to_owned())
}

fn parse_zipf(text: &str) -> Result<f64, String> {
    let exponent = text.parse().ok().filter(|exponent| (0.1..=3.0).contains(exponent));
    exponent.ok_or_else(|| "use a number from 0.1 to 3, such as 0.9".to_owned())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "use a number of seconds from 0.01 to 86400".to_owned())
}

/// How fast one kind of operation was.
#[derive(Debug, Serialize)]
struct Speed {
    operations: u64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Speed {
    fn of(latencies: &Histogram<u64>, time: Duration) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        Self {
            operations: latencies.len(),
            per_second: output::rate(latencies.len(), time),
            p50_us: us(latencies.value_at_quantile(0.5)),
            p99_us: us(latencies.value_at_quantile(0.99)),
            p999_us: us(latencies.value_at_quantile(0.999)),
            max_us: us(latencies.max()),
        }
    }
}

#[derive(Debug, Serialize)]
struct BenchReport {
    dir: String,
    entries: u64,
    value_bytes: u64,
    threads: u64,
    cpus: u64,
    read_share: f64,
    zipf: Option<f64>,
    ttl_seconds: Option<f64>,
    interrupted: bool,
    fill_seconds: f64,
    fill: Speed,
    mixed_seconds: f64,
    put: Speed,
    get: Speed,
    /// Reads after the fill that found a value.
    hit_share: f64,
    /// The same in the second half of the time; `None` if no read ended in it.
    late_hit_share: Option<f64>,
    /// Of the keys drawn, the share that those get which are the most popular, as many as there are at the end; only
    /// with `--zipf`.
    most_popular_share: Option<f64>,
    /// Values read and found to be as they were written, the final walk included.
    verified: u64,
    wrong: u64,
    problems: Vec<String>,
    /// Entries that the final walk found.
    entries_at_end: u64,
    raw_bytes_inserted: u64,
    /// Bytes written to segment files for each byte of a record stored.
    write_amplification: f64,
    /// Bytes of segments for each byte of a live record.
    space_amplification: f64,
    compression: String,
    disk: DiskUse,
    stats: ColdStats,
}

/// Runs the command.
pub fn run(args: &BenchArgs, output: &Output) -> Result<Exit, Failure> {
    let temporary = tempfile::Builder::new().prefix("larder-bench-").tempdir();
    let temporary =
        temporary.map_err(|error| Failure::Other(format!("make a temporary directory: {error}")))?;
    let dir = match &args.dir {
        Some(dir) => empty_dir(dir)?,
        None => temporary.path(),
    };
    let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let threads = args.threads.unwrap_or(cpus.min(8));
    let store = ColdTier::open(args.store.config(dir)).map_err(Failure::store("open", dir))?;
    let read_share = args.read_share.unwrap_or(if args.zipf.is_some() { 1.0 } else { 0.8 });
    let zipf = args.zipf.map(|exponent| Zipf::new(args.entries, exponent));
    let load = Load {
        store: &store,
        entries: args.entries,
        value_bytes: args.value_bytes as usize,
        read_share,
        zipf,
        may_miss: args.zipf.is_some() || args.ttl.is_some() || args.store.may_lose_entries(),
        ttl: args.ttl,
        seed: fastrand::u64(..),
    };

    let bar = progress::share_bar("1/3 filling", output);
    let started = Instant::now();
    let fill = match args.zipf {
        Some(_) => Tally::sum([]),
        None => load
            .fill(threads, &|share| progress::set_share(&bar, share))
            .map_err(Failure::store("fill", dir))?,
    };
    store.flush().map_err(Failure::store("flush", dir))?;
    let fill_time = started.elapsed();
    bar.finish_and_clear();

    let bar = progress::share_bar("2/3 reading, writing", output);
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(args.seconds);
    let mixed = load.mixed(threads, until, &|share| progress::set_share(&bar, share));
    let mixed = mixed.map_err(Failure::store("load", dir))?;
    let mixed_time = started.elapsed();
    store.flush().map_err(Failure::store("flush", dir))?;
    bar.finish_and_clear();

    let bar = progress::share_bar("3/3 checking everything", output);
    let walked = load.walk(&|share| progress::set_share(&bar, share)).map_err(Failure::store("read", dir))?;
    bar.finish_and_clear();
    let stats = store.stats();
    let disk =
        disk_use::measure(dir).map_err(|error| Failure::Other(format!("list {}: {error}", dir.display())))?;
    let compression = store.compression().to_string();
    store.close().map_err(Failure::store("close", dir))?;

    let all = Tally::sum([&mixed, &walked]);
    let report = BenchReport {
        dir: dir.display().to_string(),
        entries: args.entries,
        value_bytes: args.value_bytes,
        threads,
        cpus,
        read_share,
        zipf: args.zipf,
        ttl_seconds: args.ttl.map(|ttl| ttl.as_secs_f64()),
        interrupted: interrupt::requested(),
        fill_seconds: fill_time.as_secs_f64(),
        fill: Speed::of(&fill.puts, fill_time),
        mixed_seconds: mixed_time.as_secs_f64(),
        put: Speed::of(&mixed.puts, mixed_time),
        get: Speed::of(&mixed.gets, mixed_time),
        hit_share: quotient(mixed.hits, mixed.gets.len()),
        late_hit_share: (mixed.late_gets > 0).then(|| quotient(mixed.late_hits, mixed.late_gets)),
        most_popular_share: zipf.map(|zipf| zipf.share_of_most_popular(walked.hits)),
        verified: all.verified,
        wrong: all.wrong,
        problems: all.problems,
        entries_at_end: walked.hits,
        raw_bytes_inserted: stats.raw_bytes_inserted,
        write_amplification: stats.written_amplification(),
        space_amplification: stats.space_amplification(),
        compression,
        disk,
        stats,
    };
    output.object(&report)?;
    print(&report, args, output)?;
    Ok(match (report.wrong, report.interrupted) {
        (0, false) => Exit::Done,
        (0, true) => Exit::Interrupted,
        _ => Exit::Failed,
    })
}

fn print(report: &BenchReport, args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let header = ["", "operations", "a second", "p50", "p99", "p99.9", "max"];
    let mut table = output::table(&header, 1);
    let us = |us: f64| output::duration(Duration::from_secs_f64(us / 1e6));
    let reads = format!("get ({:.0} % hits)", report.hit_share * 100.0);
    for (name, speed) in [("fill: put", &report.fill), ("then: put", &report.put), (&reads, &report.get)] {
        if speed.operations == 0 {
            continue;
        }
        table.add_row([
            name.to_owned(),
            output::count(speed.operations),
            output::count(speed.per_second as u64),
            us(speed.p50_us),
            us(speed.p99_us),
            us(speed.p999_us),
            us(speed.max_us),
        ]);
    }
    output.line(table)?;
    let stats = &report.stats;
    output.line(format_args!(
        "disk: {} for {} entries ({} raw); {:.2} bytes written to segments for a byte stored; {} reclaimed in {} \
         compactions; new records stored as {}",
        output::bytes(report.disk.bytes),
        output::count(report.entries_at_end),
        output::bytes(stats.live_raw_bytes),
        report.write_amplification,
        output::bytes(stats.bytes_reclaimed),
        stats.compactions,
        report.compression,
    ))?;
    if let Some(capacity) = stats.capacity_bytes {
        output.line(format_args!(
            "capacity {}: {} free; {} evicted ({}), {} not let in; {:.2} bytes of segments for a byte live",
            output::bytes(capacity),
            output::bytes(capacity.saturating_sub(report.disk.bytes)),
            output::count(stats.evicted),
            output::bytes(stats.evicted_bytes),
            output::count(stats.rejected),
            report.space_amplification,
        ))?;
    }
    if let (Some(exponent), Some(best)) = (report.zipf, report.most_popular_share) {
        output.line(format_args!(
            "Zipf {exponent} over {} keys: {:.1} % hits, {:.1} % in the second half; the {} most popular keys, as many as \
             are stored now, get {:.1} % of the reads",
            output::count(report.entries),
            report.hit_share * 100.0,
            report.late_hit_share.unwrap_or(report.hit_share) * 100.0,
            output::count(report.entries_at_end),
            best * 100.0,
        ))?;
    }
    output.line(format_args!(
        "checked: {} values as they were written, {} wrong",
        output::count(report.verified),
        output::count(report.wrong)
    ))?;
    for problem in &report.problems {
        output.line(format_args!("WRONG: {problem}"))?;
    }
    output.line(
        "latencies are those of the calls alone; operations a second include making and checking the values",
    )?;
    let kept =
        if args.dir.is_some() { format!("; the store stays in {}", report.dir) } else { String::new() };
    let stopped = if report.interrupted { "interrupted, so shorter than asked for; " } else { "" };
    output.line(format_args!(
        "{stopped}{} entries of {} B values, {} threads on {} CPUs, {:.1} s of fill and {:.1} s of load: figures of this \
         machine and this moment{kept}",
        output::count(report.entries),
        report.value_bytes,
        report.threads,
        report.cpus,
        report.fill_seconds,
        report.mixed_seconds,
    ))
}
