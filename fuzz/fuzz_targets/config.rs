//! Any configuration: refused with a word on the field, or good enough to open a store with.
#![no_main]

#[path = "../../tests/support/memory.rs"]
#[expect(dead_code, reason = "the disk of the crash suite, which also makes it fail")]
mod memory;

use std::time::Duration;

use larder::{CacheConfig, ColdTier, ColdTierConfig, ManualClock, Weights};
use libfuzzer_sys::fuzz_target;
use memory::{DIR, Memory};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<Weights>();
    }
    let Some((words, flags)) = data.split_at_checked(72) else { return };
    let word = |at: usize| u64::from_le_bytes(words[8 * at..8 * at + 8].try_into().expect("eight bytes"));
    // Small numbers as often as large ones.
    let number = |at: usize| word(at) >> (word(at) & 63);
    let is_set = |bit: usize| flags.first().is_some_and(|flags| flags >> bit & 1 == 1);
    let mut config = ColdTierConfig::new(DIR);
    if is_set(0) {
        config = config.segment_bytes(number(0));
    }
    if is_set(1) {
        config = config.queue_bytes_max(number(1) as usize).key_bytes_max(number(2) as usize);
    }
    if is_set(2) {
        config = config.default_ttl(Duration::from_millis(number(3)));
    }
    if is_set(3) {
        config = config.dead_ratio_max(f64::from_bits(word(4))).retune_ratio(f64::from_bits(word(5)));
    }
    if is_set(4) {
        config = config.capacity_bytes(number(6)).write_budget_bytes_per_day(number(7));
    }
    if is_set(5) {
        config = config.clock_jump_max(Duration::from_millis(number(8)));
    }
    if is_set(6) {
        config = config.sample_entries_max(number(8) as usize).value_bytes_max(number(7) as usize);
    }
    let verdict = CacheConfig::new(DIR).cold(config.clone()).validate();
    let memory = Memory::holding(None);
    let opened = ColdTier::open_with(config, memory.disk(), ManualClock::new(1_760_000_000_000));
    match (verdict, opened) {
        (Ok(()), Ok(cold)) => cold.close().expect("an empty store closes"),
        (Err(error), Err(_)) => assert!(error.is_config() && error.to_string().len() > 10),
        (Ok(()), Err(error)) => panic!("validated, and not opened: {error}"),
        (Err(error), Ok(_)) => panic!("opened, and not valid: {error}"),
    }
});
