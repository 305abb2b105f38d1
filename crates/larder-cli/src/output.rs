//! What the user sees: lines and tables on stdout or one JSON object, warnings on stderr, figures for people.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// Where results go: text or one JSON object.
#[derive(Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Text, or with `json` one object.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether people read along: text on stdout, and bars if stderr is a terminal.
    pub fn for_people(&self) -> bool {
        !self.json
    }

    /// Prints a line; nothing with `--json`.
    pub fn line(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(stdout_failure)
    }

    /// Writes bytes as they are, whatever they are: the one result of a command that prints no text.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(stdout_failure)
    }

    /// Prints the result object; nothing without `--json`.
    pub fn object(&self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::Other(format!("write the result as JSON: {error}")))?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(stdout_failure)
    }
}

fn stdout_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::Other(format!("write to stdout: {error}")),
    }
}

/// Prints a line on stderr. If that is closed, nobody wants to know.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr().lock(), "larder: {text}");
}

/// An empty table: the first `left` columns hold words, the others figures.
pub fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Bytes for people: `1.5 MiB (1,572,864)` would be too long, so `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes for people, with a sign.
pub fn signed_bytes(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", bytes(value.unsigned_abs()))
}

/// A count with thousands marked: `20,968`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration with three significant places and its unit.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s >= 172_800.0 => format!("{:.0} d", s / 86_400.0),
        s if s >= 7_200.0 => format!("{:.1} h", s / 3_600.0),
        s if s >= 180.0 => format!("{:.1} min", s / 60.0),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.1} us", s * 1e6),
    }
}

/// How far a moment (unix milliseconds) is from now: `in 2.0 h`, `3.1 min ago`.
pub fn moment(unix_ms: u64) -> String {
    let now_ms = unix_now_ms();
    let distance = duration(Duration::from_millis(unix_ms.abs_diff(now_ms)));
    if unix_ms > now_ms { format!("in {distance}") } else { format!("{distance} ago") }
}

/// Wall-clock time in unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "for display only: the store lives by its own clock")]
pub fn unix_now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Operations a second; 0 if nothing took no time.
pub fn rate(operations: u64, time: Duration) -> f64 {
    if operations == 0 { 0.0 } else { operations as f64 / time.as_secs_f64().max(1e-9) }
}

/// A part of a whole in percent.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.0} %", part as f64 * 100.0 / whole as f64) }
}
