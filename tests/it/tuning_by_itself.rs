//! Tunings that nobody asks for: the brief one of a new store, the thorough one behind it, what they outdate.

use std::collections::BTreeSet;
use std::time::Duration;

use larder::{Codec, Compression, OsDisk};

use crate::stores::{config, json, key, open_on, scratch, tune};

/// Waits until something that another thread does has come about.
fn comes_about(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while std::time::Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn a_new_store_is_tuned_by_a_brief_look_long_before_the_first_regular_one() {
    let dir = scratch();
    let config = config(dir.path())
        .compression(Compression::Tuned)
        .maintenance(larder::Maintenance::Automatic)
        .maintenance_interval(Duration::from_secs(3600));
    let cold = open_on(config, OsDisk);
    for n in 0..5999 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    cold.flush().unwrap();
    assert_eq!(cold.compression().codec, Codec::Lz4, "nothing has been asked for yet");
    for n in 5999..6100 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    assert!(comes_about(|| cold.compression().codec != Codec::Lz4), "tuned by itself");
    assert!(cold.compression().dictionary_bytes > 0, "{}", cold.compression());
    // Called again and again: the thorough one waits for a pause.
    let mut report = None;
    assert!(comes_about(|| {
        cold.get(&key(0)).unwrap();
        report = cold.explain().unwrap();
        report.is_some()
    }));
    let report = report.unwrap();
    assert!(report.common.reason.starts_with("a first, brief look"), "{}", report.common.reason);
    let sizes = report.common.candidates.iter().map(|candidate| candidate.choice.dictionary_bytes);
    let sizes: BTreeSet<u32> = sizes.filter(|bytes| *bytes > 0).collect();
    assert_eq!(sizes.len(), 1, "one dictionary, for lack of time to tell two apart: {sizes:?}");
    // What it found is nobody's choice yet: the thorough one is free to choose anything.
    let thorough = tune(&cold);
    assert!(thorough.common.candidates.len() > report.common.candidates.len());
    for n in 0..6100 {
        assert_eq!(cold.get(&key(n)).unwrap().as_deref(), Some(&json(n, 1)[..]));
    }
    cold.close().unwrap();
}

#[test]
fn a_store_of_few_entries_that_nobody_uses_is_tuned_thoroughly_once_and_then_left_alone() {
    let dir = scratch();
    let config = config(dir.path())
        .compression(Compression::Tuned)
        .maintenance(larder::Maintenance::Automatic)
        .maintenance_interval(Duration::from_millis(20));
    let cold = open_on(config, OsDisk);
    for n in 0..6100 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    let is_thorough = || {
        let report = cold.explain().unwrap();
        report.is_some_and(|report| !report.common.reason.starts_with("a first, brief look"))
    };
    assert!(comes_about(is_thorough), "only ever looked at briefly");
    // Each tuning writes its explanation anew.
    let explained = || std::fs::metadata(dir.path().join("TUNING")).unwrap().modified().unwrap();
    let at = explained();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(explained(), at, "tuned over and over");
    cold.close().unwrap();
}

#[test]
fn a_store_that_nobody_uses_stores_anew_what_is_outdated_below_the_triggers_too() {
    let dir = scratch();
    let manual =
        config(dir.path()).segment_bytes(1 << 20).compression(Compression::Tuned).dead_ratio_max(0.9);
    let cold = open_on(manual.clone(), OsDisk);
    // Two segments by LZ4, then tuned, then far more by what that chose.
    for n in 0..6000 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    cold.flush().unwrap();
    tune(&cold);
    for n in 6000..20_000 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    let before = cold.stats();
    cold.close().unwrap();
    let automatic = manual
        .maintenance(larder::Maintenance::Automatic)
        .maintenance_interval(Duration::from_millis(20))
        .retune_ratio(100.0);
    let cold = open_on(automatic, OsDisk);
    let shrunk = || cold.stats().live_bytes * 100 < before.live_bytes * 90;
    assert!(comes_about(shrunk), "{} B live before, {} now", before.live_bytes, cold.stats().live_bytes);
    for n in 0..20_000 {
        assert_eq!(cold.get(&key(n)).unwrap().as_deref(), Some(&json(n, 1)[..]));
    }
    cold.close().unwrap();
}
