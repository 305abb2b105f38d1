//! `larder inspect`: shows what a store that no process has open holds. It never writes.

use std::path::PathBuf;

use clap::Args;
use larder::{Inspection, SegmentInfo};
use serde::Serialize;

use super::{CapacityOption, require_store};
use crate::disk_use::{self, DiskUse};
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};

/// Segments shown for people without `--all`.
const SEGMENTS_SHOWN: usize = 40;

/// Arguments of `larder inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Directory of the store.
    dir: PathBuf,
    /// Show every segment, however many there are (--json always does).
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    capacity: CapacityOption,
}

#[derive(Serialize)]
struct Inspected<'a> {
    dir: String,
    disk: DiskUse,
    capacity_bytes: Option<u64>,
    free_bytes: Option<u64>,
    space_amplification: f64,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

/// Runs the command.
pub fn run(args: &InspectArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let inspection = larder::inspect(&args.dir).map_err(Failure::store("inspect", &args.dir))?;
    let disk = disk_use::measure(&args.dir)
        .map_err(|error| Failure::Other(format!("list {}: {error}", args.dir.display())))?;
    let capacity_bytes = args.capacity.capacity;
    let inspected = Inspected {
        dir: args.dir.display().to_string(),
        disk,
        capacity_bytes,
        free_bytes: capacity_bytes.map(|capacity| capacity.saturating_sub(disk.bytes)),
        space_amplification: inspection.stats.space_amplification(),
        inspection: &inspection,
    };
    output.object(&inspected)?;
    if output.for_people() {
        print_summary(&inspected, output)?;
        print_segments(&inspection.segments, args.all, output)?;
        for warning in &inspection.warnings {
            output.line(format_args!("warning: {warning}"))?;
        }
    }
    Ok(Exit::Done)
}

fn print_summary(inspected: &Inspected<'_>, output: &Output) -> Result<(), Failure> {
    let (inspection, disk) = (inspected.inspection, inspected.disk);
    let stats = &inspection.stats;
    let records = stats.live_bytes + stats.dead_bytes + stats.expired_bytes;
    let of_records = |part: u64| format!("{} ({})", output::bytes(part), output::percent(part, records));
    let mut table = output::table(&["", "value"], 1);
    table.add_row(["entries", &output::count(stats.entries)]);
    table.add_row(["live bytes", &of_records(stats.live_bytes)]);
    table.add_row(["dead bytes", &of_records(stats.dead_bytes)]);
    table.add_row(["expired bytes", &of_records(stats.expired_bytes)]);
    table.add_row(["deletions remembered", &output::count(stats.shadows)]);
    table.add_row(["segments", &output::count(stats.segments)]);
    table.add_row(["segment bytes", &output::bytes(stats.segment_bytes)]);
    table.add_row([
        "index snapshots",
        &format!("{} ({})", inspection.snapshots, output::bytes(stats.snapshot_bytes)),
    ]);
    let dictionaries = format!("{} ({})", stats.dictionaries, output::bytes(stats.dictionary_bytes));
    table.add_row(["dictionaries", &dictionaries]);
    table.add_row(["new records stored as", &inspection.compression.to_string()]);
    let own = inspection.class_compression.iter().filter(|class| **class != inspection.compression);
    let own: Vec<String> = own.map(ToString::to_string).collect();
    if !own.is_empty() {
        table.add_row(["and some by their size as", &own.join(", ")]);
    }
    table.add_row(["disk, as du counts", &format!("{} in {} files", output::bytes(disk.bytes), disk.files)]);
    if let (Some(capacity), Some(free)) = (inspected.capacity_bytes, inspected.free_bytes) {
        table.add_row([
            "capacity",
            &format!("{}, {} of it free", output::bytes(capacity), output::bytes(free)),
        ]);
    }
    table.add_row(["segments / live", &format!("{:.2} x", inspected.space_amplification)]);
    output.line(table)
}

fn print_segments(segments: &[SegmentInfo], all: bool, output: &Output) -> Result<(), Failure> {
    if segments.is_empty() {
        return Ok(());
    }
    let header = [
        "segment",
        "state",
        "log",
        "group",
        "dicts",
        "size",
        "records",
        "live",
        "dead",
        "expired",
        "live bytes",
        "expiry",
    ];
    let mut table = output::table(&header, 5);
    let shown = if all { segments.len() } else { SEGMENTS_SHOWN };
    for segment in segments.iter().take(shown) {
        let dictionaries: Vec<String> = segment.dictionaries.iter().map(u8::to_string).collect();
        table.add_row([
            segment.id.to_string(),
            format!("{:?}", segment.state).to_lowercase(),
            format!("{:?}", segment.log).to_lowercase(),
            segment.group.to_string(),
            if dictionaries.is_empty() { "-".to_owned() } else { dictionaries.join(",") },
            output::bytes(segment.file_bytes),
            output::count(segment.records),
            output::count(segment.live_records),
            output::count(segment.dead_records),
            output::count(segment.expired_records),
            format!(
                "{} ({})",
                output::bytes(segment.live_bytes),
                output::percent(segment.live_bytes, segment.file_bytes)
            ),
            expiry_range(segment),
        ]);
    }
    output.line(table)?;
    match segments.len().saturating_sub(shown) {
        0 => Ok(()),
        hidden => output.line(format_args!("and {hidden} segments more; --all shows them")),
    }
}

/// When the records of a segment expire: the first and the last of them, and how many never do.
fn expiry_range(segment: &SegmentInfo) -> String {
    match (segment.earliest_expiry_ms, segment.latest_expiry_ms) {
        (Some(earliest), Some(latest)) => {
            let first = output::moment(earliest);
            let range =
                if earliest == latest { first } else { format!("{first} .. {}", output::moment(latest)) };
            match segment.unexpiring_records {
                0 => range,
                lasting => format!("{range}; {} never", output::count(lasting)),
            }
        }
        _ => "never".to_owned(),
    }
}
