//! Damage found, damage mended: what `verify` sees, what `repair` saves, and what a start adopts.

use larder::{ColdTier, ColdTierConfig, RepairReport};

use crate::scripted::{Call, Gate, Op, ScriptedDisk, Verdict};
use crate::stores::*;

fn fixture() -> Image {
    read_image(&root().join("tests").join("fixtures").join("v4"))
}

/// A store with every kind of record: two rounds of values, deletions, a compaction, a snapshot, an open tail.
fn damaged_store(dir: &std::path::Path) -> (Image, Model) {
    let (cold, mut model) = (open(dir), Model::new());
    for n in 0..200 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    for n in 0..50 {
        remove(&cold, &mut model, &key(n));
    }
    compact(&cold);
    rebuild(&cold);
    for n in 50..80 {
        put(&cold, &mut model, key(n), noise(1000 + u64::from(n), 300));
    }
    for n in 80..90 {
        remove(&cold, &mut model, &key(n));
    }
    cold.flush().unwrap();
    cold.abandon();
    (read_image(dir), model)
}

fn repair_of(image: &Image, only_sure: bool) -> (RepairReport, Model) {
    let dir = scratch();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    write_image(&store, image);
    let report = larder::repair(&store, ColdTierConfig::new(&copy), only_sure, &mut |_| {}).unwrap();
    assert!(read_image(&store) == *image, "the damaged store was changed");
    let cold = ColdTier::open(ColdTierConfig::new(&copy)).unwrap();
    let saved: Model =
        cold.iter().map(|entry| entry.unwrap()).map(|e| (e.key.into(), e.value.into())).collect();
    assert_eq!(report.saved, saved.len() as u64, "{report:?}");
    (report, saved)
}

/// Everything saved is what it was, and of all that is missing the report speaks.
fn expect_saved(saved: &Model, model: &Model, missing_max: usize) {
    for (key, value) in saved {
        assert!(model.get(key) == Some(value), "{}: stale or wrong", String::from_utf8_lossy(key));
    }
    assert!(saved.len() + missing_max >= model.len(), "{} of {} saved", saved.len(), model.len());
}

#[test]
fn a_sound_store_is_repaired_into_its_equal() {
    let dir = scratch();
    let (image, model) = damaged_store(dir.path());
    for only_sure in [false, true] {
        let (report, saved) = repair_of(&image, only_sure);
        assert!(saved == model, "{report:?}");
        assert_eq!((report.doubtful_saved, report.doubtful_left, report.damaged), (0, 0, 0), "{report:?}");
        assert_eq!(report.warnings, Vec::<String>::new());
    }
}

#[test]
fn the_kept_store_with_its_dictionary_is_repaired_into_its_equal() {
    let dir = scratch();
    write_image(&dir.path().join("store"), &fixture());
    let cold = ColdTier::open(ColdTierConfig::new(dir.path().join("store"))).unwrap();
    // Its clock stands where it was made; the copy's is today's.
    let lasting = cold.iter().map(|entry| entry.unwrap()).filter(|entry| entry.expires_at_ms.is_none());
    let model: Model = lasting.map(|entry| (entry.key.into(), entry.value.into())).collect();
    let (report, mut saved) = repair_of(&fixture(), false);
    saved.retain(|key, _| !key.starts_with(b"long life"));
    assert!(saved == model && model.len() > 30, "{report:?}");
    // Without a manifest the dictionary is found by its name, and deletions that compaction dropped are not known.
    let mut image = fixture();
    image.retain(|name, _| !name.starts_with("MANIFEST"));
    let (report, saved) = repair_of(&image, false);
    assert!(model.iter().all(|(key, value)| saved.get(key) == Some(value)), "{report:?}");
    assert_eq!(report.doubtful_saved, report.saved);
    assert_eq!(repair_of(&image, true).1, Model::new(), "without a manifest nothing is sure");
}

#[test]
fn without_a_readable_manifest_all_segments_are_read_and_deletions_that_can_be_read_are_honoured() {
    let dir = scratch();
    let (mut image, model) = damaged_store(dir.path());
    let manifest = image.keys().find(|name| name.starts_with("MANIFEST")).unwrap().clone();
    image.insert(manifest, b"not a manifest".to_vec());
    write_image(dir.path(), &image);
    let refused =
        ColdTier::open(ColdTierConfig::new(dir.path())).map(drop).expect_err("nobody knows its segments");
    assert!(refused.is_corruption(), "{refused}");
    let (report, saved) = repair_of(&image, false);
    assert_eq!(report.segments, report.segments_unknown);
    expect_saved(&saved, &model, 0);
    assert_eq!(saved.len(), model.len(), "a deleted or overwritten value is back");
}

#[test]
fn of_a_damaged_record_nothing_older_is_saved() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    put(&cold, &mut model, b"key".to_vec(), b"old value".to_vec());
    for n in 0..300 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    put(&cold, &mut model, b"key".to_vec(), b"new value".to_vec());
    cold.close().unwrap();
    let mut image = read_image(dir.path());
    let (name, at) = image
        .iter()
        .find_map(|(name, bytes)| {
            bytes.windows(9).position(|window| window == b"new value").map(|at| (name.clone(), at))
        })
        .unwrap();
    image.get_mut(&name).unwrap()[at] ^= 1;
    model.remove(&b"key"[..]);
    let (report, saved) = repair_of(&image, false);
    assert_eq!(report.damaged, 1, "{report:?}");
    assert!(saved == model);
}

/// Picks a call at which a compaction is cut short.
type Moment = fn(&Call) -> bool;

/// Where in the segment files the bytes are.
fn copies_of(wanted: &[u8], image: &Image) -> Vec<(String, usize)> {
    let place = |(name, bytes): (&String, &Vec<u8>)| {
        let at = bytes.windows(wanted.len()).position(|window| window == wanted)?;
        name.starts_with("seg-").then(|| (name.clone(), at))
    };
    image.iter().filter_map(place).collect()
}

/// A directory as a kill leaves it in mid-compaction, at the first such call when `wanted` is there twice.
fn killed_in_a_compaction(at: Moment, wanted: &[u8]) -> (Image, Model) {
    let dir = scratch();
    let (cold, mut model) = (open_on(config(dir.path()), ScriptedDisk::new(at)), Model::new());
    for n in 0..400 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    for n in (0..400).step_by(2) {
        remove(&cold, &mut model, &key(n));
    }
    cold.flush().unwrap();
    let (gate, hold) = Gate::new();
    cold.disk().script((0..100).map(|_| Verdict::Hold(hold.clone())));
    let image = std::thread::scope(|scope| {
        let gate = gate;
        scope.spawn(|| compact(&cold));
        loop {
            gate.wait();
            let image = read_image(dir.path());
            if copies_of(wanted, &image).len() == 2 {
                return image;
            }
            gate.release.send(()).unwrap();
        }
    });
    (image, model)
}

/// What a compaction wrote before it was cut short is a copy of what is in force, and what it replaced is one of what
/// is in force by then: either serves where the other is damaged.
#[test]
fn a_damaged_record_of_which_a_cut_compaction_left_a_copy_is_saved() {
    let moments: [(&str, Moment); 3] = [
        ("the output has not got its name", |call| call.op == Op::Rename && call.is_output()),
        ("nothing is committed", |call| call.op == Op::Write && call.name.starts_with("MANIFEST")),
        ("the old one has not been deleted", |call| call.op == Op::Remove && call.is_segment()),
    ];
    let wanted = noise(101, 300);
    for (moment, at) in moments {
        let (image, model) = killed_in_a_compaction(at, &wanted);
        let copies = copies_of(&wanted, &image);
        for (name, at) in &copies {
            let mut image = image.clone();
            image.get_mut(name).unwrap()[*at] ^= 1;
            for only_sure in [false, true] {
                let (report, saved) = repair_of(&image, only_sure);
                assert!(saved == model, "{moment}, {name} is damaged: {report:?}");
                assert_eq!((report.damaged, report.doubtful_saved), (0, 0), "{moment}, {name}: {report:?}");
            }
        }
    }
}

#[test]
fn what_opening_gives_up_is_saved_as_doubtful_unless_only_sure_entries_are_wanted() {
    let dir = scratch();
    let (image, model) = damaged_store(dir.path());
    let mut image = image;
    image.retain(|name, _| !is_snapshot(name));
    let store = dir.path().join("again");
    write_image(&store, &image);
    let cold = open(&store);
    assert!(cold.stats().recovery.given_up > 0, "deletions were dropped behind the snapshot");
    let served = cold.len();
    cold.abandon();
    let (report, saved) = repair_of(&image, false);
    assert!(report.doubtful_saved > 0 && saved.len() >= model.len(), "{report:?}");
    assert!(model.iter().all(|(key, value)| saved.get(key) == Some(value)));
    let (report, saved) = repair_of(&image, true);
    assert!(report.doubtful_left > 0, "{report:?}");
    assert_eq!(saved.len() as u64, served);
    expect_saved(&saved, &model, model.len());
}

#[test]
fn a_lost_segment_costs_its_own_entries_and_no_others() {
    let dir = scratch();
    let (image, model) = damaged_store(dir.path());
    for name in image.keys().filter(|name| is_segment(name)) {
        let mut image = image.clone();
        let lost = image.remove(name).unwrap();
        let (report, saved) = repair_of(&image, false);
        // A record takes over 300 bytes.
        let missing = model.len() - saved.keys().filter(|key| model.contains_key(*key)).count();
        assert!(missing <= lost.len() / 300 + 1, "{name}: {missing} entries are missing, {report:?}");
    }
}

#[test]
fn repair_refuses_what_it_must_not_touch() {
    let dir = scratch();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let cold = open(&store);
    let into = |copy: &std::path::Path| larder::repair(&store, config(copy), false, &mut |_| {});
    assert!(into(&copy).unwrap_err().is_locked());
    cold.insert(b"key", b"value").unwrap();
    cold.close().unwrap();
    assert!(into(&store).unwrap_err().is_config(), "the store itself is no place for the copy");
    assert!(!copy.exists(), "nothing was made");
    assert_eq!(into(&copy).unwrap().saved, 1);
    assert!(into(&copy).unwrap_err().is_config(), "there is a store already");
}

#[test]
fn verify_finds_damage_of_every_kind_of_file() {
    let dir = scratch();
    let image = fixture();
    let verify = |image: &Image| {
        write_image(dir.path(), image);
        larder::verify(dir.path(), &mut |_| {}).unwrap()
    };
    assert!(verify(&image).is_clean());
    for (name, bytes) in image.iter().filter(|(name, _)| *name != "LOCK") {
        // The first block of each file, and its last byte where that is under a checksum.
        let last = (!name.starts_with("MANIFEST")).then(|| bytes.len() - 1);
        for at in
            [Some(9), last, (!name.starts_with("seg-")).then_some(bytes.len() / 2)].into_iter().flatten()
        {
            if name.starts_with("MANIFEST") && bytes[at] == 0 && at > 16 {
                continue;
            }
            let mut damaged = image.clone();
            damaged.get_mut(name).unwrap()[at] ^= 0x10;
            let report = verify(&damaged);
            assert!(!report.is_clean(), "{name} at {at}");
        }
        let mut missing = image.clone();
        missing.remove(name);
        if name != "TUNING" && !name.starts_with("MANIFEST") {
            assert!(!verify(&missing).is_clean(), "{name} missing");
        }
        let mut cut = image.clone();
        cut.get_mut(name).unwrap().truncate(bytes.len() / 2);
        if !name.starts_with("MANIFEST") {
            assert!(!verify(&cut).is_clean(), "{name} cut");
        }
    }
}

/// A manifest that was cut at the end of an edit looks whole. The segment added behind the cut held an overwrite and a
/// deletion, both synced: it was taken for a leftover and deleted, and what it had replaced came back.
#[test]
fn a_fresh_segment_that_the_manifest_has_lost_is_adopted() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    for n in 0..20 {
        put(&cold, &mut model, key(n), noise(n.into(), 100));
    }
    compact(&cold);
    rebuild(&cold);
    let manifest = names(dir.path(), |name| name.starts_with("MANIFEST")).remove(0);
    let end = read_file(dir.path(), &manifest).len();
    put(&cold, &mut model, key(1), noise(1000, 100));
    remove(&cold, &mut model, &key(2));
    cold.flush().unwrap();
    cold.abandon();
    let bytes = read_file(dir.path(), &manifest);
    assert!(bytes.len() > end, "the new segment's edit is behind the cut");
    write_file(dir.path(), &manifest, &bytes[..end]);
    for when in ["cut", "cut, opened again"] {
        let cold = open(dir.path());
        expect_exactly(&cold, &model, when);
        compact(&cold);
        expect_exactly(&cold, &model, when);
        cold.close().unwrap();
    }
}

/// Cut further, the manifest names segments that a compaction has replaced: that compaction was durable, so nothing may
/// be deleted and nothing old may come back.
#[test]
fn a_manifest_that_has_lost_a_compaction_deletes_nothing_and_brings_nothing_back() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    for n in 0..50 {
        put(&cold, &mut model, key(n), noise(n.into(), 100));
    }
    cold.flush().unwrap();
    let manifest = names(dir.path(), |name| name.starts_with("MANIFEST")).remove(0);
    let end = read_file(dir.path(), &manifest).len();
    for n in 0..25 {
        remove(&cold, &mut model, &key(n));
    }
    compact(&cold);
    cold.flush().unwrap();
    cold.abandon();
    let bytes = read_file(dir.path(), &manifest);
    write_file(dir.path(), &manifest, &bytes[..end]);
    let before = names(dir.path(), is_segment);
    let cold = open(dir.path());
    for n in 0..25 {
        assert_eq!(cold.get(&key(n)).unwrap(), None, "{n} is back");
    }
    cold.close().unwrap();
    assert!(before.iter().all(|name| names(dir.path(), is_segment).contains(name)), "a file is gone");
    let (report, saved) = repair_of(&read_image(dir.path()), false);
    expect_saved(&saved, &model, 0);
    assert!(report.doubtful_saved > 0, "{report:?}");
}

/// R4, with a snapshot: what the deletion kept away was in it, and the only bytes that say so are damaged twice over.
#[test]
fn a_deletion_lost_with_record_and_footer_behind_the_snapshot_does_not_come_undone() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    put(&cold, &mut model, b"deleted".to_vec(), b"value".to_vec());
    // Enough to seal the segment of the value, and then that of the deletion.
    for n in 0..200 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    rebuild(&cold);
    remove(&cold, &mut model, b"deleted");
    for n in 200..400 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    cold.flush().unwrap();
    cold.abandon();
    let mut image = read_image(dir.path());
    let place = |bytes: &Vec<u8>| bytes.windows(7).position(|window| window == b"deleted");
    let holds = image.iter().filter(|(name, _)| is_segment(name));
    let (name, at) =
        holds.filter_map(|(name, bytes)| Some((name.clone(), place(bytes)?))).next_back().unwrap();
    let bytes = image.get_mut(&name).unwrap();
    assert!(!bytes.windows(5).any(|window| window == b"value"), "this is not the deletion's segment");
    let last = bytes.len() - 1;
    (bytes[at], bytes[last]) = (bytes[at] ^ 1, bytes[last] ^ 1);
    write_image(dir.path(), &image);
    for start in 0..2 {
        let cold = open(dir.path());
        assert_eq!(cold.get(b"deleted").unwrap(), None, "start {start}");
        for entry in cold.iter().map(|entry| entry.unwrap()) {
            assert!(model.get(&entry.key[..]).is_some_and(|value| *value == entry.value), "start {start}");
        }
        assert!(cold.len() > 100, "{} entries: what is newer than the deletion is kept", cold.len());
        cold.abandon();
    }
}

/// A task that was cut short leaves a record twice. Where the manifest does not say which of them is in force, the whole
/// one is saved, and not the damaged one.
#[test]
fn of_a_record_that_is_there_twice_the_whole_one_is_saved() {
    let dir = scratch();
    let (cold, mut model) = (open(dir.path()), Model::new());
    for n in 0..100 {
        put(&cold, &mut model, key(n), noise(n.into(), 300));
    }
    for n in 0..20 {
        remove(&cold, &mut model, &key(n));
    }
    cold.close().unwrap();
    let before = read_image(dir.path());
    let cold = open(dir.path());
    compact(&cold);
    cold.close().unwrap();
    let mut image = read_image(dir.path());
    // The victims are there again, with a record damaged that has been moved.
    for (name, mut bytes) in before.into_iter().filter(|(name, _)| is_segment(name)) {
        if let Some(at) = bytes.windows(9).position(|window| window == key(50)) {
            bytes[at] ^= 1;
        }
        assert!(image.insert(name, bytes).is_none(), "the compaction has replaced them all");
    }
    // Which of two manifests is in force nobody knows without the pointer: both segments count.
    let junk = image.insert("MANIFEST-0000000009".into(), b"not a manifest".to_vec());
    assert!(junk.is_none() && image.remove("CURRENT").is_some());
    // Which of them is met first is by chance.
    for _ in 0..12 {
        let (report, saved) = repair_of(&image, false);
        expect_saved(&saved, &model, 0);
        assert!(report.segments_unknown > 0 && report.damaged == 0, "{report:?}");
    }
}

/// What the index vouches for may have expired meanwhile: it is counted, once, and not saved.
#[test]
fn what_has_expired_behind_a_left_over_is_counted_and_not_saved() {
    let dir = scratch();
    let store = dir.path().join("store");
    let cold = open(&store);
    cold.insert_with_ttl(b"key", b"until then", std::time::Duration::from_secs(60)).unwrap();
    cold.close().unwrap();
    let image = read_image(&store);
    // A newer record of the key, in a segment that another course of events has given the number of.
    let cold = open(&store);
    cold.insert(b"key", b"another course").unwrap();
    cold.flush().unwrap();
    let left_over: Image = read_image(&store)
        .into_iter()
        .filter(|(name, _)| is_segment(name) && !image.contains_key(name))
        .collect();
    assert_eq!(left_over.len(), 1);
    cold.abandon();
    write_image(&store, &image);
    let (cold, mut model) = (open(&store), Model::new());
    // Its own segments, the first of which goes again.
    put(&cold, &mut model, b"other".to_vec(), b"value".to_vec());
    compact(&cold);
    put(&cold, &mut model, b"other".to_vec(), b"new value".to_vec());
    compact(&cold);
    cold.close().unwrap();
    let mut image = read_image(&store);
    for (name, bytes) in left_over {
        assert!(image.insert(name, bytes).is_none(), "the number is in use");
    }
    let (report, saved) = repair_of(&image, false);
    assert_eq!((report.segments_unknown, report.expired), (1, 1), "{report:?}");
    assert!(saved == model, "{report:?}");
}
