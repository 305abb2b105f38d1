//! What `multi_get` gains over the `get`s of the same keys, where they wait for the disk and where they do not; and how
//! fast `iter` is there.
//!
//! The same number of keys, drawn evenly, one by one and by batches of several sizes, in turns: with the store's files
//! dropped from the page cache before each, and again with the very same keys, which are in it by then.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use larder::{Codec, ColdTier, ColdTierConfig, Compression};
use rustix::fs::{Advice, fadvise};
use serde_json::{Value, json};

use crate::oracle::{key_of, value_of};
use crate::{Failure, Result};

const KEY_BYTES: usize = 16;
/// Keys of a call; 1 is a `get`.
const BATCHES: [usize; 5] = [1, 8, 32, 128, 512];

/// How the run is laid out.
#[derive(Clone, Copy, Debug)]
pub struct MultiGetOptions {
    /// Number of keys.
    pub entries: u64,
    /// Bytes of a value, which do not shrink.
    pub value_bytes: u32,
    /// Keys read by each way in a turn.
    pub reads: usize,
    /// Turns that the ways take; medians of them count.
    pub turns: usize,
}

/// Runs it in `dir`, which must not hold a store yet.
///
/// # Errors
/// What the store or the file system refused, and a value that is not what was put in.
pub fn multi_get(dir: &Path, options: &MultiGetOptions) -> Result<Value> {
    let store = ColdTier::open(ColdTierConfig::new(dir).compression(Compression::Fixed(Codec::None)))?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for number in 0..options.entries {
        key_of(number, KEY_BYTES, &mut key);
        value_of(number, 0, options.value_bytes, &mut value);
        store.insert(&key, &value)?;
    }
    store.flush()?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut took: Vec<[Vec<Duration>; 2]> = BATCHES.iter().map(|_| Default::default()).collect();
    for _ in 0..options.turns {
        for (batch, took) in BATCHES.into_iter().zip(&mut took) {
            let numbers: Vec<u64> = (0..options.reads).map(|_| random.u64(..options.entries)).collect();
            forget_files(dir)?;
            for took in took {
                took.push(read(&store, options, &numbers, batch)?);
            }
        }
    }
    let mut iterated = [const { Vec::new() }; 2];
    for _ in 0..options.turns {
        forget_files(dir)?;
        for took in &mut iterated {
            took.push(iterate(&store, options)?);
        }
    }
    store.close()?;
    let [iterated_cold, iterated_warm] =
        iterated.map(|took| options.entries as f64 / median(took).as_secs_f64());
    let rates = BATCHES.into_iter().zip(took).map(|(batch, [cold, warm])| {
        let a_second = |took| options.reads as f64 / median(took).as_secs_f64();
        json!({ "batch": batch, "keys_a_second_cold": a_second(cold), "keys_a_second_warm": a_second(warm) })
    });
    Ok(
        json!({ "entries": options.entries, "value_bytes": options.value_bytes, "rates": rates.collect::<Vec<_>>(),
            "iterated_a_second_cold": iterated_cold, "iterated_a_second_warm": iterated_warm }),
    )
}

/// Time that the reads took, the checks of their values left out.
fn read(store: &ColdTier, options: &MultiGetOptions, numbers: &[u64], batch: usize) -> Result<Duration> {
    let mut took = Duration::ZERO;
    let mut wanted = Vec::new();
    for numbers in numbers.chunks(batch) {
        let mut keys = vec![Vec::new(); numbers.len()];
        keys.iter_mut().zip(numbers).for_each(|(key, number)| key_of(*number, KEY_BYTES, key));
        let started = Instant::now();
        let values = match keys.as_slice() {
            [key] => vec![store.get(key)?],
            keys => store.multi_get(keys)?,
        };
        took += started.elapsed();
        for (number, value) in numbers.iter().zip(values) {
            value_of(*number, 0, options.value_bytes, &mut wanted);
            if value.as_deref() != Some(&wanted) {
                return Err(Failure(format!("key {number} has another value than was put in")));
            }
        }
    }
    Ok(took)
}

/// Time that walking over all entries took.
fn iterate(store: &ColdTier, options: &MultiGetOptions) -> Result<Duration> {
    let started = Instant::now();
    let mut bytes = 0;
    for entry in store.iter() {
        bytes += entry?.value.len() as u64;
    }
    let took = started.elapsed();
    let wanted = options.entries * u64::from(options.value_bytes);
    if bytes != wanted {
        return Err(Failure(format!("iter gave values of {bytes} bytes in all, {wanted} were put in")));
    }
    Ok(took)
}

/// Drops the store's files from the page cache; they have been synced.
#[expect(
    clippy::disallowed_methods,
    reason = "the page cache is dropped file by file, behind the store's back"
)]
fn forget_files(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let file = File::open(entry?.path())?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(std::io::Error::from)?;
    }
    Ok(())
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}
