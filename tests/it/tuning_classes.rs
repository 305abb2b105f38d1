//! Tuning by class of raw size: choices that differ, the gate before compression, the explanation that is kept, and
//! dictionaries with several parameters in force (D1).

use larder::internals::classes::{CLASS_BYTES_MAX, class_of};
use larder::internals::gate::looks_random;
use larder::{
    Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, ErrorKind, ManualClock, OsDisk,
    TuningReport, Weights,
};

use crate::scripted::{Gate, ScriptedDisk, Verdict};
use crate::stores::{
    Model, START_MS, compact, config, expect_exactly, is_dictionary, json, key, names, noise, open_on, put,
    read_file, remove, scratch, tune, write_file,
};

/// Bytes decide, so that a busy machine cannot.
fn tuned(dir: &std::path::Path) -> ColdTierConfig {
    config(dir).compression(Compression::Tuned).weights(Weights::Space)
}

fn blob_key(number: u32) -> Vec<u8> {
    format!("blob {number:05}").into_bytes()
}

fn blob(number: u32) -> Vec<u8> {
    noise(u64::from(number) + 70_000, 20_000)
}

/// A thousand JSON values of about 400 bytes and 130 random ones of 20 KB: most of the entries, most of the bytes.
fn fill(cold: &ColdTier<OsDisk, ManualClock>, model: &mut Model) {
    for n in 0..1000 {
        put(cold, model, key(n), json(n, 1));
    }
    for n in 0..130 {
        put(cold, model, blob_key(n), blob(n));
    }
    cold.flush().unwrap();
}

#[test]
fn entries_and_bytes_of_each_class_are_estimated_near_the_truth() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    fill(&cold, &mut model);
    let report = tune(&cold);
    for (number, class) in report.classes.iter().enumerate() {
        let lens = model.iter().map(|(key, value)| key.len() + value.len());
        let lens: Vec<usize> = lens.filter(|len| class_of(*len) == number).collect();
        let is_near = |told: u64, truth: usize| told.abs_diff(truth as u64) * 4 <= truth as u64;
        assert!(is_near(class.entries, lens.len()), "{} entries of {}", class.entries, lens.len());
        let bytes = lens.iter().sum();
        assert!(is_near(class.raw_bytes, bytes), "{} bytes of {bytes}", class.raw_bytes);
    }
}

fn bytes_stored(
    cold: &ColdTier<OsDisk, ManualClock>,
    entries: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> u64 {
    let before = cold.stats().stored_bytes_inserted;
    for (key, value) in entries {
        cold.insert(&key, &value).unwrap();
    }
    cold.flush().unwrap();
    cold.stats().stored_bytes_inserted - before
}

#[test]
fn classes_are_cut_at_their_bounds() {
    for (class, bytes_max) in CLASS_BYTES_MAX.into_iter().enumerate() {
        assert_eq!((class_of(bytes_max), class_of(bytes_max + 1)), (class, class + 1));
    }
    assert_eq!((class_of(0), class_of(usize::MAX)), (0, 3));
}

#[test]
fn each_class_gets_what_suits_it_and_every_value_is_read_back() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    fill(&cold, &mut model);
    let report = tune(&cold);
    expect_exactly(&cold, &model, "tuned");
    assert_eq!(report.classes.len(), 4);
    let (small, large) = (&report.classes[1], &report.classes[3]);
    assert!(report.sampled_entries <= 1000 && large.sampled_entries >= 100, "{report:?}");
    assert!((100..=160).contains(&large.entries), "of 130: {}", large.entries);
    assert!(large.raw_bytes > 2 * small.raw_bytes, "{report:?}");
    assert!(small.chosen.dictionary_bytes > 0 && !small.is_own, "{small:?}");
    assert_eq!((large.chosen.codec, large.is_own, large.gate), (Codec::None, true, false), "{large:?}");
    assert_eq!(report.common.chosen, small.chosen, "what nothing shrinks has no part in the common choice");
    for class in &report.classes {
        assert_eq!(class.is_own, class.chosen != report.common.chosen, "{class:?}");
        if let Some(at) = class.chosen_at {
            assert_eq!(class.candidates[at as usize].choice, class.chosen);
        }
    }
    assert_eq!(cold.compression(), report.common.chosen);
    assert_eq!((cold.compression_of(400), cold.compression_of(20_000)), (small.chosen, large.chosen));
    // Raw over stored of both together: blobs as they are, JSON at its ratio.
    let stored = large.raw_bytes as f64
        + small.raw_bytes as f64 / small.candidates[small.chosen_at.unwrap() as usize].ratio;
    let expected = (large.raw_bytes + small.raw_bytes) as f64 / stored;
    assert!(
        (report.expected_ratio / expected - 1.0).abs() < 0.01,
        "{} for {expected}",
        report.expected_ratio
    );
    assert_eq!(names(dir.path(), is_dictionary).len(), 1);

    let text = bytes_stored(&cold, (0..100).map(|n| (key(n), json(n, 1))));
    let raw: usize = (0..100).map(|n| key(n).len() + json(n, 1).len()).sum();
    assert!(text * 3 < raw as u64, "{text} of {raw}");
    compact(&cold);
    expect_exactly(&cold, &model, "compacted");
    cold.close().unwrap();
    let cold = open_on(tuned(dir.path()), OsDisk);
    assert_eq!((cold.compression_of(400), cold.compression_of(20_000)), (small.chosen, large.chosen));
    expect_exactly(&cold, &model, "reopened");
    assert!(bytes_stored(&cold, (0..100).map(|n| (key(n), json(n, 1)))) * 3 < raw as u64, "after a restart");
    cold.abandon();
    let cold = open_on(tuned(dir.path()), OsDisk);
    expect_exactly(&cold, &model, "killed");
}

#[test]
fn values_go_in_and_out_while_several_choices_change() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    fill(&cold, &mut model);
    let write = |from: u32| {
        for n in from..from + 300 {
            cold.insert(&key(n), &json(n, 2)).unwrap();
            assert_eq!(cold.get(&key(n)).unwrap().as_deref(), Some(&json(n, 2)[..]), "{n}");
            if n % 10 == 0 {
                cold.insert(&blob_key(n), &blob(n)).unwrap();
                assert_eq!(cold.get(&blob_key(n)).unwrap().as_deref(), Some(&blob(n)[..]), "{n}");
            }
        }
    };
    std::thread::scope(|scope| {
        let writers = [scope.spawn(|| write(2000)), scope.spawn(|| write(3000))];
        while writers.iter().any(|writer| !writer.is_finished()) {
            tune(&cold);
            compact(&cold);
        }
    });
    for n in (2000..2300).chain(3000..3300) {
        model.insert(key(n), json(n, 2));
        if n % 10 == 0 {
            model.insert(blob_key(n), blob(n));
        }
    }
    expect_exactly(&cold, &model, "written meanwhile");
    assert_eq!(cold.stats().damaged_misses, 0);
    cold.close().unwrap();
    expect_exactly(&open_on(tuned(dir.path()), OsDisk), &model, "reopened");
}

#[test]
fn steady_data_changes_nothing_after_the_first_tuning() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    fill(&cold, &mut Model::new());
    let first = tune(&cold);
    assert!(first.changed);
    let files = names(dir.path(), is_dictionary);
    for round in 0..5 {
        let report = tune(&cold);
        assert!(!report.changed, "round {round}: {report:#?}");
        for (class, before) in report.classes.iter().zip(&first.classes) {
            assert_eq!((class.chosen, class.is_own), (before.chosen, before.is_own), "round {round}");
        }
    }
    assert_eq!(names(dir.path(), is_dictionary), files, "and no dictionary comes or goes");
}

#[test]
fn a_class_too_small_for_a_judgement_follows_the_common_choice() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    for n in 0..500 {
        put(&cold, &mut model, key(n), json(n, 1));
    }
    for n in 0..99 {
        put(&cold, &mut model, blob_key(n), blob(n));
    }
    let report = tune(&cold);
    let large = &report.classes[3];
    assert_eq!(large.sampled_entries, 99, "all there are");
    assert!(!large.is_own && large.reason.contains("99 entries"), "{large:?}");
    assert_eq!(large.chosen, report.common.chosen);
    put(&cold, &mut model, blob_key(99), blob(99));
    let report = tune(&cold);
    assert_eq!((report.classes[3].sampled_entries, report.classes[3].chosen.codec), (100, Codec::None));
    expect_exactly(&cold, &model, "a hundred of them");
}

#[test]
fn the_gate_knows_random_bytes_from_any_text() {
    let mut stopped = 0;
    for seed in 0..2000 {
        let len = 64 + seed as usize * 7;
        stopped += usize::from(looks_random(b"key", &noise(seed, len)));
    }
    assert!(stopped >= 1990, "{stopped} of 2000");
    let base64: Vec<u8> = noise(1, 4000).iter().map(|byte| b'A' + byte % 58).collect();
    assert!(!looks_random(b"key", &base64), "six bits a byte shrink by a quarter");
    for n in 0..2000 {
        assert!(!looks_random(&key(n), &json(n, 1)), "{n}");
    }
    for short in [&b""[..], b"x", &noise(3, 63)] {
        assert!(!looks_random(b"", short), "too short to tell");
    }
    assert!(!looks_random(b"key", &[0; 5000]));
}

#[test]
fn where_random_values_are_mixed_with_others_they_are_not_tried() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    for n in 0..600 {
        put(&cold, &mut model, key(n), json(n, 1));
        put(&cold, &mut model, blob_key(n), noise(n.into(), 500));
    }
    let report = tune(&cold);
    let class = &report.classes[1];
    assert!(class.gate && class.chosen.dictionary_bytes > 0, "{class:?}");
    // What shrinks still does, what does not is stored as it is.
    let text = bytes_stored(&cold, (0..100).map(|n| (key(n), json(n, 1))));
    let raw: usize = (0..100).map(|n| key(n).len() + json(n, 1).len()).sum();
    assert!(text * 3 < raw as u64, "{text} of {raw}");
    expect_exactly(&cold, &model, "gated");
    assert!(!tune(&cold).changed);
    assert!(tune(&cold).classes[1].gate, "and it stays");
}

#[test]
fn the_gate_is_not_used_where_it_would_lose_something() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    for n in 0..300 {
        // Every byte as frequent as the next, and yet half of it is there twice.
        let half = noise(n.into(), 1000);
        put(&cold, &mut model, key(n), [&half[..], &half].concat());
    }
    let stopped = model.values().filter(|value| looks_random(b"key", value)).count();
    assert!(stopped > 200, "the gate would stop {stopped} of 300");
    let report = tune(&cold);
    let class = &report.classes[1];
    assert!(!class.gate && class.chosen.codec != Codec::None, "{class:?}");
    assert!(class.candidates[class.chosen_at.unwrap() as usize].ratio > 1.9, "{class:?}");
    expect_exactly(&cold, &model, "not gated");
}

#[test]
fn the_last_tuning_is_explained_after_a_restart_and_damage_is_no_error() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    assert_eq!(cold.explain().unwrap(), None, "never tuned");
    let mut model = Model::new();
    fill(&cold, &mut model);
    cold.clock().advance(5000);
    let report: TuningReport = tune(&cold);
    assert_eq!((report.at_ms, report.weights), (START_MS + 5000, Weights::Space));
    assert_eq!(cold.explain().unwrap().as_ref(), Some(&report));
    assert_eq!(larder::explain(dir.path()).unwrap().as_ref(), Some(&report), "of an open store");
    cold.abandon();
    assert_eq!(larder::explain(dir.path()).unwrap().as_ref(), Some(&report));
    let whole = read_file(dir.path(), "TUNING");
    for (at, cut) in [(40, whole.len()), (whole.len() - 1, whole.len()), (0, 0), (12, whole.len() / 2)] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        damaged.truncate(cut);
        write_file(dir.path(), "TUNING", &damaged);
        let cold = open_on(tuned(dir.path()), OsDisk);
        assert_eq!(cold.explain().unwrap(), None, "damaged at {at}, cut to {cut}");
        assert_eq!((cold.compression(), cold.stats().recovery.damaged), (report.common.chosen, 0));
    }
    let cold = open_on(tuned(dir.path()), OsDisk);
    expect_exactly(&cold, &model, "without an explanation");
    let again = tune(&cold);
    assert_eq!(cold.explain().unwrap(), Some(again), "the next tuning brings it back");
}

#[test]
fn a_cancelled_tuning_leaves_nothing() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), ScriptedDisk::new(|call| call.op == crate::scripted::Op::Read));
    for n in 0..400 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    cold.flush().unwrap();
    let before = names(dir.path(), |_| true);
    let (gate, hold) = Gate::new();
    cold.disk().script((0..50).map(|_| Verdict::Pass).chain([Verdict::Hold(hold)]));
    std::thread::scope(|scope| {
        let task = scope.spawn(|| cold.run(CompactionTask::OptimizeCompression));
        gate.wait();
        cold.cancel();
        drop(gate);
        assert_eq!(task.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
    assert_eq!(names(dir.path(), |_| true), before);
    assert_eq!((cold.compression().codec, cold.explain().unwrap()), (Codec::Lz4, None));
    assert!(tune(&cold).changed, "and the next one does what this one would have");
}

#[test]
fn a_fixed_codec_is_the_choice_of_every_class() {
    let dir = scratch();
    let fixed = config(dir.path()).compression(Compression::Fixed(Codec::Zstd(1)));
    let cold = open_on(fixed, OsDisk);
    let mut model = Model::new();
    fill(&cold, &mut model);
    let report = tune(&cold);
    assert!(!report.changed);
    for class in report.classes.iter().chain([&*report.common]) {
        assert_eq!((class.chosen.codec, class.chosen.dictionary_bytes), (Codec::Zstd(1), 0), "{class:?}");
        assert!(!class.is_own && !class.gate && !class.changed && class.chosen_at.is_none(), "{class:?}");
        assert!(class.reason.contains("fixes"), "{class:?}");
    }
    assert_eq!(cold.compression_of(20_000).codec, Codec::Zstd(1));
    assert_eq!(names(dir.path(), is_dictionary), Vec::<String>::new());
    assert_eq!(cold.explain().unwrap(), Some(report), "what was measured is explained all the same");
}

#[test]
fn a_dictionary_goes_when_no_class_and_no_segment_needs_it() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    fill(&cold, &mut model);
    tune(&cold);
    compact(&cold);
    let first = names(dir.path(), is_dictionary);
    assert_eq!(first.len(), 1);
    // The small class becomes text of another kind; the large one stays, and is never stored anew.
    let text = |n: u32, version: u32| -> Vec<u8> {
        let line = |word| {
            format!("line {word} of {n}: {:>9} lamps lit at dusk; ", (n * 7919 + word + version) % 997)
        };
        (0..12).map(line).collect::<String>().into_bytes()
    };
    for n in 0..1000 {
        remove(&cold, &mut model, &key(n));
        put(&cold, &mut model, format!("text {n}").into_bytes(), text(n, 1));
    }
    let report = tune(&cold);
    assert!(report.changed && report.classes[3].chosen.codec == Codec::None, "{report:?}");
    assert!(!report.classes[3].changed, "{report:?}");
    assert_eq!(names(dir.path(), is_dictionary).len(), 2, "segments still need the first one");
    for n in 0..1000 {
        put(&cold, &mut model, format!("text {n}").into_bytes(), text(n, 2));
    }
    compact(&cold);
    let users: Vec<_> =
        cold.segments().into_iter().map(|it| (it.id, it.live_records, it.dictionaries)).collect();
    assert!(users.iter().all(|(.., slots)| !slots.contains(&1)), "{users:?}");
    tune(&cold);
    let left = names(dir.path(), is_dictionary);
    assert!(!left.contains(&first[0]) && !left.is_empty(), "{first:?}, then {left:?}");
    assert_eq!(cold.stats().dictionaries, left.len() as u64);
    expect_exactly(&cold, &model, "with the new dictionary");
    cold.close().unwrap();
    let cold = open_on(tuned(dir.path()), OsDisk);
    expect_exactly(&cold, &model, "reopened");
    assert_eq!((cold.stats().damaged_misses, cold.stats().recovery.damaged), (0, 0));
}

#[test]
fn a_segment_that_shrinks_is_stored_anew_although_most_of_the_store_does_not() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    let mut model = Model::new();
    fill(&cold, &mut model);
    let report = tune(&cold);
    assert!(report.expected_ratio < 1.15, "the blobs are most of the bytes: {report:?}");
    // Only the JSON values' segments: the blobs have nothing to gain.
    let compacted = compact(&cold);
    assert!((990..=1010).contains(&compacted.entries_recompressed), "{compacted:?}");
    assert!(compacted.bytes_reclaimed > 0, "{compacted:?}");
    expect_exactly(&cold, &model, "stored anew");
    assert_eq!(compact(&cold).entries_recompressed, 0, "once only");
}

#[test]
fn what_storing_anew_saves_is_measured_again_after_a_restart_and_for_those_who_wait() {
    let dir = scratch();
    let mut model = Model::new();
    {
        let cold = open_on(tuned(dir.path()), OsDisk);
        for n in 0..1000 {
            put(&cold, &mut model, key(n), json(n, 1));
        }
        for n in 0..4 {
            put(&cold, &mut model, blob_key(n), blob(n));
        }
        assert!(tune(&cold).changed);
        cold.close().unwrap();
    }
    let cold = open_on(tuned(dir.path()), OsDisk);
    let before = cold.stats().segment_bytes;
    // Without anybody asking for a compaction: what storing anew saves is garbage.
    cold.run_due().unwrap();
    let after = cold.stats().segment_bytes;
    assert!(after + (100 << 10) < before, "{after} of {before}");
    expect_exactly(&cold, &model, "stored anew by itself");
}

/// As many as a judgement takes, and hardly more: the others are sampled by their number.
#[test]
fn a_class_of_few_large_entries_is_sampled_often_enough_and_no_more() {
    let dir = scratch();
    let cold = open_on(tuned(dir.path()), OsDisk);
    for n in 0..4000 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    for n in 0..600 {
        cold.insert(&blob_key(n), &noise(n.into(), 10_000)).unwrap();
    }
    let report = tune(&cold);
    let sampled = |raw_bytes: usize| report.classes[class_of(raw_bytes)].sampled_entries;
    let (small, large) = (sampled(400), sampled(10_000));
    assert!((200..=260).contains(&large) && small + large == 1000, "{small} small ones, {large} large ones");
}
