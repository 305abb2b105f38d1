//! `get`, `put`, `del`, `stats`: single entries and figures.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::{
    Holder, larder, message, number, parse, place, records, run, run_json, said, start, text, write_records,
};

#[test]
fn what_was_put_is_got_byte_for_byte_until_it_is_deleted() {
    let (_dir, store) = place();
    let store = text(&store);
    let put = run_json(&["put", store, "greeting", "hello, world"], 0);
    assert_eq!((number(&put, "size"), &put["replaced"]), (12.0, &false.into()));
    assert_eq!(run(&["get", store, "greeting"], 0).stdout, b"hello, world");
    let got = run_json(&["get", store, "greeting"], 0);
    assert_eq!(got["value"], "hello, world");
    assert_eq!(got["value_encoding"], "utf-8");
    assert_eq!(number(&got, "size"), 12.0);
    assert!(got["ttl_seconds"].is_null());

    let again = run_json(&["put", store, "greeting", "-12"], 0);
    assert_eq!((number(&again, "entries"), &again["replaced"]), (1.0, &true.into()));
    assert_eq!(run(&["get", store, "greeting"], 0).stdout, b"-12");
    run(&["put", store, "other", ""], 0);
    assert!(run(&["get", store, "other"], 0).stdout.is_empty());

    let deleted = run_json(&["del", store, "greeting", "nobody"], 0);
    assert_eq!(number(&deleted, "removed"), 1.0);
    assert_eq!(deleted["absent"], serde_json::json!(["nobody"]));
    assert_eq!(number(&deleted, "entries"), 1.0);
    run(&["get", store, "greeting"], 1);
}

#[test]
fn a_missing_entry_is_exit_code_1_and_a_message() {
    let (_dir, store) = place();
    run(&["put", text(&store), "a", "1"], 0);
    let missing = run_json(&["get", text(&store), "b"], 1);
    assert_eq!(missing["error"]["kind"], "absent");
    assert!(message(&missing).contains("\"b\"") && message(&missing).contains(text(&store)));
    assert!(run(&["get", text(&store), "b"], 1).stdout.is_empty());
}

#[test]
fn bytes_that_are_no_text_pass_through_files_stdin_and_hex() {
    let (dir, store) = place();
    let store = text(&store);
    let bytes: Vec<u8> = (0..=255).collect();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, &bytes).expect("input");
    run(&["put", store, "00ff", "--hex", "--file", text(&from)], 0);
    let got = run_json(&["get", store, "00FF", "--hex", "--out", text(&to)], 0);
    assert_eq!(fs::read(&to).expect("it was written"), bytes);
    assert_eq!((&got["key_encoding"], number(&got, "size")), (&"base64".into(), 256.0));
    assert!(got["value"].is_null());

    let mut child = start(&["put", store, "piped", "-", "--json"]);
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(number(&parse(&output), "size"), 256.0);
    assert_eq!(run(&["get", store, "piped"], 0).stdout, bytes);
    let piped = run_json(&["get", store, "piped"], 0);
    assert_eq!(piped["value_encoding"], "base64");
    assert!(piped["value"].as_str().is_some_and(|value| value.starts_with("AAECAwQF")));

    for (args, problem) in [
        (&["get", store, "0", "--hex"][..], "not hex"),
        (&["get", store, "xy", "--hex"], "not hex"),
        (&["get", store, "piped", "--out", "/nonexistent/file"], "/nonexistent/file"),
        (&["put", store, "k", "--file", "/nonexistent/file"], "/nonexistent/file"),
        (&["put", store, "k", "--file", text(dir.path())], "directory"),
        (&["put", store, "", "v"], "key"),
    ] {
        let failed = run_json(args, 1);
        assert!(message(&failed).contains(problem), "{args:?}: {failed}");
    }
}

#[test]
fn a_value_past_the_limit_is_refused_and_nothing_is_stored() {
    let (dir, store) = place();
    let large = dir.path().join("large");
    fs::File::options()
        .create_new(true)
        .write(true)
        .open(&large)
        .and_then(|file| file.set_len((64 << 20) + 1))
        .expect("a sparse file");
    let refused = run_json(&["put", text(&store), "large", "--file", text(&large)], 1);
    assert_eq!(refused["error"]["kind"], "config", "{refused}");
    run(&["get", text(&store), "large"], 1);
}

#[test]
fn times_to_live_take_units_and_pass() {
    let (_dir, store) = place();
    let store = text(&store);
    for (ttl, seconds) in
        [("90", 90.0), ("1h", 3600.0), ("15m", 900.0), ("2min", 120.0), ("30d", 2_592_000.0)]
    {
        run(&["put", store, "k", "v", "--ttl", ttl], 0);
        let left = number(&run_json(&["get", store, "k"], 0), "ttl_seconds");
        assert!(left <= seconds && left > seconds - 30.0, "{ttl}: {left}");
    }
    for ttl in ["soon", "1y", "0", "-1", "h"] {
        run(&["put", store, "k", "v", &format!("--ttl={ttl}")], 2);
    }
    run(&["put", store, "k", "v", "--ttl", "50ms"], 0);
    thread::sleep(Duration::from_millis(80));
    run(&["get", store, "k"], 1);
}

#[test]
fn many_puts_do_not_leave_a_segment_each() {
    let (_dir, store) = place();
    let store = text(&store);
    for number in 0..40 {
        run(&["put", store, &format!("key-{number}"), "value"], 0);
    }
    let stats = run_json(&["stats", store], 0);
    assert_eq!(number(&stats["stats"], "entries"), 40.0);
    assert!(number(&stats["stats"], "segments") <= 17.0, "{stats}");
}

#[test]
fn stats_are_grouped_and_agree_with_inspect() {
    let (dir, store) = place();
    let input = write_records(&dir, 3000);
    let store = text(&store);
    run(&["load", store, text(&input), "--segment-mib", "1"], 0);
    run(&["load", store, text(&write_records(&dir, 500)), "--segment-mib", "1"], 0);
    let (stats, inspected) = (run_json(&["stats", store], 0), run_json(&["inspect", store], 0));
    for figure in ["entries", "live_bytes", "dead_bytes", "expired_bytes", "segments", "segment_bytes"] {
        assert_eq!(stats["stats"][figure], inspected["stats"][figure], "{figure}");
    }
    assert!(number(&stats["stats"], "entries") == 3000.0 && number(&stats["stats"], "dead_bytes") > 0.0);
    for figure in ["ratio", "space_amplification", "index_bytes_per_entry", "overhead_bytes", "disk_bytes"] {
        assert!(number(&stats["derived"], figure) > 0.0, "{figure} in {stats}");
    }
    assert!(
        number(&stats["derived"], "ratio") >= 1.0 && number(&stats["derived"], "space_amplification") > 1.0
    );
    let allowed = run_json(&["stats", store, "--capacity", "64M"], 0);
    let free = number(&allowed["derived"], "free_bytes");
    assert_eq!(free + number(&allowed["disk"], "bytes"), (64 << 20) as f64);
    let inspected = run_json(&["inspect", store, "--capacity", "64M"], 0);
    assert_eq!(number(&inspected, "free_bytes") + number(&inspected["disk"], "bytes"), (64 << 20) as f64);
    let text = said(&run(&["stats", store], 0));
    for part in [
        "Entries",
        "Space",
        "Compression",
        "What recovery found",
        "Since it was opened",
        "3,000",
        "segments / live",
        "index an entry",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn nothing_but_put_and_load_makes_a_store() {
    let (dir, store) = place();
    for args in [
        &["get", text(&store), "key"][..],
        &["del", text(&store), "key"],
        &["stats", text(&store)],
        &["watch", text(&store), "--once"],
        &["report", text(&store), "--out", "/dev/null"],
    ] {
        let failed = run_json(args, 1);
        assert!(
            message(&failed).contains(text(&store)) && message(&failed).contains("larder put"),
            "{failed}"
        );
        assert!(!store.exists(), "{args:?} has made a store");
    }
    // A directory that is there and holds something else is no store either, and is left as it is.
    fs::create_dir(&store).expect("a directory");
    fs::write(store.join("notes"), "mine").expect("a file");
    for command in ["stats", "watch", "report"] {
        assert!(message(&run_json(&[command, text(&store)], 1)).contains("no store in it"));
    }
    run(&["get", text(&store), "key"], 1);
    run(&["del", text(&store), "key"], 1);
    assert_eq!(fs::read_dir(&store).expect("a listing").count(), 1);
    drop(dir);
}

#[test]
fn a_store_in_use_is_refused_with_advice() {
    let (_dir, store) = place();
    let _holder = Holder::of(&store, &records(10));
    for args in [
        &["get", text(&store), "key"][..],
        &["put", text(&store), "key", "value"],
        &["del", text(&store), "key"],
        &["stats", text(&store)],
    ] {
        let refused = run_json(args, 1);
        assert_eq!(refused["error"]["kind"], "locked");
        assert!(message(&refused).contains("larder watch"), "{refused}");
    }
}

#[test]
fn wrong_arguments_of_entry_commands_exit_with_2() {
    let (_dir, store) = place();
    let store = text(&store);
    for args in [
        &["get", store][..],
        &["put", store, "key"],
        &["put", store, "key", "value", "--file", "f"],
        &["del", store],
        &["stats"],
        &["load", store, "a", "--from", "b"],
    ] {
        run(args, 2);
    }
    assert!(!Path::new(store).exists());
    let commands =
        ["get", "put", "del", "stats", "load", "watch", "report", "bench", "demo", "inspect", "verify"];
    for command in commands.into_iter().chain(["compact", "expire", "tune"]) {
        let help = said(&larder(&[command, "--help"]).output().expect("it starts"));
        assert!(help.contains("Examples:"), "{command} has no examples: {help}");
    }
}

/// A file system that is gone with this.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // What stays mounted is seen by the next removal of the directory.
        drop(Command::new("umount").arg(self.0).status());
    }
}

#[test]
fn on_a_full_disk_entries_and_figures_are_told_all_the_same() {
    let (dir, _) = place();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=2m", "larder-test", text(dir.path())]);
    if !mount.output().is_ok_and(|mount| mount.status.success()) {
        eprintln!("skipped: only root can mount a tmpfs");
        return;
    }
    let _mounted = Mounted(dir.path());
    let store = dir.path().join("store");
    let store = text(&store);
    run(&["put", store, "greeting", "hello, world"], 0);
    let mut ballast = fs::File::create(dir.path().join("ballast")).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    // Each look writes a little, as long as it finds room.
    let mut is_told = false;
    for _ in 0..100 {
        let got = run(&["get", store, "greeting"], 0);
        assert_eq!(got.stdout, b"hello, world");
        is_told |= String::from_utf8_lossy(&got.stderr).contains("No space left on device");
    }
    assert!(is_told, "the disk is not full");
    assert_eq!(number(&run_json(&["stats", store], 0)["stats"], "entries"), 1.0);
}
