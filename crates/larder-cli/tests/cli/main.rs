//! The program from outside: arguments in, exit codes and JSON out, files damaged and signals sent in between.

#![expect(clippy::disallowed_methods, reason = "tests make input files and damage segments")]

mod bench;
mod directories;
mod entries;
mod repair;
mod report;
mod store;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn larder(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(args).env_remove("LARDER_SEGMENT_MIB").env_remove("LARDER_DURABILITY");
    command
}

/// Runs to the end, demands the exit code, and gives the output.
fn run(args: &[&str], exit: i32) -> Output {
    let output = larder(args).stdin(Stdio::null()).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "larder {args:?}: {stderr}");
    output
}

/// Runs with `--json`; stdout must be one object and nothing else.
fn run_json(args: &[&str], exit: i32) -> Value {
    let output = run(&[args, &["--json"]].concat(), exit);
    parse(&output)
}

fn parse(output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON value");
    assert!(value.is_object(), "{value}");
    value
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

/// A directory for a store, and the path of one inside it that does not exist yet.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    (dir, store)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// JSONL of `count` records whose values differ and compress somewhat.
fn records(count: usize) -> String {
    let line = |n: usize| {
        let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{{\"key\":\"key-{n}\",\"value\":{{\"number\":{number},\"text\":\"record {n} of the test\"}}}}\n"
        )
    };
    (0..count).map(line).collect()
}

fn write_records(dir: &TempDir, count: usize) -> PathBuf {
    let path = dir.path().join(format!("records-{count}.jsonl"));
    fs::write(&path, records(count)).expect("the input can be written");
    path
}

fn largest_segment(store: &Path) -> PathBuf {
    largest(store, "seg-")
}

/// The largest file whose name begins so.
fn largest(store: &Path, prefix: &str) -> PathBuf {
    let files =
        fs::read_dir(store).expect("the store can be listed").map(|entry| entry.expect("an entry").path());
    let named =
        files.filter(|path| path.file_name().is_some_and(|name| text(name.as_ref()).starts_with(prefix)));
    named.max_by_key(|path| fs::metadata(path).map_or(0, |data| data.len())).expect("such a file")
}

/// Starts the program with its stdin and stdout held by the test.
fn start(args: &[&str]) -> Child {
    let mut command = larder(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Waits until a child has opened its store.
fn wait_for_store(store: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !store.join("CURRENT").exists() {
        assert!(Instant::now() < deadline, "no store was made in {}", store.display());
        thread::sleep(Duration::from_millis(10));
    }
}

/// The error message of a failed command that was asked for JSON.
fn message(failed: &Value) -> &str {
    failed["error"]["message"].as_str().unwrap_or_else(|| panic!("no message in {failed}"))
}

/// What a command says to people.
fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it says text")
}

/// A process that has a store open until it is dropped.
struct Holder(Child);

impl Holder {
    /// Starts a load that waits for more input after `input`.
    fn of(store: &Path, input: &str) -> Self {
        let mut child = start(&["load", text(store), "-", "--segment-mib", "1"]);
        std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), input.as_bytes()).expect("it reads");
        wait_for_store(store);
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("it ends").success() || thread::panicking());
    }
}
