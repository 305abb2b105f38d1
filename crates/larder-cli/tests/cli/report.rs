//! `report`: one HTML file that is whole, needs nothing else and says what `stats` says.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Holder, larder, message, number, place, records, run, run_json, said, text, write_records};

/// Elements without an end tag.
const VOID: [&str; 1] = ["meta"];

fn fill(dir: &TempDir, store: &Path) {
    let (many, some) = (write_records(dir, 8000), write_records(dir, 1000));
    run(&["load", text(store), text(&many), "--ttl", "45m", "--segment-mib", "1"], 0);
    run(&["load", text(store), text(&some), "--segment-mib", "1"], 0);
}

fn report(store: &Path, dir: &TempDir, args: &[&str]) -> (Value, String) {
    let out: PathBuf = dir.path().join("out.html");
    let result = run_json(&[&["report", text(store), "--out", text(&out)][..], args].concat(), 0);
    let html = fs::read_to_string(&out).expect("it was written");
    assert_eq!(number(&result, "html_bytes"), html.len() as f64);
    assert_whole(&html);
    (result, html)
}

/// Demands that every element is closed in order, and nothing is loaded from anywhere.
fn assert_whole(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    for (at, _) in body.match_indices('<') {
        let tag = &body[at + 1..];
        let tag = &tag[..tag.find('>').expect("a tag ends")];
        assert!(!tag.contains('<'), "a tag in a tag: {tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().expect("a name");
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{tag}");
        assert_ne!(name, "script");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes something else");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of {tag}");
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    for foreign in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!html.contains(foreign), "the report loads something: {foreign}");
    }
}

/// The figures of the page, by name.
fn figures(html: &str) -> Vec<(&str, &str)> {
    let cells = html.split("data-figure=\"").skip(1);
    let figure = |cell: &'_ str| -> Option<(usize, usize, usize)> {
        let name = cell.find('"')?;
        let value = cell.find("data-value=\"")? + "data-value=\"".len();
        Some((name, value, value + cell[value..].find('"')?))
    };
    cells
        .map(|cell| {
            let (name, value, end) = figure(cell).expect("a figure has name and value");
            (&cell[..name], &cell[value..end])
        })
        .collect()
}

#[test]
fn the_figures_are_those_of_stats() {
    let (dir, store) = place();
    fill(&dir, &store);
    let (_, html) = report(&store, &dir, &[]);
    let stats = run_json(&["stats", text(&store)], 0);
    let figures = figures(&html);
    assert!(figures.len() > 25, "{figures:?}");
    for (name, value) in figures {
        if name == "compression" {
            assert_eq!(stats["compression"], value);
            continue;
        }
        let place = match name.strip_prefix("recovery.") {
            Some(name) => &stats["stats"]["recovery"][name],
            None if stats["derived"][name].is_number() => &stats["derived"][name],
            None => &stats["stats"][name],
        };
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{name}: {value} is no number"));
        // `serde_json` may read the last digit of a fraction otherwise than the standard library.
        let found = place.as_f64().unwrap_or_else(|| panic!("{name}: {place} is no number"));
        assert!((found - value).abs() <= 1e-12 * value.abs(), "{name}: {found} and {value}");
    }
}

#[test]
fn every_picture_is_there_and_says_what_it_shows() {
    let (dir, store) = place();
    fill(&dir, &store);
    let before = fs::read_dir(&store).expect("a listing").count();
    let (result, html) = report(&store, &dir, &[]);
    assert_eq!(result["source"], "closed");
    assert_eq!(html.matches("<svg ").count(), 4);
    assert_eq!(html.matches("</svg>").count(), 4);
    for part in [
        "What the disk is used for",
        "What can be reclaimed, when and why",
        "Segments by age and state",
        "Disk bytes over time",
        "Remaining life of live bytes",
        "no history of the disk",
        "larder compact",
        "prefers-color-scheme: dark",
        "30 d",
        "never",
        "dictionaries their records need",
    ] {
        assert!(html.contains(part), "no {part:?}");
    }
    let segments = result["segments"].as_array().expect("segments");
    assert_eq!(result["files"].as_array().map(Vec::len), Some(segments.len()));
    for segment in segments {
        assert!(html.contains(&format!("segment {} (", segment["id"])), "{segment} is not drawn");
    }
    assert_eq!(fs::read_dir(&store).expect("a listing").count(), before, "a report has changed the store");
}

#[test]
fn names_are_escaped() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("<b>&\"'store");
    fill(&dir, &store);
    let (_, html) = report(&store, &dir, &[]);
    assert!(html.contains("&lt;b&gt;&amp;&quot;&#39;store") && !html.contains("<b>"));
}

#[test]
fn watching_and_tuning_add_their_pictures() {
    let (dir, store) = place();
    fill(&dir, &store);
    let (result, html) = report(&store, &dir, &["--tune", "--watch", "0.4"]);
    let samples = result["samples"].as_array().expect("samples");
    assert!(
        samples.len() > 2 && samples.iter().all(|sample| number(sample, "disk_bytes") > 0.0),
        "{samples:?}"
    );
    assert_eq!(html.matches("<svg ").count(), 5);
    assert!(html.contains("Bytes on disk while this report watched"));
    let candidates = result["tuning"]["common"]["candidates"].as_array().expect("candidates");
    assert!(html.contains("Last tuned") && html.contains("records up to"), "classes are explained");
    let (again, _) = report(&store, &dir, &[]);
    assert_eq!(again["tuning"], result["tuning"], "the last tuning is shown again");
    assert!(candidates.len() > 3 && html.contains("zstd 3") && html.contains("class=\"chosen\""));
    assert_eq!(number(&run_json(&["verify", text(&store)], 0), "live_entries"), 8000.0);
}

#[test]
fn a_store_in_use_is_reported_but_not_tuned() {
    let (dir, store) = place();
    let _holder = Holder::of(&store, &records(1000));
    let (result, html) = report(&store, &dir, &["--watch", "0.2"]);
    assert_eq!(result["source"], "in_use");
    assert!(html.contains("in use by another process"));
    let refused = run_json(&["report", text(&store), "--tune", "--out", "/dev/null"], 1);
    assert_eq!(refused["error"]["kind"], "locked");
}

#[test]
fn an_empty_store_has_a_report_too() {
    let (dir, store) = place();
    run(&["put", text(&store), "key", "value"], 0);
    run(&["del", text(&store), "key"], 0);
    let (result, html) = report(&store, &dir, &[]);
    assert_eq!(number(&result["stats"], "entries"), 0.0);
    assert!(!html.contains("NaN") && !html.contains("inf"));
}

#[test]
fn the_file_is_named_or_stdout_and_failures_name_it() {
    let (dir, store) = place();
    fill(&dir, &store);
    let html = said(&run(&["report", text(&store), "--out", "-"], 0));
    assert_whole(&html);
    let failed = run_json(&["report", text(&store), "--out", "/nonexistent/report.html"], 1);
    assert!(message(&failed).contains("/nonexistent/report.html"));
    run(&["report", text(&store), "--out", "-", "--json"], 1);
    let mut command = larder(&["report", text(&store)]);
    let output = command.current_dir(dir.path()).output().expect("it starts");
    assert!(output.status.success() && dir.path().join("report.html").exists());
}
