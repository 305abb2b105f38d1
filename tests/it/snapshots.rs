//! The saved index: what its parity makes up for, what that leaves behind, and what it cannot make up for.

use std::io::ErrorKind as IoKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::internals::serialization::snapshot::{SNAPSHOT_HEADER_BYTES, decode_header};

use crate::scripted::{Call, Op, ScriptedDisk};
use crate::stores::{
    Image, Model, compact, config, expect_absent, expect_exactly, key, names, noise, open, open_on, put,
    read_file, read_image, rebuild, remove, ruin_snapshot, scratch, the_snapshot, write_file, write_image,
};

/// What file systems and disks lose at a time.
const BLOCK_BYTES: usize = 4096;

/// A store whose old values are kept away by its snapshot alone: values deleted, and the deletions compacted away.
fn saved(dir: &Path, entries: u32) -> (Image, Model) {
    let mut model = Model::new();
    let cold = open(dir);
    for n in 0..entries {
        put(&cold, &mut model, key(n), noise(n.into(), 100));
    }
    for n in (0..entries).step_by(3) {
        remove(&cold, &mut model, &key(n));
    }
    compact(&cold);
    cold.close().unwrap();
    (read_image(dir), model)
}

fn removed(entries: u32) -> Vec<Vec<u8>> {
    (0..entries).step_by(3).map(key).collect()
}

/// Opens a store with such a snapshot: nothing is lost, the damage is told and mended, and the next start finds none.
fn expect_mended(image: &Image, name: &str, snapshot: &[u8], model: &Model, when: &str) {
    let dir = scratch();
    write_image(dir.path(), image);
    write_file(dir.path(), name, snapshot);
    let verified = larder::verify(dir.path(), &mut |_| ()).unwrap();
    assert!(verified.damaged.iter().any(|damage| damage.file == name), "{when}: {verified:?}");
    let cold = open(dir.path());
    let recovery = cold.stats().recovery;
    assert!(recovery.snapshot_entries >= model.len() as u64, "{when}: {recovery:?}");
    assert!(recovery.damaged > 0 && recovery.given_up == 0, "{when}: {recovery:?}");
    expect_exactly(&cold, model, when);
    assert!(cold.run_due().unwrap() > 0, "{when}: a damaged snapshot is due");
    assert_ne!(the_snapshot(dir.path()), name, "{when}");
    assert_eq!(cold.run_due().unwrap(), 0, "{when}: once");
    cold.abandon();
    assert!(larder::verify(dir.path(), &mut |_| ()).unwrap().is_clean(), "{when}");
    assert_eq!(open(dir.path()).stats().recovery.damaged, 0, "{when}");
}

#[test]
fn a_block_of_the_snapshot_that_is_lost_costs_nothing_wherever_it_lies() {
    // One whose chunks are smaller than a block, and one whose chunks are larger.
    for (entries, step) in [(600, 700), (120_000, 90_000)] {
        let dir = scratch();
        let (image, model) = saved(dir.path(), entries);
        let name = the_snapshot(dir.path());
        let whole = &image[&name];
        let spare = whole.len() - SNAPSHOT_HEADER_BYTES - decode_header(whole).unwrap().parity_bytes as usize;
        for at in (0..spare).step_by(step).chain([spare - BLOCK_BYTES]) {
            let mut bytes = whole.clone();
            bytes[at..at + BLOCK_BYTES].fill(0);
            expect_mended(&image, &name, &bytes, &model, &format!("{entries} entries, a block at {at}"));
        }
        // The longest gap that it promises to close: what is touched of a chunk is put together as a whole.
        let header = decode_header(whole).unwrap();
        let gap = header.parity_bytes as usize - *header.chunk_bytes.iter().max().unwrap() as usize;
        for at in [SNAPSHOT_HEADER_BYTES, spare / 3 + 1, spare / 2 + 7, spare - gap / 2] {
            let mut bytes = whole.clone();
            bytes[at..at + gap].iter_mut().for_each(|byte| *byte ^= 0x5a);
            expect_mended(&image, &name, &bytes, &model, &format!("{entries} entries, {gap} bytes at {at}"));
        }
        // Head, chunks and slot table are whole: no start reads the rest, a verification does.
        for at in [spare, whole.len() - BLOCK_BYTES] {
            let mut bytes = whole.clone();
            bytes[at..at + BLOCK_BYTES].iter_mut().for_each(|byte| *byte ^= 0xff);
            write_image(dir.path(), &image);
            write_file(dir.path(), &name, &bytes);
            let verified = larder::verify(dir.path(), &mut |_| ()).unwrap();
            assert_eq!(verified.damaged.len(), 1, "{entries} entries, a block at {at}: {verified:?}");
            assert_eq!(verified.damaged[0].file, name);
            assert_eq!(open(dir.path()).stats().recovery.damaged, 0);
        }
    }
}

#[test]
fn a_snapshot_that_was_cut_within_its_parity_or_has_grown_costs_nothing() {
    let dir = scratch();
    let (image, model) = saved(dir.path(), 600);
    let name = the_snapshot(dir.path());
    let whole = &image[&name];
    let spare = whole.len() - SNAPSHOT_HEADER_BYTES - decode_header(whole).unwrap().parity_bytes as usize;
    for len in (spare..whole.len()).step_by(999) {
        expect_mended(&image, &name, &whole[..len], &model, &format!("cut at {len}"));
    }
    let grown = [&whole[..], &[7; 100]].concat();
    expect_mended(&image, &name, &grown, &model, "grown");
}

#[test]
fn what_the_disk_cannot_read_of_a_snapshot_is_found_from_the_rest() {
    let dir = scratch();
    let (image, model) = saved(dir.path(), 600);
    let name = the_snapshot(dir.path());
    let len = image[&name].len() as u64;
    static BAD: AtomicU64 = AtomicU64::new(0);
    fn is_bad(call: &Call) -> Option<IoKind> {
        let bad = BAD.load(Ordering::SeqCst);
        let meets = call.offset < bad + BLOCK_BYTES as u64 && call.offset + call.len as u64 > bad;
        (call.op == Op::Read && call.name.starts_with("snap-") && meets).then_some(IoKind::Other)
    }
    for bad in (0..len).step_by(BLOCK_BYTES) {
        write_image(dir.path(), &image);
        BAD.store(bad, Ordering::SeqCst);
        let disk = ScriptedDisk::new(|_| false).standing(is_bad);
        disk.start_failing();
        let cold = open_on(config(dir.path()), disk);
        let recovery = cold.stats().recovery;
        assert!(recovery.snapshot_entries >= model.len() as u64, "block at {bad}: {recovery:?}");
        expect_exactly(&cold, &model, &format!("block at {bad}"));
        cold.abandon();
    }
}

/// Beyond that, what rows alone can say stands, and nothing that was deleted comes back.
#[test]
fn a_snapshot_damaged_all_over_is_not_taken_for_one() {
    let dir = scratch();
    let (_, model) = saved(dir.path(), 600);
    ruin_snapshot(dir.path());
    let cold = open(dir.path());
    let recovery = cold.stats().recovery;
    assert_eq!(recovery.snapshot_entries, 0);
    assert!(cold.len() == model.len() as u64 || recovery.given_up > 0, "{recovery:?}");
    expect_absent(&cold, &removed(600), "without a snapshot");
}

#[test]
fn each_snapshot_takes_the_place_of_the_one_before() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    for round in 0..3u32 {
        (0..200).for_each(|n| put(&cold, &mut model, key(n), noise(u64::from(n + round), 400)));
        rebuild(&cold);
        let name = the_snapshot(dir.path());
        let header = decode_header(&read_file(dir.path(), &name)).unwrap();
        assert_eq!(header.file_bytes(), cold.stats().snapshot_bytes);
    }
    cold.close().unwrap();
    assert_eq!(names(dir.path(), |name| name.starts_with("snap-")).len(), 1);
}
