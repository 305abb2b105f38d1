//! `larder watch`: a live view of a store.
//!
//! A store that nobody has open is opened here, with its maintenance running, and keys ask for tasks. One that another
//! process has open is shown as its files say, once a second, and nothing can be asked for. Without a terminal, or with
//! `--once`, one frame is printed: the same picture, drawn into memory.

mod rates;
mod screen;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{Receiver, Sender, unbounded};
use larder::{ColdTier, CompactionTask, ErrorKind, TaskReport};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Serialize;

use super::{StoreOptions, require_store};
use crate::failure::{Exit, Failure};
use crate::forecast::Forecast;
use crate::glance::Glance;
use crate::interrupt;
use crate::output::{self, Output};
use rates::Trail;
use screen::View;

/// How often a store that is open here is drawn.
const FRAME: Duration = Duration::from_millis(250);
/// How often the files of a store in use are read, at most.
const LOOK: Duration = Duration::from_secs(1);
/// Files are read no longer than one part in this many of the time.
const LOOK_SHARE: u32 = 10;
/// Size of a frame that goes to no terminal.
const WIDTH: u16 = 100;
const HEIGHT: u16 = 38;

/// Arguments of `larder watch`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  larder watch cache                a live view; keys: q quit, c compact, e expire, t tune, x cancel, g groups, p pause
  larder watch cache --once         one frame as text
  larder watch cache --json         one frame as JSON

A store that nobody has open is opened, and maintains itself while it is watched. One that another process has open is
shown as its files say, once a second; what that process has not written yet cannot be seen. One frame never opens it.")]
pub struct WatchArgs {
    /// Directory of the store.
    dir: PathBuf,
    /// Print one frame and exit; the same happens if stdin or stdout is no terminal.
    #[arg(long)]
    once: bool,
    /// Columns of a frame that goes to no terminal, 60 to 400.
    #[arg(long, default_value_t = WIDTH, value_parser = clap::value_parser!(u16).range(60..=400))]
    width: u16,
    /// Rows of such a frame, 24 to 400.
    #[arg(long, default_value_t = HEIGHT, value_parser = clap::value_parser!(u16).range(24..=400))]
    height: u16,
    /// Mark and colour segments by what lies together in them, not by their state; the key g changes it.
    #[arg(long)]
    groups: bool,
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Serialize)]
struct Frame<'a> {
    #[serde(flatten)]
    glance: &'a Glance,
    forecast: &'a Forecast,
}

/// Runs the command.
pub fn run(args: &WatchArgs, output: &Output) -> Result<Exit, Failure> {
    require_store(&args.dir)?;
    let has_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if args.once || !output.for_people() || !has_terminal {
        return one_frame(args, output);
    }
    match ColdTier::open(args.store.config(&args.dir)) {
        Ok(store) => {
            let outcome = watch_open(&store, args);
            // The terminal is itself again by now: what closing says can be read.
            let closed = store.close().map_err(Failure::store("close", &args.dir));
            outcome.and_then(|exit| closed.map(|()| exit))
        }
        Err(error) if error.kind() == ErrorKind::Locked => watch_files(args),
        Err(error) => Err(Failure::store("open", &args.dir)(error)),
    }
}

fn one_frame(args: &WatchArgs, output: &Output) -> Result<Exit, Failure> {
    let glance = Glance::of_dir(&args.dir, args.store.capacity())?;
    let mut trail = Trail::default();
    trail.add(&glance);
    let forecast = Forecast::of(&glance);
    output.object(&Frame { glance: &glance, forecast: &forecast })?;
    if output.for_people() {
        let view = View {
            glance: &glance,
            forecast: &forecast,
            trail: &trail,
            paused: false,
            by_group: args.groups,
            notes: &[],
            live: false,
        };
        output.line(screen::as_text(&view, args.width, args.height))?;
    }
    Ok(Exit::Done)
}

/// The terminal in raw mode with its alternate screen; given back when this is dropped, in a panic too.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(|error| terminal_failure(&error))?;
        interrupt::note_screen(true);
        Ok(Self(terminal))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        interrupt::note_screen(false);
        ratatui::restore();
    }
}

fn terminal_failure(error: &io::Error) -> Failure {
    Failure::Other(format!("use the terminal: {error}; `larder watch --once DIR` prints one frame instead"))
}

/// What a key asks for.
enum Wish {
    Quit,
    Interrupt,
    Run(CompactionTask),
    Cancel,
    Groups,
    Pause,
}

fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind != KeyEventKind::Press {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Wish::Interrupt,
        KeyCode::Char('q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Char('c') => Wish::Run(CompactionTask::CompactData),
        KeyCode::Char('e') => Wish::Run(CompactionTask::CleanupExpired),
        KeyCode::Char('t') => Wish::Run(CompactionTask::OptimizeCompression),
        KeyCode::Char('x') => Wish::Cancel,
        KeyCode::Char('g') => Wish::Groups,
        KeyCode::Char('p') => Wish::Pause,
        _ => return None,
    })
}

/// Waits for a key until `deadline`; a resize ends the wait, so that the picture is drawn anew.
fn next_wish(deadline: Instant) -> Result<Option<Wish>, Failure> {
    if interrupt::requested() {
        return Ok(Some(Wish::Interrupt));
    }
    let left = deadline.saturating_duration_since(Instant::now()).min(FRAME);
    if !event::poll(left).map_err(|error| terminal_failure(&error))? {
        return Ok(None);
    }
    match event::read().map_err(|error| terminal_failure(&error))? {
        Event::Key(key) => Ok(wish(key)),
        _ => Ok(None),
    }
}

type Finished = (CompactionTask, larder::Result<TaskReport>);

/// Shows a store that is open here until a key or a signal ends it.
fn watch_open(store: &ColdTier, args: &WatchArgs) -> Result<Exit, Failure> {
    let (done_tx, done_rx) = unbounded();
    thread::scope(|scope| {
        // Dropped before the scope waits for a task that is still running.
        let mut screen = Screen::take()?;
        let ask = |task: CompactionTask, done: Sender<Finished>| {
            scope.spawn(move || drop(done.send((task, store.run(task)))));
        };
        let exit = live(store, args, &mut screen.0, &ask, &done_tx, &done_rx);
        drop(screen);
        store.cancel();
        exit
    })
}

fn live(
    store: &ColdTier,
    args: &WatchArgs,
    terminal: &mut DefaultTerminal,
    ask: &dyn Fn(CompactionTask, Sender<Finished>),
    done_tx: &Sender<Finished>,
    done_rx: &Receiver<Finished>,
) -> Result<Exit, Failure> {
    let mut trail = Trail::default();
    let mut notes = Vec::new();
    let (mut paused, mut asked, mut by_group) = (false, false, args.groups);
    let mut glance = Glance::of_open(&args.dir, store)?;
    loop {
        let deadline = Instant::now() + FRAME;
        if !paused {
            glance = Glance::of_open(&args.dir, store)?;
            trail.add(&glance);
        }
        while let Ok((task, result)) = done_rx.try_recv() {
            asked = false;
            notes.push(told(task, &result));
        }
        let forecast = Forecast::of(&glance);
        let view = View {
            glance: &glance,
            forecast: &forecast,
            trail: &trail,
            paused,
            by_group,
            notes: &notes,
            live: true,
        };
        terminal.draw(|frame| screen::draw(&view, frame)).map_err(|error| terminal_failure(&error))?;
        match next_wish(deadline)? {
            Some(Wish::Quit) => return Ok(Exit::Done),
            Some(Wish::Interrupt) => return Ok(Exit::Interrupted),
            Some(Wish::Pause) => paused = !paused,
            Some(Wish::Groups) => by_group = !by_group,
            Some(Wish::Cancel) => store.cancel(),
            Some(Wish::Run(task)) if !asked => {
                asked = true;
                notes.push(format!("{} asked for", screen::task_name(task)));
                ask(task, done_tx.clone());
            }
            Some(Wish::Run(_)) | None => {}
        }
    }
}

/// What a task that was asked for has done, in a line.
fn told(task: CompactionTask, result: &larder::Result<TaskReport>) -> String {
    let name = screen::task_name(task);
    match result {
        Ok(TaskReport::CompactData(report)) => format!(
            "{name}: {} given back, {} segments became {}, in {}",
            output::signed_bytes(report.bytes_reclaimed),
            report.segments_removed,
            report.segments_written,
            output::duration(report.duration)
        ),
        Ok(TaskReport::CleanupExpired(report)) => format!(
            "{name}: {} entries removed, {} segments dropped, {} given back, in {}",
            output::count(report.expired_removed),
            report.segments_dropped,
            output::bytes(report.bytes_reclaimed),
            output::duration(report.duration)
        ),
        Ok(TaskReport::OptimizeCompression(report)) => {
            let verb = if report.changed { "replaces" } else { "stays; before:" };
            let took = output::duration(report.duration);
            format!("{name}: {} {verb} {}, in {took}", report.common.chosen, report.common.previous)
        }
        Ok(_) => format!("{name}: done"),
        Err(error) if error.kind() == ErrorKind::Cancelled => format!("{name}: cancelled; nothing is lost"),
        Err(error) => format!("{name}: {error}"),
    }
}

/// Shows the files of a store that another process has open until a key or a signal ends it.
fn watch_files(args: &WatchArgs) -> Result<Exit, Failure> {
    let mut trail = Trail::default();
    let mut notes = Vec::new();
    let (mut paused, mut by_group) = (false, args.groups);
    let look = || Glance::of_files_in_use(&args.dir, args.store.capacity());
    // The first look must work; a later one that fails leaves the picture of the one before.
    let mut glance = look()?;
    let mut screen = Screen::take()?;
    let mut next_look = Instant::now();
    loop {
        if !paused && Instant::now() >= next_look {
            let started = Instant::now();
            match look() {
                Ok(found) => {
                    glance = found;
                    trail.add(&glance);
                }
                Err(failure) => notes.push(format!("this look failed, the picture is older: {failure}")),
            }
            next_look = Instant::now() + LOOK.max(started.elapsed() * LOOK_SHARE);
        }
        let forecast = Forecast::of(&glance);
        let view = View {
            glance: &glance,
            forecast: &forecast,
            trail: &trail,
            paused,
            by_group,
            notes: &notes,
            live: true,
        };
        screen.0.draw(|frame| screen::draw(&view, frame)).map_err(|error| terminal_failure(&error))?;
        match next_wish(next_look.max(Instant::now() + Duration::from_millis(20)))? {
            Some(Wish::Quit) => return Ok(Exit::Done),
            Some(Wish::Interrupt) => return Ok(Exit::Interrupted),
            Some(Wish::Pause) => paused = !paused,
            Some(Wish::Groups) => by_group = !by_group,
            Some(Wish::Run(_) | Wish::Cancel) => {
                notes.push("another process has the store: it alone can be asked for tasks".to_owned());
            }
            None => {}
        }
    }
}
