//! `watch`: one frame as text and as JSON, and the live view on a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{Holder, larder, number, place, records, run, run_json, said, text, write_records};

/// A store of several segments with live, dead and expiring bytes.
fn fill(dir: &tempfile::TempDir, store: &Path) {
    let (many, some) = (write_records(dir, 20_000), write_records(dir, 4000));
    let store = text(store);
    run(&["load", store, text(&many), "--ttl", "30m", "--segment-mib", "1"], 0);
    run(&["load", store, text(&some), "--segment-mib", "1"], 0);
}

#[test]
fn one_frame_shows_space_segments_and_what_can_be_reclaimed() {
    let (dir, store) = place();
    fill(&dir, &store);
    let listing = || std::fs::read_dir(&store).expect("a listing").count();
    let before = listing();
    // stdout is a pipe here: no terminal, so one frame is printed without being asked for.
    let frame = said(&run(&["watch", text(&store)], 0));
    for part in [
        "nobody has it open",
        "entries                     20,000",
        "space: ",
        "live ",
        "dead ",
        "segments, oldest first",
        "reclaimable, when and why",
        "larder compact",
        "expiring within an hour",
        "falling due within",
        "maintenance",
        "nothing runs",
    ] {
        assert!(frame.contains(part), "no {part:?} in\n{frame}");
    }
    assert!(!frame.contains('\u{1b}'), "escape codes in a frame for no terminal");
    assert!(frame.lines().count() <= 38 && frame.lines().all(|line| line.chars().count() <= 100), "{frame}");
    assert_eq!(frame, said(&run(&["watch", text(&store), "--once"], 0)));
    assert_eq!(listing(), before, "a look has changed the store");
}

#[test]
fn the_space_bar_is_as_long_as_the_shares_are() {
    let (dir, store) = place();
    fill(&dir, &store);
    let frame = said(&run(&["watch", text(&store), "--once", "--width", "202"], 0));
    let bar = frame.lines().skip_while(|line| !line.contains(" space: ")).nth(1).expect("a bar");
    let json = run_json(&["watch", text(&store)], 0);
    let (live, dead) = (number(&json["stats"], "live_bytes"), number(&json["stats"], "dead_bytes"));
    let disk = number(&json["disk"], "bytes");
    for (mark, bytes) in [('█', live), ('▒', dead)] {
        let cells = bar.chars().filter(|cell| *cell == mark).count() as f64;
        assert!(
            (cells - 200.0 * bytes / disk).abs() <= 1.5,
            "{mark}: {cells} cells for {bytes} of {disk}\n{bar}"
        );
    }
    assert_eq!(bar.chars().count(), 202);
}

#[test]
fn a_small_frame_keeps_every_panel() {
    let (dir, store) = place();
    fill(&dir, &store);
    let frame = said(&run(&["watch", text(&store), "--once", "--width", "80", "--height", "24"], 0));
    for part in ["store", "space", "oldest first", "reclaimable", "maintenance", "one frame"] {
        assert!(frame.contains(part), "no {part:?} in\n{frame}");
    }
    assert_eq!(frame.lines().count(), 24);
    run(&["watch", text(&store), "--width", "10"], 2);
}

#[test]
fn one_frame_as_json_has_figures_segments_and_the_forecast() {
    let (dir, store) = place();
    fill(&dir, &store);
    let frame = run_json(&["watch", text(&store)], 0);
    assert_eq!((&frame["source"], number(&frame["stats"], "entries")), (&"closed".into(), 20_000.0));
    let segments = frame["segments"].as_array().expect("segments");
    assert_eq!(segments.len() as f64, number(&frame["stats"], "segments"));
    assert!(frame["work"].is_null());

    let forecast = &frame["forecast"];
    let live = number(&frame["stats"], "live_bytes");
    let within = |name: &str| {
        let due = forecast["due"].as_array().expect("a list").iter().find(|due| due["within"] == name);
        due.unwrap_or_else(|| panic!("nothing within a {name}")).clone()
    };
    assert_eq!(number(&within("now"), "at_most_bytes"), 0.0);
    // Everything loaded with 30 minutes to live that was not overwritten falls due within the hour.
    let hour = number(&within("hour"), "estimated_bytes");
    assert!(hour > 0.0 && hour < live, "{forecast}");
    let lives = forecast["lives"].as_array().expect("a list");
    let sum: f64 = lives.iter().map(|bucket| number(bucket, "bytes")).sum();
    assert_eq!(sum, live, "the histogram leaves bytes out, or counts them twice");
    let never = lives.iter().find(|bucket| bucket["up_to"] == "never").expect("a bucket");
    assert!((hour + number(never, "bytes") - live).abs() < 1.0);
    let share = number(forecast, "reclaimable_share");
    let expected = number(&frame["stats"], "dead_bytes") / number(&frame["stats"], "segment_bytes");
    assert!((share - expected).abs() < 1e-9 && share > 0.0);
    assert!(forecast["reasons"].as_array().is_some_and(|reasons| reasons.len() >= 2));
}

#[test]
fn what_never_expires_is_not_forecast_to() {
    let (dir, store) = place();
    run(&["load", text(&store), text(&write_records(&dir, 3000))], 0);
    run(&["load", text(&store), text(&write_records(&dir, 300)), "--ttl", "30m"], 0);
    // Survivors of both kinds may share a segment from here on.
    run(&["compact", text(&store)], 0);
    let frame = run_json(&["watch", text(&store)], 0);
    let due = frame["forecast"]["due"].as_array().expect("a list");
    let hour = due.iter().find(|due| due["within"] == "hour").expect("an hour");
    let live = number(&frame["stats"], "live_bytes");
    assert!(number(hour, "at_most_bytes") < live / 4.0, "a tenth expires: {frame}");
    assert!(number(hour, "estimated_bytes") > live / 40.0, "a tenth expires: {frame}");
}

#[test]
fn capacity_and_groups_are_in_the_picture() {
    let (dir, store) = place();
    fill(&dir, &store);
    let frame = said(&run(&["watch", text(&store), "--once", "--capacity", "64M", "--groups"], 0));
    for part in ["capacity 64.0 MiB", "· free ", "free to the capacity", "classes of times to live"] {
        assert!(frame.contains(part), "no {part:?} in\n{frame}");
    }
    let json = run_json(&["watch", text(&store), "--capacity", "64M"], 0);
    assert_eq!(number(&json["stats"], "capacity_bytes"), (64 << 20) as f64);
}

#[test]
fn expired_bytes_that_nobody_has_cleaned_up_are_due_now() {
    let (dir, store) = place();
    run(&["load", text(&store), text(&write_records(&dir, 1000)), "--ttl", "1ms"], 0);
    run(&["load", text(&store), text(&write_records(&dir, 10))], 0);
    thread::sleep(Duration::from_millis(20));
    let frame = run_json(&["watch", text(&store)], 0);
    let reclaimable = number(&frame["stats"], "expired_bytes")
        + number(&frame["stats"], "dead_bytes")
        + number(&frame["forecast"]["due"][0], "estimated_bytes");
    assert!(number(&frame["stats"], "entries") < 1000.0 || reclaimable > 10_000.0, "{frame}");
}

#[test]
fn a_store_in_use_is_shown_as_its_files_say() {
    let (_dir, store) = place();
    let _holder = Holder::of(&store, &records(5000));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let frame = run_json(&["watch", text(&store)], 0);
        assert_eq!(frame["source"], "in_use");
        if number(&frame["stats"], "entries") == 5000.0 {
            assert!(number(&frame["stats"], "live_bytes") > 0.0 && frame["compression"].is_string());
            break;
        }
        assert!(Instant::now() < deadline, "what was written is not seen: {frame}");
        thread::sleep(Duration::from_millis(50));
    }
    let frame = said(&run(&["watch", text(&store)], 0));
    assert!(frame.contains("IN USE by another process"), "{frame}");
    assert!(frame.contains("only the process that has the store open"), "{frame}");
}

/// `larder watch` on a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    seen: Vec<u8>,
}

impl Drop for Terminal {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Terminal {
    fn watch(store: &Path) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let size = Winsize { ws_row: 40, ws_col: 110, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
        let slave: OwnedFd = File::options().read(true).write(true).open(name).expect("its other end").into();
        let copy = || Stdio::from(slave.try_clone().expect("a copy"));
        let mut command = larder(&["watch", text(store)]);
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("the program starts");
        Self { child, master: File::from(master), seen: Vec::new() }
    }

    /// Waits until the screen shows `what`.
    fn wait_for(&mut self, what: &str) {
        let mut buffer = [0; 4096];
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.screen().contains(what) {
            let mut descriptors = [PollFd::new(&self.master, PollFlags::IN)];
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let ready = poll(&mut descriptors, Some(&second)).expect("it can be waited for");
            assert!(Instant::now() < deadline, "no {what:?} in\n{}", self.screen());
            if ready == 0 {
                continue;
            }
            let read = self.master.read(&mut buffer).unwrap_or(0);
            assert!(read > 0, "it ended without {what:?}:\n{}", self.screen());
            self.seen.extend_from_slice(&buffer[..read]);
        }
    }

    /// The screen as a person sees it: only changed cells are sent, so what was sent has to be put in its places. Knows
    /// what the program uses: cursor moves, and text.
    fn screen(&self) -> String {
        let text = String::from_utf8_lossy(&self.seen);
        let mut rows = vec![vec![' '; 110]; 40];
        let (mut row, mut column) = (0, 0);
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '\u{1b}' {
                if let Some(cell) = rows.get_mut(row).and_then(|row: &mut Vec<char>| row.get_mut(column)) {
                    *cell = character;
                }
                column += 1;
                continue;
            }
            // A bracket, parameters, and the letter that ends them.
            let mut sequence = Vec::new();
            for character in characters.by_ref().skip(1) {
                sequence.push(character);
                if character.is_ascii_alphabetic() {
                    break;
                }
            }
            if let Some(('H', place)) = sequence.split_last() {
                let place: String = place.iter().collect();
                let mut numbers = place.split(';').map(|number| number.parse().unwrap_or(1) - 1);
                (row, column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            }
        }
        rows.iter().map(|row| row.iter().collect::<String>() + "\n").collect()
    }

    fn shows(&self, what: &str) -> bool {
        self.seen.windows(what.len()).any(|window| window == what.as_bytes())
    }

    fn press(&mut self, key: &[u8]) {
        self.master.write_all(key).expect("it reads keys");
    }

    /// Reads to the end, demands the exit code and that the screen was given back.
    fn ends_with(mut self, exit: i32) {
        let mut rest = Vec::new();
        // The end of a pseudo-terminal is an error.
        drop(self.master.read_to_end(&mut rest));
        self.seen.extend(rest);
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(exit), "{}", String::from_utf8_lossy(&self.seen));
        assert!(self.shows("\u{1b}[?1049l") && self.shows("\u{1b}[?25h"), "the terminal was not given back");
    }
}

#[test]
fn on_a_terminal_keys_ask_for_tasks_and_quit() {
    let (dir, store) = place();
    fill(&dir, &store);
    let mut terminal = Terminal::watch(&store);
    terminal.wait_for("open here");
    terminal.press(b"c");
    terminal.wait_for("segments became");
    terminal.press(b"t");
    terminal.wait_for("tuning: ");
    terminal.press(b"g");
    terminal.wait_for("classes of times to live");
    terminal.press(b"p");
    terminal.wait_for("PAUSED");
    terminal.press(b"q");
    terminal.ends_with(0);
    let stats = run_json(&["stats", text(&store)], 0);
    assert_eq!((number(&stats["stats"], "entries"), number(&stats["stats"], "dead_bytes")), (20_000.0, 0.0));
}

#[test]
fn ctrl_c_and_a_signal_give_the_terminal_back() {
    let (dir, store) = place();
    fill(&dir, &store);
    let mut terminal = Terminal::watch(&store);
    terminal.wait_for("open here");
    terminal.press(b"\x03");
    terminal.ends_with(130);
    let mut terminal = Terminal::watch(&store);
    terminal.wait_for("open here");
    kill_process(Pid::from_child(&terminal.child), Signal::TERM).expect("it runs");
    terminal.ends_with(130);
}

#[test]
fn a_store_in_use_is_watched_live() {
    let (_dir, store) = place();
    let _holder = Holder::of(&store, &records(100));
    let mut terminal = Terminal::watch(&store);
    terminal.wait_for("IN USE by another process");
    terminal.press(b"c");
    terminal.wait_for("it alone can be asked");
    terminal.press(b"q");
    terminal.ends_with(0);
}
