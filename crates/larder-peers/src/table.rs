//! Tables of medians, with the least and the greatest of the rounds, one for each workload.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::peer::Kind;
use crate::plan::Workload;

/// Results of a run, in the order in which they came.
#[derive(Debug, Default)]
pub struct Results {
    all: Vec<Map<String, Value>>,
}

/// How a figure is written.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// Thousands, with the spread.
    ThousandsSpread,
    Thousands,
    /// Seconds, with the spread.
    SecondsSpread,
    Seconds,
    Microseconds,
    Mebibytes,
    Count,
    /// Of all rounds: one wrong value in one of them is not to vanish in a median.
    Total,
    /// A share, in percent.
    Percent,
    Ratio,
}

/// Heading; the figure, or a quotient of two; how it is written.
type Column = (&'static str, &'static str, Option<&'static str>, Form);

const RATE: Column = ("k ops/s (spread)", "ops_per_s", None, Form::ThousandsSpread);
/// What the rate would be if the harness took no time, and the time that it takes.
const HARNESS: [Column; 2] = [
    ("k calls/s", "calls_per_s", None, Form::Thousands),
    ("harness us an op", "harness_us", None, Form::Microseconds),
];
const CALLS: [Column; 3] = [
    ("p50 us", "p50_us", None, Form::Microseconds),
    ("p99 us", "p99_us", None, Form::Microseconds),
    ("p99.9 us", "p999_us", None, Form::Microseconds),
];
const READS: [Column; 3] = [
    ("read p50 us", "read_p50_us", None, Form::Microseconds),
    ("read p99 us", "read_p99_us", None, Form::Microseconds),
    ("read p99.9 us", "read_p999_us", None, Form::Microseconds),
];
const CHECKS: [Column; 3] = [
    ("found", "found", Some("expected"), Form::Percent),
    ("verified", "verified", None, Form::Count),
    ("wrong, all rounds", "wrong", None, Form::Total),
];
const DISK: Column = ("disk / logical", "disk_bytes", Some("logical_bytes"), Form::Ratio);
const WRITTEN: [Column; 2] = [
    ("written / put", "written_bytes", Some("put_bytes"), Form::Ratio),
    ("handed over / put", "handed_bytes", Some("put_bytes"), Form::Ratio),
];
const READ: Column = ("B read from the disk a get", "read_bytes", Some("operations"), Form::Count);
const LIMIT: Column = ("memory MiB allowed", "memory_limit_bytes", None, Form::Mebibytes);
const COSTS: [Column; 3] = [
    ("CPU us an op", "cpu_us_per_op", None, Form::Microseconds),
    ("peak MiB", "peak_memory_bytes", None, Form::Mebibytes),
    ("others' CPU", "others_cpu_share", None, Form::Percent),
];

fn columns(workload: &str) -> Vec<Column> {
    let restart = [
        ("open s", "opened_s", None, Form::SecondsSpread),
        ("and first get s", "first_get_s", None, Form::SecondsSpread),
        ("and 1000 gets s", "first_reads_s", None, Form::SecondsSpread),
    ];
    let settled = ("settled s", "settled_s", None, Form::Seconds);
    let disk_before = ("disk before MiB", "disk_bytes_before", None, Form::Mebibytes);
    let disk_after = ("disk after MiB", "disk_bytes", None, Form::Mebibytes);
    let index = ("index B an entry", "index_bytes_per_entry", None, Form::Microseconds);
    match workload {
        "load" | "limited-load" => {
            let settling = [
                ("accepted s", "seconds", None, Form::Seconds),
                ("flushed s", "flushed_s", None, Form::Seconds),
                settled,
                ("k/s until settled", "settled_per_s", None, Form::ThousandsSpread),
                DISK,
            ];
            [&[RATE][..], &HARNESS, &CALLS, &settling, &WRITTEN, &[index], &COSTS].concat()
        }
        "mixed" => {
            let ending = [
                ("overwritten / data", "overwritten_share", None, Form::Ratio),
                settled,
                ("disk max / logical", "disk_bytes_max", Some("logical_bytes"), Form::Ratio),
                ("disk end / logical", "disk_bytes", Some("logical_bytes"), Form::Ratio),
            ];
            [&[RATE][..], &HARNESS, &READS, &ending, &WRITTEN, &CHECKS, &COSTS].concat()
        }
        "limited-idle" => [&[RATE, LIMIT][..], &CALLS, &[READ], &CHECKS, &COSTS].concat(),
        "limited-busy" => {
            let puts = [
                ("k puts/s beside", "puts_per_s", None, Form::Thousands),
                ("put p99 us", "put_p99_us", None, Form::Microseconds),
                DISK,
            ];
            [&[RATE, LIMIT][..], &CALLS, &puts, &CHECKS, &COSTS].concat()
        }
        "cold" => [&[RATE][..], &CALLS, &[READ], &CHECKS, &COSTS].concat(),
        "restart" | "kill" => [&restart[..], &CHECKS, &COSTS[1..]].concat(),
        "delete" => [&[RATE, settled, disk_before, disk_after][..], &CHECKS[2..], &COSTS].concat(),
        "ttl" => {
            let disk = |name, figure| (name, figure, Some("logical_bytes"), Form::Ratio);
            let giving_back = [
                disk("disk before / live", "disk_bytes_before"),
                disk("TTL/8 after expiry / live", "disk_bytes_soon"),
                disk("disk end / live", "disk_bytes"),
                ("back after s", "back_s", None, Form::SecondsSpread),
            ];
            [&[RATE][..], &giving_back, &CHECKS, &COSTS].concat()
        }
        "miss" => [&[RATE][..], &HARNESS, &CALLS, &CHECKS[2..], &COSTS].concat(),
        _ => [&[RATE][..], &HARNESS, &CALLS, &CHECKS, &COSTS].concat(),
    }
}

impl Results {
    /// Takes in one more.
    pub fn add(&mut self, result: Map<String, Value>) {
        self.all.push(result);
    }

    /// One result, short, to be seen while a run goes on.
    pub fn line(result: &Map<String, Value>) -> String {
        let text = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| result.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        format!(
            "round {} {:16} {:12} {:9.1} k/s, p99 {:8.1} us, wrong {}, disk {:6.0} MB, others {:3.0} %",
            number("round"),
            text("peer"),
            text("workload"),
            number("ops_per_s") / 1e3,
            number("p99_us"),
            number("wrong"),
            number("disk_bytes") / 1e6,
            number("others_cpu_share") * 1e2,
        )
    }

    /// Values that were read and are wrong.
    pub fn wrong(&self) -> u64 {
        self.all.iter().filter_map(|result| result.get("wrong")?.as_u64()).sum()
    }

    /// Names of the workloads, then of the stores, each in the order in which they first came.
    pub fn names(&self, of: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.all.iter().filter_map(|result| result.get(of)?.as_str()) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// A figure of all rounds, ascending; a quotient is that of each round.
    pub fn figures(&self, workload: &str, peer: &str, name: &str, over: Option<&str>) -> Vec<f64> {
        let is = |result: &Map<String, Value>, of: &str, what: &str| {
            result.get(of).and_then(Value::as_str).is_some_and(|found| found == what)
        };
        let mut figures: Vec<f64> = self
            .all
            .iter()
            .filter(|result| is(result, "workload", workload) && is(result, "peer", peer))
            .filter_map(|result| {
                let figure = result.get(name)?.as_f64()?;
                let by = over.map_or(Some(1.0), |over| result.get(over)?.as_f64())?;
                (by > 0.0).then_some(figure / by)
            })
            .collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    /// The tables, the configurations of `kinds`, and what failed.
    pub fn markdown(&self, kinds: &[Kind]) -> String {
        let mut text = String::new();
        let peers = self.names("peer");
        for workload in self.names("workload").iter().filter(|name| *name != "failed") {
            let columns = columns(workload);
            let headings: Vec<_> = columns.iter().map(|(heading, ..)| *heading).collect();
            // A `String` takes whatever is written to it.
            let _ = writeln!(text, "### {workload}\n\n| store | {} |", headings.join(" | "));
            let _ = writeln!(text, "|---|{}", "---:|".repeat(columns.len()));
            for peer in &peers {
                let cells: Vec<_> = columns
                    .iter()
                    .map(|(_, name, over, form)| cell(&self.figures(workload, peer, name, *over), *form))
                    .collect();
                let _ = writeln!(text, "| {peer} | {} |", cells.join(" | "));
            }
            text.push('\n');
        }
        self.notes(kinds, &peers, &mut text);
        text
    }

    fn notes(&self, kinds: &[Kind], peers: &[String], text: &mut String) {
        for kind in kinds.iter().filter(|kind| peers.iter().any(|name| name == kind.name)) {
            let _ = writeln!(text, "- {}: {}; {}", kind.name, kind.version, kind.configuration);
            let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
            for (workload, why) in kind.unable {
                match reasons.iter_mut().find(|(known, _)| known == why) {
                    Some((_, workloads)) => workloads.push(Workload::name(*workload)),
                    None => reasons.push((why, vec![Workload::name(*workload)])),
                }
            }
            for (why, workloads) in reasons {
                let _ = writeln!(text, "  - no {}: {why}", workloads.join(", "));
            }
        }
        for result in &self.all {
            if result.get("never_settled").and_then(Value::as_bool) == Some(true) {
                let name = |of: &str| result.get(of).and_then(Value::as_str).unwrap_or_default();
                let _ = writeln!(text, "- {} had not settled in the end: {}", name("peer"), name("workload"));
            }
            if let Some(failure) = result.get("failure").and_then(Value::as_str) {
                let peer = result.get("peer").and_then(Value::as_str).unwrap_or_default();
                let _ = writeln!(text, "- {peer} failed in one round: {failure}");
            }
        }
    }
}

/// The middle one; of an even number, the lower.
pub fn median(ascending: &[f64]) -> Option<f64> {
    ascending.get(ascending.len().checked_sub(1)? / 2).copied()
}

/// The median, as it is written.
pub(crate) fn cell(ascending: &[f64], form: Form) -> String {
    let (Some(middle), Some(least), Some(most)) = (median(ascending), ascending.first(), ascending.last())
    else {
        return "-".to_owned();
    };
    let spread = |middle: f64, least: f64, most: f64| {
        format!("{} ({}-{})", digits(middle), digits(least), digits(most))
    };
    match form {
        Form::ThousandsSpread => spread(middle / 1e3, least / 1e3, most / 1e3),
        Form::Thousands => digits(middle / 1e3),
        Form::SecondsSpread => spread(middle, *least, *most),
        Form::Seconds | Form::Microseconds => digits(middle),
        Form::Mebibytes => digits(middle / f64::from(1 << 20)),
        Form::Count => format!("{middle:.0}"),
        Form::Total => format!("{:.0}", ascending.iter().sum::<f64>()),
        Form::Percent => format!("{:.1} %", middle * 100.0),
        Form::Ratio => format!("{middle:.2}"),
    }
}

/// Three that count.
fn digits(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
