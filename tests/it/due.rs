//! What maintenance does by itself: at which bound, in which order, and what it leaves for later. Decisions alone: the
//! store's clock stands still, and `run_due` does all that is due before it returns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{
    Admission, Clock, Codec, ColdTier, ColdTierConfig, Compression, Durability, ManualClock, OsDisk,
    SegmentState,
};

use crate::scripted::{Call, Op, ScriptedDisk};
use crate::stores::*;
use crate::watched::CAPACITY;

type Logged<C = ManualClock> = ColdTier<ScriptedDisk, C>;

fn open_logged(config: ColdTierConfig) -> Logged {
    open_on(config, ScriptedDisk::new(|_| false).logging())
}

/// Values of 600 bytes, a hundred a segment, until there are so many sealed segments. Returns the entries.
fn fill_segments(cold: &Logged<impl Clock>, segments: usize) -> u32 {
    let mut number = 0;
    while cold.segments().iter().filter(|it| it.state == SegmentState::Sealed).count() < segments {
        for _ in 0..20 {
            cold.insert(&key(number), &noise(number.into(), 600)).unwrap();
            number += 1;
        }
        cold.len(); // hands over
    }
    number
}

/// The segment files removed since the last look, in order.
fn removed(cold: &Logged<impl Clock>) -> Vec<String> {
    let log = cold.disk().take_log();
    log.into_iter().filter(|call| call.op == Op::Remove && call.is_segment()).map(|call| call.name).collect()
}

#[test]
fn garbage_below_the_low_trigger_is_left_where_it_is() {
    for (dead, is_due) in [(20, false), (27, true)] {
        let dir = scratch();
        let cold = open_logged(config(dir.path()).dead_ratio_max(0.25));
        let entries = fill_segments(&cold, 10);
        for number in (0..entries).filter(|number| number % 100 < dead) {
            cold.remove(&key(number)).unwrap();
        }
        let ran = cold.run_due().unwrap();
        assert_eq!((ran > 0, cold.stats().compactions > 0), (is_due, is_due), "{dead} % dead: {ran} tasks");
    }
}

/// Emptier ones give more for what is copied of them, whether they are the older ones or the younger.
#[test]
fn of_the_segments_with_garbage_the_emptiest_go_first() {
    for is_older_emptier in [true, false] {
        let dir = scratch();
        let cold = open_logged(config(dir.path()).dead_ratio_max(0.25));
        let entries = fill_segments(&cold, 20);
        let names = segment_names(&cold);
        // A tenth of one half, four fifths of the other.
        for number in 0..entries {
            let is_older = number < entries / 2;
            let dead = if is_older == is_older_emptier { 80 } else { 10 };
            if number % 100 < dead {
                cold.remove(&key(number)).unwrap();
            }
        }
        cold.disk().take_log();
        cold.run_due().unwrap();
        let first = removed(&cold)[0].clone();
        let emptier = if is_older_emptier { &names[..10] } else { &names[10..20] };
        assert!(emptier.contains(&first), "older emptier {is_older_emptier}: {first} of {names:?}");
    }
}

/// Saved, the index lets go what has to be remembered of deletions; where saving it costs more than that gives, it waits.
#[test]
fn the_index_is_saved_for_the_sake_of_deletions_where_that_is_cheap() {
    for (value_bytes, is_cheap) in [(600, true), (10, false)] {
        let dir = scratch();
        let cold = open_logged(config(dir.path()).dead_ratio_max(0.25));
        for number in 0..3000 {
            cold.insert(&key(number), &noise(number.into(), value_bytes)).unwrap();
        }
        for number in (0..3000).step_by(2) {
            cold.remove(&key(number)).unwrap();
        }
        cold.run_due().unwrap();
        assert!(cold.stats().compactions > 0);
        let is_saved = !names(dir.path(), is_snapshot).is_empty();
        let shadows = cold.stats().shadows;
        assert_eq!((is_saved, shadows < 1500), (is_cheap, is_cheap), "{value_bytes}: {shadows} remembered");
    }
}

#[test]
fn at_capacity_a_segment_that_is_mostly_dead_goes_before_older_ones() {
    let dir = scratch();
    let cold = open_logged(config(dir.path()));
    let entries = fill_segments(&cold, 100);
    let names = segment_names(&cold);
    let taken = 70 * entries / 100;
    // Two thirds of one of the younger segments.
    for number in (taken..taken + 90).filter(|number| number % 3 != 0) {
        cold.remove(&key(number)).unwrap();
    }
    rebuild(&cold);
    let emptiest = cold.segments().into_iter().filter(|it| it.state == SegmentState::Sealed);
    let emptiest = emptiest.min_by_key(|segment| segment.live_bytes).expect("there are sealed segments");
    assert!(emptiest.live_bytes < emptiest.dead_bytes, "{emptiest:?}");
    cold.disk().take_log();
    cold.set_capacity(Some(cold.stats().disk_bytes)).unwrap();
    assert_eq!(removed(&cold)[0], format!("seg-{:010}.lard", emptiest.id), "{names:?}");
}

/// What comes once is let in as long as an eighth of the capacity is free, and not until nothing is.
#[test]
fn the_frequency_gate_closes_while_there_is_still_room() {
    let dir = scratch();
    let cold = open_logged(config(dir.path()).capacity_bytes(CAPACITY).admission(Admission::Frequency));
    let mut number = 0;
    while cold.stats().rejected == 0 {
        cold.insert(&key(number), &noise(number.into(), 900)).unwrap();
        number += 1;
        assert!(u64::from(number) < CAPACITY / 900, "everything is let in");
    }
    let stats = cold.stats();
    assert_eq!(stats.evicted, 0, "it closes before anything has to go");
    assert!(stats.disk_bytes < CAPACITY - CAPACITY / 10, "{} of {CAPACITY} bytes", stats.disk_bytes);
    assert!(stats.disk_bytes > CAPACITY / 2, "{} of {CAPACITY} bytes", stats.disk_bytes);
}

/// A segment of what expires is sealed in time whether or not anything else happens to the store: it goes as a whole.
#[test]
fn a_segment_is_sealed_for_its_age_although_nothing_else_happens() {
    let dir = scratch();
    let hourly = config(dir.path()).durability(Durability::Interval(Duration::from_secs(3600)));
    let cold = open_on(hourly, OsDisk);
    cold.insert_with_ttl(b"key", b"value", Duration::from_secs(8)).unwrap();
    cold.flush().unwrap();
    cold.clock().advance(500);
    wait_until("the segment is sealed", || cold.segments()[0].state == SegmentState::Sealed);
}

/// Seconds of [`ByRemovals`].
static SECONDS: AtomicU64 = AtomicU64::new(0);

/// Time that goes on by a second whenever a segment goes.
struct ByRemovals;

impl ByRemovals {
    fn second_by_removal(call: &Call) -> bool {
        if call.op == Op::Remove && call.is_segment() {
            SECONDS.fetch_add(1, Ordering::SeqCst);
        }
        false
    }
}

impl Clock for ByRemovals {
    fn wall_ms(&self) -> u64 {
        START_MS + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        1000 * SECONDS.load(Ordering::SeqCst)
    }
}

/// A busy store may always have something that has just expired: by the time one cleanup has ended, the next one is due.
#[test]
fn cleanups_that_are_always_due_do_not_keep_a_compaction_waiting() {
    let dir = scratch();
    let disk = ScriptedDisk::new(ByRemovals::second_by_removal).logging();
    let cold = ColdTier::open_with(config(dir.path()).dead_ratio_max(0.25), disk, ByRemovals).unwrap();
    let entries = fill_segments(&cold, 100);
    let lasting = segment_names(&cold);
    // Thirty segments of which one expires each second.
    for second in 0..30 {
        for number in 0..100 {
            let key = key(entries + 100 * second + number);
            cold.insert_with_ttl(&key, &noise(number.into(), 600), Duration::from_secs(100)).unwrap();
        }
        cold.len(); // hands over
        SECONDS.fetch_add(1, Ordering::SeqCst);
    }
    let expiring = segment_names(&cold);
    for number in (0..entries).filter(|number| number % 100 < 80) {
        cold.remove(&key(number)).unwrap();
    }
    cold.len(); // hands over
    SECONDS.fetch_add(70, Ordering::SeqCst);
    cold.disk().take_log();
    cold.run_due().unwrap();
    let removed = removed(&cold);
    let is_expired = |name: &String| expiring.contains(name) && !lasting.contains(name);
    let expired = removed.iter().filter(|name| is_expired(name)).count();
    let in_a_row = removed.chunk_by(|a, b| is_expired(a) && is_expired(b)).map(<[_]>::len).max().unwrap_or(0);
    assert!(expired >= 30 && cold.stats().compactions > 5, "{expired} expired: {removed:?}");
    // Those that expire while a round of a compaction gives back its victims, sixteen at most, and not all the others.
    assert!(in_a_row <= 16, "{in_a_row} expired ones in a row: {removed:?}");
}

/// Nobody has measured that the codec of the configuration suits what is there already.
#[test]
fn a_fixed_codec_is_no_reason_to_store_anew_what_is_moved() {
    let dir = scratch();
    let cold = open(dir.path());
    for number in 0..1000 {
        cold.insert(&key(number), &[number as u8; 600]).unwrap();
    }
    cold.close().unwrap();
    let cold = open_on(config(dir.path()).compression(Compression::Fixed(Codec::Zstd(3))), OsDisk);
    for number in (0..1000).step_by(2) {
        cold.remove(&key(number)).unwrap();
    }
    cold.run_due().unwrap();
    let stats = cold.stats();
    assert!(stats.compactions > 0 && stats.live_bytes >= 500 * 600, "{stats:?}");
}
