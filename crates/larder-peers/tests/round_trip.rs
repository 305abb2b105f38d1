//! Every store that was built in does what the driver takes for granted.

use std::fs;
use std::path::PathBuf;

use larder_peers::contents::{Contents, ContentsKind, Size};
use larder_peers::peer::{Kind, Options, Peer};
use larder_peers::peers;
use larder_peers::plan::Workload;

const OPTIONS: Options = Options { cache_bytes: 8 << 20, ttl: false, logical_bytes: 16 << 20 };
const ENTRIES: u64 = 2500;

fn dir(kind: &Kind) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("larder-peers-{}-{}", std::process::id(), kind.name));
    fs::remove_dir_all(&dir).ok();
    fs::create_dir_all(&dir).expect("a directory for the store");
    dir
}

fn read(peer: &dyn Peer, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    peer.get(key, &mut value).expect("a read").then_some(value)
}

#[test]
fn what_is_put_is_found_also_after_a_restart_and_what_is_deleted_is_not() {
    let contents = Contents::new(ContentsKind::Text, Size::Mixed).expect("generated contents");
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for kind in peers::all().into_iter().filter(|kind| kind.name != "none") {
        let dir = dir(&kind);
        let mut peer = (kind.open)(&dir, &OPTIONS).expect(kind.name);
        for id in 0..ENTRIES {
            contents.key(id, &mut key);
            contents.value(id, 0, &mut value);
            peer.put(&key, &value, None).expect(kind.name);
            assert_eq!(
                read(&*peer, &key).as_ref(),
                Some(&value),
                "{}: a caller reads what it wrote",
                kind.name
            );
        }
        contents.key(0, &mut key);
        peer.delete(&key).expect(kind.name);
        assert_eq!(read(&*peer, &key), None, "{}: deleted", kind.name);
        if kind.unable(Workload::Restart).is_none() {
            peer.close().expect(kind.name);
            peer = (kind.open)(&dir, &OPTIONS).expect(kind.name);
        }
        for id in 1..ENTRIES {
            contents.key(id, &mut key);
            contents.value(id, 0, &mut value);
            assert_eq!(read(&*peer, &key).as_ref(), Some(&value), "{}: after a restart", kind.name);
        }
        peer.close().expect(kind.name);
        fs::remove_dir_all(&dir).ok();
    }
}

#[test]
fn a_value_is_its_own_and_nobody_elses_whatever_it_consists_of() {
    let mut value = Vec::new();
    for kind in [ContentsKind::Text, ContentsKind::Random, ContentsKind::Records] {
        for size in [Size::Mixed, Size::Fixed(64), Size::Fixed(20), Size::Fixed(70_000)] {
            let contents = Contents::new(kind, size).expect("contents");
            for id in 0..200 {
                contents.value(id, 3, &mut value);
                assert!(contents.is_value(id, 3, &value), "{kind:?} {size}");
                let is_newer = contents.is_value(id, 4, &value);
                assert!(!is_newer || kind == ContentsKind::Records, "{kind:?} {size}: another version");
                // Some records are alike.
                let is_anothers = contents.is_value(id + 1, 3, &value);
                assert!(!is_anothers || kind == ContentsKind::Records, "{kind:?} {size}: another key");
                let mut key = Vec::new();
                contents.key(id, &mut key);
                assert_eq!(contents.entry_bytes(id, 3), (key.len() + value.len()) as u64);
                let at = value.len() / 2;
                value[at] ^= 1;
                assert!(!contents.is_value(id, 3, &value), "{kind:?} {size}: a changed bit");
            }
        }
    }
}

#[test]
fn text_is_json_that_says_whose_it_is() {
    let mut value = Vec::new();
    for size in [Size::Mixed, Size::Fixed(64), Size::Fixed(4096)] {
        let contents = Contents::new(ContentsKind::Text, size).expect("generated contents");
        contents.value(0xabc, 0x12, &mut value);
        let document: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
        assert_eq!(document["id"], "0000000000000abc");
        assert_eq!(document["version"], "00000012");
    }
}

#[test]
fn mixed_values_have_the_mean_that_the_documents_name() {
    let contents = Contents::new(ContentsKind::Text, Size::Mixed).expect("generated contents");
    let mut value = Vec::new();
    let mut bytes = 0;
    for id in 0..20_000 {
        contents.value(id, 0, &mut value);
        assert!((200..=4096).contains(&value.len()));
        bytes += value.len();
    }
    assert!((640..=680).contains(&(bytes / 20_000)), "mean {}", bytes / 20_000);
}
