//! What callers wait for, timed by criterion: `cargo bench --bench hot_path`.
//!
//! One thread, everything in the page cache. For whole workloads, other stores beside it, see `docs/BENCHMARKS.md`; for
//! counts that do not depend on the machine's mood, `tests/instructions.sh`.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use larder::{Codec, ColdTier, ColdTierConfig, Compression, Maintenance};

const ENTRIES: u64 = 100_000;

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"hot-path--------";
    key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    key
}

/// Text shaped like a small record.
fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut text = format!("{{\"id\":{number},\"name\":\"user {number}\",\"tags\":[");
    while text.len() < bytes {
        let word = ["alpha", "beta", "gamma", "delta", "epsilon"][random.usize(..5)];
        text.push_str(&format!("\"{word}-{}\",", random.u16(..)));
    }
    text.truncate(bytes);
    text.into_bytes()
}

fn store(dir: &Path, codec: Codec, bytes: usize) -> ColdTier {
    let config =
        ColdTierConfig::new(dir).compression(Compression::Fixed(codec)).maintenance(Maintenance::Manual);
    let cold = ColdTier::open(config).expect("open");
    for number in 0..ENTRIES {
        cold.insert(&key(number), &value(number, bytes)).expect("insert");
    }
    cold.flush().expect("flush");
    cold
}

fn gets(criterion: &mut Criterion) {
    for (name, codec) in [("none", Codec::None), ("lz4", Codec::Lz4), ("zstd 1", Codec::Zstd(1))] {
        let dir = tempfile::tempdir().expect("a directory");
        let cold = store(dir.path(), codec, 700);
        let mut group = criterion.benchmark_group(format!("get, 700 B, {name}"));
        group.throughput(Throughput::Elements(1));
        let mut random = fastrand::Rng::with_seed(1);
        group.bench_function("hit", |bencher| {
            bencher.iter(|| black_box(cold.get(&key(random.u64(..ENTRIES))).expect("get")).is_some());
        });
        group.bench_function("miss", |bencher| {
            bencher.iter(|| cold.get(&key(ENTRIES + random.u64(..ENTRIES))).expect("get").is_none());
        });
        group.finish();
    }
}

fn inserts(criterion: &mut Criterion) {
    for bytes in [64, 700, 4096] {
        let dir = tempfile::tempdir().expect("a directory");
        let cold = store(dir.path(), Codec::Lz4, bytes);
        let mut group = criterion.benchmark_group(format!("insert, {bytes} B, lz4"));
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut random = fastrand::Rng::with_seed(2);
        let values: Vec<Vec<u8>> = (0..256).map(|number| value(number, bytes)).collect();
        group.bench_function("overwrite", |bencher| {
            bencher.iter_batched(
                || (key(random.u64(..ENTRIES)), &values[random.usize(..values.len())]),
                |(key, value): ([u8; 16], &Vec<u8>)| cold.insert(&key, value).expect("insert"),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(hot_path, gets, inserts);
criterion_main!(hot_path);
