//! What bytes cost where: entropy, ratios and CPU time of every way to store the data at hand, measured on the data
//! itself and on this machine, and the choice that follows.
//!
//! Owner: whoever runs a tuning (the compaction worker); it keeps no state between two analyses and starts no thread.
//! It decides and touches nothing: the trained dictionaries and the decision are returned, installing them is the
//! caller's.
//!
//! # Cost model
//!
//! The cost of one entry, in nanoseconds, by which candidates are compared:
//!
//! ```text
//! cost_ns = write_share * compress_ns + read_share * decompress_ns
//!         + byte_price_ns * (stored_bytes + 2 * dictionary_bytes / live_entries)
//! ```
//!
//! - `read_share` is the observed share of reads, `write_share = 1 - read_share`, held to [`WRITE_SHARE_MIN`] at least:
//!   writes come in bursts (a cache being filled), and then their time counts at once.
//! - `stored_bytes` is what [`compress`] stores on average: magic stripped, as is under an eighth's saving.
//! - The dictionary is stored twice (a flipped bit must not cost every value made with it) and shared by all entries.
//! - `byte_price_ns` is the price of a stored byte, see [`Weights`].

use std::time::{Duration, Instant};

use crate::cache::tier::cold::compression::{
    CompressionParameters, DecodeError, Dictionary, Encoded, FRAME_ROOM, compress, decompress, saves_enough,
    train_dictionary,
};
use crate::cache::tier::cold::report::{Candidate, CompressionChoice};
use crate::config::Codec;

/// Entries needed for a judgement. With fewer everything is measured, but the present choice stays.
pub const SAMPLES_MIN: usize = 100;

/// Least share of writes the cost model assumes.
pub const WRITE_SHARE_MIN: f64 = 0.1;

/// A change must cost this much less than the present choice. Five analyses in a row put one candidate's cost within
/// 0.3 % of itself, and two dictionaries trained on different samples of the same data differ by 1 to 2 %: 5 % keeps
/// both from counting as a reason. A
/// busy machine moves the times further, but those of all candidates alike (see `ROUNDS`).
pub const CHANGE_MARGIN: f64 = 0.05;

/// zstd levels measured: one for each kind of search that zstd has for small inputs (`clevels.h`, "srcSize <= 16 KB")
/// and a cache can afford: -1 fast with plain literals, 1 fast, 3 dfast, 6 lazy2, 9 btlazy2. The levels between them
/// differ little. Beyond, the optimal parser takes twice the time of 9 without a dictionary for nothing, and gains at
/// most 5 % with one (JSON records of 940 bytes, level 12).
pub const LEVELS: [i8; 5] = [-1, 1, 3, 6, 9];

/// Sizes of the dictionaries trained, in bytes. 16 KiB pays already with 200 live entries. Above 64 KiB the
/// dictionary eats what it gains: JSON records at zstd 3, dictionary counted twice over 12,000 entries, reach ratios of
/// 6.7, 7.1 and 7.0 with 16, 64 and 112 KiB.
pub const DICTIONARY_BYTES: [usize; 2] = [16 << 10, 64 << 10];

/// Order-0 entropy, in bits a byte, from which on data counts as random if lz4 and zstd do not shrink it either:
/// zstd's own output measures 7.997, JSON and source code 4.4 to 5.5.
const ENTROPY_RANDOM_BITS: f64 = 7.8;

/// Saving an eighth, as a ratio.
const SAVING_RATIO: f64 = 8.0 / 7.0;

/// Bytes of the sample used at most for training (a hundred times the larger dictionary) and for measuring. Both
/// bound the time an analysis of large values takes; every part keeps one entry at least.
const TRAINING_BYTES_MAX: usize = 6 << 20;
const HOLDOUT_BYTES_MAX: usize = 2 << 20;

/// One entry in this many is held out of the training.
const HOLDOUT_DIVISOR: usize = 4;

/// Rounds in which every candidate has one turn at the clock, so that a machine which is busy for a moment slows a
/// turn of several candidates and not all turns of one. A turn is at least one pass over the hold-out and at least this
/// long: the first pass after a change of candidates finds the caches cold, which costs a dictionary half of its speed
/// and would favour the small ones. Of each run of [`RUN_ENTRIES`] entries the best pass of all turns counts.
const ROUNDS: usize = 3;
const TURN_TIME: Duration = Duration::from_millis(5);
const RUN_ENTRIES: usize = 16;

/// Where on the way from 0 to 1 the trainings and first round trips end and the timing begins.
const TIMING_FROM: f32 = 0.4;

/// What a stored byte is worth in CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// 3 ns: the byte is written once (2 ns at 500 MB/s) and read once (1 ns at 1 GB/s). Right where whole segments
    /// expire and disk space is no concern.
    Speed,
    /// 15 ns: by default a segment is compacted when a quarter of it is dead, so a byte that lives is in the long run
    /// written four times (8 ns) and read back three times for that (6 ns at 500 MB/s), and read once by a hit (1 ns).
    #[default]
    Balanced,
    /// 100 ns: the store is full, and a byte takes another's place: 1 KB more is one entry less, whose miss costs
    /// 100 us at the origin.
    Space,
}

impl Weights {
    /// The price of one stored byte, in nanoseconds of CPU time.
    pub fn byte_price_ns(self) -> f64 {
        match self {
            Self::Speed => 3.0,
            Self::Balanced => 15.0,
            Self::Space => 100.0,
        }
    }
}

/// One sampled entry.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Key ++ value, as they are.
    pub raw: Vec<u8>,
    /// Length of the key in `raw`, in bytes (longer than `raw` means all of it).
    pub key_len: usize,
}

impl Sample {
    fn parts(&self) -> (&[u8], &[u8]) {
        self.raw.split_at(self.key_len.min(self.raw.len()))
    }
}

/// How the store is used, and what it does at present.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Share of reads among the operations observed, 0 to 1 (anything else is brought into it; NaN counts as 0.5).
    pub read_share: f64,
    /// Live entries of the store, over which a dictionary's own bytes are spread; 0 counts as 1.
    pub live_entries: u64,
    /// The codec used at present.
    pub codec: Codec,
    /// The dictionary used with it at present, if any; it is measured again beside the new ones.
    pub dictionary: Option<&'a Dictionary>,
}

impl<'a> Situation<'a> {
    /// The present choice.
    pub fn choice(&self) -> CompressionChoice {
        choice(self.codec, self.usable_dictionary().map_or(0, |dictionary| dictionary.bytes().len()))
    }

    /// The share of writes that the cost model uses.
    pub fn write_share(&self) -> f64 {
        let read_share = if self.read_share.is_nan() { 0.5 } else { self.read_share };
        (1.0 - read_share).clamp(WRITE_SHARE_MIN, 1.0)
    }

    /// Only zstd uses dictionaries.
    fn usable_dictionary(&self) -> Option<&'a Dictionary> {
        self.dictionary.filter(|_| matches!(self.codec, Codec::Zstd(_)))
    }
}

/// Which dictionary a candidate was measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DictionarySource {
    /// None.
    None,
    /// The one in use at present (at the candidate's level, which may be another than the present one).
    Current,
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

/// Everything an analysis found.
#[derive(Debug)]
pub struct Analysis {
    /// Order-0 entropy of the whole sample, in bits a byte (8 = random); 0 for an empty one.
    pub entropy_bits: f64,
    /// Entries sampled.
    pub sampled_entries: usize,
    /// Their raw bytes.
    pub sampled_bytes: usize,
    /// Whether there were [`SAMPLES_MIN`] entries; if not, the decision is to stay.
    pub enough_samples: bool,
    /// Every candidate measured, cheapest first; never empty ("none" always is one).
    pub candidates: Vec<MeasuredCandidate>,
    /// The dictionaries trained, ids zeroed; [`DictionarySource::Trained`] indexes them.
    pub trained: Vec<Vec<u8>>,
    /// What to do; its index is into `candidates`.
    pub decision: Decision,
}

impl Analysis {
    /// The candidate decided for.
    pub fn chosen(&self) -> &MeasuredCandidate {
        &self.candidates[self.decision.index]
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
}

impl MemoryEfficiencyAnalyzer {
    /// An analyzer that prices bytes by `weights` and splits samples by `seed` (equal seeds, equal splits).
    pub fn new(weights: Weights, seed: u64) -> Self {
        Self { weights, seed }
    }

    /// Measures every candidate on a quarter of `samples`, with dictionaries trained on the rest, and decides.
    ///
    /// Always measured: none, lz4, zstd 1 and the present choice. Where neither shrinks the data by an eighth and the
    /// entropy is that of random bytes, that is all; below that entropy a 16 KiB dictionary at zstd 1 gets a trial,
    /// and if that does not save an eighth either, that is all too. Else every level of [`LEVELS`] is measured alone,
    /// with each dictionary of [`DICTIONARY_BYTES`] and with the present dictionary.
    ///
    /// `progress` is told the fraction done (rising, at last 1); `should_stop` is asked between two candidates.
    ///
    /// Cost: 0.4 s for 1000 entries of 940 bytes, 0.1 s of it for training; large values are capped at 6 MiB of
    /// training and 2 MiB of measuring (1.5 s measured for source files). Memory: one copy of the training part.
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
        let entropy_bits = entropy_bits(samples.iter().map(|sample| &sample.raw[..]));
        let (training, holdout) = split(samples, self.seed);
        let mut trial = Trial {
            training,
            holdout,
            situation,
            byte_price_ns: self.weights.byte_price_ns(),
            contenders: Vec::new(),
            trained: Vec::new(),
            steps_done: 0,
            progress,
            should_stop,
        };
        trial.select(entropy_bits)?;
        trial.time()?;
        let mut candidates: Vec<_> =
            trial.contenders.iter().map(|contender| trial.price(contender)).collect();
        let trained = trial.trained;
        candidates.sort_by(|a, b| a.candidate.cost_ns.total_cmp(&b.candidate.cost_ns));
        let enough_samples = samples.len() >= SAMPLES_MIN;
        let decision = match present_index(&candidates, situation.choice()) {
            Some(index) if !enough_samples => Decision {
                index,
                changed: false,
                reason: format!(
                    "{} stays: only {} entries were sampled, {SAMPLES_MIN} are needed to judge",
                    describe(&candidates[index]),
                    samples.len(),
                ),
            },
            _ => choose(&candidates, situation.choice()),
        };
        progress(1.0);
        Ok(Analysis {
            entropy_bits,
            sampled_entries: samples.len(),
            sampled_bytes: samples.iter().map(|sample| sample.raw.len()).sum(),
            enough_samples,
            candidates,
            trained,
            decision,
        })
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

/// Decides between measured candidates: the cheapest, unless the present choice comes within [`CHANGE_MARGIN`] of it.
/// A present choice that is not among the candidates cannot be kept. One that saves under an eighth yields to "none"
/// without a margin: the bytes, which both store, would hide the time it wastes; and the way back needs the margin, so
/// that nothing flaps.
///
/// # Panics
/// If `candidates` is empty.
pub fn choose(candidates: &[MeasuredCandidate], previous: CompressionChoice) -> Decision {
    let cost = |index: usize| candidates[index].candidate.cost_ns;
    let cheapest = |skipped: Option<usize>| {
        (0..candidates.len())
            .filter(|&index| Some(index) != skipped)
            .min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
    };
    let figures = |index: usize| {
        let Candidate { ratio, compress_ns, decompress_ns, cost_ns, .. } = candidates[index].candidate;
        format!(
            "{} at {cost_ns:.0} ns an entry (ratio {ratio:.2}, {compress_ns:.0} ns to store, \
             {decompress_ns:.0} ns to read)",
            describe(&candidates[index])
        )
    };
    let best = cheapest(None).expect("candidates are never empty");
    let Some(present) = present_index(candidates, previous) else {
        let reason = format!("{} is the cheapest; the present {previous} was not measured", figures(best));
        return Decision { index: best, changed: true, reason };
    };
    // The present choice's rival: the cheapest of the others, but a new dictionary only if it beats the present one at
    // its best level by the margin as well. Else a mere change of level would swap equal dictionaries with it.
    let keeps_dictionary = |&index: &usize| candidates[index].dictionary == DictionarySource::Current;
    let dictionary_kept =
        (0..candidates.len()).filter(keeps_dictionary).min_by(|&a, &b| cost(a).total_cmp(&cost(b)));
    let rival = match (cheapest(Some(present)), dictionary_kept) {
        (Some(rival), Some(kept))
            if kept != present
                && matches!(candidates[rival].dictionary, DictionarySource::Trained(_))
                && cost(rival) >= cost(kept) * (1.0 - CHANGE_MARGIN) =>
        {
            Some(kept)
        }
        (rival, _) => rival,
    };
    let Some(rival) = rival else {
        let reason = format!("{} stays: nothing else was measured", figures(present));
        return Decision { index: present, changed: false, reason };
    };
    let gain = (1.0 - cost(rival) / cost(present)) * 100.0;
    let saves = candidates[present].candidate.ratio >= SAVING_RATIO;
    let (margin, needed) = match candidates[rival].candidate.choice.codec {
        Codec::None if !saves => (0.0, "which saves under an eighth".to_owned()),
        _ => (CHANGE_MARGIN, format!("over {:.0} % are needed", CHANGE_MARGIN * 100.0)),
    };
    if cost(rival) < cost(present) * (1.0 - margin) {
        let (rival_is, present_is) = (figures(rival), figures(present));
        let reason = format!("{rival_is} costs {gain:.1} % less than the present {present_is}, {needed}");
        return Decision { index: rival, changed: true, reason };
    }
    let reason = match gain > 0.0 {
        true => {
            format!("{} stays: {} costs only {gain:.1} % less, {needed}", figures(present), figures(rival))
        }
        false => format!("{} stays the cheapest, ahead of {}", figures(present), figures(rival)),
    };
    Decision { index: present, changed: false, reason }
}

/// Where the present choice stands among the candidates. A trained dictionary is never the present one, whatever its
/// size.
fn present_index(candidates: &[MeasuredCandidate], previous: CompressionChoice) -> Option<usize> {
    let source = match previous.dictionary_bytes {
        0 => DictionarySource::None,
        _ => DictionarySource::Current,
    };
    candidates
        .iter()
        .position(|measured| measured.candidate.choice == previous && measured.dictionary == source)
}

fn describe(measured: &MeasuredCandidate) -> String {
    let newness = match measured.dictionary {
        DictionarySource::None => "",
        DictionarySource::Current => " (present dictionary)",
        DictionarySource::Trained(_) => " (new dictionary)",
    };
    format!("{}{newness}", measured.candidate.choice)
}

fn choice(codec: Codec, dictionary_bytes: usize) -> CompressionChoice {
    CompressionChoice { codec, dictionary_bytes: u32::try_from(dictionary_bytes).unwrap_or(u32::MAX) }
}

/// Splits into training and hold-out, both in random order and both capped in bytes. Stratified by size: of every
/// four entries that are neighbours in length one is held out, so that a few large values cannot all end up on one
/// side. Too few entries to split are all held out; nothing is then trained.
fn split(samples: &[Sample], seed: u64) -> (Vec<&Sample>, Vec<&Sample>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ordered: Vec<&Sample> = samples.iter().collect();
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

fn cap(part: &mut Vec<&Sample>, bytes_max: usize) {
    let mut bytes = 0;
    let kept = part.iter().take_while(|sample| {
        bytes += sample.raw.len();
        bytes <= bytes_max
    });
    let kept = kept.count().max(1);
    part.truncate(kept);
}

/// A candidate under measurement.
struct Contender {
    choice: CompressionChoice,
    source: DictionarySource,
    dictionary: Option<Dictionary>,
    stored_bytes: usize,
    /// Best times so far of each run of [`RUN_ENTRIES`] entries: to compress, to decompress, in nanoseconds.
    best_ns: Vec<(f64, f64)>,
}

/// One analysis under way. First [`select`](Self::select) finds what is worth timing, by its size alone; then
/// [`time`](Self::time) times all of that together.
struct Trial<'a, 'call> {
    training: Vec<&'a Sample>,
    holdout: Vec<&'a Sample>,
    situation: Situation<'a>,
    byte_price_ns: f64,
    contenders: Vec<Contender>,
    trained: Vec<Vec<u8>>,
    steps_done: u32,
    progress: &'call mut dyn FnMut(f32),
    should_stop: &'call dyn Fn() -> bool,
}

impl Trial<'_, '_> {
    /// Takes up what there is reason to measure, in the order that [`MemoryEfficiencyAnalyzer::analyze`] states.
    fn select(&mut self, entropy_bits: f64) -> Result<(), AnalysisError> {
        self.try_alone(Codec::None)?;
        let lz4_saves = self.try_alone(Codec::Lz4)?;
        let zstd_saves = self.try_alone(Codec::Zstd(1))?;
        match (self.situation.usable_dictionary(), self.situation.codec) {
            (Some(_), Codec::Zstd(level)) => self.try_current(level)?,
            (_, codec) => self.try_alone(codec)?,
        };
        let shrinks = lz4_saves || zstd_saves;
        if !shrinks && entropy_bits >= ENTROPY_RANDOM_BITS {
            return Ok(());
        }
        let first = self.train(DICTIONARY_BYTES[0])?;
        if !shrinks && !self.try_trained(first, 1)? {
            return Ok(());
        }
        let others =
            DICTIONARY_BYTES[1..].iter().map(|&bytes| self.train(bytes)).collect::<Result<Vec<_>, _>>()?;
        for level in LEVELS {
            self.try_alone(Codec::Zstd(level))?;
            self.try_current(level)?;
            for &trained in [first].iter().chain(&others) {
                self.try_trained(trained, level)?;
            }
        }
        Ok(())
    }

    /// Trains a dictionary; its index, or `None` if there is too little to learn from.
    fn train(&mut self, bytes_max: usize) -> Result<Option<usize>, AnalysisError> {
        self.step()?;
        let raws: Vec<&[u8]> = self.training.iter().map(|sample| &sample.raw[..]).collect();
        let Some(bytes) = train_dictionary(&raws, bytes_max) else { return Ok(None) };
        self.trained.push(bytes);
        Ok(Some(self.trained.len() - 1))
    }

    fn try_alone(&mut self, codec: Codec) -> Result<bool, AnalysisError> {
        self.try_out(codec, None, DictionarySource::None)
    }

    fn try_trained(&mut self, trained: Option<usize>, level: i8) -> Result<bool, AnalysisError> {
        let Some(index) = trained else { return Ok(false) };
        let dictionary = Dictionary::new(1, self.trained[index].clone(), level).ok();
        self.try_with(dictionary, level, DictionarySource::Trained(index))
    }

    /// Prepared anew, because the one in use is prepared for one level and other threads are using it.
    fn try_current(&mut self, level: i8) -> Result<bool, AnalysisError> {
        let Some(current) = self.situation.usable_dictionary() else { return Ok(false) };
        let dictionary = Dictionary::new(current.slot(), current.bytes().to_vec(), level).ok();
        self.try_with(dictionary, level, DictionarySource::Current)
    }

    /// A dictionary that zstd refuses is no candidate.
    fn try_with(
        &mut self,
        dictionary: Option<Dictionary>,
        level: i8,
        source: DictionarySource,
    ) -> Result<bool, AnalysisError> {
        match dictionary {
            Some(dictionary) => self.try_out(Codec::Zstd(level), Some(dictionary), source),
            None => Ok(false),
        }
    }

    /// Takes up one candidate, unless it is there already, and round-trips the hold-out; whether it saves an eighth.
    fn try_out(
        &mut self,
        codec: Codec,
        dictionary: Option<Dictionary>,
        source: DictionarySource,
    ) -> Result<bool, AnalysisError> {
        let choice = choice(codec, dictionary.as_ref().map_or(0, |dictionary| dictionary.bytes().len()));
        let raw_bytes = self.raw_bytes();
        if let Some(known) =
            self.contenders.iter().find(|known| known.choice == choice && known.source == source)
        {
            return Ok(saves_enough(known.stored_bytes, raw_bytes));
        }
        self.step()?;
        let best_ns = vec![(f64::MAX, f64::MAX); self.holdout.len().div_ceil(RUN_ENTRIES)];
        let mut contender = Contender { choice, source, dictionary, stored_bytes: 0, best_ns };
        contender.round_trip(&self.holdout)?;
        let saves = saves_enough(contender.stored_bytes, raw_bytes);
        self.contenders.push(contender);
        Ok(saves)
    }

    /// Times all candidates, turn and turn about.
    fn time(&mut self) -> Result<(), AnalysisError> {
        let turns = ROUNDS * self.contenders.len();
        for turn in 0..turns {
            if (self.should_stop)() {
                return Err(AnalysisError::Stopped);
            }
            (self.progress)(TIMING_FROM + (1.0 - TIMING_FROM) * turn as f32 / turns as f32);
            let place = turn % self.contenders.len();
            let began = Instant::now();
            loop {
                self.contenders[place].time_once(&self.holdout);
                if self.holdout.is_empty() || began.elapsed() >= TURN_TIME {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The cost model of the module's header.
    fn price(&self, contender: &Contender) -> MeasuredCandidate {
        let Contender { choice, source, stored_bytes, .. } = *contender;
        let entries = self.holdout.len().max(1) as f64;
        let compress_ns = contender.best_ns.iter().map(|best| best.0).sum::<f64>() / entries;
        let decompress_ns = contender.best_ns.iter().map(|best| best.1).sum::<f64>() / entries;
        let live_entries = self.situation.live_entries.max(1) as f64;
        let dictionary_bytes = 2.0 * f64::from(choice.dictionary_bytes) / live_entries;
        let write_share = self.situation.write_share();
        let cpu_ns = write_share * compress_ns + (1.0 - write_share) * decompress_ns;
        let cost_ns = cpu_ns + self.byte_price_ns * (stored_bytes as f64 / entries + dictionary_bytes);
        let ratio = match stored_bytes {
            0 => 1.0,
            stored => self.raw_bytes() as f64 / stored as f64,
        };
        let newly_trained = matches!(source, DictionarySource::Trained(_));
        let candidate = Candidate { choice, newly_trained, ratio, compress_ns, decompress_ns, cost_ns };
        MeasuredCandidate { candidate, dictionary: source }
    }

    fn raw_bytes(&self) -> usize {
        self.holdout.iter().map(|sample| sample.raw.len()).sum()
    }

    /// Reports the progress before the next training or candidate, or stops.
    fn step(&mut self) -> Result<(), AnalysisError> {
        if (self.should_stop)() {
            return Err(AnalysisError::Stopped);
        }
        // None, lz4, the present choice; the trainings; each level alone, with each new dictionary, with the present.
        let dictionaries = DICTIONARY_BYTES.len();
        let planned = 3 + dictionaries + LEVELS.len() * (2 + dictionaries);
        (self.progress)(TIMING_FROM * (self.steps_done as f32 / planned as f32).min(1.0));
        self.steps_done += 1;
        Ok(())
    }
}

impl Contender {
    fn store(&self, sample: &Sample) -> Encoded {
        let (key, value) = sample.parts();
        let slot = self.dictionary.as_ref().map_or(0, Dictionary::slot);
        let parameters = CompressionParameters { codec: self.choice.codec, dictionary: slot };
        compress(key, value, parameters, self.dictionary.as_ref(), FRAME_ROOM)
    }

    /// Into a fresh buffer, as a `get` needs one.
    fn read(&self, stored: &mut Encoded, raw_len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        let dictionary = self.dictionary.as_ref().filter(|_| stored.dictionary != 0);
        decompress(stored.codec, dictionary, &mut stored.stored, raw_len, &mut out)?;
        Ok(out)
    }

    /// Stores and reads every entry, compares every byte and counts the stored ones.
    fn round_trip(&mut self, holdout: &[&Sample]) -> Result<(), AnalysisError> {
        for sample in holdout {
            let raw_len = sample.raw.len();
            let mut stored = self.store(sample);
            self.stored_bytes += stored.stored.len() - FRAME_ROOM;
            let source = match self.read(&mut stored, raw_len) {
                Ok(out) if out == sample.raw => continue,
                Ok(_) => None,
                Err(error) => Some(error),
            };
            return Err(AnalysisError::RoundTrip { choice: self.choice, raw_len, source });
        }
        Ok(())
    }

    /// One timed pass. Wall clock, because thread time is not to be had safely; the best of many short runs stands in
    /// for it.
    fn time_once(&mut self, holdout: &[&Sample]) {
        for (run, place) in holdout.chunks(RUN_ENTRIES).zip(0..) {
            let started = Instant::now();
            let mut stored: Vec<Encoded> = run.iter().map(|sample| self.store(sample)).collect();
            let compress_ns = started.elapsed().as_nanos() as f64;
            let started = Instant::now();
            for (stored, sample) in stored.iter_mut().zip(run) {
                // Compared in the round trip; only the time counts here.
                let _ = std::hint::black_box(self.read(stored, sample.raw.len()));
            }
            let decompress_ns = started.elapsed().as_nanos() as f64;
            let best: &mut (f64, f64) = &mut self.best_ns[place];
            *best = (best.0.min(compress_ns), best.1.min(decompress_ns));
        }
    }
}
