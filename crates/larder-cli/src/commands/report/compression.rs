//! How records are compressed, and why: the last tuning, for all records and for each class of sizes.

use std::collections::BTreeMap;

use larder::{ClassReport, TuningReport};

use super::Contents;
use super::html::{Html, element, words};
use super::page::{caption, table};
use crate::commands::explain;
use crate::output;

/// The section's content.
pub fn compression(contents: &Contents) -> Html {
    let glance = &contents.glance;
    let now = words(
        "p",
        format_args!(
            "New records are stored as {}, unless the class of their size has a choice of its own. Live keys and values \
             take {} before and {} after compression.",
            glance.compression,
            output::bytes(glance.stats.live_raw_bytes),
            output::bytes(glance.stats.live_payload_bytes)
        ),
    );
    let tuning = match &contents.tuning {
        Some(tuning) => last_tuning(tuning, glance.at_ms),
        None => {
            caption("This store was never tuned. With --tune the report measures ways to compress first.")
        }
    };
    Html::all([now, tuning, by_dictionary(contents)])
}

fn last_tuning(tuning: &TuningReport, now_ms: u64) -> Html {
    let ago = output::duration(std::time::Duration::from_millis(now_ms.saturating_sub(tuning.at_ms)));
    let mut pieces = vec![
        words(
            "p",
            format_args!(
                "Last tuned {ago} before: {} entries sampled ({}), {:.0} % reads, weights: {}. All records: {}",
                output::count(tuning.sampled_entries),
                output::bytes(tuning.sampled_bytes),
                tuning.read_share * 100.0,
                tuning.weights,
                explain::verdict(&tuning.common)
            ),
        ),
        candidates(&tuning.common),
        caption("Every candidate that was measured, the cheapest first; the one in bold is used."),
    ];
    let classes: Vec<&ClassReport> =
        tuning.classes.iter().filter(|class| class.sampled_entries > 0).collect();
    for class in &classes {
        pieces.push(words("p", format_args!("{}: {}", explain::heading(class), explain::verdict(class))));
        // One class only: its table is the one above.
        if classes.len() > 1 {
            let all = Html::all([words("summary", "What was measured on them"), candidates(class)]);
            pieces.push(element("details", &[], all));
        }
    }
    Html::all(pieces)
}

fn candidates(class: &ClassReport) -> Html {
    let us = |ns: f64| format!("{:.2} us", ns / 1000.0);
    let rows = class.candidates.iter().enumerate().map(|(at, candidate)| {
        let mark = if class.chosen_at == Some(at as u32) { "chosen" } else { "" };
        let new = if candidate.newly_trained { " (new)" } else { "" };
        element(
            "tr",
            &[("class", &mark)],
            Html::all([
                words("td", format_args!("{}{new}", candidate.choice)),
                words("td", format_args!("{:.2}", candidate.ratio)),
                words("td", us(candidate.compress_ns)),
                words("td", us(candidate.decompress_ns)),
                words("td", us(candidate.cost_ns)),
            ]),
        )
    });
    table(&["candidate", "ratio", "compress", "decompress", "cost an entry"], rows)
}

/// What the segments say: which dictionaries their records need.
fn by_dictionary(contents: &Contents) -> Html {
    let mut groups: BTreeMap<&[u8], [u64; 4]> = BTreeMap::new();
    for segment in &contents.glance.segments {
        let sums = groups.entry(&segment.dictionaries).or_default();
        let figures = [1, segment.live_records, segment.live_bytes, segment.file_bytes];
        sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
    }
    let rows = groups.iter().map(|(dictionaries, [segments, records, live, bytes])| {
        let name = match dictionaries {
            [] => "none".to_owned(),
            slots => slots.iter().map(u8::to_string).collect::<Vec<_>>().join(", "),
        };
        element(
            "tr",
            &[],
            Html::all([
                words("td", name),
                words("td", segments),
                words("td", output::count(*records)),
                words("td", output::bytes(*live)),
                words("td", output::bytes(*bytes)),
            ]),
        )
    });
    table(&["dictionaries their records need", "segments", "live records", "live bytes", "file bytes"], rows)
}
