//! `bench`: every figure is there, every value was checked.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{message, number, parse, place, run, run_json, said, start, text};

const SMALL: [&str; 6] = ["--entries", "2000", "--seconds", "0.3", "--threads", "3"];

#[test]
fn a_bench_reports_speed_and_checks_every_value() {
    let report = run_json(&[&["bench"][..], &SMALL].concat(), 0);
    assert_eq!((number(&report, "wrong"), number(&report, "hit_share")), (0.0, 1.0));
    assert_eq!((number(&report, "entries_at_end"), number(&report["fill"], "operations")), (2000.0, 2000.0));
    let reads = number(&report["get"], "operations");
    assert_eq!(number(&report, "verified"), reads + 2000.0);
    for kind in ["fill", "put", "get"] {
        let speed = &report[kind];
        assert!(number(speed, "per_second") > 0.0);
        let places = ["p50_us", "p99_us", "p999_us", "max_us"].map(|place| number(speed, place));
        assert!(places[0] > 0.0 && places.is_sorted(), "{speed}");
    }
    let operations = reads + number(&report["put"], "operations");
    assert!((reads / operations - 0.8).abs() < 0.1, "{report}");
    // A little below one where the writer met an overwrite before the record it replaces.
    assert!(number(&report, "write_amplification") > 0.9, "{report}");
    assert!(number(&report["disk"], "bytes") > 0.0);
    assert_eq!(report["dir"].as_str().map(|dir| std::path::Path::new(dir).exists()), Some(false));
}

#[test]
fn a_bench_in_a_directory_leaves_its_store_and_wants_an_empty_one() {
    let (_dir, store) = place();
    let args = [&["bench", text(&store), "--read-share", "0", "--ttl", "1h"][..], &SMALL].concat();
    let told = said(&run(&args, 0));
    assert!(told.contains("this machine") && told.contains(text(&store)), "{told}");
    assert!(told.contains("p99.9") && told.contains("0 wrong"), "{told}");
    let verified = run_json(&["verify", text(&store)], 0);
    assert_eq!(number(&verified, "live_entries"), 2000.0);
    assert!(message(&run_json(&args, 1)).contains("not empty"));
    for wrong in [["--read-share", "2"], ["--entries", "0"], ["--seconds", "0"], ["--threads", "0"]] {
        run(&[&["bench"], &wrong[..]].concat(), 2);
    }
}

#[test]
fn entries_that_expire_are_misses() {
    let report = run_json(&[&["bench", "--ttl", "1ms", "--read-share", "1"][..], &SMALL].concat(), 0);
    assert_eq!(number(&report, "wrong"), 0.0);
    assert!(number(&report, "hit_share") < 0.5, "{report}");
}

#[test]
fn a_bounded_bench_by_popularity_says_its_hit_share_and_keeps_within_its_capacity() {
    let args = ["bench", "--capacity", "24M", "--zipf", "0.9", "--entries", "60000", "--value-bytes", "2000"];
    let report = run_json(&[&args[..], &["--seconds", "3", "--threads", "2"]].concat(), 0);
    assert_eq!((number(&report, "wrong"), number(&report["fill"], "operations")), (0.0, 0.0));
    assert!(number(&report["disk"], "bytes") <= (24 << 20) as f64, "{report}");
    assert_eq!(number(&report["stats"], "capacity_bytes"), (24 << 20) as f64);
    let hits = number(&report, "hit_share");
    // A machine that stands still for a while may end no read in the second half.
    let late = report["late_hit_share"].as_f64().unwrap_or(hits);
    let best = number(&report, "most_popular_share");
    assert!(0.1 < hits && hits < 1.0 && 0.1 < late && late < 1.0 && 0.1 < best && best <= 1.0, "{report}");
    // What is missed is put in; nothing else is.
    assert_eq!(
        number(&report["put"], "operations"),
        (number(&report["get"], "operations") * (1.0 - hits)).round()
    );
}

#[test]
fn options_of_the_store_are_refused_by_name() {
    for wrong in [
        ["--capacity", "many"],
        ["--capacity", "0"],
        ["--capacity", "10X"],
        ["--admission", "none"],
        ["--write-budget", "-1"],
        ["--weights", "heavy"],
        ["--dead-ratio", "0.01"],
        ["--zipf", "0"],
    ] {
        run(&[&["bench"], &wrong[..]].concat(), 2);
    }
    assert!(message(&run_json(&["bench", "--capacity", "1M"], 1)).contains("capacity_bytes"));
    let options =
        ["--admission", "frequency", "--write-budget", "50G", "--weights", "space", "--dead-ratio", "0.4"];
    let report = run_json(&[&["bench", "--capacity", "1.5GiB"], &options[..], &SMALL].concat(), 0);
    assert_eq!(number(&report["stats"], "capacity_bytes"), 1.5 * (1 << 30) as f64);
}

#[test]
fn an_interrupted_bench_reports_what_it_did() {
    let child = start(&["bench", "--entries", "2000", "--seconds", "60", "--json"]);
    std::thread::sleep(Duration::from_millis(1500));
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let report = parse(&output);
    assert_eq!((&report["interrupted"], number(&report, "wrong")), (&true.into(), 0.0));
}
