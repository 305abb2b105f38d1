//! The picture: drawn the same on a terminal and, for `--once`, into memory.
//!
//! Nothing depends on colour alone: kinds of bytes and states of segments have marks of their own.

use std::time::Duration;

use larder::{CompactionTask, SegmentGroup, SegmentInfo, SegmentState};
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline, Wrap};
use ratatui::{Frame, Terminal};

use super::rates::Trail;
use crate::figures::{self, Use};
use crate::forecast::{self, Forecast};
use crate::glance::{Glance, Source};
use crate::output;

/// Rows from which each reason has a second line, which says when.
const ROOMY: u16 = 36;
/// Rows below which panels lose lines.
const TIGHT: u16 = 30;
/// Columns of one segment in the grid: how full of live bytes it is, and its mark.
const CELL: u16 = 2;
/// Notes kept in view.
const NOTES: usize = 4;
const FILLS: [char; 9] = ['.', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is drawn.
pub struct View<'a> {
    /// The store.
    pub glance: &'a Glance,
    /// What can be reclaimed.
    pub forecast: &'a Forecast,
    /// The looks so far.
    pub trail: &'a Trail,
    /// The picture stands still.
    pub paused: bool,
    /// Segments are marked by what lies together in them, not by their state.
    pub by_group: bool,
    /// What was asked for and what came of it, oldest first.
    pub notes: &'a [String],
    /// Keys are heard.
    pub live: bool,
}

/// The picture as text, without blanks at the ends of lines.
pub fn as_text(view: &View<'_>, width: u16, height: u16) -> String {
    let mut terminal = match Terminal::new(TestBackend::new(width, height)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    match terminal.draw(|frame| draw(view, frame)) {
        Ok(_) => rows(terminal.backend().buffer()),
        Err(never) => match never {},
    }
}

fn rows(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(width).map(|row| {
        let text: String = row.iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// Draws the whole picture.
pub fn draw(view: &View<'_>, frame: &mut Frame<'_>) {
    let figures = figures::headlines(view.glance);
    let figure_rows = (figures.len() as u16).div_ceil(2);
    let height = frame.area().height;
    let reasons = view.forecast.reasons.len().clamp(1, if height < TIGHT { 2 } else { 4 }) as u16;
    let lines_each = if height < ROOMY { 1 } else { 2 };
    let [header, headline, space, middle, reclaim, bottom, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(figure_rows + 2),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(lines_each * reasons + if height < TIGHT { 2 } else { 4 }),
        Constraint::Length(if height < TIGHT { 4 } else { 8 }),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_header(view, frame, header);
    draw_headline(&figures, frame, headline);
    draw_space(view, frame, space);
    draw_segments(view, frame, middle);
    draw_reclaimable(view, lines_each == 2, frame, reclaim);
    let [work, rates] =
        Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(bottom);
    draw_work(view, frame, work);
    draw_rates(view, frame, rates);
    draw_keys(view, frame, keys);
}

fn draw_header(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let (who, style) = match view.glance.source {
        Source::Open => ("open here, maintenance running", Style::new().fg(Color::Green)),
        Source::Closed => ("nobody has it open: what its files say", Style::new().fg(Color::Cyan)),
        Source::InUse => ("IN USE by another process: what its files say", Style::new().fg(Color::Yellow)),
    };
    let paused = if view.paused { "  PAUSED" } else { "" };
    let line = Line::from(vec![
        Span::styled(" larder ", Style::new().add_modifier(Modifier::REVERSED)),
        Span::raw(format!(" {}  ", view.glance.dir)),
        Span::styled(who, style),
        Span::styled(paused, Style::new().add_modifier(Modifier::BOLD)),
    ]);
    frame.render_widget(line, area);
}

fn draw_headline(figures: &[figures::Figure], frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(" store ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let columns = Layout::horizontal([Constraint::Percentage(43), Constraint::Percentage(57)]).split(inner);
    let per_column = figures.len().div_ceil(2).max(1);
    for (column, figures) in figures.chunks(per_column).enumerate() {
        let lines = figures.iter().map(|figure| {
            Line::from(vec![
                Span::raw(format!("{:<28}", figure.label)),
                Span::styled(figure.text.clone(), Style::new().add_modifier(Modifier::BOLD)),
            ])
        });
        if let Some(area) = columns.get(column) {
            frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), *area);
        }
    }
}

/// How a kind of bytes looks: its mark is told apart without colours.
fn look(part: Use) -> (char, Color) {
    match part {
        Use::Live => ('█', Color::Green),
        Use::Dead => ('▒', Color::Red),
        Use::Expired => ('x', Color::Magenta),
        Use::Overhead => ('░', Color::Blue),
        Use::Free => ('·', Color::DarkGray),
    }
}

fn draw_space(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let parts = figures::space(view.glance);
    let whole: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let disk = output::bytes(view.glance.disk.bytes);
    let title = match view.glance.stats.capacity_bytes {
        Some(capacity) => format!(" space: {disk} on disk, capacity {} ", output::bytes(capacity)),
        None => format!(" space: {disk} on disk "),
    };
    let block = Block::bordered().title(title);
    let width = u64::from(block.inner(area).width);
    let (mut before, mut bar, mut legend) = (0, Vec::new(), Vec::new());
    for (part, bytes) in parts {
        let (mark, color) = look(part);
        // Ends are rounded, not lengths: so the parts always fill the bar.
        let end = |bytes: u64| (u128::from(bytes) * u128::from(width) / u128::from(whole.max(1))) as usize;
        let cells = end(before + bytes) - end(before);
        before += bytes;
        bar.push(Span::styled(mark.to_string().repeat(cells), Style::new().fg(color)));
        legend.push(Span::styled(mark.to_string(), Style::new().fg(color)));
        let size = output::bytes(bytes);
        // Five parts with their shares are wider than 100 columns.
        legend.push(Span::raw(match view.glance.stats.capacity_bytes {
            Some(_) => format!(" {} {size}  ", part.label()),
            None => format!(" {} {size} ({})   ", part.label(), output::percent(bytes, whole)),
        }));
    }
    frame.render_widget(Paragraph::new(vec![Line::from(bar), Line::from(legend)]).block(block), area);
}

/// What state a segment is in: a mark, a colour, a word.
fn state(segment: &SegmentInfo, now: u64) -> (char, Color, &'static str) {
    let reclaimable = segment.dead_bytes + segment.expired_bytes;
    if segment.state == SegmentState::Active {
        return ('+', Color::Cyan, "active");
    }
    let over = segment.earliest_expiry_ms.is_some_and(|first| first <= now);
    match reclaimable as f64 / segment.file_bytes.max(1) as f64 {
        share if share >= 0.5 => ('!', Color::Red, "half reclaimable"),
        share if share >= forecast::COMPACTS_AT / 2.0 => ('-', Color::Yellow, "worth a rewrite"),
        _ if over => ('x', Color::Magenta, "expiry begun"),
        _ => (' ', Color::Green, "good"),
    }
}

fn draw_segments(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let segments = &view.glance.segments;
    let inner = Block::bordered().inner(area);
    let per_row = usize::from(inner.width / CELL).max(1);
    let room = per_row * usize::from(inner.height.saturating_sub(1)).max(1);
    // Neighbours share a cell when there are more than fit.
    let together = segments.len().div_ceil(room).max(1);
    let scale = if together == 1 { String::new() } else { format!(", {together} a cell") };
    let title = format!(" {} segments, oldest first{scale} ", output::count(segments.len() as u64));
    let cells: Vec<Span<'_>> =
        segments.chunks(together).map(|group| cell(group, view.glance.at_ms, view.by_group)).collect();
    let mut lines: Vec<Line<'_>> = cells.chunks(per_row).map(|row| Line::from(row.to_vec())).collect();
    lines.truncate(usize::from(inner.height.saturating_sub(1)));
    lines.push(Line::styled(
        match view.by_group {
            true => {
                "height = live share   0 (replaced soon) to 4: no expiry   a to p: classes of times to live"
            }
            false => {
                "height = live share   + active   - worth a rewrite   ! half reclaimable   x expiry begun"
            }
        },
        Style::new().add_modifier(Modifier::DIM),
    ));
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

/// The mark and the colour of what lies together in a segment.
fn group_look(group: SegmentGroup) -> (char, Color) {
    const COLORS: [Color; 6] =
        [Color::Cyan, Color::Magenta, Color::Yellow, Color::Blue, Color::LightRed, Color::LightMagenta];
    match group {
        SegmentGroup::Lasting(class) => ((b'0' + class.min(9)) as char, Color::Green),
        SegmentGroup::Expiring(class) => {
            ((b'a' + class.min(25)) as char, COLORS[usize::from(class) % COLORS.len()])
        }
        _ => ('?', Color::Reset),
    }
}

/// One cell: of several segments the live share together, and the state of the one with most to reclaim, or what lies
/// together in the largest.
fn cell(group: &[SegmentInfo], now: u64, by_group: bool) -> Span<'static> {
    let live: u64 = group.iter().map(|segment| segment.live_bytes).sum();
    let whole: u64 = group.iter().map(|segment| segment.file_bytes).sum();
    let eighths = (u128::from(live) * 8).div_ceil(u128::from(whole.max(1))).min(8) as usize;
    let largest = group.iter().max_by_key(|segment| segment.file_bytes).filter(|_| by_group);
    if let Some(segment) = largest {
        let (mark, color) = group_look(segment.group);
        return Span::styled(format!("{}{mark}", FILLS[eighths]), Style::new().fg(color));
    }
    let worst = group.iter().max_by_key(|segment| segment.dead_bytes + segment.expired_bytes);
    let (mark, color, _) = worst.map_or((' ', Color::Reset, ""), |segment| state(segment, now));
    Span::styled(format!("{}{mark}", FILLS[eighths]), Style::new().fg(color))
}

fn draw_reclaimable(view: &View<'_>, with_when: bool, frame: &mut Frame<'_>, area: Rect) {
    let title = format!(" reclaimable, when and why: {} ", forecast::summary(view.glance, view.forecast));
    let block = Block::bordered().title(title);
    let mut lines = Vec::new();
    for reason in &view.forecast.reasons {
        lines.push(Line::from(vec![
            Span::styled(
                format!("{:>10}  ", output::bytes(reason.bytes)),
                Style::new().add_modifier(Modifier::BOLD),
            ),
            Span::raw(reason.what.clone()),
        ]));
        if with_when {
            let when = format!("{:12}{}", "", reason.when);
            lines.push(Line::styled(when, Style::new().add_modifier(Modifier::DIM)));
        }
    }
    if lines.is_empty() {
        lines.push(Line::raw("nothing: no dead or expired bytes, and nothing falls due within a day"));
    }
    let mut falling_due = |name: &str, bytes: fn(&forecast::Due) -> u64| {
        let due = view.forecast.due.iter();
        let each: Vec<String> =
            due.map(|due| format!("{} {}", due.within, output::bytes(bytes(due)))).collect();
        lines.push(Line::raw(format!("falling due within, {name:<9} {}", each.join("   "))));
    };
    falling_due("estimated", |due| due.estimated_bytes);
    falling_due("at most", |due| due.at_most_bytes);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A task as people call it.
pub fn task_name(task: CompactionTask) -> &'static str {
    match task {
        CompactionTask::CompactData => "compaction",
        CompactionTask::RebuildIndex => "saving the index",
        CompactionTask::CleanupExpired => "expiry cleanup",
        CompactionTask::OptimizeCompression => "tuning",
        _ => "maintenance",
    }
}

fn draw_work(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(" maintenance ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [bar, text] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    let mut lines = Vec::new();
    match &view.glance.work {
        Some(work) => {
            let label = match work.task {
                Some(task) => {
                    let left = work.left();
                    let comma = if left.is_empty() { "" } else { ", " };
                    format!("{} {:.0} %{comma}{left}", task_name(task), work.progress * 100.0)
                }
                None => "no task is running".to_owned(),
            };
            let share = if work.task.is_some() { f64::from(work.progress.clamp(0.0, 1.0)) } else { 0.0 };
            frame.render_widget(Gauge::default().ratio(share).label(label).gauge_style(Color::Cyan), bar);
            lines.push(Line::raw(format!(
                "{} given back, {} compactions, last task {}",
                output::bytes(work.bytes_reclaimed),
                view.glance.stats.compactions,
                output::duration(Duration::from_secs_f64(work.last_seconds))
            )));
            let stats = &view.glance.stats;
            lines.push(Line::raw(format!(
                "{} evicted, {} not let in, {} untold, {:.2} x written, {:.2} x space",
                output::count(stats.evicted),
                output::count(stats.rejected),
                output::count(stats.evictions_untold),
                stats.written_amplification(),
                stats.space_amplification(),
            )));
        }
        None if view.glance.source == Source::InUse => {
            lines.push(Line::raw("only the process that has the store open knows what runs"));
        }
        None => lines.push(Line::raw("nobody has the store open, so nothing runs")),
    }
    // The latest first: what does not fit falls off at the end.
    lines.extend(view.notes.iter().rev().take(NOTES).map(|note| Line::raw(note.clone())));
    lines.extend(view.glance.warnings.iter().map(|warning| Line::raw(format!("warning: {warning}"))));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), text);
}

fn draw_rates(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(" a second; disk while watched ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let Some(rates) = view.trail.rates(view.glance.source) else {
        frame.render_widget(Paragraph::new("one look: no rates yet"), inner);
        return;
    };
    let [text, line] = Layout::vertical([Constraint::Min(1), Constraint::Length(2)]).areas(inner);
    let pairs: Vec<String> = rates.iter().map(|(name, rate)| format!("{name} {rate}")).collect();
    frame.render_widget(Paragraph::new(pairs.join("   ")).wrap(Wrap { trim: true }), text);
    let mut last: Vec<u64> = view.trail.disk_bytes().rev().take(usize::from(line.width)).collect();
    last.reverse();
    frame.render_widget(Sparkline::default().data(last).style(Color::Blue), line);
}

fn draw_keys(view: &View<'_>, frame: &mut Frame<'_>, area: Rect) {
    let text = match (view.live, view.glance.source) {
        (false, _) => " one frame; on a terminal `larder watch DIR` goes on",
        (true, Source::Open) => {
            " q quit   c compact   e expire   t tune   x cancel   g groups   p pause the picture"
        }
        (true, _) => " q quit   g groups   p pause the picture",
    };
    frame.render_widget(Line::styled(text, Style::new().add_modifier(Modifier::DIM)), area);
}
