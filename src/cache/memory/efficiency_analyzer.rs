//! What bytes cost where: entropy, ratios and CPU time of every way to store the data at hand, measured on the data
//! itself and on this machine, and the choice that follows: one for all, and one for each class of records by raw size
//! that does better with its own.
//!
//! Owner: whoever runs a tuning (the compaction worker); it keeps no state between two analyses and its threads are gone
//! when it returns.
//! It decides and touches nothing: the trained dictionaries and the decisions are returned, installing them is the
//! caller's.
//!
//! # Cost model
//!
//! The cost of one entry, in nanoseconds, by which candidates are compared:
//!
//! ```text
//! cost_ns = write_share * compress_ns + read_share * decompress_ns
//!         + byte_price_ns * (stored_bytes + 2 * dictionary_bytes / entries_sharing_it)
//! ```
//!
//! - `read_share` is the observed share of reads, `write_share = 1 - read_share`, held to [`WRITE_SHARE_MIN`] at least:
//!   writes come in bursts (a cache being filled), and then their time counts at once.
//! - `stored_bytes` is what [`compress`](crate::cache::tier::cold::compression::compress) stores on average: magic
//!   stripped, as is under an eighth's saving.
//! - The dictionary is stored twice (a flipped bit must not cost every value made with it) and shared by all entries
//!   of the classes that use it.
//! - `byte_price_ns` is the price of a stored byte, see [`Weights`].

mod choice;
mod lesson;
mod trial;

use self::choice::Allowed;
pub use self::choice::{Present, choose};
pub use self::lesson::train_on;
use self::trial::Trial;
use crate::cache::tier::cold::classes::{CLASSES, class_of};
use crate::cache::tier::cold::compression::{CompressionParameters, DecodeError};
use crate::cache::tier::cold::dictionary::DictionaryTable;
use crate::cache::tier::cold::report::{Candidate, CompressionChoice};
use crate::config::Codec;
pub use crate::config::Weights;

/// Entries needed for a judgement, of the store and of a class. With fewer everything is measured, but the store keeps
/// its present choice, and the class follows the common one.
pub const SAMPLES_MIN: usize = 100;

/// Least share of writes the cost model assumes.
pub const WRITE_SHARE_MIN: f64 = 0.1;

/// Entries of a class needed before it gets a choice of its own: a quarter of them is held out, and a mean over fewer
/// than 50 moves by more than the margin from sample to sample (27 entries: by 10 %).
pub const OWN_SAMPLES_MIN: usize = 200;

/// A class with this share of the live entries, and of their bytes, has no dictionary of its own tried: the common one
/// learns from hardly anything else.
const MOST_OF_ALL: f64 = 0.8;

/// A change must cost this much less than the present choice, a new dictionary this much less than the present one at
/// its best level, and a class's own choice this much less than the common one. Two dictionaries trained on different
/// samples of the same data differ by 1 to 2 %, and the luckiest of several counts: with 5 % a store of JSON records
/// changed its dictionary twice in ten tunings. Where the present choice is nobody's (a store never tuned), there is
/// no margin but [`DICTIONARY_MARGIN`].
pub const CHANGE_MARGIN: f64 = 0.10;

/// A new dictionary has to be this much cheaper than the present one also where that is nobody's choice: all that was
/// stored by the present one would be stored anew.
pub const DICTIONARY_MARGIN: f64 = 0.05;

/// Costs this close together count as equal: analyses of other samples of the same data put zstd 1 now before and now
/// behind zstd 3 by that much.
pub const EQUAL_COST: f64 = 0.02;

/// Stored bytes this close together count as equal. They do not depend on a clock: where costs are equal and bytes are not,
/// the bytes decide, or the next sample would choose otherwise.
pub const EQUAL_BYTES: f64 = 0.03;

/// And a class's own choice must save this share of the whole store's cost: less is not worth a second dictionary's
/// memory, nor storing the class anew.
pub const OWN_SHARE_MIN: f64 = 0.03;

/// zstd levels measured: one for each kind of search that zstd has for small inputs (`clevels.h`, "srcSize <= 16 KB")
/// and a cache can afford: -1 fast with plain literals, 1 fast, 3 dfast, 6 lazy2, 9 btlazy2. The levels between them
/// differ little.
pub const LEVELS: [i8; 5] = [-1, 1, 3, 6, 9];

/// And with [`Weights::Space`]: the optimal parser. With a dictionary it takes the time of 9 and stores 5 % less (JSON
/// records of 976 bytes); without one it takes twice the time for nothing. 16 and 19 take ten times as long for 2 %.
pub const LEVELS_SPACE: [i8; 6] = [-1, 1, 3, 6, 9, 12];

/// And in a [`brief`](MemoryEfficiencyAnalyzer::brief) analysis: with balanced
/// weights one of these levels, or none, is the cheapest on all data of `docs/TUNING.md`.
pub const LEVELS_BRIEF: [i8; 2] = [1, 3];

/// Sizes of the dictionaries trained, in bytes. 16 KiB pays already with 200 live entries. Above 64 KiB the dictionary
/// eats what it gains: JSON records at zstd 3, dictionary counted twice over 21,000 entries, reach ratios of 6.95, 7.43
/// and 7.41 with 16, 64 and 112 KiB.
pub const DICTIONARY_BYTES: [usize; 2] = [16 << 10, 64 << 10];

/// And with [`Weights::Space`]: the same at zstd 12 reach 7.94, 9.20 and 9.49.
pub const DICTIONARY_BYTES_SPACE: [usize; 3] = [16 << 10, 64 << 10, 112 << 10];

/// And in a brief analysis. Beside callers 16 KiB was taken for the cheaper now and then, and all that came before the next
/// look was stored anew behind it, by the larger one in a sixth less.
pub const DICTIONARY_BYTES_BRIEF: [usize; 1] = [64 << 10];

/// Order-0 entropy, in bits a byte, from which on data counts as random if lz4 and zstd do not shrink it either:
/// zstd's own output measures 7.997, JSON and source code 4.4 to 5.5.
const ENTROPY_RANDOM_BITS: f64 = 7.8;

/// Saving an eighth, as a ratio.
const SAVING_RATIO: f64 = 8.0 / 7.0;

/// Bytes of a class's sample used at most for training (a hundred times the common dictionary) and for measuring. Both
/// bound the time an analysis of large values takes; every part keeps one entry at least.
const TRAINING_BYTES_MAX: usize = 6 << 20;
const HOLDOUT_BYTES_MAX: usize = 2 << 20;

/// One entry in this many is held out of the training.
const HOLDOUT_DIVISOR: usize = 4;

/// Rounds in which every candidate has one turn at the clock (the thread's CPU time), so that a machine which is busy
/// for a moment slows a turn of several candidates and not all turns of one. A turn is several passes over the
/// hold-out, if they fit into [`TURN_NS`]: the first pass after a change of candidates finds the caches cold, which
/// costs a dictionary half of its speed and would favour the small ones; but after many passes the processor's branch
/// predictor may know a few kilobytes of hold-out by heart. Of each run of [`RUN_ENTRIES`] entries the best pass of all
/// turns counts. After the first round only those go on that cost at most [`STILL_POSSIBLE`] times as much as the best:
/// a first turn's time is that good, and the others' exact times decide nothing. A round of over [`ROUND_NS`]
/// that makes the cost of nobody who is near the best smaller by over [`STEADY`] is the last.
const ROUNDS: usize = 5;
const ROUND_NS: f64 = 20e6;
const STEADY: f64 = 0.005;
const TURN_PASSES: usize = 3;
const TURN_NS: f64 = 5e6;
const RUN_ENTRIES: usize = 16;
const STILL_POSSIBLE: f64 = 1.5;

/// What costs more than this many times as much as the best when it is tried out, with cold caches, has no turn at all:
/// its times are those of the trial. And of levels above `HOPELESS_FROM`, which get slower from one to the next, none
/// is tried behind one that costs so much.
const NOT_HOPELESS: f64 = 2.0;
const HOPELESS_FROM: i8 = 1;

/// Where on the way from 0 to 1 of a trial the trainings and first round trips end and the timing begins.
const TIMING_FROM: f32 = 0.5;

/// One sampled entry.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Key ++ value, as they are.
    pub raw: Vec<u8>,
    /// Length of the key in `raw`, in bytes (longer than `raw` means all of it).
    pub key_len: usize,
}

impl Sample {
    /// Key and value.
    fn parts(&self) -> (&[u8], &[u8]) {
        self.raw.split_at(self.key_len.min(self.raw.len()))
    }
}

/// How the store is used, and what it does at present.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Share of reads among the operations observed, 0 to 1 (anything else is brought into it; NaN counts as 0.5).
    pub read_share: f64,
    /// Live entries of each class, estimated: their weight, and what a dictionary's own bytes are spread over.
    pub class_entries: [u64; CLASSES],
    /// What classes without a choice of their own use at present.
    pub common: CompressionParameters,
    /// What each class uses at present.
    pub classes: [CompressionParameters; CLASSES],
    /// Where the present dictionaries are; they are measured again beside the new ones.
    pub dictionaries: &'a DictionaryTable,
    /// The present choice is the outcome of a tuning, and stays unless another beats it by [`CHANGE_MARGIN`].
    pub settled: bool,
}

impl Situation<'_> {
    /// The share of writes that the cost model uses.
    pub fn write_share(&self) -> f64 {
        let read_share = if self.read_share.is_nan() { 0.5 } else { self.read_share };
        (1.0 - read_share).clamp(WRITE_SHARE_MIN, 1.0)
    }

    /// A present choice: only zstd uses dictionaries, and one that was lost is none.
    fn present(&self, parameters: CompressionParameters) -> Present {
        let is_usable = matches!(parameters.codec, Codec::Zstd(_))
            && self.dictionaries.read(parameters.dictionary).is_some();
        let dictionary = match is_usable {
            true => DictionarySource::Current(parameters.dictionary),
            false => DictionarySource::None,
        };
        Present { codec: parameters.codec, dictionary }
    }
}

/// Which dictionary a candidate was measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DictionarySource {
    /// None.
    None,
    /// The one in use at present in this slot (at the candidate's level, which may be another than the present one).
    Current(u8),
    /// The one at this index of [`Analysis::trained`].
    Trained(usize),
}

/// One way to store the sample, measured.
#[derive(Clone, Debug)]
pub struct MeasuredCandidate {
    /// The figures, as they are reported.
    pub candidate: Candidate,
    /// Where its dictionary is to be had.
    pub dictionary: DictionarySource,
}

impl MeasuredCandidate {
    /// Codec and dictionary.
    pub fn way(&self) -> Present {
        Present { codec: self.candidate.choice.codec, dictionary: self.dictionary }
    }
}

/// What is to be used from now on.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Index of the choice among the candidates it was made from.
    pub index: usize,
    /// Whether it is another than the present one (also: another dictionary of the same size).
    pub changed: bool,
    /// Why, in a sentence with the figures that decided.
    pub reason: String,
}

/// What an analysis found out about one class, or about all of them together.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Entries sampled.
    pub sampled_entries: usize,
    /// Their raw bytes.
    pub sampled_bytes: usize,
    /// Order-0 entropy of the sample, in bits a byte (8 = random); 0 for an empty one.
    pub entropy_bits: f64,
    /// Every candidate measured, cheapest first; empty for a class without samples.
    pub candidates: Vec<MeasuredCandidate>,
    /// What is to be used.
    pub chosen: Present,
    /// Where that stands among the candidates; `None` if it was not measured here.
    pub chosen_at: Option<usize>,
    /// Whether it is another than the present one (also: another dictionary of the same size).
    pub changed: bool,
    /// A class only: it has a choice of its own.
    pub is_own: bool,
    /// A class only: values are to be looked at before they are compressed.
    pub gate: bool,
    /// Why.
    pub reason: String,
}

impl Findings {
    /// Raw / stored bytes that the choice reaches here; 1 if it was not measured.
    pub fn ratio(&self) -> f64 {
        self.chosen_at.map_or(1.0, |at| self.candidates[at].candidate.ratio)
    }
}

/// Everything an analysis found.
#[derive(Debug)]
pub struct Analysis {
    /// All classes together.
    pub common: Findings,
    /// Each class.
    pub classes: [Findings; CLASSES],
    /// Whether there were [`SAMPLES_MIN`] entries; if not, everything stays.
    pub enough_samples: bool,
    /// The dictionaries trained, ids zeroed; [`DictionarySource::Trained`] indexes them.
    pub trained: Vec<Vec<u8>>,
}

impl Analysis {
    /// The common choice and that of each class.
    fn ways(&self) -> Vec<Present> {
        std::iter::once(&self.common).chain(&self.classes).map(|findings| findings.chosen).collect()
    }

    /// Whether anything is to be stored otherwise than at present.
    pub fn is_change(&self) -> bool {
        self.common.changed || self.classes.iter().any(|class| class.changed)
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// The caller asked to stop; nothing has changed.
    #[error("the analysis was stopped")]
    Stopped,
    /// An entry did not survive a round trip. A bug of ours or a memory error; nothing must be stored that way.
    #[error("an entry of {raw_len} bytes stored as {choice} comes back as something else")]
    RoundTrip {
        /// The candidate.
        choice: CompressionChoice,
        /// Length of the entry, in bytes.
        raw_len: usize,
        /// What the decoder said, if it noticed.
        source: Option<DecodeError>,
    },
}

/// Finds out how the data at hand is best stored: see the [module](self) for the cost model.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryEfficiencyAnalyzer {
    weights: Weights,
    seed: u64,
    brief: bool,
    threads: usize,
}

impl MemoryEfficiencyAnalyzer {
    /// An analyzer that prices bytes by `weights` and splits samples by `seed` (equal seeds, equal splits).
    pub fn new(weights: Weights, seed: u64) -> Self {
        Self { weights, seed, brief: false, threads: 1 }
    }

    /// Lets so many threads train dictionaries, one each. Times are taken on one thread alone.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// The same, in a fraction of the time: for a store that has hardly begun, so that little is written before there
    /// is any choice. [`LEVELS_BRIEF`], [`DICTIONARY_BYTES_BRIEF`], no dictionaries of single classes, each candidate timed once.
    pub fn brief(self) -> Self {
        Self { brief: true, ..self }
    }

    /// Measures every candidate on a quarter of each class's samples, with dictionaries trained on the rest, and
    /// decides: first what suits all, then which classes do better by the margin with a choice of their own.
    ///
    /// Always measured: none, lz4, zstd 1 and the present choices. A class that neither lz4 nor zstd 1 shrinks by an
    /// eighth, and whose entropy is that of random bytes, is left at that; below that entropy a 16 KiB dictionary of
    /// its own at zstd 1 gets a trial, and if that does not save an eighth either, that is all too. The others have
    /// the levels of [`LEVELS`] measured, up to one that costs twice as much as the best so far: alone, with each
    /// dictionary of [`DICTIONARY_BYTES`] trained on all of them and, if there are several and [`OWN_SAMPLES_MIN`] entries
    /// of it, with one trained on the class ([`Weights::Space`]: [`LEVELS_SPACE`], [`DICTIONARY_BYTES_SPACE`]), and with
    /// the present dictionaries.
    ///
    /// What would change a settled choice is put to the test once more, with other entries held out and dictionaries
    /// trained anew: only what wins twice changes anything.
    ///
    /// `progress` is told the fraction done (rising, at last 1); `should_stop` is asked between two candidates.
    ///
    /// CPU time measured, balanced, nothing tuned before: 0.35 s for 1000 JSON records of 1 KB, 0.07 s for values of 64
    /// bytes, 1.3 s for source code of 3.6 KB, 2.2 s for HTML of 8 KB; large values are capped at 6 MiB of training and
    /// 2 MiB of measuring. A second trial takes as long again. Memory: one copy of the training part.
    ///
    /// # Errors
    /// [`AnalysisError::Stopped`] if asked to; [`AnalysisError::RoundTrip`] if a candidate loses data.
    pub fn analyze(
        &self,
        samples: &[Sample],
        situation: Situation<'_>,
        progress: &mut dyn FnMut(f32),
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Analysis, AnalysisError> {
        let first_share = if situation.settled { 0.5 } else { 1.0 };
        let mut once = |seed: u64, allowed: Allowed, from: f32| {
            let mut part = |done: f32| progress(from + first_share * done);
            let mut trial = Trial::new(samples, situation, self, seed, &mut part, should_stop);
            trial.select()?;
            trial.time()?;
            let mut analysis = choice::decide(&trial, allowed);
            analysis.trained = trial.into_trained(&analysis.ways());
            Ok::<Analysis, AnalysisError>(analysis)
        };
        let mut analysis = once(self.seed, Allowed::ALL, 0.0)?;
        if situation.settled && analysis.is_change() {
            analysis = once(!self.seed, Allowed::by(&analysis), first_share)?;
        }
        progress(1.0);
        Ok(analysis)
    }
}

/// Order-0 entropy of all the bytes together, in bits a byte: 0 (one byte value only, or nothing) to 8 (random).
/// Shannon, "A Mathematical Theory of Communication", 1948, section 6. Cost: about 1 ns a byte.
pub fn entropy_bits<'a>(parts: impl Iterator<Item = &'a [u8]>) -> f64 {
    let mut counts = [0_u64; 256];
    for &byte in parts.flatten() {
        counts[usize::from(byte)] += 1;
    }
    let total = counts.iter().sum::<u64>() as f64;
    let bits = |&count: &u64| match count as f64 / total {
        share if share > 0.0 => -share * share.log2(),
        _ => 0.0,
    };
    counts.iter().map(bits).sum()
}

/// The samples of a class.
fn samples_of(samples: &[Sample], class: usize) -> Vec<&Sample> {
    samples.iter().filter(|sample| class_of(sample.raw.len()) == class).collect()
}
