//! What the format costs on real records, and a store of this version, kept as it was made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use larder::internals::serialization::record::RECORD_HEADER_BYTES_MIN;
use larder::internals::serialization::segment::SEGMENT_HEADER_BYTES;
use larder::{ColdTier, Compression, ErrorKind, ManualClock, OsDisk, Ttl};

use crate::stores::{
    Model, START_MS, compact, config, expect_absent, expect_exactly, is_dictionary, is_segment, is_snapshot,
    json, key, open_on, read_image, rebuild, refusals, root, scratch, tune, write_image,
};

/// The real records, as the demo reads them.
fn real_records() -> Vec<(Vec<u8>, Vec<u8>)> {
    let packed = crate::stores::read_file(&root().join("data"), "mdn-compat.jsonl.zst");
    let text = String::from_utf8(zstd::decode_all(&packed[..]).unwrap()).unwrap();
    let record = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["key"].as_str().unwrap().as_bytes().to_vec(), line["value"].to_string().into_bytes())
    };
    text.lines().map(record).collect()
}

#[test]
fn header_and_footer_row_of_the_real_records_take_at_most_forty_bytes() {
    let records = real_records();
    assert_eq!(records.len(), 20_968);
    let dir = scratch();
    let config =
        config(dir.path()).segment_bytes(1 << 20).compression(Compression::Fixed(larder::Codec::Lz4));
    let cold = open_on(config, OsDisk);
    let mut rng = fastrand::Rng::with_seed(4);
    let mut header_bytes = 0;
    for (key, value) in &records {
        let is_long = key.len() > 256 || key.len() + value.len() > 65_535;
        header_bytes += RECORD_HEADER_BYTES_MIN + if is_long { 5 } else { 0 };
        // 1 s to 7 days, to the millisecond; one in eight for ever. Time goes on meanwhile.
        cold.clock().advance(rng.u64(..3));
        match rng.u32(..8) {
            0 => cold.insert(key, value).unwrap(),
            _ => {
                header_bytes += 6;
                cold.insert_with_ttl(key, value, Duration::from_millis(rng.u64(1000..=604_800_000))).unwrap()
            }
        }
    }
    cold.close().unwrap();
    let inspection = larder::inspect(dir.path()).unwrap();
    let segments = &inspection.segments;
    let count: u64 = segments.iter().map(|segment| segment.records).sum();
    assert_eq!(count, 20_968);
    assert!(segments.len() >= 5 && segments.iter().all(|segment| segment.dead_records == 0));
    // Nothing is dead: behind the records, everything is footer (rows and trailer).
    let footer_bytes: u64 = segments
        .iter()
        .map(|segment| segment.file_bytes - SEGMENT_HEADER_BYTES as u64 - segment.live_bytes)
        .sum();
    let row = footer_bytes as f64 / count as f64;
    let record = header_bytes as f64 / count as f64 + row;
    println!(
        "{row:.2} bytes a footer row (trailers counted), {record:.2} bytes with the header, {} segments",
        segments.len()
    );
    assert!(row > 7.0, "a hash alone takes seven");
    assert!(record <= 40.0, "{record:.2} bytes a record");
}

/// The store that every later version has to read.
fn fixture() -> PathBuf {
    root().join("tests").join("fixtures").join("v4")
}

const FIXTURE_NOW_MS: u64 = START_MS + 10_000;

/// What it holds: (key, value, expiry).
fn fixture_entries() -> BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> {
    let mut entries: BTreeMap<_, _> = (0..36).map(|n| (key(n), (json(n, 1), None))).collect();
    entries.insert(key(5), (json(5, 2), None));
    entries.remove(&key(6));
    entries.insert(b"plain".to_vec(), (b"stored as it is".to_vec(), None));
    entries.insert(b"empty".to_vec(), (Vec::new(), None));
    entries.insert(b"long life".to_vec(), (json(901, 1), Some(FIXTURE_NOW_MS - 2000 + 3_000_000_000_000)));
    entries
        .insert(b"long life, rewritten".to_vec(), (json(902, 2), Some(FIXTURE_NOW_MS - 2000 + 86_400_000)));
    entries
}

fn fixture_absent() -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = (36..300).map(key).collect();
    keys.extend([key(6), b"expired".to_vec(), b"never there".to_vec()]);
    keys
}

/// Makes the fixture anew. Only for a change of the format before its first release; later versions get one of
/// their own, and keep this one.
#[test]
#[ignore = "writes tests/fixtures/v4"]
fn make_the_fixture() {
    let dir = scratch();
    let tuned = config(dir.path()).compression(Compression::Tuned);
    let cold = open_on(tuned.clone(), OsDisk);
    for n in 0..300 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    let report = tune(&cold);
    assert!(report.changed && report.common.chosen.dictionary_bytes > 0, "{report:?}");
    for n in 36..300 {
        cold.remove(&key(n)).unwrap();
    }
    compact(&cold);
    rebuild(&cold);
    compact(&cold);
    cold.close().unwrap();
    // One segment of survivors stays; four more with everything that can be in one: what lasts, and three classes of
    // times to live.
    let cold = ColdTier::open_with(tuned, OsDisk, ManualClock::new(FIXTURE_NOW_MS - 2000)).unwrap();
    cold.insert(&key(5), &json(5, 2)).unwrap();
    cold.remove(&key(6)).unwrap();
    cold.insert(b"plain", b"stored as it is").unwrap();
    cold.insert(b"empty", b"").unwrap();
    cold.insert_with_ttl(b"expired", &json(900, 1), Duration::from_secs(1)).unwrap();
    cold.insert_with_ttl(b"long life", &json(901, 1), Duration::from_millis(3_000_000_000_000)).unwrap();
    cold.insert(b"long life, rewritten", &json(902, 1)).unwrap();
    cold.insert_with_ttl(b"long life, rewritten", &json(902, 2), Duration::from_secs(86_400)).unwrap();
    cold.clock().advance(2000);
    cold.close().unwrap();
    write_image(&fixture(), &read_image(dir.path()));
    let sizes: BTreeMap<_, _> =
        read_image(&fixture()).into_iter().map(|(name, bytes)| (name, bytes.len())).collect();
    println!("{sizes:?}");
}

#[test]
fn the_store_kept_of_version_4_opens_and_holds_exactly_what_was_put_in() {
    let image = read_image(&fixture());
    assert_eq!(image.keys().filter(|name| is_segment(name)).count(), 5, "{:?}", image.keys());
    assert!(image.keys().any(|name| is_snapshot(name)) && image.keys().any(|name| is_dictionary(name)));
    let dir = scratch();
    let store = dir.path().join("store");
    let entries = fixture_entries();
    let model: Model = entries.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    let open_fixture = || {
        let config = config(&store).compression(Compression::Tuned);
        ColdTier::open_with(config, OsDisk, ManualClock::new(FIXTURE_NOW_MS)).unwrap()
    };
    let check = |cold: &ColdTier<OsDisk, ManualClock>, when: &str| {
        expect_exactly(cold, &model, when);
        expect_absent(cold, &fixture_absent(), when);
        for (key, (_, expires_at_ms)) in &entries {
            let left = expires_at_ms.map(|at| Ttl::Remaining(Duration::from_millis(at - FIXTURE_NOW_MS)));
            assert_eq!(cold.ttl(key).unwrap(), Some(left.unwrap_or(Ttl::Never)), "{when}: {key:?}");
        }
    };
    // From its snapshot, and from its footers alone.
    for is_snapshot_lost in [false, true] {
        let mut image = image.clone();
        if is_snapshot_lost {
            image.retain(|name, _| !is_snapshot(name));
        }
        write_image(&store, &image);
        let cold = open_fixture();
        let recovery = cold.stats().recovery;
        if is_snapshot_lost {
            // Deletions were dropped behind the snapshot: what is older than them may be given up, and is counted.
            assert_eq!(recovery.snapshot_entries, 0);
            expect_absent(&cold, &fixture_absent(), "without its snapshots");
            assert!(cold.len() == model.len() as u64 + 1 || recovery.given_up > 0, "{recovery:?}");
            continue;
        }
        assert!(recovery.snapshot_entries >= model.len() as u64, "{recovery:?}");
        assert_eq!((recovery.damaged, recovery.orphans_removed), (0, 0), "{recovery:?}");
        assert!(cold.compression().dictionary_bytes > 0, "it was tuned");
        check(&cold, "as it was kept");
        compact(&cold);
        check(&cold, "compacted");
        cold.close().unwrap();
        check(&open_fixture(), "reopened");
    }
}

/// Version 1 was never released, so nothing reads it; its stores are not taken for damaged ones.
#[test]
fn a_store_of_before_the_first_release_is_refused_and_left_untouched() {
    let image = read_image(&root().join("tests").join("fixtures").join("v1"));
    let dir = scratch();
    let store = dir.path().join("store");
    for is_current_lost in [false, true] {
        let mut image = image.clone();
        if is_current_lost {
            image.remove("CURRENT");
        }
        write_image(&store, &image);
        for error in refusals(&store) {
            assert_eq!(error.kind(), ErrorKind::OlderFormat, "{error}");
            assert!(error.to_string().contains("version 1 is older than this program's 4"), "{error}");
        }
        assert!(read_image(&store) == image, "a file was touched");
    }
}

#[test]
fn looking_at_the_kept_store_changes_no_byte_of_it() {
    let image = read_image(&fixture());
    let dir = scratch();
    let store = dir.path().join("store");
    write_image(&store, &image);
    let inspection = larder::inspect(&store).unwrap();
    // Values, and the expired one that no cleanup has met.
    assert_eq!(inspection.stats.entries, fixture_entries().len() as u64 + 1);
    assert_eq!(inspection.segments.len(), 5, "one of survivors, and one of fresh records for each group");
    assert!(inspection.compression.dictionary_bytes > 0 && inspection.snapshots >= 1);
    assert_eq!(inspection.warnings, Vec::<String>::new());
    let mut progress = Vec::new();
    let report = larder::verify(&store, &mut |share| progress.push(share)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.segments, report.live_entries), (5, inspection.stats.entries));
    assert_eq!(report.records, inspection.segments.iter().map(|segment| segment.records).sum::<u64>());
    assert!(progress.is_sorted() && progress.last() == Some(&1.0), "{progress:?}");
    assert!(read_image(&store) == image, "a file was changed");

    // Damage is told, and still nothing is changed.
    let segment = image.keys().find(|name| is_segment(name)).unwrap();
    let mut damaged = image.clone();
    damaged.get_mut(segment).unwrap()[120] ^= 1;
    write_image(&store, &damaged);
    let report = larder::verify(&store, &mut |_| {}).unwrap();
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert_eq!(report.damaged[0].file, *segment);
    assert!(report.damaged[0].offset <= 120, "{report:?}");
    assert!(read_image(&store) == damaged, "a file was changed");
}
