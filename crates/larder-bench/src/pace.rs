//! What maintenance costs those who read and write, on the file system and by the machine's clock.
//!
//! - A: overwrites as fast as the store accepts them, beside the reads of B, until garbage is in balance: the sustained
//!   write rate
//! - B: reads alone, at a fixed rate
//! - M: the same reads, and overwrites at a share of the sustained rate, in a store that does not maintain itself:
//!   what the writer costs
//! - C: the same with maintenance
//! - K: the reads of B beside three threads that take as much processor time as C took beyond B, and touch no store: what
//!   the scheduler does to a reader on so busy a machine
//!
//! B, M, C and K take turns, so that what the machine does besides falls on all of them; medians of the turns count.

pub mod report;
mod streams;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use larder::{Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, Maintenance};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use self::streams::{Records, Times, flood, reads, spin, writes};
use crate::{Failure, Result};

/// Gauges are read this often.
const GAUGE_INTERVAL: Duration = Duration::from_millis(50);
/// Before a phase counts, its streams run this long.
const WARM_UP: Duration = Duration::from_secs(2);
/// The store is at rest when no task has run for this time.
const REST: Duration = Duration::from_millis(1500);
const REST_MAX: Duration = Duration::from_secs(120);
/// Where the high trigger lies between the low one and everything (`policy.rs`).
const HIGH_TRIGGER_SHARE: f64 = 0.33;
/// The bars: reads while maintenance runs against reads alone; the longest insert.
const RATIO_MAX: f64 = 2.0;
const STALL_MAX_MS: f64 = 50.0;

/// How the run is laid out.
#[derive(Clone, Copy, Debug)]
pub struct PaceOptions {
    /// Number of keys.
    pub entries: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Length of each phase.
    pub phase: Duration,
    /// Turns of B, M and C.
    pub turns: usize,
    /// Reads a second.
    pub reads: f64,
    /// Writes in C, as a share of the sustained rate.
    pub write_share: f64,
    /// Bytes of raw overwrites a second in place of what A finds.
    pub sustained: Option<f64>,
    /// Target size of a segment.
    pub segment_bytes: Option<u64>,
    /// `ColdTierConfig::dead_ratio_max`.
    pub dead_ratio_max: f64,
    /// The codec is chosen by the store; otherwise it is LZ4.
    pub tuned: bool,
    /// Whether M runs too.
    pub unmaintained: bool,
}

/// Threads of the control that keep the processors busy: those that write to a store are three too, the caller's and its own.
const SPINNERS: usize = 3;

/// What was seen of the store in a phase.
#[derive(Clone, Debug, Default)]
struct Gauges {
    garbage: Vec<f64>,
    /// Bytes of the directory over those of live records.
    amplification: Vec<f64>,
    /// Looks that found a compaction running, and all looks.
    compacting: u64,
    looks: u64,
    compactions: u64,
    reclaimed: u64,
    written: u64,
    seconds: f64,
}

/// A phase with its streams' times.
struct Phase {
    reads: Times,
    writes: Option<Times>,
    gauges: Gauges,
    /// Processor seconds a second, of the whole process.
    processors: f64,
}

/// The sustained write rate, and how it was reached.
#[derive(Clone, Debug)]
struct Sustained {
    /// Raw bytes accepted a second, over the last part.
    rate: f64,
    gauges: Gauges,
}

/// Runs it all in `dir`, which must not hold a store yet.
///
/// # Errors
/// What the store or the file system refused.
pub fn pace(dir: &Path, options: &PaceOptions) -> Result<Value> {
    let records = Records::new(options.entries, options.value_bytes);
    let store = open(&dir.join("maintained"), options, Maintenance::Automatic)?;
    records.load(&store)?;
    let sustained = match options.sustained {
        Some(rate) => Sustained { rate, gauges: Gauges::default() },
        None => sustain(&store, &records, options)?,
    };
    let manual = match options.unmaintained {
        true => {
            let manual = open(&dir.join("unmaintained"), options, Maintenance::Manual)?;
            records.load(&manual)?;
            Some(manual)
        }
        false => None,
    };
    let writes_a_second = options.write_share * sustained.rate / records.raw_bytes() as f64;
    let (mut idle, mut unmaintained, mut maintained) = (Vec::new(), Vec::new(), Vec::new());
    let mut control = Vec::new();
    for turn in 0..options.turns as u64 {
        rest(&store)?;
        let alone = run(&store, &records, options, 4 * turn, None)?;
        if let Some(manual) = &manual {
            unmaintained.push(run(manual, &records, options, 4 * turn + 1, Some(writes_a_second))?);
            manual.flush()?;
        }
        let busy = run(&store, &records, options, 4 * turn + 2, Some(writes_a_second))?;
        rest(&store)?;
        let share = (busy.processors - alone.processors).max(0.0) / SPINNERS as f64;
        control.push(beside_spinners(&store, &records, options, 4 * turn + 3, share)?);
        idle.push(alone);
        maintained.push(busy);
    }
    if let Some(manual) = manual {
        manual.close()?;
    }
    store.close()?;
    Ok(told(options, &records, &sustained, [&idle, &unmaintained, &maintained, &control]))
}

fn open(dir: &Path, options: &PaceOptions, maintenance: Maintenance) -> Result<ColdTier> {
    if dir.exists() {
        return Err(Failure(format!("{} exists; remove it or name another directory", dir.display())));
    }
    let mut config = ColdTierConfig::new(dir).maintenance(maintenance).dead_ratio_max(options.dead_ratio_max);
    if !options.tuned {
        config = config.compression(Compression::Fixed(Codec::Lz4));
    }
    if let Some(bytes) = options.segment_bytes {
        config = config.segment_bytes(bytes);
    }
    Ok(ColdTier::open(config)?)
}

/// Waits until maintenance has nothing to do.
fn rest(store: &ColdTier) -> Result<()> {
    store.flush()?;
    let started = Instant::now();
    let mut since = Instant::now();
    while since.elapsed() < REST && started.elapsed() < REST_MAX {
        if store.compaction_state().is_compacting() {
            since = Instant::now();
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Looks at the store until `stop` is closed.
fn watch(store: &ColdTier, stop: &Receiver<()>) -> Gauges {
    let (mut gauges, started, before) = (Gauges::default(), Instant::now(), store.stats());
    while stop.recv_timeout(GAUGE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let stats = store.stats();
        let dead = (stats.dead_bytes + stats.expired_bytes) as f64;
        gauges.garbage.push(dead / (dead + stats.live_bytes as f64).max(1.0));
        gauges.amplification.push(stats.disk_bytes as f64 / stats.live_bytes.max(1) as f64);
        gauges.looks += 1;
        gauges.compacting += u64::from(store.compaction_state().task() == Some(CompactionTask::CompactData));
    }
    let after = store.stats();
    gauges.compactions = after.compactions - before.compactions;
    gauges.reclaimed = after.bytes_reclaimed - before.bytes_reclaimed;
    gauges.written = after.segment_bytes_written - before.segment_bytes_written;
    gauges.seconds = started.elapsed().as_secs_f64();
    gauges
}

/// Overwrites as fast as they are accepted; the rate of the last third counts.
fn sustain(store: &ColdTier, records: &Records, options: &PaceOptions) -> Result<Sustained> {
    let (stop, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    let (closer, closed) = bounded::<()>(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| flood(store, records, 1, &accepted, &stop));
        // What can be sustained is what can be beside the reads.
        let reader = scope.spawn(|| reads(store, records, 1, options.reads, &stop));
        let watcher = scope.spawn(|| watch(store, &closed));
        // Garbage settles while the keys are overwritten once or twice; then a third as long again is measured.
        let (begun, warm) = (Instant::now(), 3 * options.phase);
        while begun.elapsed() < warm
            && accepted.load(Ordering::Relaxed) < 3 * records.entries
            && !writer.is_finished()
        {
            thread::sleep(GAUGE_INTERVAL);
        }
        let (since, before) = (Instant::now(), accepted.load(Ordering::Relaxed));
        thread::sleep(2 * options.phase);
        let writes = accepted.load(Ordering::Relaxed) - before;
        let rate = (writes * records.raw_bytes()) as f64 / since.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        drop(closer);
        let gauges = watcher.join().map_err(|_| Failure("the watcher panicked".to_owned()))?;
        writer.join().map_err(|_| Failure("the writer panicked".to_owned()))??;
        reader.join().map_err(|_| Failure("the reader panicked".to_owned()))??;
        Ok(Sustained { rate, gauges })
    })
}

/// One phase: reads, and writes if there is a rate for them. What comes before the warm-up is over does not count.
fn run(
    store: &ColdTier,
    records: &Records,
    options: &PaceOptions,
    seed: u64,
    writes_a_second: Option<f64>,
) -> Result<Phase> {
    if let Some(a_second) = writes_a_second {
        let warm = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| writes(store, records, seed ^ 0x5A5A, a_second, &warm));
            thread::sleep(WARM_UP);
            warm.store(true, Ordering::Relaxed);
            writer.join().map_err(|_| Failure("a stream panicked".to_owned()))?
        })?;
    }
    let stop = AtomicBool::new(false);
    let (closer, closed) = bounded::<()>(0);
    let (before, started) = (process_seconds(), Instant::now());
    thread::scope(|scope| {
        let panicked = || Failure("a stream panicked".to_owned());
        let watcher = scope.spawn(|| watch(store, &closed));
        let reader = scope.spawn(|| reads(store, records, seed, options.reads, &stop));
        let writer = writes_a_second.map(|a_second| {
            let stop = &stop;
            scope.spawn(move || writes(store, records, seed ^ 0xA5A5, a_second, stop))
        });
        thread::sleep(options.phase);
        let processors = (process_seconds() - before) / started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        drop(closer);
        let gauges = watcher.join().map_err(|_| panicked())?;
        let reads = reader.join().map_err(|_| panicked())??;
        let writes = writer.map(|writer| writer.join().map_err(|_| panicked())?).transpose()?;
        Ok(Phase { reads, writes, gauges, processors })
    })
}

/// The reads of a phase beside threads that each keep a processor busy for such a share of the time.
fn beside_spinners(
    store: &ColdTier,
    records: &Records,
    options: &PaceOptions,
    seed: u64,
    share: f64,
) -> Result<Phase> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..SPINNERS {
            scope.spawn(|| spin(share, &stop));
        }
        let phase = run(store, records, options, seed, None);
        stop.store(true, Ordering::Relaxed);
        phase
    })
}

/// Processor time of this process so far.
fn process_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn told(
    options: &PaceOptions,
    records: &Records,
    sustained: &Sustained,
    [idle, unmaintained, maintained, control]: [&[Phase]; 4],
) -> Value {
    let high = options.dead_ratio_max + (1.0 - options.dead_ratio_max) * HIGH_TRIGGER_SHARE;
    let garbage_max = maintained.iter().map(|phase| maximum(&phase.gauges.garbage)).fold(0.0, f64::max);
    let stall_ms = maintained.iter().filter_map(|phase| phase.writes.as_ref());
    let stall_ms = stall_ms.map(|times| times.call.max() as f64 / 1e6).fold(0.0, f64::max);
    let ratios = |of: fn(&Times) -> &hdrhistogram::Histogram<u64>, quantile: f64| {
        let median_of = |phases: &[Phase]| {
            let values = phases.iter().map(|phase| of(&phase.reads).value_at_quantile(quantile) as f64 / 1e3);
            median(values.collect())
        };
        let base = median_of(idle);
        json!({
            "idle_us": base, "unmaintained_us": median_of(unmaintained), "maintained_us": median_of(maintained),
            "control_us": median_of(control),
            "writer_ratio": median_of(unmaintained) / base, "ratio": median_of(maintained) / base,
            "collector_ratio": median_of(maintained) / median_of(unmaintained),
            "control_ratio": median_of(maintained) / median_of(control),
        })
    };
    let table = |of: fn(&Times) -> &hdrhistogram::Histogram<u64>| {
        json!({
            "p50": ratios(of, 0.5), "p99": ratios(of, 0.99), "p999": ratios(of, 0.999), "max": ratios(of, 1.0),
        })
    };
    let (due, call) = (table(|times| &times.due), table(|times| &times.call));
    let within = |table: &Value, name: &str| table[name]["ratio"].as_f64().is_some_and(|it| it <= RATIO_MAX);
    let wrong: u64 =
        [idle, unmaintained, maintained, control].into_iter().flatten().map(|phase| phase.reads.wrong).sum();
    json!({
        "entries": options.entries, "value_bytes": records.value_bytes, "reads_a_second": options.reads,
        "phase_seconds": options.phase.as_secs_f64(), "turns": options.turns,
        "sustained_mb_s": sustained.rate / 1e6,
        "sustained_run": gauges_told(&sustained.gauges),
        "write_mb_s": options.write_share * sustained.rate / 1e6,
        "wrong": wrong,
        "reads_due": due, "reads_call": call,
        "garbage_max": garbage_max, "high_trigger": high,
        "insert_stall_max_ms": stall_ms,
        "met": {
            "p99_due": within(&due, "p99"), "p999_due": within(&due, "p999"),
            "p99_call": within(&call, "p99"), "p999_call": within(&call, "p999"),
            "space": garbage_max < high, "stalls": stall_ms <= STALL_MAX_MS,
        },
        "idle": idle.iter().map(phase_told).collect::<Vec<_>>(),
        "unmaintained": unmaintained.iter().map(phase_told).collect::<Vec<_>>(),
        "maintained": maintained.iter().map(phase_told).collect::<Vec<_>>(),
        "control": control.iter().map(phase_told).collect::<Vec<_>>(),
    })
}

fn phase_told(phase: &Phase) -> Value {
    json!({
        "gauges": gauges_told(&phase.gauges), "processors": phase.processors,
        "reads_due": times_told(&phase.reads.due), "reads_call": times_told(&phase.reads.call),
        "writes_due": phase.writes.as_ref().map(|times| times_told(&times.due)),
        "writes_call": phase.writes.as_ref().map(|times| times_told(&times.call)),
    })
}

fn times_told(times: &hdrhistogram::Histogram<u64>) -> Value {
    let us = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    json!({
        "calls": times.len(), "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999),
        "max_us": times.max() as f64 / 1e3,
    })
}

fn gauges_told(gauges: &Gauges) -> Value {
    let a_second = |bytes: u64| bytes as f64 / 1e6 / gauges.seconds.max(1e-3);
    json!({
        "garbage_first": gauges.garbage.first(), "garbage_max": maximum(&gauges.garbage),
        "garbage_last": gauges.garbage.last(),
        "space_amplification_max": maximum(&gauges.amplification),
        "compacting_share": gauges.compacting as f64 / gauges.looks.max(1) as f64,
        "compactions_a_second": gauges.compactions as f64 / gauges.seconds.max(1e-3),
        "reclaimed_mb_s": a_second(gauges.reclaimed), "segment_bytes_written_mb_s": a_second(gauges.written),
    })
}

fn maximum(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The middle one; of an even number, the lower of the two. Zero if there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}
