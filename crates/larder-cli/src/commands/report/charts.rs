//! The pictures: inline SVG, coloured by classes of the page's style sheet. Every shape says its figures when pointed at.

use std::fmt::Write;

use larder::{SegmentInfo, SegmentState};

use super::html::{Html, element, words};
use crate::figures::Use;
use crate::forecast::Bucket;
use crate::output;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 26.0;
/// Bars drawn at most; more segments than that share bars.
pub const BARS_MAX: usize = 240;

/// The class that colours a kind of bytes.
pub fn class(part: Use) -> &'static str {
    match part {
        Use::Live => "live",
        Use::Dead => "dead",
        Use::Expired => "expired",
        Use::Overhead => "overhead",
        Use::Free => "free",
    }
}

fn svg(height: f64, label: &str, content: Html) -> Html {
    let view = format!("0 0 {WIDTH} {height}");
    element("svg", &[("viewBox", &view), ("role", &"img"), ("aria-label", &label)], content)
}

fn rect(class: &str, [x, y, width, height]: [f64; 4], title: &str) -> Html {
    let [x, y, width, height] = [x, y, width, height].map(|length| format!("{length:.2}"));
    element(
        "rect",
        &[("class", &class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)],
        words("title", title),
    )
}

fn text(x: f64, y: f64, anchor: &'static str, content: &str) -> Html {
    let (x, y) = (format!("{x:.1}"), format!("{y:.1}"));
    element("text", &[("x", &x), ("y", &y), ("text-anchor", &anchor)], Html::text(content))
}

fn rule(y: f64) -> Html {
    let (y, left, right) = (format!("{y:.1}"), LEFT, WIDTH - RIGHT);
    element(
        "line",
        &[("class", &"rule"), ("x1", &left), ("x2", &right), ("y1", &y), ("y2", &y)],
        Html::default(),
    )
}

/// A whole cut into parts, lying.
pub fn space_bar(parts: &[(Use, u64)]) -> Html {
    let whole: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let mut x = 0.0;
    let mut pieces = Vec::new();
    for (part, bytes) in parts.iter().filter(|(_, bytes)| *bytes > 0) {
        let width = WIDTH * *bytes as f64 / whole as f64;
        let title =
            format!("{}: {} ({})", part.label(), output::bytes(*bytes), output::percent(*bytes, whole));
        pieces.push(rect(class(*part), [x, 0.0, width, 34.0], &title));
        x += width;
    }
    svg(34.0, "what the disk is used for", Html::all(pieces))
}

/// Scale of bytes at the left: four lines, the topmost at the largest value.
fn byte_scale(largest: u64) -> Vec<Html> {
    let plot = HEIGHT - TOP - BOTTOM;
    let lines = (0..=4u64).map(|quarter| {
        let y = TOP + plot * (1.0 - quarter as f64 / 4.0);
        let label = output::bytes((u128::from(largest) * u128::from(quarter) / 4) as u64);
        Html::all([rule(y), text(LEFT - 6.0, y + 4.0, "end", &label)])
    });
    lines.collect()
}

/// One bar for each segment, or for neighbours together, oldest at the left.
pub fn segments(segments: &[SegmentInfo]) -> Html {
    let together = segments.len().div_ceil(BARS_MAX).max(1);
    let groups: Vec<&[SegmentInfo]> = segments.chunks(together).collect();
    let sum = |group: &[SegmentInfo], bytes: fn(&SegmentInfo) -> u64| group.iter().map(bytes).sum::<u64>();
    let largest =
        groups.iter().map(|group| sum(group, |segment| segment.file_bytes)).max().unwrap_or(0).max(1);
    let mut pieces = byte_scale(largest);
    let plot = HEIGHT - TOP - BOTTOM;
    let step = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let (gap, width) = (step * 0.1, (step * 0.8).min(60.0));
    for (at, group) in groups.iter().enumerate() {
        let x = LEFT + step * at as f64 + gap;
        let whole = sum(group, |segment| segment.file_bytes);
        let (live, dead) =
            (sum(group, |segment| segment.live_bytes), sum(group, |segment| segment.dead_bytes));
        let expired = sum(group, |segment| segment.expired_bytes);
        let other = whole.saturating_sub(live + dead + expired);
        let title = bar_title(group, [live, dead, expired, other]);
        let mut y = TOP + plot;
        for (part, bytes) in
            [(Use::Live, live), (Use::Dead, dead), (Use::Expired, expired), (Use::Overhead, other)]
        {
            let height = plot * bytes as f64 / largest as f64;
            y -= height;
            if bytes > 0 {
                pieces.push(rect(class(part), [x, y, width, height], &title));
            }
        }
        if group.iter().any(|segment| segment.state == SegmentState::Active) {
            let height = (plot * whole as f64 / largest as f64).max(2.0);
            pieces.push(rect("active", [x - 1.5, TOP + plot - height, width + 3.0, height], &title));
        }
    }
    pieces.push(text(LEFT, HEIGHT - 8.0, "start", "oldest"));
    pieces.push(text(WIDTH - RIGHT, HEIGHT - 8.0, "end", "youngest"));
    svg(HEIGHT, "segments by age: live, dead, expired and other bytes", Html::all(pieces))
}

fn bar_title(group: &[SegmentInfo], [live, dead, expired, other]: [u64; 4]) -> String {
    let name = match group {
        [segment] => {
            let state = format!("{:?}, {:?}", segment.state, segment.log).to_lowercase();
            format!("segment {} ({state})", segment.id)
        }
        [first, .., last] => format!("segments {} to {}", first.id, last.id),
        [] => String::new(),
    };
    format!(
        "{name}: live {}, dead {}, expired {}, other {}",
        output::bytes(live),
        output::bytes(dead),
        output::bytes(expired),
        output::bytes(other)
    )
}

/// Bytes over time, as steps: each value holds until the next. Times are unix ms, in order.
pub fn over_time(label: &str, points: &[(u64, u64)], until_ms: u64) -> Html {
    let largest = points.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
    let mut pieces = byte_scale(largest);
    let plot = HEIGHT - TOP - BOTTOM;
    let from_ms = points.first().map_or(until_ms, |(at_ms, _)| *at_ms);
    let span = until_ms.saturating_sub(from_ms).max(1) as f64;
    let x = |at_ms: u64| LEFT + (WIDTH - LEFT - RIGHT) * at_ms.saturating_sub(from_ms) as f64 / span;
    let y = |bytes: u64| TOP + plot * (1.0 - bytes as f64 / largest as f64);
    let mut path = format!("M {LEFT:.1} {:.1}", TOP + plot);
    for (at_ms, bytes) in points {
        write!(path, " H {:.2} V {:.2}", x((*at_ms).min(until_ms)), y(*bytes)).expect("a string takes it");
    }
    write!(path, " H {:.2} V {:.2} Z", WIDTH - RIGHT, TOP + plot).expect("a string takes it");
    pieces.push(element("path", &[("class", &"area"), ("d", &path)], Html::default()));
    pieces.push(text(LEFT, HEIGHT - 8.0, "start", &format!("{} before", since(from_ms, until_ms))));
    pieces.push(text(WIDTH - RIGHT, HEIGHT - 8.0, "end", "this report"));
    svg(HEIGHT, label, Html::all(pieces))
}

fn since(from_ms: u64, until_ms: u64) -> String {
    output::duration(std::time::Duration::from_millis(until_ms.saturating_sub(from_ms)))
}

/// Live bytes by the life that is left to them.
pub fn lives(buckets: &[Bucket]) -> Html {
    let largest = buckets.iter().map(|bucket| bucket.bytes).max().unwrap_or(0).max(1);
    let mut pieces = byte_scale(largest);
    let plot = HEIGHT - TOP - BOTTOM;
    let step = (WIDTH - LEFT - RIGHT) / buckets.len().max(1) as f64;
    for (at, bucket) in buckets.iter().enumerate() {
        let x = LEFT + step * at as f64;
        let height = plot * bucket.bytes as f64 / largest as f64;
        let title = format!("{}: {}", bucket.up_to, output::bytes(bucket.bytes));
        let class = if at == 0 { "expired" } else { "live" };
        pieces.push(rect(class, [x + step * 0.1, TOP + plot - height, step * 0.8, height], &title));
        if bucket.bytes > 0 {
            let above = (TOP + plot - height - 3.0).max(TOP - 2.0);
            pieces.push(text(x + step / 2.0, above, "middle", &output::bytes(bucket.bytes)));
        }
        pieces.push(text(x + step / 2.0, HEIGHT - 8.0, "middle", bucket.up_to));
    }
    svg(HEIGHT, "live bytes by remaining life", Html::all(pieces))
}
