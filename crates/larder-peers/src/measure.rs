//! One result: what a store did in one workload of one round. A line of JSON on its way between processes and in files.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::machine::{Counters, disk_bytes, peak_memory_bytes, reset_peak_memory};

const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// What the operations of one thread came to, or of several together.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Nanoseconds of each call.
    pub calls: Histogram<u64>,
    /// Likewise of reads alone, where others are among the calls.
    pub reads: Histogram<u64>,
    /// Reads that should find something.
    pub expected: u64,
    /// Of those, the ones that did.
    pub found: u64,
    /// Values that were compared with what was written.
    pub verified: u64,
    /// Of those, the ones that differed; and finds of what must not be there.
    pub wrong: u64,
    /// Bytes of keys and values that were put.
    pub put_bytes: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies =
            || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds that are in order");
        Self {
            calls: latencies(),
            reads: latencies(),
            expected: 0,
            found: 0,
            verified: 0,
            wrong: 0,
            put_bytes: 0,
        }
    }
}

impl Tally {
    /// Takes in another thread's.
    pub fn add(&mut self, other: &Self) {
        self.calls.add(&other.calls).expect("the same bounds");
        self.reads.add(&other.reads).expect("the same bounds");
        self.expected += other.expected;
        self.found += other.found;
        self.verified += other.verified;
        self.wrong += other.wrong;
        self.put_bytes += other.put_bytes;
    }
}

/// Measures one workload from here on.
#[derive(Debug)]
pub struct Stopwatch {
    before: Counters,
    started: Instant,
    harness_bytes: u64,
}

impl Stopwatch {
    /// Begins; of the memory, `harness_bytes` are not the store's.
    pub fn new(harness_bytes: u64) -> Self {
        reset_peak_memory();
        Self { before: Counters::now(), started: Instant::now(), harness_bytes }
    }

    /// Time since it was begun.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Seconds from its beginning to a moment.
    pub fn until(&self, moment: Instant) -> f64 {
        moment.saturating_duration_since(self.started).as_secs_f64()
    }

    /// The result so far, for operations of so many threads that took `seconds`.
    pub fn result(
        &self,
        workload: &str,
        tally: &Tally,
        (threads, seconds): (u64, f64),
        dir: &Path,
    ) -> Result<Map<String, Value>> {
        let mut result = Map::new();
        let mut set = |name: &str, value: Value| drop(result.insert(name.to_owned(), value));
        set("workload", json!(workload));
        rates(tally, threads, seconds, &mut set);
        set("expected", json!(tally.expected));
        set("found", json!(tally.found));
        set("verified", json!(tally.verified));
        set("wrong", json!(tally.wrong));
        set("put_bytes", json!(tally.put_bytes));
        set("disk_bytes", json!(disk_bytes(dir)?));
        self.costs(tally.calls.len(), &mut set);
        Ok(result)
    }

    fn costs(&self, operations: u64, set: &mut dyn FnMut(&str, Value)) {
        let (after, before) = (Counters::now(), self.before);
        let all_seconds = self.elapsed().as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()) as f64;
        let own = after.own_seconds - before.own_seconds;
        let others = after.all_seconds - before.all_seconds - own;
        set("written_bytes", json!(after.written_bytes - before.written_bytes));
        set("handed_bytes", json!(after.handed_bytes - before.handed_bytes));
        set("read_bytes", json!(after.read_bytes - before.read_bytes));
        set("ops_per_cpu_s", json!((own > 0.0).then(|| operations as f64 / own)));
        set("cpu_us_per_op", json!(own * 1e6 / operations.max(1) as f64));
        set("others_cpu_share", json!((others / (all_seconds * cores)).clamp(0.0, 1.0)));
        set("peak_memory_bytes", json!(peak_memory_bytes().saturating_sub(self.harness_bytes)));
    }
}

/// How many operations in how long, and how long the calls among that took; the rest is the harness's.
fn rates(tally: &Tally, threads: u64, seconds: f64, set: &mut dyn FnMut(&str, Value)) {
    let operations = tally.calls.len();
    let thread_seconds = seconds * threads as f64;
    let call_seconds = tally.calls.mean() * operations as f64 / 1e9;
    set("operations", json!(operations));
    set("seconds", json!(seconds));
    set("ops_per_s", json!(operations as f64 / seconds));
    set("calls_per_s", json!((call_seconds > 0.0).then(|| (operations * threads) as f64 / call_seconds)));
    set("mean_us", json!(tally.calls.mean() / 1e3));
    set("harness_us", json!((thread_seconds - call_seconds).max(0.0) * 1e6 / operations.max(1) as f64));
    for (name, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0)] {
        set(name, json!(tally.calls.value_at_quantile(quantile) as f64 / 1e3));
    }
    if !tally.reads.is_empty() {
        for (name, quantile) in [("read_p50_us", 0.5), ("read_p99_us", 0.99), ("read_p999_us", 0.999)] {
            set(name, json!(tally.reads.value_at_quantile(quantile) as f64 / 1e3));
        }
    }
}
