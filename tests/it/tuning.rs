//! Tuning: what it measures, what it decides, that the decision is applied, kept, and cleaned up after (D1).

use std::collections::BTreeSet;
use std::time::Duration;

use larder::{Codec, ColdTier, Compression, ManualClock, OsDisk};

use crate::faults::appends;
use crate::scripted::{Gate, Op, ScriptedDisk, Verdict};
use crate::stores::{
    Model, compact, config, expect_exactly, is_dictionary, json, key, names, noise, open_on, put, remove,
    scratch, tune,
};

fn open_tuned(dir: &std::path::Path) -> ColdTier<OsDisk, ManualClock> {
    open_on(config(dir).compression(Compression::Tuned), OsDisk)
}

/// Text of another kind: nothing that is learned from `json` helps here.
fn log_line(number: u32) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(u64::from(number) + 31);
    let words = [
        "WARN",
        "ERROR",
        "TRACE",
        "connection from",
        "refused by upstream;",
        "retrying in",
        "seconds (attempt",
    ];
    let mut line = format!("2026-11-22T{:02}:{:02}:{:02}Z ", rng.u32(..24), rng.u32(..60), rng.u32(..60));
    while line.len() < 500 {
        line.push_str(words[rng.usize(..words.len())]);
        line.push_str(&format!(" {}.{}.0.{} ", rng.u8(..), rng.u8(..), rng.u8(..)));
    }
    line.into_bytes()
}

#[test]
fn the_report_holds_the_whole_table_and_the_reason() {
    let dir = scratch();
    let config = config(dir.path()).compression(Compression::Tuned).sample_entries_max(300);
    let cold = open_on(config, OsDisk);
    for n in 0..1500 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    for n in 0..500 {
        cold.get(&key(n)).unwrap();
    }
    cold.flush().unwrap();
    let previous = cold.compression();
    let report = tune(&cold);
    assert_eq!(report.sampled_entries, 300);
    let raw: u64 = (0..1500).map(|n| (key(n).len() + json(n, 1).len()) as u64).sum();
    let mean = raw / 1500;
    assert!(
        (mean * 300 * 8 / 10..mean * 300 * 12 / 10).contains(&report.sampled_bytes),
        "a fair sample: {report:?}"
    );
    assert!(report.common.entropy_bits > 3.0 && report.common.entropy_bits < 6.0, "text: {report:?}");
    assert_eq!(report.read_share, 500.0 / 2000.0);
    assert_eq!(report.common.previous, previous);
    assert!(report.changed, "{report:?}");
    assert_eq!(report.common.chosen, cold.compression());
    assert_ne!(report.common.chosen, previous);
    assert!(report.common.chosen.dictionary_bytes > 0, "JSON of one shape: {report:?}");

    let table = &report.common.candidates;
    assert!(table.windows(2).all(|pair| pair[0].cost_ns <= pair[1].cost_ns), "cheapest first: {table:?}");
    assert!(table.iter().any(|candidate| candidate.choice == report.common.chosen));
    assert!(table.iter().any(|candidate| candidate.choice == previous), "the present choice is measured too");
    let codecs: BTreeSet<Codec> = table.iter().map(|candidate| candidate.choice.codec).collect();
    assert!(codecs.contains(&Codec::None) && codecs.contains(&Codec::Lz4), "{codecs:?}");
    let levels = codecs.iter().filter(|codec| matches!(codec, Codec::Zstd(_)));
    assert!(levels.count() >= 3, "{codecs:?}");
    // Behind a level that costs twice the best there is none.
    let mut in_both_ways = 0;
    for codec in codecs.iter().filter(|codec| matches!(codec, Codec::Zstd(_))) {
        let of = |has_dictionary: bool| {
            table.iter().find(|candidate| {
                candidate.choice.codec == *codec && (candidate.choice.dictionary_bytes > 0) == has_dictionary
            })
        };
        if let (Some(alone), Some(with)) = (of(false), of(true)) {
            assert!(with.ratio > alone.ratio, "{alone:?} {with:?}");
            in_both_ways += 1;
        }
    }
    assert!(in_both_ways >= 3, "levels alone and with a dictionary: {table:?}");
    for candidate in table {
        assert!(
            candidate.ratio >= 1.0 && candidate.compress_ns > 0.0 && candidate.decompress_ns > 0.0,
            "{candidate:?}"
        );
        assert!(candidate.cost_ns > 0.0 && candidate.cost_ns.is_finite());
    }
    assert!(
        report.common.reason.contains("ns")
            && report.common.reason.contains(&report.common.chosen.to_string()),
        "{}",
        report.common.reason
    );
    assert!(report.duration > Duration::ZERO);
    assert_eq!(cold.compaction_state().progress(), 1.0);
    assert!(!cold.compaction_state().is_compacting());
}

#[test]
fn the_sample_has_the_configured_size_or_everything_there_is() {
    for (entries, sample_max, expected) in [(1400, 1000, 1000), (250, 1000, 250), (250, 100, 100)] {
        let dir = scratch();
        let cold = open_on(config(dir.path()).sample_entries_max(sample_max), OsDisk);
        for n in 0..entries {
            cold.insert_with_ttl(&key(n), &json(n, 1), Duration::from_secs(60)).unwrap();
        }
        // Neither removed nor expired entries are sampled.
        for n in entries..entries + 50 {
            cold.insert(&key(n), &json(n, 1)).unwrap();
            cold.remove(&key(n)).unwrap();
            cold.insert_with_ttl(&key(n + 1000), &json(n, 1), Duration::from_millis(1)).unwrap();
        }
        cold.clock().advance(1);
        cold.flush().unwrap();
        assert_eq!(tune(&cold).sampled_entries, expected);
    }
}

#[test]
fn the_choice_is_applied_to_later_writes_and_compactions_and_survives_a_restart() {
    let dir = scratch();
    let cold = open_tuned(dir.path());
    let mut model = Model::new();
    for n in 0..1000 {
        put(&cold, &mut model, key(n), json(n, 1));
    }
    cold.flush().unwrap();
    let untuned = cold.stats();
    assert!(cold.segments().iter().all(|segment| segment.dictionaries.is_empty()));
    assert_eq!((untuned.dictionaries, untuned.dictionary_bytes), (0, 0));
    let report = tune(&cold);
    assert!(report.changed && report.common.chosen.dictionary_bytes > 0, "{report:?}");
    assert_eq!(names(dir.path(), is_dictionary).len(), 1);
    assert_eq!(cold.stats().dictionaries, 1);
    let untouched = cold.segments();
    expect_exactly(&cold, &model, "tuned, nothing stored anew yet");
    assert_eq!(cold.segments(), untouched, "a tuning writes no segment");

    // Writes: the same values take less than half.
    for n in 1000..2000 {
        put(&cold, &mut model, key(n), json(n - 1000, 1));
    }
    cold.flush().unwrap();
    let tuned = cold.stats();
    let (before, after) =
        (untuned.stored_bytes_inserted, tuned.stored_bytes_inserted - untuned.stored_bytes_inserted);
    assert!(after * 2 < before, "{before} bytes untuned, {after} tuned");
    assert!(cold.segments().last().unwrap().dictionaries == [1], "{:?}", cold.segments());
    expect_exactly(&cold, &model, "with both kinds");

    // Compaction: what was stored before is stored anew, once; what lies beside it in the same segment stays as it is.
    let segment_bytes = cold.stats().segment_bytes;
    let report = compact(&cold);
    assert_eq!(report.entries_recompressed, 1000, "{report:?}");
    assert!(report.bytes_reclaimed > 0 && cold.stats().segment_bytes * 3 < segment_bytes * 2, "{report:?}");
    assert!(cold.segments().iter().all(|segment| segment.dictionaries == [1]), "{:?}", cold.segments());
    expect_exactly(&cold, &model, "stored anew");
    assert_eq!(compact(&cold).entries_recompressed, 0, "once only");

    // Restart.
    let choice = cold.compression();
    cold.close().unwrap();
    let cold = open_tuned(dir.path());
    assert_eq!(cold.compression(), choice);
    expect_exactly(&cold, &model, "reopened");
    let before = cold.stats().stored_bytes_inserted;
    for n in 2000..2100 {
        put(&cold, &mut model, key(n), json(n, 1));
    }
    cold.flush().unwrap();
    let raw: usize = (2000..2100).map(|n| key(n).len() + json(n, 1).len()).sum();
    assert!((cold.stats().stored_bytes_inserted - before) * 2 < raw as u64, "written with the dictionary");
    assert_eq!(cold.segments().last().unwrap().dictionaries, [1]);
    cold.flush().unwrap();
    cold.abandon();
    let cold = open_tuned(dir.path());
    assert_eq!(cold.compression(), choice, "after a kill");
    expect_exactly(&cold, &model, "after a kill");
}

/// Insists on a file for every dictionary that a segment needs, and on none besides but the one in force.
fn expect_needed_dictionaries(cold: &ColdTier<OsDisk, ManualClock>, dir: &std::path::Path) {
    let needed: BTreeSet<u8> = cold.segments().into_iter().flat_map(|segment| segment.dictionaries).collect();
    let files: BTreeSet<u8> =
        names(dir, is_dictionary).iter().map(|name| name["dict-".len()..][..3].parse().unwrap()).collect();
    assert!(files.is_superset(&needed), "{files:?} do not hold all of {needed:?}");
    assert!(files.difference(&needed).count() <= 1, "{files:?}, of which {needed:?} are needed");
    assert_eq!(cold.stats().dictionaries, files.len() as u64);
}

#[test]
fn a_dictionary_is_kept_while_a_segment_needs_it_and_deleted_after() {
    let dir = scratch();
    let cold = open_tuned(dir.path());
    let mut model = Model::new();
    for n in 0..600 {
        put(&cold, &mut model, key(n), json(n, 1));
    }
    cold.flush().unwrap();
    assert!(tune(&cold).common.chosen.dictionary_bytes > 0);
    for n in 600..900 {
        put(&cold, &mut model, key(n), json(n, 1));
    }
    cold.flush().unwrap();
    let first = names(dir.path(), is_dictionary);
    assert_eq!(first.len(), 1);

    // The data becomes another: most of the old is removed, a little of it stays.
    for n in 0..850 {
        remove(&cold, &mut model, &key(n));
    }
    for n in 2000..4000 {
        put(&cold, &mut model, key(n), log_line(n));
    }
    cold.flush().unwrap();
    let report = tune(&cold);
    assert!(report.changed && report.common.chosen.dictionary_bytes > 0, "{report:?}");
    let both = names(dir.path(), is_dictionary);
    assert!(both.len() == 2 && both.contains(&first[0]), "segments still need the first one: {both:?}");
    expect_exactly(&cold, &model, "with both dictionaries");

    // Moved or stored anew, what is left of the old data finds the dictionary it needs.
    for n in 2000..4000 {
        put(&cold, &mut model, key(n), log_line(n + 1));
    }
    compact(&cold);
    tune(&cold);
    expect_needed_dictionaries(&cold, dir.path());
    expect_exactly(&cold, &model, "moved");
    // Once it is gone too, nothing needs the first dictionary any more.
    for n in 850..900 {
        remove(&cold, &mut model, &key(n));
    }
    compact(&cold);
    let needed: BTreeSet<u8> =
        cold.segments().iter().flat_map(|segment| segment.dictionaries.clone()).collect();
    let users: Vec<_> =
        cold.segments().into_iter().map(|s| (s.id, s.records, s.live_records, s.dictionaries)).collect();
    assert!(!needed.contains(&1) && !needed.is_empty(), "{users:?}");
    let again = tune(&cold);
    let left = names(dir.path(), is_dictionary);
    assert!(!left.contains(&first[0]), "{left:?}");
    assert_eq!(cold.stats().dictionaries, left.len() as u64);
    if !again.changed {
        assert_eq!(left.len(), 1);
    }
    expect_needed_dictionaries(&cold, dir.path());
    expect_exactly(&cold, &model, "after the first dictionary went");
    cold.close().unwrap();
    let cold = open_tuned(dir.path());
    expect_exactly(&cold, &model, "reopened without it");
    assert_eq!(cold.stats().damaged_misses, 0);
    assert_eq!(cold.stats().recovery.damaged, 0);
}

#[test]
fn random_data_is_stored_as_it_is() {
    let dir = scratch();
    let cold = open_tuned(dir.path());
    let mut model = Model::new();
    for n in 0..300u32 {
        put(&cold, &mut model, noise(u64::from(n) + 5000, 16), noise(n.into(), 1000));
    }
    cold.flush().unwrap();
    let report = tune(&cold);
    assert_eq!(report.common.chosen.codec, Codec::None, "{report:?}");
    assert_eq!(report.common.chosen.dictionary_bytes, 0);
    assert_eq!(cold.compression(), report.common.chosen);
    assert!(report.common.entropy_bits > 7.9, "{report:?}");
    assert_eq!(names(dir.path(), is_dictionary), Vec::<String>::new());
    let before = cold.stats().stored_bytes_inserted;
    put(&cold, &mut model, noise(1, 16), json(1, 1));
    cold.flush().unwrap();
    let stored = cold.stats().stored_bytes_inserted - before;
    assert_eq!(stored as usize, (15 + 16 + json(1, 1).len()).next_multiple_of(4), "as it is, whatever it is");
    expect_exactly(&cold, &model, "random data");
    assert!(!tune(&cold).changed, "and it stays so");
}

#[test]
fn a_fixed_compression_is_measured_and_never_changed() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(3)] {
        let dir = scratch();
        let fixed = config(dir.path()).compression(Compression::Fixed(codec));
        let cold = open_on(fixed.clone(), OsDisk);
        let mut model = Model::new();
        for n in 0..400 {
            put(&cold, &mut model, key(n), json(n, 1));
        }
        cold.flush().unwrap();
        let before = cold.segments();
        let report = tune(&cold);
        assert!(!report.changed, "{report:?}");
        assert_eq!((report.common.chosen, report.common.previous), (cold.compression(), cold.compression()));
        assert_eq!((report.common.chosen.codec, report.common.chosen.dictionary_bytes), (codec, 0));
        assert!(report.common.candidates.len() > 5, "measured all the same: {report:?}");
        assert!(report.common.reason.contains("fixes"), "{}", report.common.reason);
        assert_eq!(names(dir.path(), is_dictionary), Vec::<String>::new());
        assert_eq!(cold.segments(), before);
        assert_eq!(compact(&cold).entries_recompressed, 0);
        expect_exactly(&cold, &model, "fixed");
        cold.close().unwrap();
        assert_eq!(open_on(fixed, OsDisk).compression().codec, codec);
    }
}

#[test]
fn too_few_entries_are_no_reason_to_change_anything() {
    let dir = scratch();
    let cold = open_tuned(dir.path());
    let mut model = Model::new();
    for n in 0..99 {
        put(&cold, &mut model, key(n), json(n, 1));
    }
    cold.flush().unwrap();
    let before = cold.compression();
    let report = tune(&cold);
    assert_eq!(report.sampled_entries, 99);
    assert!(
        !report.changed && report.common.chosen == before && report.common.previous == before,
        "{report:?}"
    );
    assert!(report.common.reason.contains("99"), "{}", report.common.reason);
    assert_eq!(names(dir.path(), is_dictionary), Vec::<String>::new());
    put(&cold, &mut model, key(99), json(99, 1));
    cold.flush().unwrap();
    assert_eq!(tune(&cold).sampled_entries, 100);
    expect_exactly(&cold, &model, "a hundred");
    // An empty store can be tuned too.
    let dir = scratch();
    let cold = open_tuned(dir.path());
    let report = tune(&cold);
    assert!(!report.changed && report.sampled_entries == 0, "{report:?}");
}

#[test]
fn progress_of_a_tuning_rises_from_the_sample_to_the_end() {
    let dir = scratch();
    let tuned = config(dir.path()).compression(Compression::Tuned).sample_entries_max(200);
    let cold = open_on(tuned, ScriptedDisk::new(|_| true));
    for n in 0..400 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script((0..10_000).map(|_| Verdict::Hold(hold.clone())));
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let task = scope.spawn(|| {
            let report = tune(&cold);
            cold.disk().forget_script();
            report
        });
        let Gate { reached, release } = gate;
        while !task.is_finished() {
            if let Ok(call) = reached.recv_timeout(Duration::from_millis(20)) {
                seen.push((call, cold.compaction_state().progress()));
                release.send(()).unwrap();
            }
        }
        assert!(task.join().unwrap().changed);
    });
    assert_eq!(cold.compaction_state().progress(), 1.0);
    assert!(seen.windows(2).all(|pair| pair[0].1 <= pair[1].1), "progress fell: {seen:?}");
    let sampled: Vec<f32> =
        seen.iter().filter(|(call, _)| call.op == Op::Read && call.is_segment()).map(|(_, p)| *p).collect();
    assert!(
        sampled.len() >= 200 && sampled[0] == 0.0 && sampled[199] < 0.4 && sampled[199] > 0.3,
        "{sampled:?}"
    );
    // Measured by then; what follows writes the decision down.
    let written = seen.iter().filter(|(call, _)| call.op == Op::Create && call.name.starts_with("dict-"));
    let written: Vec<f32> = written.map(|(_, progress)| *progress).collect();
    assert!(!written.is_empty() && written.iter().all(|p| *p >= 0.89), "{written:?}");
}

#[test]
fn a_failure_at_any_disk_call_of_a_tuning_changes_nothing_that_can_be_read() {
    let dir = scratch();
    let tuned = || config(dir.path()).compression(Compression::Tuned).sample_entries_max(200);
    let concerns = |call: &crate::scripted::Call| !call.is_segment();
    let mut model = Model::new();
    let cold = open_on(tuned(), OsDisk);
    for n in 0..800 {
        put(&cold, &mut model, key(n), json(n, 1));
    }
    cold.close().unwrap();
    let image = crate::stores::read_image(dir.path());
    let mut failed = 0;
    for nth in 0.. {
        crate::stores::write_image(dir.path(), &image);
        let cold = open_on(tuned(), ScriptedDisk::new(concerns));
        cold.disk()
            .script((0..nth).map(|_| Verdict::Pass).chain([Verdict::Fail(std::io::ErrorKind::StorageFull)]));
        let outcome = cold.run(larder::CompactionTask::OptimizeCompression);
        let is_over = cold.disk().forget_script() > 0;
        let when =
            format!("call {nth} of a tuning failed: {:?}", outcome.as_ref().err().map(ToString::to_string));
        failed += u64::from(outcome.is_err());
        let mut model = model.clone();
        if !outcome.is_err_and(|error| error.is_read_only()) {
            for n in 150..300 {
                put(&cold, &mut model, key(n), json(n, 2));
            }
        }
        expect_exactly(&cold, &model, &when);
        cold.len();
        cold.abandon();
        let cold = open_on(tuned(), OsDisk);
        expect_exactly(&cold, &model, &format!("{when}, killed"));
        tune(&cold);
        compact(&cold);
        expect_exactly(&cold, &model, &format!("{when}, tuned and compacted"));
        assert_eq!(names(dir.path(), is_dictionary).len() as u64, cold.stats().dictionaries, "{when}");
        cold.abandon();
        if is_over {
            break;
        }
    }
    assert!(failed >= 6, "{failed}");
}

#[test]
fn a_tuning_that_fails_has_changed_nothing_and_leaves_no_file_behind() {
    let dir = scratch();
    let tuned = config(dir.path()).compression(Compression::Tuned).sample_entries_max(200);
    // Every write but those to segments: the dictionary and each edit that enters it and the choice.
    let concerns = |call: &crate::scripted::Call| call.op == Op::Write && !call.is_segment();
    let cold = open_on(tuned, ScriptedDisk::new(concerns));
    for n in 0..800 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    cold.flush().unwrap();
    let before = cold.compression();
    let mut wrong = Vec::new();
    for nth in 0.. {
        cold.disk()
            .script((0..nth).map(|_| Verdict::Pass).chain([Verdict::Fail(std::io::ErrorKind::StorageFull)]));
        let outcome = cold.run(larder::CompactionTask::OptimizeCompression);
        if cold.disk().forget_script() > 0 {
            outcome.unwrap();
            assert!(nth >= 3, "{nth}");
            break;
        }
        let Err(error) = outcome else {
            // Only the explanation is missing, and the next tuning brings it.
            assert_ne!(cold.compression(), before, "write {nth}");
            assert_eq!(cold.explain().unwrap(), None, "write {nth}");
            let report = tune(&cold);
            assert_eq!(cold.explain().unwrap(), Some(report));
            assert!(nth >= 3, "{nth}");
            break;
        };
        assert!(error.is_full());
        if cold.compression() != before {
            wrong.push(format!("write {nth} failed, and {} is in force", cold.compression()));
        }
        let (files, known) = (names(dir.path(), is_dictionary), cold.stats().dictionaries);
        if files.len() as u64 != known {
            wrong.push(format!("write {nth} failed, and of {files:?} {known} are known"));
        }
    }
    assert!(cold.compression().dictionary_bytes > 0);
    assert!(wrong.is_empty(), "{before} before; {wrong:#?}");
}

#[test]
fn a_tuning_samples_what_was_accepted_before_it() {
    let dir = scratch();
    let tuned = config(dir.path()).compression(Compression::Tuned);
    let cold = open_on(tuned, ScriptedDisk::new(appends));
    let (gate, hold) = Gate::new();
    cold.disk().script([Verdict::Hold(hold)]);
    cold.insert(&key(0), &json(0, 1)).unwrap();
    gate.wait();
    // Accepted, and still in the queue of a writer that stands.
    for n in 1..300 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    std::thread::scope(|scope| {
        let gate = gate;
        let task = scope.spawn(|| tune(&cold));
        // A tuning that did not wait would be over by now.
        std::thread::sleep(Duration::from_millis(200));
        drop(gate);
        assert_eq!(task.join().unwrap().sampled_entries, 300);
    });
}

#[test]
fn records_that_the_writer_encodes_and_those_that_callers_encode_are_stored_alike() {
    let stored_by = |burst: u32| {
        let dir = scratch();
        let cold = open_tuned(dir.path());
        for n in 0..2000 {
            cold.insert(&key(n), &json(n, 1)).unwrap();
        }
        cold.flush().unwrap();
        tune(&cold);
        let before = cold.stats().stored_bytes_inserted;
        for n in 0..8000 {
            cold.insert(&key(n), &json(n, 2)).unwrap();
            // In a burst the queue grows, and callers encode; one by one the writer has time for each.
            if n % burst == burst - 1 {
                cold.flush().unwrap();
            }
        }
        cold.flush().unwrap();
        for n in 0..8000 {
            assert_eq!(cold.get(&key(n)).unwrap().as_deref(), Some(&json(n, 2)[..]));
        }
        let stored = cold.stats().stored_bytes_inserted - before;
        let raw: u64 = (0..8000).map(|n| (key(n).len() + json(n, 2).len()) as u64).sum();
        assert!(stored * 2 < raw, "compressed with the dictionary: {stored} of {raw}");
        stored
    };
    let (one_by_one, at_once) = (stored_by(16), stored_by(8000));
    assert!(one_by_one.abs_diff(at_once) * 5 < at_once, "{one_by_one} and {at_once}");
}
