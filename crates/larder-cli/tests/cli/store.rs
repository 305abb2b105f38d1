//! Filling, looking into, checking and maintaining a store; signals and locks.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    larder, largest, largest_segment, number, parse, place, records, run, run_json, start, text,
    wait_for_store, write_records,
};

#[test]
fn demo_verifies_everything_and_reports_every_figure() {
    let report = run_json(&["demo"], 0);
    assert_eq!(number(&report, "wrong"), 0.0);
    assert_eq!(number(&report, "records"), 20_968.0);
    assert!(number(&report, "verified") > 50_000.0);
    for field in [
        "expired_removed",
        "bytes_reclaimed",
        "disk_bytes_before",
        "disk_bytes_after",
        "segment_bytes_after",
        "live_bytes",
        "dictionary_bytes",
        "ratio",
        "ratio_zstd3",
        "put_per_s",
        "get_per_s",
        "restart_ms",
        "seconds",
    ] {
        assert!(number(&report, field) > 0.0, "{field} in {report}");
    }
    assert!(report["codec"].is_string() && report["reason"].is_string());
    assert!(number(&report, "disk_bytes_after") < number(&report, "disk_bytes_before"));
    for expectation in report["expectations"].as_array().expect("expectations") {
        assert_eq!(expectation["met"], true, "{expectation}");
    }
}

#[test]
fn demo_keeps_its_store_in_dir_and_refuses_one_with_content() {
    let (dir, store) = place();
    let input = write_records(&dir, 300);
    let args = ["demo", "--from", text(&input), "--dir", text(&store)];
    let report = run_json(&args, 0);
    assert_eq!(number(&report, "wrong"), 0.0);
    let verified = run_json(&["verify", text(&store)], 0);
    assert_eq!(number(&verified, "live_entries"), number(&report, "live_entries"));
    let refused = run_json(&args, 1);
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains("not empty")), "{refused}");
}

#[test]
fn a_store_is_loaded_verified_inspected_and_maintained() {
    let (dir, store) = place();
    let input = write_records(&dir, 5000);
    let store = text(&store);
    let loaded = run_json(&["load", store, "--from", text(&input), "--segment-mib", "1"], 0);
    assert_eq!(number(&loaded, "records"), 5000.0);
    assert_eq!(number(&loaded, "entries"), 5000.0);
    // Again, so that everything stored before is dead.
    run(&["load", store, "--from", text(&input), "--segment-mib", "1", "--durability", "never"], 0);

    let verified = run_json(&["verify", store], 0);
    assert_eq!(verified["clean"], true);
    assert_eq!(number(&verified, "live_entries"), 5000.0);
    let inspected = run_json(&["inspect", store], 0);
    assert_eq!(number(&inspected["stats"], "entries"), 5000.0);
    assert!(!inspected["segments"].as_array().expect("segments").is_empty());

    let tuned = run_json(&["tune", store], 0);
    let candidates = &tuned["report"]["common"]["candidates"];
    assert!(candidates.as_array().is_some_and(|all| all.len() > 3), "{tuned}");
    assert_eq!(tuned["report"]["classes"].as_array().map(Vec::len), Some(4));
    let explained = run_json(&["explain", store], 0);
    assert_eq!(explained["tuning"], tuned["report"], "what was measured is kept");
    let weighed = run_json(&["tune", store, "--weights", "space"], 0);
    assert_eq!(weighed["report"]["weights"], "space");
    run(&["tune", store, "--weights", "heavy"], 2);
    let compacted = run_json(&["compact", store], 0);
    assert!(number(&compacted["after"], "segment_bytes") < number(&compacted["before"], "segment_bytes"));
    assert_eq!(number(&compacted["after"], "entries"), 5000.0);
    assert_eq!(number(&run_json(&["verify", store], 0), "live_entries"), 5000.0);
    for command in ["inspect", "verify", "tune", "explain", "compact", "expire"] {
        assert!(!run(&[command, store], 0).stdout.is_empty(), "{command} says nothing to people");
    }
}

#[test]
fn expire_removes_what_is_past_its_time_and_nothing_else() {
    let (dir, store) = place();
    let (few, many) = (write_records(&dir, 100), write_records(&dir, 1000));
    let store = text(&store);
    run(&["load", store, "--from", text(&many), "--ttl", "3600"], 0);
    run(&["load", store, "--from", text(&few), "--ttl", "0.05"], 0);
    thread::sleep(Duration::from_millis(150));
    let expired = run_json(&["expire", store], 0);
    assert_eq!(number(&expired["after"], "entries"), 900.0, "{expired}");
    assert_eq!(number(&run_json(&["verify", store], 0), "live_entries"), 900.0);
}

#[test]
fn stdin_and_zstd_are_read_alike() {
    let (dir, store) = place();
    let packed = dir.path().join("records.jsonl.zst");
    fs::write(&packed, zstd::encode_all(records(50).as_bytes(), 1).expect("zstd works")).expect("input");
    let loaded = run_json(&["load", text(&store), "--from", text(&packed)], 0);
    assert_eq!(number(&loaded, "records"), 50.0);
    let mut child = start(&["load", text(&store), "--from", "-", "--string-values", "--json"]);
    child.stdin.take().expect("a pipe").write_all(records(80).as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(number(&parse(&output), "entries"), 80.0);
}

#[test]
fn a_bad_line_is_told_with_its_place_and_skipped_on_demand() {
    let (dir, store) = place();
    let input = dir.path().join("bad.jsonl");
    fs::write(&input, "{\"key\":\"a\",\"value\":1}\n\nnonsense\n{\"key\":\"b\",\"value\":2}\n")
        .expect("input");
    let output = run(&["load", text(&store), "--from", text(&input), "--json"], 1);
    assert_eq!(number(&parse(&output), "records"), 1.0);
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.jsonl:3: "), "{output:?}");
    let skipped = run_json(&["load", text(&store), "--from", text(&input), "--skip-bad"], 0);
    assert_eq!(number(&skipped, "records"), 2.0);
    assert_eq!(number(&skipped, "bad_lines"), 1.0);
    assert_eq!(number(&skipped["bad"][0], "line"), 3.0);
}

#[test]
fn damaged_bytes_make_verify_exit_with_3() {
    let (dir, store) = place();
    let input = write_records(&dir, 5000);
    run(&["load", text(&store), "--from", text(&input)], 0);
    let segment = largest_segment(&store);
    let mut bytes = fs::read(&segment).expect("the segment can be read");
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4] {
        *byte ^= 0xff;
    }
    fs::write(&segment, &bytes).expect("the segment can be damaged");

    let report = run_json(&["verify", text(&store)], 3);
    assert_eq!(report["clean"], false);
    assert!(!report["damaged"].as_array().expect("a list").is_empty());
    let said = run(&["verify", text(&store)], 3);
    assert!(String::from_utf8_lossy(&said.stdout).contains("DAMAGED"));
    // The rest is still served.
    assert!(number(&report, "live_entries") > 4900.0, "{report}");
    run(&["inspect", text(&store)], 0);
}

#[test]
fn damage_beside_the_records_is_said_to_be_in_none_and_a_compact_mends_it() {
    let (dir, store) = place();
    let input = write_records(&dir, 5000);
    run(&["load", text(&store), "--from", text(&input)], 0);
    let snapshot = largest(&store, "snap-");
    let mut bytes = fs::read(&snapshot).expect("the index can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&snapshot, &bytes).expect("the index can be damaged");

    let said = run(&["verify", text(&store)], 3);
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("in no record") && !said.contains("read as misses"), "{said}");
    run(&["compact", text(&store)], 0);
    let report = run_json(&["verify", text(&store)], 0);
    assert_eq!(number(&report, "live_entries"), 5000.0);
}

#[test]
fn a_lost_pointer_or_manifest_is_damage_and_no_empty_store() {
    let (dir, store) = place();
    let input = write_records(&dir, 500);
    run(&["load", text(&store), "--from", text(&input)], 0);
    fs::remove_file(store.join("CURRENT")).expect("CURRENT can be removed");
    run(&["inspect", text(&store)], 0);
    for file in fs::read_dir(&store).expect("a listing").map(|entry| entry.expect("an entry").path()) {
        if file.file_name().is_some_and(|name| text(name.as_ref()).starts_with("MANIFEST-")) {
            fs::remove_file(file).expect("the manifest can be removed");
        }
    }
    let lost = run_json(&["verify", text(&store)], 3);
    assert!(lost["error"]["message"].as_str().is_some_and(|text| text.contains("manifest")), "{lost}");
    run(&["compact", text(&store)], 1);
    run(&["load", text(&store), "--from", text(&input)], 1);
    assert!(largest_segment(&store).exists());
}

#[test]
fn wrong_arguments_exit_with_2_and_failures_with_1() {
    let (_dir, store) = place();
    let store = text(&store);
    for args in [
        &["compact"][..],
        &["frobnicate", store],
        &["load", store, "--ttl", "soon"],
        &["load", store, "--durability", "sometimes"],
        &["compact", store, "--segment-mib", "0"],
    ] {
        run(args, 2);
    }
    for command in ["inspect", "verify", "compact", "expire", "tune", "explain"] {
        let failed = run_json(&[command, store], 1);
        assert!(failed["error"]["message"].as_str().is_some_and(|text| text.contains(store)), "{failed}");
    }
    run(&["load", store, "--from", "/nonexistent/records.jsonl"], 1);
    assert!(!Path::new(store).exists(), "a failed command has made a store");
    assert!(run(&["--help"], 0).stdout.starts_with(b"An embedded cache"));
}

#[test]
fn a_store_in_use_is_locked_for_everybody_else() {
    let (_dir, store) = place();
    let mut child = start(&["load", text(&store)]);
    // A load looks at its input before it makes a store.
    child.stdin.as_mut().expect("a pipe").write_all(records(10).as_bytes()).expect("it reads");
    wait_for_store(&store);
    for command in ["compact", "load", "inspect", "verify"] {
        let refused = run_json(&[command, text(&store)], 1);
        assert_eq!(refused["error"]["kind"], "locked", "{command}: {refused}");
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
    run(&["verify", text(&store)], 0);
}

#[test]
fn an_interrupted_load_keeps_everything_it_accepted() {
    let (_dir, store) = place();
    let mut child = start(&["load", text(&store), "--json"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(records(2000).as_bytes()).expect("it reads");
    wait_for_store(&store);
    thread::sleep(Duration::from_millis(200));
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends although the pipe is open");
    drop(stdin);
    assert_eq!(output.status.code(), Some(130));
    let report = parse(&output);
    assert_eq!(report["interrupted"], true);
    assert!(number(&report, "records") > 0.0);
    let verified = run_json(&["verify", text(&store)], 0);
    assert_eq!(number(&verified, "live_entries"), number(&report, "records"));
}

#[test]
fn an_interrupted_demo_leaves_no_directory_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = larder(&["demo", "--json"]);
    command.env("TMPDIR", dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().expect("the program starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_dir(dir.path()).expect("a listing").next().is_none() {
        assert!(Instant::now() < deadline, "the demo has made no directory");
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(parse(&output)["error"]["kind"], "interrupted");
    assert!(
        fs::read_dir(dir.path()).expect("a listing").next().is_none(),
        "the demo's directory is still there"
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let (dir, store) = place();
    let input = write_records(&dir, 100);
    run(&["load", text(&store), "--from", text(&input)], 0);
    let mut child = start(&["inspect", text(&store)]);
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}
