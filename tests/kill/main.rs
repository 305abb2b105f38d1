//! Processes killed at random moments, and what recovery makes of what they leave. See [`children`].
//!
//! A program of its own: starting children copies the locks of every store that is open in the process.
//! `LARDER_KILLS=n` kills n children in each task (default 15); `LARDER_KILL_SEED=s` begins with that seed.

mod children;
#[path = "../support/contents.rs"]
mod contents;
#[path = "../support/fault.rs"]
mod fault;
#[path = "../support/history.rs"]
mod history;
#[path = "../support/values.rs"]
mod values;

use std::io::Write;

use crossbeam_channel::unbounded;

/// Kills in a row in one directory.
const ROW: u64 = 5;

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn a_killed_child_loses_nothing_that_was_acknowledged_whatever_task_ran() {
    let kills = number_from_env("LARDER_KILLS").unwrap_or(15);
    let first = number_from_env("LARDER_KILL_SEED").unwrap_or(0);
    let mut broken = Vec::new();
    let (mut done, mut in_task) = (0, 0);
    std::thread::scope(|scope| {
        let (result_to, results) = unbounded();
        let (work, to_do) = unbounded();
        for (task, _) in children::TASKS {
            for nth in 0..kills.div_ceil(ROW) {
                work.send((task, first + nth)).expect("the receiver is here");
            }
        }
        drop(work);
        for _ in 0..std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4)) {
            let (to_do, result_to) = (to_do.clone(), result_to.clone());
            scope.spawn(move || {
                for (task, seed) in to_do {
                    // A real file system, as far as the system's temporary directory is on one.
                    let dir = tempfile::tempdir().expect("create a temporary directory");
                    let store = dir.path().join("store");
                    let result = fault::unwinding(|| children::kill_in_a_row(task, seed, ROW, &store));
                    let _ = result_to.send((task, seed, result));
                }
            });
        }
        drop(result_to);
        for (task, seed, result) in results {
            done += ROW;
            match result {
                Ok(while_it_ran) => in_task += while_it_ran,
                Err(fault) => broken.push(format!("{task}: {fault}\n  again: {}", command(seed))),
            }
        }
    });
    let counts = serde_json::json!({ "test": "kill", "kills": done, "aimed_at_task": in_task, "broken": broken.len() });
    let _ = writeln!(std::io::stdout(), "{counts}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Kills fall where they fall: the same seed does the same work, not the same kills.
fn command(seed: u64) -> String {
    format!("LARDER_KILL_SEED={seed} LARDER_KILLS=100 cargo test --test kill")
}

#[test]
#[ignore = "is started by the kill test, with its work in LARDER_KILL_CHILD"]
fn child_of_the_kill_test() {
    if let Ok(work) = std::env::var(children::CHILD) {
        children::live(&work);
    }
}
