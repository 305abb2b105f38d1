//! Operations to be counted by callgrind: `tests/instructions.sh` runs this and holds the counts against its limits.
//!
//! `cargo bench --bench instructions -- get_hit 10000`. Without callgrind it only does the operations.

use std::hint::black_box;

use larder::{Codec, ColdTier, ColdTierConfig, Compression, Durability, Maintenance};

const ENTRIES: u64 = 20_000;

/// What `--toggle-collect` turns counting on in.
#[inline(never)]
fn counted(mut operation: impl FnMut(u64), times: u64) {
    (0..times).for_each(&mut operation);
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"instructions----";
    key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    key
}

fn value(number: u64) -> Vec<u8> {
    format!(
        "{{\"id\":{number},\"name\":\"user {number}\",\"tags\":[\"alpha\",\"beta\",\"gamma\"],\"score\":{}}}",
        number % 97
    )
    .repeat(8)
    .into_bytes()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [operation, times] = &args[..] else {
        println!("usage: instructions get_hit|get_miss|insert|remove_absent COUNT");
        return;
    };
    let times: u64 = times.parse().expect("a number of operations");
    let dir = tempfile::tempdir().expect("a directory");
    // A fixed codec: what tuning measures is time, and counts have to be the same each time.
    let config = ColdTierConfig::new(dir.path())
        .compression(Compression::Fixed(Codec::Lz4))
        .maintenance(Maintenance::Manual)
        .durability(Durability::Never);
    let cold = ColdTier::open(config).expect("open");
    for number in 0..ENTRIES {
        cold.insert(&key(number), &value(number)).expect("insert");
    }
    cold.flush().expect("flush");
    let fresh: Vec<Vec<u8>> = (0..64).map(value).collect();
    match operation.as_str() {
        "get_hit" => {
            counted(|n| assert!(black_box(cold.get(&key(n % ENTRIES)).expect("get")).is_some()), times)
        }
        "get_miss" => counted(|n| assert!(cold.get(&key(ENTRIES + n)).expect("get").is_none()), times),
        "insert" => {
            counted(|n| cold.insert(&key(n % ENTRIES), &fresh[n as usize % 64]).expect("insert"), times)
        }
        "remove_absent" => counted(|n| cold.remove(&key(ENTRIES + n)).expect("remove"), times),
        other => panic!("{other} is no operation"),
    }
}
