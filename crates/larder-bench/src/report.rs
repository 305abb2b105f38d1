//! What is printed: a table for people, or one JSON object.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::bars::{expected, missed};
use crate::figures::{Figures, figure};
use crate::workload::{Options, Workload};

/// How far a figure of the simulator may be from the real run's.
const AGREEMENT: f64 = 0.05;
/// The figures for which that is asked: those that the simulator exists for.
const COMPARED: [&str; 3] = ["written_amplification", "space_amplification", "hit_ratio"];
/// Figures without a bar beside a real run: times to live are made short for it, in both runs, but neither the least age of
/// a segment nor the disk is, and maintenance is not told apart by the driver's steps.
const VIRTUAL_ONLY: [&str; 3] = ["reclaim_p99_share", "reclaim_p99_ttls", "record_bytes_read_by_cleanup"];

/// A finished run, or two of them side by side.
#[derive(Debug)]
pub struct Report {
    /// What ran.
    pub workload: Workload,
    /// How.
    pub options: Options,
    /// By virtual time.
    pub simulated: Figures,
    /// The seconds it took.
    pub seconds: f64,
    /// By the machine's clock, on its file system, with the seconds it took.
    pub real: Option<(Figures, f64)>,
}

impl Report {
    /// Bars that are missed, by either run, and figures on which the two do not agree.
    pub fn missed(&self) -> Vec<String> {
        let mut all = missed(self.workload, &self.simulated);
        let Some((real, _)) = &self.real else { return all };
        all.extend(missed(self.workload, real).into_iter().map(|bar| format!("real run: {bar}")));
        all.retain(|bar| !VIRTUAL_ONLY.iter().any(|name| bar.contains(name)));
        for name in COMPARED {
            if let Some(difference) = self.difference(name)
                && difference.abs() > AGREEMENT
            {
                let percent = difference * 100.0;
                all.push(format!("{name}: the simulator is {percent:+.1} % off the real run"));
            }
        }
        all
    }

    /// Values that were read and are wrong.
    pub fn wrong(&self) -> u64 {
        let wrong = |figures: &Figures| figure(figures, "wrong").unwrap_or(0.0) as u64;
        wrong(&self.simulated) + self.real.as_ref().map_or(0, |(figures, _)| wrong(figures))
    }

    /// Simulator over real run, less one.
    fn difference(&self, name: &str) -> Option<f64> {
        let real = figure(&self.real.as_ref()?.0, name)?;
        let simulated = figure(&self.simulated, name)?;
        if real == simulated { Some(0.0) } else { Some(simulated / real - 1.0) }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let mut header = vec!["figure", "simulated", "theory", "bar", ""];
        if self.real.is_some() {
            header.extend(["real", "difference"]);
        }
        table.set_header(header);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for (name, value) in &self.simulated {
            let expectation = expected(self.workload).find(|expected| expected.figure == *name);
            let theory = expectation.and_then(|found| found.theory).map(number).unwrap_or_default();
            let has_bar = self.real.is_none() || !VIRTUAL_ONLY.contains(name);
            let bar = expectation.and_then(|found| found.bar).filter(|_| has_bar);
            let verdict = match bar {
                None => "",
                Some(bar) if bar.is_met(*value) => "met",
                Some(_) => "MISSED",
            };
            let bar = bar.map(|bar| bar.to_string()).unwrap_or_default();
            let mut row = vec![(*name).to_owned(), number(*value), theory, bar, verdict.to_owned()];
            if let Some((real, _)) = &self.real {
                row.push(figure(real, name).map(number).unwrap_or_default());
                row.push(
                    self.difference(name).map_or(String::new(), |part| format!("{:+.1} %", part * 100.0)),
                );
            }
            table.add_row(row);
        }
        let Options { seed, scale, .. } = self.options;
        let mut text = format!("{}, seed {seed}, scale {scale}\n{table}\n", self.workload.name());
        text += &format!("{:.1} s simulated", self.seconds);
        if let Some((_, seconds)) = &self.real {
            text += &format!(", {seconds:.1} s real");
        }
        for bar in self.missed() {
            text += &format!("\nmissed: {bar}");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let object = |figures: &Figures| {
            let pairs = figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        let mut json = json!({
            "workload": self.workload.name(),
            "seed": self.options.seed,
            "scale": self.options.scale,
            "value_bytes": self.options.value_bytes,
            "mixed_values": self.options.mixed_values,
            "exponent": self.options.exponent,
            "replaced": self.options.replaced,
            "figures": object(&self.simulated),
            "missed": self.missed(),
            "wrong": self.wrong(),
            "seconds": self.seconds,
        });
        if let Some((real, seconds)) = &self.real {
            json["real"] = object(real);
            json["real_seconds"] = json!(seconds);
        }
        json
    }
}

/// Counts whole, ratios with four digits behind the point.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.4}") }
}
