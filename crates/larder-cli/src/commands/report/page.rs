//! The page: what is shown, in which order, and the sentence under each picture that says what it shows.

use super::Contents;
use super::html::{Html, element, words};
use super::{charts, compression};
use crate::figures::{self, Group};
use crate::glance::Source;
use crate::output;

const CSS: &str = "
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2430; --dim: #5b6675; --rule: #d9dee6; --live: #2f8f5b;
  --dead: #d0493e; --expired: #9a55c4; --overhead: #7d8ea8; --area: #3a78c3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --ink: #e4e8ee; --dim: #9aa5b4; --rule: #323a46;
  --live: #4cb67c; --dead: #e8705f; --expired: #b983dc; --overhead: #66758c; --area: #5b98e0; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p.caption, p.sub { color: var(--dim); margin: .3rem 0 0; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--dim); font-size: 11px; }
.live { fill: var(--live); } .dead { fill: var(--dead); } .expired { fill: var(--expired); }
.overhead { fill: var(--overhead); } .free { fill: var(--rule); } .area { fill: var(--area); fill-opacity: .35; stroke: var(--area); }
.active { fill: none; stroke: var(--ink); stroke-dasharray: 4 3; } .rule { stroke: var(--rule); }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px; }
.key.live { background: var(--live); } .key.dead { background: var(--dead); }
.key.expired { background: var(--expired); } .key.overhead { background: var(--overhead); } .key.free { background: var(--rule); }
.legend > span { white-space: nowrap; margin-right: 1.2em; }
table { border-collapse: collapse; width: 100%; margin-bottom: .8rem; } td, th { padding: .2rem .6rem; border-bottom: 1px solid var(--rule);
  text-align: right; font-variant-numeric: tabular-nums; } td:first-child, th:first-child { text-align: left; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 0 2rem; }
tr.chosen td { font-weight: 600; } .scroll { overflow-x: auto; }
";

/// The whole document.
pub fn page(contents: &Contents) -> String {
    let glance = &contents.glance;
    let title = format!("Larder: {}", glance.dir);
    let head = element(
        "head",
        &[],
        Html::all([
            element("meta", &[("charset", &"utf-8")], Html::default()),
            element("meta", &[("name", &"viewport"), ("content", &"width=device-width")], Html::default()),
            words("title", &title),
            Html::style(CSS),
        ]),
    );
    let who = match glance.source {
        Source::Open => "open in the process that wrote this",
        Source::Closed => "open in no process; as its files say",
        Source::InUse => {
            "in use by another process; as its files say, which may be behind what that process knows"
        }
    };
    let body = Html::all([
        words("h1", &title),
        element("p", &[("class", &"sub")], Html::text(format_args!("At {}: {who}.", utc(glance.at_ms)))),
        warnings(contents),
        space(contents),
        reclaimable(contents),
        segments(contents),
        over_time(contents),
        lives(contents),
        section("Compression", compression::compression(contents)),
        section("All figures", Html::all([tables(&figures::groups(glance))])),
        segment_table(contents),
    ]);
    element("html", &[("lang", &"en")], Html::all([head, element("body", &[], body)])).document()
}

fn section(title: &str, content: Html) -> Html {
    element("section", &[], Html::all([words("h2", title), content]))
}

/// The sentence under a picture.
pub fn caption(text: impl std::fmt::Display) -> Html {
    element("p", &[("class", &"caption")], Html::text(text))
}

fn warnings(contents: &Contents) -> Html {
    let warnings = &contents.glance.warnings;
    if warnings.is_empty() {
        return Html::default();
    }
    let items = warnings.iter().map(|warning| words("li", warning));
    section("Warnings", element("ul", &[], Html::all(items)))
}

fn space(contents: &Contents) -> Html {
    let parts = figures::space(&contents.glance);
    let whole: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let legend = parts.iter().map(|(part, bytes)| {
        let class = format!("key {}", charts::class(*part));
        let share = output::percent(*bytes, whole);
        // A line never ends between a colour and its words.
        let words = Html::text(format_args!("{} {} ({share})", part.label(), output::bytes(*bytes)));
        let colour = element("span", &[("class", &class)], Html::default());
        Html::all([element("span", &[], Html::all([colour, words])), Html::text(" ")])
    });
    section(
        "What the disk is used for",
        Html::all([
            charts::space_bar(&parts),
            element("p", &[("class", &"legend")], Html::all(legend)),
            caption(
                "Allocated bytes of all files, and what is free of the capacity, if that is known (--capacity). Overhead: footers, index snapshots, dictionaries, the manifest and blocks \
             that are not full. Dead bytes are estimated from size classes between compactions.",
            ),
        ]),
    )
}

fn reclaimable(contents: &Contents) -> Html {
    let forecast = &contents.forecast;
    let rows = forecast.reasons.iter().map(|reason| {
        element(
            "tr",
            &[],
            Html::all([
                words("td", &reason.what),
                words("td", output::bytes(reason.bytes)),
                words("td", &reason.when),
            ]),
        )
    });
    let table = if forecast.reasons.is_empty() {
        words("p", "Nothing: no dead or expired bytes, and nothing falls due within a day.")
    } else {
        table(&["what and why", "bytes", "when"], rows)
    };
    let due = forecast.due.iter().map(|due| {
        element(
            "tr",
            &[],
            Html::all([
                words("td", due.within),
                words("td", output::bytes(due.estimated_bytes)),
                words("td", output::bytes(due.at_most_bytes)),
                words("td", due.segments),
            ]),
        )
    });
    section(
        "What can be reclaimed, when and why",
        Html::all([
            table,
            table_of_due(due),
            caption(
                "Of a segment the first and the last expiry are known, not each entry's: estimates spread its live bytes \
             evenly between the two, without the share of its values that never expire; the column at most counts all of \
             them from the first on.",
            ),
        ]),
    )
}

fn table_of_due(rows: impl Iterator<Item = Html>) -> Html {
    table(&["falling due within", "estimated", "at most", "segments"], rows)
}

fn segments(contents: &Contents) -> Html {
    let segments = &contents.glance.segments;
    let together = segments.len().div_ceil(charts::BARS_MAX).max(1);
    let each = if together == 1 { "segment".to_owned() } else { format!("{together} neighbouring segments") };
    section(
        "Segments by age and state",
        Html::all([
            charts::segments(segments),
            caption(format_args!(
                "One bar for each {each}, {} in all, in order of their numbers, so of their age: live (green), dead (red), \
             expired (violet), headers and footers (grey). A dashed outline: records are still being appended.",
                segments.len()
            )),
        ]),
    )
}

fn over_time(contents: &Contents) -> Html {
    let now_ms = contents.glance.at_ms;
    let mut sum = 0;
    let written = contents.files.iter().map(|file| {
        sum += file.bytes;
        (file.written_ms, sum)
    });
    let written: Vec<(u64, u64)> = written.collect();
    let mut pieces = vec![
        charts::over_time(
            "bytes of today's segment files by the time they were last written",
            &written,
            now_ms,
        ),
        caption(
            "When what is there now was written: the sizes of the segment files that exist, added up in the order in \
             which each was last written (the file system's times). Files that have been reclaimed are not in it, so \
             this is no history of the disk.",
        ),
    ];
    if let (Some(first), Some(last)) = (contents.samples.first(), contents.samples.last()) {
        let points: Vec<(u64, u64)> =
            contents.samples.iter().map(|sample| (sample.at_ms, sample.disk_bytes)).collect();
        let time = std::time::Duration::from_millis(last.at_ms - first.at_ms);
        pieces.push(charts::over_time("bytes on disk while watched", &points, last.at_ms));
        pieces.push(caption(format_args!(
            "Bytes on disk while this report watched: {} samples over {}, of all files, as du counts.",
            points.len(),
            output::duration(time)
        )));
    } else {
        pieces.push(caption(
            "With --watch TIME the report also samples the bytes on disk, and shows them here.",
        ));
    }
    section("Disk bytes over time", Html::all(pieces))
}

fn lives(contents: &Contents) -> Html {
    section(
        "Remaining life of live bytes",
        Html::all([
            charts::lives(&contents.forecast.lives),
            caption(
                "Live bytes by the time until they expire: each bar holds what expires by the time under it, and not by the \
             one before. Estimated: the live bytes of each segment are spread evenly from its first to its last expiry.",
            ),
        ]),
    )
}

fn tables(groups: &[Group]) -> Html {
    let tables = groups.iter().map(|group| {
        let rows = group.figures.iter().map(|figure| {
            let value = figure.value.map_or(figure.text.clone(), |value| value.to_string());
            let cell = element(
                "td",
                &[("data-figure", &figure.name), ("data-value", &value)],
                Html::text(&figure.text),
            );
            element("tr", &[], Html::all([words("td", figure.label), cell]))
        });
        element("div", &[], table(&[group.title, ""], rows))
    });
    element("div", &[("class", &"tables")], Html::all(tables))
}

fn segment_table(contents: &Contents) -> Html {
    let header = [
        "segment",
        "state",
        "log",
        "group",
        "size",
        "live",
        "dead",
        "expired",
        "first expiry",
        "last expiry",
    ];
    let moment = |at: Option<u64>| at.map_or("never".to_owned(), utc);
    let rows = contents.glance.segments.iter().map(|segment| {
        element(
            "tr",
            &[],
            Html::all([
                words("td", segment.id),
                words("td", format!("{:?}", segment.state).to_lowercase()),
                words("td", format!("{:?}", segment.log).to_lowercase()),
                words("td", segment.group),
                words("td", output::bytes(segment.file_bytes)),
                words("td", output::bytes(segment.live_bytes)),
                words("td", output::bytes(segment.dead_bytes)),
                words("td", output::bytes(segment.expired_bytes)),
                words("td", moment(segment.earliest_expiry_ms)),
                words("td", moment(segment.latest_expiry_ms)),
            ]),
        )
    });
    let scroll = element("div", &[("class", &"scroll")], table(&header, rows));
    section("", element("details", &[], Html::all([words("summary", "Every segment"), scroll])))
}

/// A table with its head.
pub fn table(header: &[&str], rows: impl Iterator<Item = Html>) -> Html {
    let cells = header.iter().map(|name| words("th", name));
    let head = element("thead", &[], element("tr", &[], Html::all(cells)));
    element("table", &[], Html::all([head, element("tbody", &[], Html::all(rows))]))
}

/// A moment as date and time of day, UTC.
fn utc(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    // Days to a date of the Gregorian calendar, counted from 1 March of the year 0 (Howard Hinnant, "chrono-Compatible
    // Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}
