//! The figures of a store as people read them: one list for `stats`, `watch` and `report`. A new figure is one line here.

use serde::Serialize;

use crate::glance::{Glance, Source};
use crate::output;

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// Its value for people.
    pub text: String,
    /// Its value for programs; words have none.
    pub value: Option<f64>,
    /// Whether it is among the few that a look should begin with.
    pub headline: bool,
}

impl Figure {
    fn headline(mut self) -> Self {
        self.headline = true;
        self
    }
}

/// Figures that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// What the library does not count itself; `stats --json` has it beside the library's own figures.
#[derive(Debug, Serialize)]
pub struct Derived {
    ratio: f64,
    /// Bytes of segments for a byte of a live record, as the library says.
    space_amplification: f64,
    /// Bytes of the whole directory for one.
    disk_amplification: f64,
    /// Bytes written to segments for a byte stored; 0 before the first insert.
    written_amplification: f64,
    free_bytes: Option<u64>,
    index_bytes_per_entry: f64,
    overhead_bytes: u64,
    disk_bytes: u64,
    snapshots: u64,
}

impl Derived {
    /// Of a store at one moment.
    pub fn of(glance: &Glance) -> Self {
        Self {
            ratio: glance.ratio(),
            space_amplification: glance.stats.space_amplification(),
            disk_amplification: glance.disk_amplification(),
            written_amplification: glance.stats.written_amplification(),
            free_bytes: glance.free_bytes(),
            index_bytes_per_entry: glance.index_bytes_per_entry(),
            overhead_bytes: glance.overhead_bytes(),
            disk_bytes: glance.disk.bytes,
            snapshots: glance.disk.snapshot_files,
        }
    }
}

/// All figures, grouped.
pub fn groups(glance: &Glance) -> Vec<Group> {
    let stats = &glance.stats;
    let recovery = &stats.recovery;
    let records = stats.live_bytes + stats.dead_bytes + stats.expired_bytes;
    let share = |name, label, part| {
        let text = format!("{} ({} of the records)", output::bytes(part), output::percent(part, records));
        Figure { name, label, text, value: Some(part as f64), headline: false }
    };
    let mut groups = vec![
        Group {
            title: "Entries",
            figures: vec![
                count("entries", "entries", stats.entries).headline(),
                count("shadows", "deletions remembered", stats.shadows),
                bytes("index_bytes", "index in memory", stats.index_bytes),
                quotient("index_bytes_per_entry", "index an entry", glance.index_bytes_per_entry(), "B")
                    .headline(),
            ],
        },
        Group {
            title: "Space",
            figures: vec![
                bytes("disk_bytes", "on disk, as du counts", glance.disk.bytes).headline(),
                share("live_bytes", "live", stats.live_bytes),
                share("dead_bytes", "dead (overwritten, deleted)", stats.dead_bytes),
                share("expired_bytes", "expired, not yet reclaimed", stats.expired_bytes),
                bytes("overhead_bytes", "overhead", glance.overhead_bytes()),
                count("segments", "segments", stats.segments).headline(),
                bytes("segment_bytes", "segment bytes", stats.segment_bytes),
                bytes("snapshot_bytes", "index snapshots, bytes", stats.snapshot_bytes),
                count("snapshots", "index snapshots", glance.disk.snapshot_files),
                quotient("disk_amplification", "disk / live", glance.disk_amplification(), "x").headline(),
                quotient("space_amplification", "segments / live", stats.space_amplification(), "x"),
            ],
        },
        Group {
            title: "Compression",
            figures: vec![
                words("compression", "new records stored as", &glance.compression).headline(),
                bytes("live_raw_bytes", "live, before compression", stats.live_raw_bytes),
                bytes("live_payload_bytes", "live, as stored", stats.live_payload_bytes),
                quotient("ratio", "ratio", glance.ratio(), "").headline(),
                count("dictionaries", "dictionaries", stats.dictionaries),
                bytes("dictionary_bytes", "dictionaries, bytes", stats.dictionary_bytes),
            ],
        },
        Group {
            title: "What recovery found",
            figures: vec![
                count("recovery.segments", "segments", recovery.segments),
                count("recovery.snapshot_entries", "entries of a snapshot", recovery.snapshot_entries),
                count("recovery.footer_rows", "rows of footers", recovery.footer_rows),
                count("recovery.scanned_records", "records read one by one", recovery.scanned_records),
                bytes("recovery.torn_bytes", "torn bytes cut off", recovery.torn_bytes),
                count("recovery.damaged", "damaged places", recovery.damaged),
                count("recovery.missing_segments", "missing segments", recovery.missing_segments),
                count("recovery.orphans_removed", "left-over files removed", recovery.orphans_removed),
                count("recovery.given_up", "entries given up", recovery.given_up),
            ],
        },
    ];
    if let (Some(capacity), Some(free)) = (stats.capacity_bytes, glance.free_bytes()) {
        let figures = vec![
            bytes("capacity_bytes", "capacity", capacity),
            Figure {
                text: format!("{} ({})", output::bytes(free), output::percent(free, capacity)),
                ..bytes("free_bytes", "free to the capacity", free).headline()
            },
        ];
        groups.insert(2, Group { title: "Capacity", figures });
    }
    // Counted only by whoever has the store open.
    if glance.source == Source::Open {
        groups.push(since_opened(glance));
    }
    groups
}

fn since_opened(glance: &Glance) -> Group {
    let stats = &glance.stats;
    Group {
        title: "Since it was opened",
        figures: vec![
            count("inserts", "inserts", stats.inserts),
            count("removes", "removes", stats.removes),
            count("hits", "hits", stats.hits),
            count("misses", "misses", stats.misses),
            count("evicted", "evicted for the capacity", stats.evicted),
            bytes("evicted_bytes", "evicted, bytes", stats.evicted_bytes),
            count("rejected", "inserts not let in", stats.rejected),
            count("evictions_untold", "evictions untold", stats.evictions_untold),
            count("expired_removed", "expired and removed", stats.expired_removed),
            count("compactions", "compactions", stats.compactions),
            bytes("bytes_reclaimed", "given back", stats.bytes_reclaimed),
            bytes("segment_bytes_written", "written to segments", stats.segment_bytes_written),
            quotient("written_amplification", "written / stored", stats.written_amplification(), "x"),
        ],
    }
}

/// The few figures that a look begins with.
pub fn headlines(glance: &Glance) -> Vec<Figure> {
    groups(glance).into_iter().flat_map(|group| group.figures).filter(|figure| figure.headline).collect()
}

/// What a part of the disk is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Live records.
    Live,
    /// Overwritten or deleted records.
    Dead,
    /// Expired records, found by a cleanup and not yet reclaimed.
    Expired,
    /// Everything that is no record.
    Overhead,
    /// Not taken, of the capacity.
    Free,
}

impl Use {
    /// Its name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Overhead => "overhead",
            Self::Free => "free",
        }
    }
}

/// How the disk is used: the parts of the space bar.
pub fn space(glance: &Glance) -> Vec<(Use, u64)> {
    let mut parts = vec![
        (Use::Live, glance.stats.live_bytes),
        (Use::Dead, glance.stats.dead_bytes),
        (Use::Expired, glance.stats.expired_bytes),
        (Use::Overhead, glance.overhead_bytes()),
    ];
    parts.extend(glance.free_bytes().map(|free| (Use::Free, free)));
    parts
}

fn count(name: &'static str, label: &'static str, value: u64) -> Figure {
    Figure { name, label, text: output::count(value), value: Some(value as f64), headline: false }
}

fn bytes(name: &'static str, label: &'static str, value: u64) -> Figure {
    Figure { name, label, text: output::bytes(value), value: Some(value as f64), headline: false }
}

fn quotient(name: &'static str, label: &'static str, value: f64, unit: &str) -> Figure {
    let text = if value == 0.0 { "-".to_owned() } else { format!("{value:.2} {unit}").trim_end().to_owned() };
    Figure { name, label, text, value: Some(value), headline: false }
}

fn words(name: &'static str, label: &'static str, text: &str) -> Figure {
    Figure { name, label, text: text.to_owned(), value: None, headline: false }
}
