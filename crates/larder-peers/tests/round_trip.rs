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
    for kind in peers::all() {
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
