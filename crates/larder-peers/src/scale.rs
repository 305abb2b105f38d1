//! The same at several numbers of entries, in one table: what grows with them.

use std::fmt::Write;

use crate::table::{Form, Results, cell};

/// Heading, workload, figure, form.
type Column = (&'static str, &'static str, &'static str, Form);

const COLUMNS: [Column; 16] = [
    ("index B an entry", "load", "index_bytes_per_entry", Form::Microseconds),
    ("memory B an entry, loaded", "load", "memory_bytes_per_entry", Form::Microseconds),
    ("memory B an entry, opened", "restart", "memory_bytes_per_entry", Form::Microseconds),
    ("put mean us", "load", "mean_us", Form::Microseconds),
    ("put mean us, last tenth", "load", "last_puts_mean_us", Form::Microseconds),
    ("put p99 us", "load", "p99_us", Form::Microseconds),
    ("longest put us", "load", "max_us", Form::Microseconds),
    ("put CPU us, settled", "load", "cpu_us_per_op", Form::Microseconds),
    ("get mean us", "get", "mean_us", Form::Microseconds),
    ("get p50 us", "get", "p50_us", Form::Microseconds),
    ("get p99 us", "get", "p99_us", Form::Microseconds),
    ("open s", "restart", "opened_s", Form::Seconds),
    ("and first get s", "restart", "first_get_s", Form::Seconds),
    ("open s, killed", "kill", "opened_s", Form::Seconds),
    ("and first get s, killed", "kill", "first_get_s", Form::Seconds),
    ("wrong, all rounds", "get", "wrong", Form::Total),
];

/// Medians by store and number of entries.
pub fn markdown(sizes: &[(u64, Results)]) -> String {
    let headings: Vec<_> = COLUMNS.iter().map(|(heading, ..)| *heading).collect();
    let mut text = format!("### scale\n\n| store | entries | {} |\n", headings.join(" | "));
    text.push_str(&format!("|---|---:|{}\n", "---:|".repeat(COLUMNS.len())));
    let peers = sizes.first().map(|(_, results)| results.names("peer")).unwrap_or_default();
    for peer in &peers {
        for (entries, results) in sizes {
            let cells: Vec<_> = COLUMNS
                .iter()
                .map(|(_, workload, figure, form)| {
                    cell(&results.figures(workload, peer, figure, None), *form)
                })
                .collect();
            // A `String` takes whatever is written to it.
            let _ = writeln!(text, "| {peer} | {entries} | {} |", cells.join(" | "));
        }
    }
    text.push('\n');
    text
}
