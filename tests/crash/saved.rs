//! A state that broke the promise, kept: its files, what was allowed, and the log that led to it. The state can be
//! recovered again exactly as it was, however the threads of the recorded run were scheduled.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use larder::{Disk, DiskFile, OsDisk};
use serde_json::{Value, json};

use crate::contents::Present;
use crate::crash_fs::Image;
use crate::fault::Fault;
use crate::history::{History, Version, Window};
use crate::memory::Files;
use crate::recording::Event;
use crate::script::Plan;
use crate::states::Case;

/// Keeps a state under the build's directory for temporary files.
pub fn save(case: &Case<'_>, events: &[Event], fault: &Fault, number: usize) -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = parent.join(format!("crash-seed-{}-{number}-{}", case.plan.seed, std::process::id()));
    if let Some(files) = &case.image {
        lay_out(files, &dir.join("files"));
    } else {
        OsDisk.create_dir(&dir).expect("create a directory for the saved state");
    }
    let text = format!("{}\n{fault}\n\nThe log up to the crash:\n{}", case.origin, list(events));
    put(&dir.join("fault.txt"), text.as_bytes());
    let description = json!({
        "seed": case.plan.seed,
        "origin": case.origin,
        "wall_ms": case.wall_ms,
        "work_seed": case.work_seed,
        "window": [case.window.floor, case.window.ceiling, case.window.now_min_ms, case.window.now_max_ms],
        "history": history_to_json(case.history),
    });
    put(&dir.join("case.json"), description.to_string().as_bytes());
    dir
}

/// Keeps files in a new directory.
pub fn lay_out(files: &Files, dir: &Path) {
    OsDisk.create_dir(dir).expect("create a directory for the saved state");
    for (name, bytes) in files {
        put(&dir.join(name), bytes);
    }
}

/// The files of a saved state.
pub fn files_in(dir: &Path) -> Files {
    let names = OsDisk.list(dir).expect("list the saved files");
    names
        .into_iter()
        .filter(|name| dir.join(name).is_file())
        .map(|name| (name.clone(), take(&dir.join(name))))
        .collect()
}

/// How to recover a saved state again.
pub fn replay_command(saved: &Path) -> String {
    format!("LARDER_CRASH_REPLAY={} cargo test --release --test crash", saved.display())
}

/// Recovers a saved state again.
pub fn replay(saved: &Path) -> Result<(), Fault> {
    let case: Value = serde_json::from_slice(&take(&saved.join("case.json"))).expect("case.json is JSON");
    let number = |value: &Value| value.as_u64().expect("a number");
    let files = saved.join("files");
    let image: Image = files.is_dir().then(|| files_in(&files));
    let window = &case["window"];
    let plan = Plan::of(number(&case["seed"]));
    let history = History { evicts: plan.evicts, ..history_from_json(&case["history"]) };
    let case = Case {
        plan,
        origin: case["origin"].as_str().unwrap_or_default().to_string(),
        image,
        history: &history,
        window: Window {
            floor: number(&window[0]),
            ceiling: number(&window[1]),
            now_min_ms: number(&window[2]),
            now_max_ms: number(&window[3]),
        },
        wall_ms: number(&case["wall_ms"]),
        work_seed: number(&case["work_seed"]),
    };
    case.check()
}

fn history_to_json(history: &History) -> Value {
    let version = |version: &Version| match &version.state {
        None => json!([version.op]),
        Some(present) => json!([version.op, hex(&present.value), present.expires_at_ms]),
    };
    let key = |(key, versions): (&Vec<u8>, &Vec<Version>)| {
        json!([hex(key), versions.iter().map(version).collect::<Vec<_>>()])
    };
    history.keys.iter().map(key).collect()
}

fn history_from_json(json: &Value) -> History {
    let list = |json: &Value| json.as_array().expect("a list").clone();
    let version = |json: Value| Version {
        op: json[0].as_u64().expect("a number"),
        state: json[1].as_str().map(|value| Present { value: unhex(value), expires_at_ms: json[2].as_u64() }),
    };
    let key = |json: Value| {
        let versions = list(&json[1]).into_iter().map(version).collect();
        (unhex(json[0].as_str().expect("a key")), versions)
    };
    History { keys: list(json).into_iter().map(key).collect(), ..History::default() }
}

/// The log, a line an event, with the names the handles stood for.
fn list(events: &[Event]) -> String {
    let mut opened = BTreeMap::new();
    let mut text = String::new();
    for (number, event) in events.iter().enumerate() {
        if let Event::Create { handle, name } | Event::Open { handle, name } = event {
            opened.insert(*handle, name.clone());
        }
        if let Event::Rename { from, to } = event {
            opened.values_mut().filter(|name| *name == from).for_each(|name| name.clone_from(to));
        }
        let name = |handle: &u64| opened.get(handle).cloned().unwrap_or_default();
        let line = match event {
            Event::Write { handle, offset, bytes } => {
                format!("write {} {offset}..{}", name(handle), *offset as usize + bytes.len())
            }
            Event::Sync { handle } => format!("sync {}", name(handle)),
            Event::Mark(mark) => format!("    -- {:?} op {} at {}", mark.kind, mark.op, mark.now_ms),
            other => format!("{other:?}"),
        };
        let _ = writeln!(text, "{number:5} {line}");
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Writes a new file.
fn put(path: &Path, bytes: &[u8]) {
    let file = OsDisk.create(path).expect("create a file beside the saved state");
    file.write_full_at(bytes, 0).expect("write a file beside the saved state");
}

fn take(path: &Path) -> Vec<u8> {
    let file = OsDisk.open_read(path).expect("open a file of the saved state");
    let mut bytes = vec![0; file.len().expect("length of a saved file") as usize];
    file.read_full_at(&mut bytes, 0).expect("read a file of the saved state");
    bytes
}
