//! The models. Each runs on at least 100,000 schedules by `tests/handover.sh`: half of them random, half of them with
//! few switches at chosen points (probabilistic concurrency testing).

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::thread::scope;
use shuttle::{Config, Runner};

use crate::threads::{Leave, Request, Writer, compact, put, read, take_out};
use crate::world::World;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
/// Switches that decide a schedule of the second kind.
const DEPTH: usize = 4;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Runs a model on every schedule that is asked for. A failing one is printed, with what replays it.
fn explore(model: fn()) {
    let (schedules, seed) = (setting("LARDER_SCHEDULES", 100_000), setting("LARDER_SEED", 1));
    let mut config = Config::new();
    config.silence_warnings = true;
    let half = (schedules / 2) as usize;
    let random = Runner::new(RandomScheduler::new_from_seed(seed, half), config.clone()).run(model);
    let chosen = Runner::new(PctScheduler::new_from_seed(seed, DEPTH, half), config).run(model);
    println!("{random} random and {chosen} chosen schedules");
    assert_eq!(random + chosen, 2 * half, "some were left out");
}

type Work = Box<dyn FnOnce(&World, &Sender<Request>) + Send>;

/// Runs the writer beside the others, until they have ended; then looks at what is left.
fn run(world: &World, fails: bool, others: Vec<Work>) {
    scope(|threads| {
        let (sender, requests) = channel();
        let writer = Writer::new(world, requests, fails);
        threads.spawn(move || writer.run());
        for work in others {
            let sender = sender.clone();
            threads.spawn(move || work(world, &sender));
        }
    });
    world.check_at_rest();
}

/// Q1, Q2, Q4: a key that always has a value is never missed, and never goes back.
#[test]
fn overwrites_of_two_callers_are_read_in_order() {
    explore(|| {
        let world = World::new();
        world.sealed_with(&[A]);
        run(
            &world,
            false,
            vec![
                Box::new(|world, writer| (0..2).for_each(|_| put(world, writer, A, false))),
                Box::new(|world, writer| put(world, writer, A, false)),
                Box::new(|world, _| read(world, &[A, A, A])),
            ],
        );
    });
}

/// Q1, Q2, Q4 with deletions: what was deleted is a miss until it is written again.
#[test]
fn deletions_and_overwrites_are_read_in_order() {
    explore(|| {
        let world = World::new();
        world.sealed_with(&[A]);
        run(
            &world,
            false,
            vec![
                Box::new(|world, writer| {
                    put(world, writer, A, true);
                    put(world, writer, C, false);
                }),
                Box::new(|world, writer| put(world, writer, A, false)),
                Box::new(|world, _| read(world, &[A, C, A])),
            ],
        );
    });
}

/// C8, C9, G1: what is moved while it is overwritten is found, as it is, and is never called damaged.
#[test]
fn a_compaction_moves_what_is_overwritten_and_read() {
    explore(|| {
        let world = World::new();
        let victim = world.sealed_with(&[A, B]);
        run(
            &world,
            false,
            vec![
                Box::new(|world, writer| put(world, writer, A, false)),
                Box::new(move |world, writer| {
                    compact(world, writer, victim);
                }),
                Box::new(|world, _| read(world, &[A, B, A])),
                Box::new(|world, _| read(world, &[B, A])),
            ],
        );
    });
}

/// S1, S2: a slot is another segment's between a reader's two looks, and in the end it holds the key again.
#[test]
fn slots_are_given_out_again_between_two_looks() {
    explore(|| {
        let world = World::new();
        let (first, second) = (world.sealed_with(&[A]), world.sealed_with(&[B]));
        run(
            &world,
            false,
            vec![
                Box::new(move |world, writer| {
                    let moved = compact(world, writer, first);
                    let other = compact(world, writer, second);
                    assert_eq!(other.slot, first.slot, "the model is about a slot that is used again");
                    compact(world, writer, other);
                    assert_eq!(compact(world, writer, moved).slot, first.slot);
                }),
                Box::new(|world, _| read(world, &[A, A])),
                Box::new(|world, _| read(world, &[B])),
            ],
        );
    });
}

/// S2 with overwrites in between.
#[test]
fn slots_are_given_out_again_while_keys_are_overwritten() {
    explore(|| {
        let world = World::new();
        let (first, second) = (world.sealed_with(&[A]), world.sealed_with(&[B]));
        run(
            &world,
            false,
            vec![
                Box::new(move |world, writer| {
                    compact(world, writer, first);
                    compact(world, writer, second);
                }),
                Box::new(|world, writer| put(world, writer, A, false)),
                Box::new(|world, _| read(world, &[A, B, A])),
            ],
        );
    });
}

/// X2: what was overwritten meanwhile is neither expired nor evicted; what is taken out stays away.
#[test]
fn what_expires_is_overwritten_at_the_same_time() {
    explore(|| {
        let world = World::new();
        let segment = world.sealed_with(&[A, C]);
        run(
            &world,
            false,
            vec![
                Box::new(|world, writer| put(world, writer, A, false)),
                Box::new(move |world, writer| {
                    take_out(world, segment, Leave::Nothing);
                    compact(world, writer, segment);
                }),
                Box::new(|world, _| read(world, &[A, C, A])),
            ],
        );
    });
}

/// X1, X2, C11: a shadow stays one when it is moved, and gives way to an overwrite.
#[test]
fn shadows_are_moved_while_their_keys_are_overwritten() {
    explore(|| {
        let world = World::new();
        let segment = world.sealed_with(&[A, B]);
        run(
            &world,
            false,
            vec![
                Box::new(|world, writer| put(world, writer, A, false)),
                Box::new(move |world, writer| {
                    take_out(world, segment, Leave::Shadow);
                    let moved = compact(world, writer, segment);
                    compact(world, writer, moved);
                }),
                Box::new(|world, _| read(world, &[B, A, B])),
            ],
        );
    });
}

/// P4, W4: a write that is lost reads as a miss; what it replaced does not come back.
#[test]
fn lost_writes_read_as_misses() {
    explore(|| {
        let world = World::new();
        world.sealed_with(&[A]);
        run(
            &world,
            true,
            vec![
                Box::new(|world, writer| (0..2).for_each(|_| put(world, writer, A, false))),
                Box::new(|world, writer| put(world, writer, C, false)),
                Box::new(|world, _| read(world, &[A, C, A, A])),
            ],
        );
    });
}

/// P4, C11, S2: writes are lost while a compaction moves what they replaced, and gives its slot back.
#[test]
fn lost_writes_meet_a_compaction() {
    explore(|| {
        let world = World::new();
        let victim = world.sealed_with(&[A, B]);
        run(
            &world,
            true,
            vec![
                Box::new(|world, writer| (0..2).for_each(|_| put(world, writer, A, false))),
                Box::new(move |world, writer| {
                    let moved = compact(world, writer, victim);
                    compact(world, writer, moved);
                }),
                Box::new(|world, _| read(world, &[A, B, A])),
            ],
        );
    });
}

/// P4, C8: a write finds no place while the compaction moves what it was to replace: the old value stays away.
/// Regression: the writer looked the entry up and then compared with it; moved in between, it came back to life.
#[test]
fn a_write_without_a_place_meets_a_compaction() {
    explore(|| {
        let world = World::new();
        let victim = world.sealed_with(&[A]);
        run(
            &world,
            true,
            vec![
                Box::new(|world, writer| put(world, writer, A, false)),
                Box::new(move |world, writer| {
                    compact(world, writer, victim);
                }),
            ],
        );
    });
}
