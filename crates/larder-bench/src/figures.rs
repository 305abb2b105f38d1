//! What a run's measurements come to, in figures with names.

use std::collections::BTreeMap;

use crate::ledger::FileKind;
use crate::simulate::{Gauge, Outcome, Sample};
use crate::workload::{Options, Plan, Workload};

/// What `du` counts for the directory itself.
const DIRECTORY_BYTES: u64 = 4096;

/// Figures, in the order in which they are shown.
pub type Figures = Vec<(&'static str, f64)>;

/// The value of a figure; `None` if the run has none of this name.
pub fn figure(figures: &Figures, name: &str) -> Option<f64> {
    figures.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
}

/// The figures of a run.
///
/// - `written_amplification`: bytes written to segment files, by compactions and for headers and footers too, over the
///   bytes of the records inserted, both while measured.
/// - `space_amplification`: blocks of 4 KiB taken by segment files, those included that are being written or are open
///   without a name, over the bytes of the records that the oracle knows to live (header of 15 bytes or more, key, value,
///   padding). Mean over all steps, each before and after its maintenance; `_max` takes the highest moment within a
///   step.
/// - `reclaim_p50_ms`, `reclaim_p99_ms`: exact, over the bytes of all records whose time was up while measured: from
///   that moment until the file they lay in was removed. Read from the removed files; records that were still there at
///   the end count with the time they had stayed, and their share is `reclaim_unfinished`. Resolution: one step.
/// - `reclaim_p99_share`: the same time over what is allowed, the record's time to live over 8 but two seconds at least;
///   `reclaim_p99_ttls`: over its time to live. Record by record, to a thousandth.
/// - `record_bytes_read_by_cleanup`: bytes of segment files between header and footer that the store's maintenance
///   thread read in rounds in which it wrote no segment; `_by_compaction`: in the others.
/// - `count_disagreement`: how far `ColdStats::segment_bytes_written` is off the disk's own count, as a share of it. All
///   other figures go by the disk's.
/// - `index_bytes_an_entry`: at the end. `snapshot_share_max`: bytes of snapshots over live bytes.
///   `snapshot_share_written`: bytes written to snapshots over the bytes of all records inserted.
/// - `du_over_capacity_max`: blocks of all files at any write, those that are open without a name included, and the
///   directory's own, over the capacity.
/// - `space_growth`, `index_growth`: the highest of the last quarter of the measured time over that of the first.
pub fn figures(plan: &Plan, options: &Options, outcome: &Outcome) -> Figures {
    let mut figures = Figures::new();
    if plan.supported {
        match plan.workload {
            Workload::DeleteAll => deletes(plan, options, outcome, &mut figures),
            workload => {
                steady(outcome, &mut figures);
                if matches!(workload, Workload::TtlOnly | Workload::TtlMixed | Workload::Year) {
                    expiry(outcome, &mut figures);
                }
                if workload == Workload::Uniform
                    && let Some(space) = figure(&figures, "space_amplification")
                {
                    figures.push(("theory_at_this_space", uniform_theory(space)));
                }
            }
        }
        index(outcome, &mut figures);
    }
    let answers = &outcome.answers;
    if let Some(capacity) = plan.capacity_bytes {
        hits(plan, outcome, &mut figures);
        let peaks = outcome.samples.iter().map(|at| (at.disk_peak + DIRECTORY_BYTES) as f64);
        figures.push(("du_over_capacity_max", maximum(peaks) / capacity as f64));
        figures.push(("evictions", outcome.stats.evicted as f64));
    }
    figures.push(("puts", answers.puts as f64));
    figures.push(("gets", answers.gets as f64));
    figures.push(("compactions", outcome.stats.compactions as f64));
    figures.push(("disk_bytes_written", outcome.totals.written() as f64));
    let counted = outcome.stats.segment_bytes_written.max(1) as f64;
    figures.push(("count_disagreement", outcome.written_disagreement as f64 / counted));
    figures.push(("unreadable_segments", outcome.unreadable as f64));
    figures.push(("lost", answers.lost as f64));
    figures.push(("wrong", answers.wrong as f64));
    figures
}

/// Written amplification of the oldest-first or greedy cleaning of uniform overwrites, many small segments:
/// `s / (s + W(-s e^-s))` for space `s`, W being Lambert's (Desnoyers, "Analytic modeling of SSD write performance",
/// SYSTOR 2012). 1.88 / 2.69 / 5.18 at 1.43 / 1.25 / 1.11.
pub fn uniform_theory(space: f64) -> f64 {
    if space <= 1.0 {
        return f64::INFINITY;
    }
    let target = -space * (-space).exp();
    // The branch above -1: x e^x rises there.
    let (mut low, mut high) = (-1.0_f64, 0.0_f64);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if middle * middle.exp() < target { low = middle } else { high = middle }
    }
    space / (space + low)
}

fn measured(outcome: &Outcome) -> impl Iterator<Item = &Sample> {
    outcome.samples.iter().filter(|sample| sample.measured && sample.live > 0)
}

fn maximum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

fn steady(outcome: &Outcome, figures: &mut Figures) {
    let steps = measured(outcome).count().max(1) as f64;
    let space = measured(outcome).map(|at| (at.before + at.after) as f64 / 2.0 / at.live as f64);
    figures.push(("written_amplification", outcome.written as f64 / outcome.inserted.max(1) as f64));
    figures.push(("space_amplification", space.sum::<f64>() / steps));
    let peaks = measured(outcome).map(|at| at.peak as f64 / at.live as f64);
    figures.push(("space_amplification_max", maximum(peaks)));
    figures.push(("space_growth", growth(outcome, |at| at.peak as f64)));
    let segments = measured(outcome).map(|at| at.segments as f64);
    figures.push(("segments_max", maximum(segments)));
    figures.push(("segments_end", outcome.samples.last().map_or(0.0, |at| at.segments as f64)));
    let shares = measured(outcome).map(|at| at.snapshots as f64 / at.live as f64);
    figures.push(("snapshot_share_max", maximum(shares)));
    let snapshots = outcome.totals.of(FileKind::Snapshot).written as f64;
    figures.push(("snapshot_share_written", snapshots / outcome.stats.stored_bytes_inserted.max(1) as f64));
    let live = measured(outcome).map(|at| at.live as f64);
    figures.push(("live_bytes", live.sum::<f64>() / steps));
    let disk = measured(outcome).map(|at| at.disk as f64 / at.live as f64);
    figures.push(("disk_bytes_over_live_max", maximum(disk)));
}

/// The highest in the last quarter of the measured time over the highest in the first.
fn growth(outcome: &Outcome, of: impl Fn(&Sample) -> f64) -> f64 {
    let samples: Vec<&Sample> = measured(outcome).collect();
    let quarter = samples.len() / 4;
    let first = maximum(samples.iter().take(quarter).map(|at| of(at)));
    let last = maximum(samples.iter().rev().take(quarter).map(|at| of(at)));
    if first > 0.0 { last / first } else { 0.0 }
}

fn expiry(outcome: &Outcome, figures: &mut Figures) {
    let total: u64 = outcome.reclaimed.values().sum();
    figures.push(("reclaim_p50_ms", percentile(&outcome.reclaimed, total, 0.5)));
    figures.push(("reclaim_p99_ms", percentile(&outcome.reclaimed, total, 0.99)));
    figures.push(("reclaim_p99_share", percentile(&outcome.reclaimed_of_allowed, total, 0.99) / 1000.0));
    figures.push(("reclaim_p99_ttls", percentile(&outcome.reclaimed_of_ttl, total, 0.99) / 1000.0));
    figures.push(("reclaim_unfinished", outcome.unreclaimed_bytes as f64 / total.max(1) as f64));
    figures.push(("record_bytes_read_by_cleanup", outcome.read_by_cleanup as f64));
    figures.push(("record_bytes_read_by_compaction", outcome.read_by_compaction as f64));
}

/// The least value that so large a share of the bytes does not exceed.
fn percentile(bytes_of: &BTreeMap<u64, u64>, total: u64, share: f64) -> f64 {
    let mut below = 0;
    for (value, bytes) in bytes_of {
        below += bytes;
        if below as f64 >= share * total as f64 {
            return *value as f64;
        }
    }
    0.0
}

fn index(outcome: &Outcome, figures: &mut Figures) {
    let stats = &outcome.stats;
    figures.push(("index_bytes_an_entry", stats.index_bytes as f64 / stats.entries.max(1) as f64));
    figures.push(("index_bytes_max", maximum(outcome.gauges.iter().map(|at| at.bytes as f64))));
    let measured: Vec<&Gauge> = outcome.gauges.iter().filter(|at| at.measured).collect();
    let quarter = measured.len() / 4;
    let first = maximum(measured.iter().take(quarter).map(|at| at.bytes as f64));
    let last = maximum(measured.iter().rev().take(quarter).map(|at| at.bytes as f64));
    if first > 0.0 {
        figures.push(("index_growth", last / first));
    }
}

fn hits(plan: &Plan, outcome: &Outcome, figures: &mut Figures) {
    let answers = &outcome.answers;
    let gets = answers.gets_measured.max(1) as f64;
    let fifo = answers.fifo_hits_measured as f64 / gets;
    if plan.supported {
        let ratio = answers.hits_measured as f64 / gets;
        figures.push(("hit_ratio", ratio));
        figures.push(("hit_ratio_over_fifo", ratio / fifo.max(f64::MIN_POSITIVE)));
    }
    figures.push(("hit_ratio_fifo", fifo));
}

fn deletes(plan: &Plan, options: &Options, outcome: &Outcome, figures: &mut Figures) {
    let at = |name: &str| outcome.checkpoints.iter().find(|point| point.name == name);
    let segments = |name: &str| at(name).map_or(f64::NAN, |point| point.segments as f64);
    figures.push(("segments_loaded", segments("loaded")));
    figures.push(("segments_deleted", segments("deleted")));
    figures.push(("segments_after_delete", segments("five_seconds_later")));
    let disk = at("five_seconds_later").map_or(f64::NAN, |point| point.disk as f64);
    figures.push(("disk_bytes_after_delete", disk));
    figures.push(("segments_scattered", segments("scattered")));
    figures.push(("segments_scattered_compacted", segments("scattered_compacted")));
    let live = at("scattered_compacted").map_or(0, |point| point.live);
    let bound = (live / plan.segment_bytes + 2) as f64;
    figures.push(("segments_over_bound", segments("scattered_compacted") - bound));
    figures.push(("live_bytes", live as f64));
    figures.push(("segments_max", maximum(outcome.samples.iter().map(|at| at.segments as f64))));
    figures.push(("scale", options.scale));
}
