//! What dictionaries are trained on, and what they are measured on.

use std::convert::Infallible;

use super::{HOLDOUT_BYTES_MAX, HOLDOUT_DIVISOR, Sample, TRAINING_BYTES_MAX};
use crate::cache::tier::cold::classes::{CLASSES, class_of};
use crate::cache::tier::cold::core::spread::spread;
use crate::cache::tier::cold::dictionary::train_dictionary;

/// Trainings that are given a chance to fill the dictionary, and the share of it, in percent, that counts as filled.
const TRAININGS_MAX: u64 = 3;
const FILLED_PERCENT: usize = 95;

/// Splits into training and hold-out, both in random order and both capped in bytes. Stratified by size: of every
/// four entries that are neighbours in length one is held out, so that a few large values cannot all end up on one
/// side. Too few entries to split are all held out; nothing is then trained.
pub(super) fn split<'a>(samples: &[&'a Sample], seed: u64) -> (Vec<&'a Sample>, Vec<&'a Sample>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ordered: Vec<&Sample> = samples.to_vec();
    // Shuffled first, because equal lengths would else keep the order in which they were sampled.
    random.shuffle(&mut ordered);
    ordered.sort_by_key(|sample| sample.raw.len());
    let (mut training, mut holdout) = (Vec::new(), Vec::new());
    for neighbours in ordered.chunks(HOLDOUT_DIVISOR) {
        let held_out = match samples.len() < 2 * HOLDOUT_DIVISOR {
            true => None,
            false => Some(random.usize(..HOLDOUT_DIVISOR)),
        };
        for (place, &sample) in neighbours.iter().enumerate() {
            let part = if held_out.is_none_or(|held| held == place) { &mut holdout } else { &mut training };
            part.push(sample);
        }
    }
    for (part, bytes_max) in [(&mut training, TRAINING_BYTES_MAX), (&mut holdout, HOLDOUT_BYTES_MAX)] {
        random.shuffle(part);
        cap(part, bytes_max);
    }
    (training, holdout)
}

/// Cuts off what exceeds `bytes_max`, but never the first.
fn cap(part: &mut Vec<&Sample>, bytes_max: usize) {
    let mut bytes = 0;
    let kept = part.iter().take_while(|sample| {
        bytes += sample.raw.len();
        bytes <= bytes_max
    });
    let kept = kept.count().max(1);
    part.truncate(kept);
}

/// What a dictionary is trained on.
pub(super) struct Lesson<'a> {
    pub samples: Vec<&'a Sample>,
    pub bytes_max: usize,
}

/// Trains all of them, on so many threads; in the order of the lessons, `None` where there was too little to learn from.
pub(super) fn train_each(lessons: &[Lesson<'_>], threads: usize) -> Vec<Option<Vec<u8>>> {
    let train = |done: &mut Vec<(usize, Option<Vec<u8>>)>, (at, lesson): (usize, &Lesson<'_>)| {
        done.push((at, train_on(lesson.samples.iter().copied(), lesson.bytes_max)));
        Ok::<(), Infallible>(())
    };
    let Ok(done) = spread(lessons.iter().enumerate(), threads, Vec::new, train);
    let mut trained: Vec<(usize, Option<Vec<u8>>)> = done.into_iter().flatten().collect();
    trained.sort_by_key(|(at, _)| *at);
    trained.into_iter().map(|(_, bytes)| bytes).collect()
}

/// Trains a dictionary. Equal samples, equal dictionaries; `None` if there is too little to learn from.
///
/// The trainer picks among five segment sizes by what a quarter of its samples take together with the whole dictionary.
/// Of a few hundred samples that is mostly the dictionary: now and then it prefers one that is short and poor (JSON
/// records, 112 KiB: 3 trainings of 24 ended at 47 to 85 KiB, with a ratio of 6.1 instead of 7.9). In another order
/// of samples it decides anew; the longest dictionary is taken.
pub fn train_on<'a>(samples: impl IntoIterator<Item = &'a Sample>, bytes_max: usize) -> Option<Vec<u8>> {
    let samples: Vec<&Sample> = samples.into_iter().collect();
    let mut longest: Option<Vec<u8>> = None;
    for training in 0..TRAININGS_MAX {
        // Shuffled, so that the cap cuts all kinds alike.
        let mut samples = samples.clone();
        fastrand::Rng::with_seed(samples.len() as u64 + training).shuffle(&mut samples);
        cap(&mut samples, TRAINING_BYTES_MAX);
        let raws: Vec<&[u8]> = samples.iter().map(|sample| &sample.raw[..]).collect();
        let bytes = train_dictionary(&raws, bytes_max)?;
        if longest.as_ref().is_none_or(|longest| bytes.len() > longest.len()) {
            longest = Some(bytes);
        }
        if longest.as_ref().is_some_and(|longest| longest.len() * 100 >= bytes_max * FILLED_PERCENT) {
            break;
        }
    }
    longest
}

/// Of the classes of which more was sampled than their share of the live entries, only that share: a dictionary for all
/// is worth what it saves on all (JSON records, 170 instead of 30 large ones among 1000: its ratio falls by 2.6 %).
pub(super) fn in_proportion<'a>(
    mut samples: Vec<&'a Sample>,
    class_entries: &[u64; CLASSES],
) -> Vec<&'a Sample> {
    let mut sampled = [0_usize; CLASSES];
    for sample in &samples {
        sampled[class_of(sample.raw.len())] += 1;
    }
    let weight = |class: usize| class_entries[class].max(1) as f64 / sampled[class].max(1) as f64;
    // The class that is most of the store stays whole. The rare ones' weights are too rough to go by.
    let of_sample = (0..CLASSES).filter(|&class| sampled[class] > 0);
    let Some(main) = of_sample.max_by_key(|&class| class_entries[class]) else { return samples };
    let share = |class: usize| (sampled[class] as f64 * weight(class) / weight(main)).ceil() as usize;
    let mut left: [usize; CLASSES] = std::array::from_fn(share);
    samples.retain(|sample| {
        let left = &mut left[class_of(sample.raw.len())];
        let is_kept = *left > 0;
        *left = left.saturating_sub(1);
        is_kept
    });
    samples
}
