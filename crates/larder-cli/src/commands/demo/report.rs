//! What the demo measured: the JSON object, the table before and after, and what it demands.

use larder::ColdStats;
use serde::Serialize;

use super::oracle::Checked;
use crate::disk_use::DiskUse;
use crate::failure::Failure;
use crate::output::{self, Output};

/// Block of the file systems in use: `du` counts in steps of it.
const BLOCK_BYTES: u64 = 4096;
/// Bar of the ratio over that of zstd 3 a record, for the records that come with the program.
const RATIO_GAIN_MIN: f64 = 2.4;
/// Header and footer row take at most 40 bytes a record, of which `live_bytes` counts the header's 25.
const FOOTER_ROW_BYTES_MAX: u64 = 15;

/// The store at a moment: its own figures, and what `du` would say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Moment {
    /// The library's statistics.
    pub stats: ColdStats,
    /// The directory, measured from outside.
    pub disk: DiskUse,
    /// Records in segments that are being written: their footers are still to come.
    pub open_records: u64,
}

/// Something the demo demands of the store.
#[derive(Clone, Debug, Serialize)]
pub struct Expectation {
    /// What is demanded.
    pub what: &'static str,
    /// Whether it was met.
    pub met: bool,
    /// The figures.
    pub figures: String,
}

/// Seconds each step took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepSeconds {
    /// First inserts.
    pub insert: f64,
    /// Overwrites and deletions.
    pub overwrite_delete: f64,
    /// Waiting for the short lives to end.
    pub wait: f64,
    /// OptimizeCompression.
    pub tune: f64,
    /// CleanupExpired.
    pub cleanup: f64,
    /// CompactData.
    pub compact: f64,
    /// RebuildIndex.
    pub rebuild: f64,
    /// All checks together.
    pub verify: f64,
}

/// The demo's result, one JSON object. Figures of time are of this machine and this run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DemoReport {
    /// Where the records come from.
    pub source: String,
    /// Records inserted at first.
    pub records: u64,
    /// Inserts that replaced a value.
    pub overwritten: u64,
    /// Deletions.
    pub deleted: u64,
    /// Entries that the cleanup removed.
    pub expired_removed: u64,
    /// Live entries at the end.
    pub live_entries: u64,
    /// Bytes that cleanup and compaction say they gave back.
    pub bytes_reclaimed: i64,
    /// The same, as `du` sees it: segment files before minus after.
    pub du_reclaimed: i64,
    /// The directory before maintenance, as `du` counts it.
    pub disk_bytes_before: u64,
    /// The directory after maintenance, as `du` counts it.
    pub disk_bytes_after: u64,
    /// Lengths of the segment files after maintenance.
    pub segment_bytes_after: u64,
    /// Bytes of live records after maintenance, headers included.
    pub live_bytes: u64,
    /// Raw bytes (key and value) of the live entries.
    pub raw_bytes: u64,
    /// Reads that found what they had to, in all checks.
    pub verified: u64,
    /// Reads that did not.
    pub wrong: u64,
    /// Reads before maintenance that fell into the moments in which an entry expires.
    pub undecided: u64,
    /// The first wrong reads, in words.
    pub problems: Vec<String>,
    /// Codec chosen by the tuning.
    pub codec: String,
    /// Why.
    pub reason: String,
    /// Bytes of the dictionary files.
    pub dictionary_bytes: u64,
    /// Raw bytes of the live entries / (their stored bytes + dictionary files).
    pub ratio: f64,
    /// The same records with zstd 3 one by one, without dictionary.
    pub ratio_zstd3: f64,
    /// Inserts a second on one thread, the final flush included.
    pub put_per_s: f64,
    /// Reads a second on one thread, after maintenance.
    pub get_per_s: f64,
    /// Time to open the store again.
    pub restart_ms: f64,
    /// The whole demo.
    pub seconds: f64,
    /// Its steps.
    pub steps: StepSeconds,
    /// Before maintenance.
    pub before: Moment,
    /// After maintenance.
    pub after: Moment,
    /// What was demanded, and whether it was met.
    pub expectations: Vec<Expectation>,
}

impl DemoReport {
    /// Takes a check into the sums.
    pub fn add(&mut self, checked: &Checked) {
        self.verified += checked.verified;
        self.wrong += checked.wrong;
        self.undecided += checked.undecided;
        self.problems.extend(checked.problems.iter().cloned());
    }

    /// Holds the figures against what a store must achieve. `short_entries` is what the oracle says has expired,
    /// `undecided_at_end` what the checks after the wait could not judge; `own_records`: the records that come with
    /// the program, whose compressibility is known.
    pub fn judge(&mut self, short_entries: u64, undecided_at_end: u64, own_records: bool) {
        let mut demand = |what, met, figures| self.expectations.push(Expectation { what, met, figures });
        demand("no read is wrong", self.wrong == 0, format!("{} right, {} wrong", self.verified, self.wrong));
        demand(
            "every final read can be judged",
            undecided_at_end == 0,
            format!("{undecided_at_end} undecided"),
        );
        let removed = self.expired_removed;
        demand(
            "all that expired was removed",
            removed == short_entries,
            format!("{removed} of {short_entries}"),
        );
        let entries = self.after.stats.entries;
        let expected = self.live_entries;
        demand("what lives was kept, nothing else", entries == expected, format!("{entries} of {expected}"));
        let reclaimed = self.bytes_reclaimed;
        // A store of a few blocks has no space to give back that a block could show.
        if own_records || self.before.disk.segment_bytes >= 1 << 20 {
            demand("space was given back", reclaimed > 0, output::signed_bytes(reclaimed));
        }
        let files = self.before.disk.segment_files + self.after.disk.segment_files;
        let footers = self.before.open_records * FOOTER_ROW_BYTES_MAX;
        let (gap, allowed) = (reclaimed.abs_diff(self.du_reclaimed), files * BLOCK_BYTES + footers);
        demand("du agrees, a block a file", gap <= allowed, format!("{gap} B apart, {allowed} B allowed"));
        let rows = self.live_entries * FOOTER_ROW_BYTES_MAX;
        let limit = (self.live_bytes + rows) * 115 / 100 + (1 << 20);
        let segment_bytes = self.segment_bytes_after;
        demand(
            "segments hold little but live records",
            segment_bytes <= limit,
            format!("{segment_bytes} <= {limit} B"),
        );
        if own_records {
            let gain = self.ratio / self.ratio_zstd3;
            demand("ratio 2.4 x that of zstd 3", gain >= RATIO_GAIN_MIN, format!("{gain:.2} x"));
        }
    }

    /// Whether everything demanded was met.
    pub fn passed(&self) -> bool {
        self.expectations.iter().all(|expectation| expectation.met)
    }

    /// Prints tables and verdict.
    pub fn print(&self, output: &Output) -> Result<(), Failure> {
        output.line(self.moments())?;
        output.line(self.figures())?;
        output.line(format_args!("codec: {}\n  {}", self.codec, self.reason))?;
        for problem in &self.problems {
            output.line(format_args!("WRONG: {problem}"))?;
        }
        for Expectation { what, met, figures } in &self.expectations {
            output.line(format_args!("{} {what}: {figures}", if *met { "ok    " } else { "FAILED" }))?;
        }
        Ok(())
    }

    fn moments(&self) -> comfy_table::Table {
        let mut table = crate::commands::tasks::stats_table(&self.before.stats, &self.after.stats);
        let (before, after) = (&self.before.disk, &self.after.disk);
        let du = |disk: &DiskUse| format!("{} in {} files", output::bytes(disk.bytes), disk.files);
        table.add_row(["disk, as du counts", &du(before), &du(after)]);
        table
    }

    fn figures(&self) -> comfy_table::Table {
        let mut table = output::table(&["", "value"], 1);
        table.add_row(["records / overwritten / deleted", &self.operations()]);
        table.add_row(["expired entries removed", &output::count(self.expired_removed)]);
        table.add_row(["bytes reclaimed", &output::signed_bytes(self.bytes_reclaimed)]);
        table.add_row(["ratio (zstd 3 a record)", &format!("{:.2} ({:.2})", self.ratio, self.ratio_zstd3)]);
        table.add_row([
            "put/s, get/s on one thread",
            &format!("{:.0}, {:.0}", self.put_per_s, self.get_per_s),
        ]);
        table.add_row(["restart", &format!("{:.1} ms", self.restart_ms)]);
        table.add_row([
            "reads verified / wrong",
            &format!("{} / {}", output::count(self.verified), self.wrong),
        ]);
        table
            .add_row(["seconds (of them waiting)", &format!("{:.1} ({:.1})", self.seconds, self.steps.wait)]);
        table
    }

    fn operations(&self) -> String {
        let parts = [self.records, self.overwritten, self.deleted].map(output::count);
        parts.join(" / ")
    }
}
