//! What the configuration refuses, and who may open a directory: nothing is touched by a refusal.

use std::process::Command;
use std::time::Duration;

use larder::internals::serialization::FORMAT_VERSION;
use larder::{
    CacheConfig, Codec, ColdTier, ColdTierConfig, Compression, Durability, ErrorKind, Maintenance, QueueFull,
    Ttl,
};

use crate::stores::{
    Model, config, expect_absent, expect_exactly, key, noise, open, put, read_image, refusals, scratch,
    write_file, write_image,
};

const HUNDRED_YEARS: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

#[test]
fn every_bad_value_is_refused_by_name_before_anything_is_created() {
    let dir = scratch();
    let path = dir.path().join("not").join("there");
    let good = || ColdTierConfig::new(&path);
    let ms = Duration::from_millis;
    let hour = Duration::from_secs(3600);
    let bad: Vec<(&str, ColdTierConfig)> = vec![
        ("dir", ColdTierConfig::new("")),
        ("segment_bytes", good().segment_bytes(0)),
        ("segment_bytes", good().segment_bytes((64 << 10) - 1)),
        ("segment_bytes", good().segment_bytes((64 << 20) + 1)),
        ("segment_bytes", good().segment_bytes(u64::MAX)),
        ("queue_bytes_max", good().queue_bytes_max(0)),
        ("queue_bytes_max", good().queue_bytes_max((64 << 10) - 1)),
        ("queue_bytes_max", good().queue_bytes_max((16 << 30) + 1)),
        ("key_bytes_max", good().key_bytes_max(0)),
        ("key_bytes_max", good().key_bytes_max((64 << 10) + 1)),
        ("value_bytes_max", good().value_bytes_max((64 << 20) + 1)),
        ("sample_entries_max", good().sample_entries_max(99)),
        ("sample_entries_max", good().sample_entries_max(1001)),
        ("dead_ratio_max", good().dead_ratio_max(0.049)),
        ("dead_ratio_max", good().dead_ratio_max(0.951)),
        ("dead_ratio_max", good().dead_ratio_max(-1.0)),
        ("dead_ratio_max", good().dead_ratio_max(f64::NAN)),
        ("dead_ratio_max", good().dead_ratio_max(f64::INFINITY)),
        ("retune_ratio", good().retune_ratio(0.009)),
        ("retune_ratio", good().retune_ratio(100.1)),
        ("retune_ratio", good().retune_ratio(f64::NAN)),
        ("maintenance_interval", good().maintenance_interval(Duration::ZERO)),
        ("maintenance_interval", good().maintenance_interval(Duration::from_micros(999))),
        ("maintenance_interval", good().maintenance_interval(hour + ms(1))),
        ("clock_jump_max", good().clock_jump_max(Duration::from_secs(59))),
        ("clock_jump_max", good().clock_jump_max(HUNDRED_YEARS + ms(1))),
        ("durability", good().durability(Durability::Interval(Duration::ZERO))),
        ("durability", good().durability(Durability::Interval(hour + ms(1)))),
        ("default_ttl", good().default_ttl(Duration::ZERO)),
        ("default_ttl", good().default_ttl(Duration::from_micros(999))),
        ("default_ttl", good().default_ttl(HUNDRED_YEARS + ms(1))),
        ("compression", good().compression(Compression::Fixed(Codec::Zstd(20)))),
        ("compression", good().compression(Compression::Fixed(Codec::Zstd(-8)))),
    ];
    for (field, config) in bad {
        let whole = CacheConfig::new(&path).cold(config.clone()).validate().unwrap_err();
        let alone = config.validate().unwrap_err();
        let opened = ColdTier::open(config).unwrap_err();
        for error in [whole, alone, opened] {
            assert_eq!(error.kind(), ErrorKind::Config, "{field}: {error}");
            assert!(error.is_config());
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{field}: {error}");
        }
        assert!(!path.parent().unwrap().exists(), "{field}: something was created");
    }
    assert_eq!(read_image(dir.path()).len(), 0);
}

#[test]
fn the_limits_themselves_are_accepted() {
    let good = || ColdTierConfig::new("anywhere");
    let ms = Duration::from_millis;
    let hour = Duration::from_secs(3600);
    let all = [
        good(),
        good().segment_bytes(64 << 10).queue_bytes_max(64 << 10).key_bytes_max(1).value_bytes_max(0),
        good()
            .segment_bytes(64 << 20)
            .queue_bytes_max(16 << 30)
            .key_bytes_max(64 << 10)
            .value_bytes_max(64 << 20),
        good().sample_entries_max(100).dead_ratio_max(0.05).retune_ratio(0.01).maintenance_interval(ms(1)),
        good().sample_entries_max(1000).dead_ratio_max(0.95).retune_ratio(100.0).maintenance_interval(hour),
        good()
            .clock_jump_max(Duration::from_secs(60))
            .durability(Durability::Interval(ms(1)))
            .default_ttl(ms(1)),
        good()
            .clock_jump_max(HUNDRED_YEARS)
            .durability(Durability::Interval(hour))
            .default_ttl(HUNDRED_YEARS),
        good().compression(Compression::Fixed(Codec::Zstd(-7))).durability(Durability::Never),
        good().compression(Compression::Fixed(Codec::Zstd(19))).durability(Durability::Always),
        good().compression(Compression::Fixed(Codec::None)).queue_full(QueueFull::Refuse),
        good().compression(Compression::Fixed(Codec::Lz4)).maintenance(Maintenance::Automatic),
    ];
    for config in all {
        config.validate().unwrap();
    }
}

#[test]
fn keys_values_and_times_outside_their_limits_are_refused_and_change_nothing() {
    let dir = scratch();
    let cold = ColdTier::open(config(dir.path()).key_bytes_max(10).value_bytes_max(20)).unwrap();
    let mut model = Model::new();
    put(&cold, &mut model, vec![b'k'; 10], vec![b'v'; 20]);
    put(&cold, &mut model, vec![b'k'; 1], Vec::new());
    let names = |field: &str, error: larder::Error| {
        assert!(error.is_config(), "{error}");
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
    };
    for bad_key in [Vec::new(), vec![b'k'; 11], vec![b'k'; 100_000]] {
        names("key", cold.insert(&bad_key, b"v").unwrap_err());
        names("key", cold.insert_with_ttl(&bad_key, b"v", Duration::from_secs(1)).unwrap_err());
        names("key", cold.get(&bad_key).unwrap_err());
        names("key", cold.contains_key(&bad_key).unwrap_err());
        names("key", cold.ttl(&bad_key).unwrap_err());
        names("key", cold.remove(&bad_key).unwrap_err());
    }
    names("value", cold.insert(&[b'k'; 10], &[b'w'; 21]).unwrap_err());
    names("ttl", cold.insert_with_ttl(&[b'k'; 10], b"w", Duration::ZERO).unwrap_err());
    names(
        "ttl",
        cold.insert_with_ttl(&[b'k'; 10], b"w", HUNDRED_YEARS + Duration::from_millis(1)).unwrap_err(),
    );
    names("ttl", cold.insert_with_ttl(&[b'k'; 10], b"w", Duration::MAX).unwrap_err());
    expect_exactly(&cold, &model, "after refusals");
    assert_eq!(cold.stats().inserts, 2, "{:?}", cold.stats());
    assert_eq!(cold.stats().queued_bytes, 0, "what was reserved is given back");
    cold.insert_with_ttl(b"long", b"w", HUNDRED_YEARS).unwrap();
    assert!(matches!(cold.ttl(b"long").unwrap(), Some(Ttl::Remaining(left)) if left <= HUNDRED_YEARS));
    cold.remove(b"absent").unwrap();
    expect_absent(&cold, [&b"absent".to_vec()], "removing what is not there");
}

/// Where the child is told which directory to open.
const CHILD_DIR: &str = "LARDER_IT_CHILD_DIR";

/// Not a test: what another process does. Run by the test below, ended by its exit code.
#[test]
#[ignore = "a child process of another test"]
fn child_opens_the_directory() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let answer = match ColdTier::open(config(std::path::Path::new(&dir))) {
        Ok(cold) => {
            let value = cold.get(b"k").unwrap();
            format!("opened {:?}", value.as_deref().map(String::from_utf8_lossy))
        }
        Err(error) => format!("{:?}: {error}", error.kind()),
    };
    println!("CHILD {answer}");
}

fn ask_child(dir: &std::path::Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "config::child_opens_the_directory", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("CHILD ").map(|(_, answer)| answer.to_string()));
    line.unwrap_or_else(|| {
        panic!("the child said nothing: {text} {}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn a_second_open_fails_clearly_here_and_in_another_process_until_the_first_is_closed() {
    let dir = scratch();
    let cold = ColdTier::open(config(dir.path())).unwrap();
    cold.insert(b"k", b"v").unwrap();
    cold.flush().unwrap();
    let before = read_image(dir.path());
    let error = ColdTier::open(config(dir.path())).unwrap_err();
    assert!(error.is_locked(), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    assert!(ask_child(dir.path()).starts_with("Locked: "));
    assert!(larder::inspect(dir.path()).unwrap_err().is_locked());
    assert!(larder::verify(dir.path(), &mut |_| {}).unwrap_err().is_locked());
    assert!(read_image(dir.path()) == before, "a refused open changed a file");
    // The one that has it does not notice.
    assert_eq!(cold.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));

    cold.close().unwrap();
    assert_eq!(ask_child(dir.path()), "opened Some(\"v\")");
    let cold = ColdTier::open(config(dir.path())).unwrap();
    drop(cold);
    assert_eq!(
        ask_child(dir.path()),
        "opened Some(\"v\")",
        "dropping frees it, and so does the end of a process"
    );
    let cold = ColdTier::open(config(dir.path())).unwrap();
    cold.abandon();
    larder::inspect(dir.path()).unwrap();
}

/// A block with another version and a checksum that holds.
fn with_version(mut block: Vec<u8>, version: u32) -> Vec<u8> {
    block[8..12].copy_from_slice(&version.to_le_bytes());
    let end = block.len() - 4;
    let check = crc32c::crc32c(&block[..end]).to_le_bytes();
    block[end..].copy_from_slice(&check);
    block
}

#[test]
fn files_of_a_newer_version_are_refused_and_left_as_they_are() {
    let dir = scratch();
    let store = dir.path().join("store");
    let cold = open(&store);
    let mut model = Model::new();
    for n in 0..50 {
        put(&cold, &mut model, key(n), noise(n.into(), 100));
    }
    cold.close().unwrap();
    let image = read_image(&store);
    for name in ["CURRENT", "MANIFEST-0000000001"] {
        for version in [FORMAT_VERSION + 1, u32::MAX] {
            let mut image = image.clone();
            let bytes = image.get_mut(name).unwrap();
            let block = if name == "CURRENT" { bytes.len() } else { 16 };
            let newer = with_version(bytes[..block].to_vec(), version);
            bytes[..block].copy_from_slice(&newer);
            // A stranger's files, and what an interrupted task would leave.
            image.insert("notes.txt".into(), b"mine".to_vec());
            image.insert("seg-0000000099.lard".into(), b"an orphan".to_vec());
            image.insert("seg-0000000098.lard.tmp".into(), b"a leftover".to_vec());
            write_image(&store, &image);
            for error in refusals(&store) {
                assert_eq!(error.kind(), ErrorKind::NewerFormat, "{name}: {error}");
                assert!(error.to_string().contains(&version.to_string()), "{name}: {error}");
            }
            assert!(read_image(&store) == image, "{name}: a file was touched");
        }
    }
    // The same bytes with a checksum that does not hold are damage, not news: the store opens.
    let mut damaged = image.clone();
    damaged.get_mut("MANIFEST-0000000001").unwrap()[8] = 9;
    write_image(&store, &damaged);
    expect_exactly(&open(&store), &model, "with a damaged version number");
}

#[test]
fn foreign_files_are_left_alone_and_leftovers_of_ours_go() {
    let dir = scratch();
    let cold = open(dir.path());
    let mut model = Model::new();
    put(&cold, &mut model, b"k".to_vec(), b"v".to_vec());
    cold.close().unwrap();
    let foreign = [
        "notes.tmp",
        "seg-1.lard",
        "seg-00000000001.lard",
        "SEG-0000000007.lard",
        "snap-x.lard",
        "MANIFEST-7",
        "data.bin",
    ];
    let ours = [
        "seg-0000000077.lard",
        "seg-0000000078.lard.tmp",
        "snap-0000000079.lard",
        "snap-0000000080.lard.tmp",
        "MANIFEST-0000000009",
        "CURRENT.tmp",
        "dict-007-00000000000000aa.lard",
    ];
    for name in foreign.iter().chain(&ours) {
        write_file(dir.path(), name, b"whatever");
    }
    let cold = open(dir.path());
    expect_exactly(&cold, &model, "with strangers around");
    assert_eq!(cold.stats().recovery.orphans_removed, ours.len() as u64);
    let left = read_image(dir.path());
    for name in foreign {
        assert_eq!(left.get(name).map(|bytes| &bytes[..]), Some(&b"whatever"[..]), "{name}");
    }
    for name in ours {
        assert!(!left.contains_key(name), "{name} is still there");
    }
    // Numbers of files once there are not given out again.
    for n in 0..300 {
        put(&cold, &mut model, key(n), noise(n.into(), 600));
    }
    cold.flush().unwrap();
    assert!(
        cold.segments().iter().all(|segment| segment.id > 80 || segment.id < 70),
        "{:?}",
        cold.segments()
    );
}

#[test]
fn inspecting_nothing_creates_nothing() {
    let dir = scratch();
    let path = dir.path().join("absent");
    for error in [larder::inspect(&path).unwrap_err(), larder::verify(&path, &mut |_| {}).unwrap_err()] {
        assert!(error.is_config(), "{error}");
    }
    assert!(!path.exists());
    assert!(larder::inspect(dir.path()).unwrap_err().is_config());
    assert_eq!(read_image(dir.path()).len(), 0);
}

#[test]
fn a_new_store_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch();
    let path = dir.path().join("new").join("store");
    let cold = ColdTier::open(config(&path)).unwrap();
    cold.insert(b"k", b"v").unwrap();
    cold.close().unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for name in read_image(&path).keys() {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
}
