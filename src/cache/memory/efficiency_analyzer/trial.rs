//! One analysis under way. First [`select`](Trial::select) finds what is worth timing, by its size alone; then
//! [`time`](Trial::time) times all of that together; [`table`](Trial::table) prices it.

mod timing;

use rustix::time::{ClockId, clock_gettime};

use super::choice::Present;
use super::lesson::{Lesson, in_proportion, split, train_each};
use super::{
    AnalysisError, DICTIONARY_BYTES, DICTIONARY_BYTES_BRIEF, DICTIONARY_BYTES_SPACE, DictionarySource,
    ENTROPY_RANDOM_BITS, HOPELESS_FROM, LEVELS, LEVELS_BRIEF, LEVELS_SPACE, MOST_OF_ALL, MeasuredCandidate,
    MemoryEfficiencyAnalyzer, NOT_HOPELESS, OWN_SAMPLES_MIN, RUN_ENTRIES, Sample, Situation, TIMING_FROM,
    Weights, entropy_bits, samples_of,
};
use crate::cache::tier::cold::classes::{CLASSES, class_of};
use crate::cache::tier::cold::compression::{
    CompressionParameters, DecodeError, Encoded, FRAME_ROOM, compress, decompress, saves_enough,
};
use crate::cache::tier::cold::dictionary::Dictionary;
use crate::cache::tier::cold::gate::looks_random;
use crate::cache::tier::cold::report::{Candidate, CompressionChoice};
use crate::config::Codec;

/// The gate is used where it stops this share of a class's entries at least; and given up below the second.
const GATED_SHARE_MIN: f64 = 0.02;
const GATED_SHARE_KEPT: f64 = 0.005;
/// And where it costs at most this share of the stored bytes; given up above the second, under the 1 % that no class
/// may lose.
const GATE_LOSS_MAX: f64 = 0.005;
const GATE_LOSS_KEPT: f64 = 0.008;

/// What a table of candidates is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    /// One choice for all.
    Common,
    /// A class, which may share the dictionary of the common choice.
    Class {
        /// Which.
        class: usize,
        /// What suits all.
        common: Present,
    },
}

/// The samples of one class.
struct Group<'a> {
    class: usize,
    sampled: usize,
    training: Vec<&'a Sample>,
    holdout: Vec<&'a Sample>,
    entropy_bits: f64,
    gate: bool,
    /// Nothing shrinks it: only the few candidates that showed it are measured.
    hopeless: bool,
}

impl Group<'_> {
    fn raw_bytes(&self) -> usize {
        self.holdout.iter().map(|sample| sample.raw.len()).sum()
    }

    fn mean_bytes(&self) -> f64 {
        self.raw_bytes() as f64 / self.holdout.len().max(1) as f64
    }
}

/// How a dictionary is made: of which groups' samples, and how large at most.
#[derive(Clone, PartialEq)]
struct Recipe {
    groups: Vec<usize>,
    bytes_max: usize,
}

/// A candidate under measurement.
struct Contender {
    choice: CompressionChoice,
    source: DictionarySource,
    dictionary: Option<Dictionary>,
    /// By group; `None` where it was not measured.
    measured: Vec<Option<Measured>>,
}

struct Measured {
    stored_bytes: usize,
    /// Best times so far of each run of [`RUN_ENTRIES`] entries: to compress, to decompress, in nanoseconds.
    best_ns: Vec<(f64, f64)>,
}

pub(super) struct Trial<'a, 'call> {
    samples: &'a [Sample],
    groups: Vec<Group<'a>>,
    situation: Situation<'a>,
    byte_price_ns: f64,
    brief: bool,
    threads: usize,
    levels: &'static [i8],
    dictionary_bytes: &'static [usize],
    contenders: Vec<Contender>,
    trained: Vec<Vec<u8>>,
    /// What each was made by.
    recipes: Vec<Recipe>,
    steps_done: u32,
    steps_planned: u32,
    progress: &'call mut dyn FnMut(f32),
    should_stop: &'call dyn Fn() -> bool,
}

impl<'a, 'call> Trial<'a, 'call> {
    pub(super) fn new(
        samples: &'a [Sample],
        situation: Situation<'a>,
        &MemoryEfficiencyAnalyzer { weights, brief, threads, .. }: &MemoryEfficiencyAnalyzer,
        seed: u64,
        progress: &'call mut dyn FnMut(f32),
        should_stop: &'call dyn Fn() -> bool,
    ) -> Self {
        let group = |class: usize| {
            let sampled = samples_of(samples, class);
            let entropy_bits = entropy_bits(sampled.iter().map(|sample| &sample.raw[..]));
            let (training, holdout) = split(&sampled, seed ^ class as u64);
            let sampled = sampled.len();
            Group { class, sampled, training, holdout, entropy_bits, gate: false, hopeless: false }
        };
        let mut groups: Vec<Group<'a>> =
            (0..CLASSES).map(group).filter(|group| !group.holdout.is_empty()).collect();
        if groups.is_empty() {
            groups.push(group(0));
        }
        let (levels, dictionary_bytes): (&[i8], &[usize]) = match weights {
            _ if brief => (&LEVELS_BRIEF, &DICTIONARY_BYTES_BRIEF),
            Weights::Space => (&LEVELS_SPACE, &DICTIONARY_BYTES_SPACE),
            Weights::Speed | Weights::Balanced => (&LEVELS, &DICTIONARY_BYTES),
        };
        // None, lz4, the present choice; the trainings; each level alone, with each new dictionary, with the present.
        let planned = 4 + dictionary_bytes.len() + levels.len() * (2 + 2 * dictionary_bytes.len());
        Self {
            steps_planned: (planned * groups.len()) as u32,
            samples,
            groups,
            situation,
            byte_price_ns: weights.byte_price_ns(),
            brief,
            threads: threads.max(1),
            levels,
            dictionary_bytes,
            contenders: Vec::new(),
            trained: Vec::new(),
            recipes: Vec::new(),
            steps_done: 0,
            progress,
            should_stop,
        }
    }

    pub(super) fn samples(&self) -> &'a [Sample] {
        self.samples
    }

    pub(super) fn situation(&self) -> &Situation<'a> {
        &self.situation
    }

    /// The dictionaries. Those that were chosen are trained anew on the whole sample: what was held out has served its
    /// purpose, and a third more to learn from makes small samples' dictionaries better.
    pub(super) fn into_trained(mut self, chosen: &[Present]) -> Vec<Vec<u8>> {
        if self.brief {
            return self.trained;
        }
        let is_chosen =
            |at: &usize| chosen.iter().any(|way| way.dictionary == DictionarySource::Trained(*at));
        let again: Vec<usize> = (0..self.recipes.len()).filter(is_chosen).collect();
        let whole = |&at: &usize| {
            let is_of = |sample: &&Sample| {
                let is_class = |&group: &usize| self.groups[group].class == class_of(sample.raw.len());
                self.recipes[at].groups.iter().any(is_class)
            };
            self.lesson(self.samples.iter().filter(is_of).collect(), self.recipes[at].bytes_max)
        };
        let lessons: Vec<Lesson<'_>> = again.iter().map(whole).collect();
        for (at, bytes) in again.into_iter().zip(train_each(&lessons, self.threads)) {
            if let Some(bytes) = bytes {
                self.trained[at] = bytes;
            }
        }
        self.trained
    }

    fn lesson(&self, samples: Vec<&'a Sample>, bytes_max: usize) -> Lesson<'a> {
        Lesson { samples: in_proportion(samples, &self.situation.class_entries), bytes_max }
    }

    /// Whether the values of a class are to be looked at before they are compressed, and whether any of them shrinks.
    pub(super) fn gate(&self, class: usize) -> (bool, bool) {
        let group = self.groups.iter().find(|group| group.class == class);
        group.map_or((false, false), |group| (group.gate, !group.hopeless))
    }

    /// Takes up what there is reason to measure, in the order that `MemoryEfficiencyAnalyzer::analyze` states.
    pub(super) fn select(&mut self) -> Result<(), AnalysisError> {
        let mut present = vec![self.situation.common];
        for class in self.situation.classes {
            if !present.contains(&class) {
                present.push(class);
            }
        }
        for group in 0..self.groups.len() {
            let class = self.groups[group].class;
            self.try_alone(group, Codec::None)?;
            let lz4_saves = self.try_alone(group, Codec::Lz4)?;
            let zstd_saves = self.try_alone(group, Codec::Zstd(1))?;
            for parameters in [self.situation.common, self.situation.classes[class]] {
                self.try_present(group, parameters)?;
            }
            let mut shrinks = lz4_saves || zstd_saves;
            if !shrinks && self.groups[group].entropy_bits < ENTROPY_RANDOM_BITS {
                let own = Recipe { groups: vec![group], bytes_max: self.dictionary_bytes[0] };
                self.train(vec![own.clone()])?;
                if let Some(at) = self.recipes.iter().position(|recipe| *recipe == own) {
                    shrinks = self.try_out(group, Codec::Zstd(1), DictionarySource::Trained(at))?;
                }
            }
            self.groups[group].hopeless = !shrinks;
        }
        let hopeful: Vec<usize> =
            (0..self.groups.len()).filter(|&group| !self.groups[group].hopeless).collect();
        if !hopeful.is_empty() {
            self.select_for(&hopeful, &present)?;
        }
        // Also for those that nothing shrinks: a class too small for a choice of its own follows the common one.
        for group in 0..self.groups.len() {
            self.judge_gate(group);
        }
        Ok(())
    }

    /// Takes up everything there is for the classes that can be shrunk.
    fn select_for(
        &mut self,
        hopeful: &[usize],
        present: &[CompressionParameters],
    ) -> Result<(), AnalysisError> {
        let with_own: Vec<usize> =
            hopeful.iter().copied().filter(|&group| self.may_have_own(group, hopeful)).collect();
        let learners = std::iter::once(hopeful).chain(with_own.chunks(1));
        let of = |groups: &[usize]| {
            let groups = groups.to_vec();
            self.dictionary_bytes.iter().map(move |&bytes_max| Recipe { groups: groups.clone(), bytes_max })
        };
        let recipes = learners.flat_map(of).collect();
        self.train(recipes)?;
        let slots: Vec<u8> = self.slots_in_use();
        for &group in hopeful {
            for &parameters in present {
                self.try_present(group, parameters)?;
            }
            let mut sources = vec![DictionarySource::None];
            sources.extend(slots.iter().map(|&slot| DictionarySource::Current(slot)));
            let suits = |at: &usize| {
                let groups = &self.recipes[*at].groups;
                groups == hopeful || groups == &[group]
            };
            sources.extend((0..self.recipes.len()).filter(suits).map(DictionarySource::Trained));
            for source in sources {
                self.try_levels(group, source)?;
            }
        }
        Ok(())
    }

    /// Whether dictionaries of its own are tried for a class. One that is nearly all there is learns nothing new from
    /// itself; one too small may not have its own.
    fn may_have_own(&self, group: usize, hopeful: &[usize]) -> bool {
        let entries = |group: usize| self.situation.class_entries[self.groups[group].class] as f64;
        let bytes = |group: usize| entries(group) * self.groups[group].mean_bytes();
        let is_most = |of: &dyn Fn(usize) -> f64| {
            of(group) >= MOST_OF_ALL * hopeful.iter().map(|&group| of(group)).sum::<f64>()
        };
        !self.brief
            && self.groups[group].sampled >= OWN_SAMPLES_MIN
            && hopeful.len() > 1
            && !(is_most(&entries) && is_most(&bytes))
    }

    /// Every level with one dictionary, from the lowest on; a level that looks hopeless is the last: the next takes longer
    /// still, and saves a few percent more at best.
    fn try_levels(&mut self, group: usize, source: DictionarySource) -> Result<(), AnalysisError> {
        for &level in self.levels {
            self.try_out(group, Codec::Zstd(level), source)?;
            let best = self.measured_on(group).map(|at| self.cost_in(group, at)).fold(f64::MAX, f64::min);
            let is_this = |contender: &Contender| {
                contender.choice.codec == Codec::Zstd(level) && contender.source == source
            };
            let at = self.contenders.iter().position(is_this);
            let looks_hopeless = |at: usize| self.cost_in(group, at) > best * NOT_HOPELESS;
            if level > HOPELESS_FROM && at.is_some_and(looks_hopeless) {
                break;
            }
        }
        Ok(())
    }

    fn slots_in_use(&self) -> Vec<u8> {
        let mut slots = Vec::new();
        for parameters in std::iter::once(self.situation.common).chain(self.situation.classes) {
            if let DictionarySource::Current(slot) = self.situation.present(parameters).dictionary
                && !slots.contains(&slot)
            {
                slots.push(slot);
            }
        }
        slots
    }

    /// Whether the gate stops enough values of the class, and none that the best candidate would have shrunk. The present
    /// dictionaries are left out: they may hold the very values of this sample, which later values will not find there.
    fn judge_gate(&mut self, group: usize) {
        let stored = |contender: &&Contender| contender.measured[group].as_ref().map(|it| it.stored_bytes);
        let is_new = |contender: &&Contender| !matches!(contender.source, DictionarySource::Current(_));
        let measured = self.contenders.iter().filter(is_new).filter(|contender| stored(contender).is_some());
        let Some(best) = measured.min_by_key(|contender| stored(contender)) else { return };
        let Group { class, holdout, .. } = &self.groups[group];
        let is_stopped = |sample: &&&Sample| {
            let (key, value) = sample.parts();
            looks_random(key, value)
        };
        let stopped: Vec<&&Sample> = holdout.iter().filter(is_stopped).collect();
        let lost: usize = stopped
            .iter()
            .map(|sample| sample.raw.len() + FRAME_ROOM - best.store(sample, false).stored.len())
            .sum();
        let share = stopped.len() as f64 / holdout.len().max(1) as f64;
        let loss = lost as f64 / stored(&best).unwrap_or(0).max(1) as f64;
        let (share_min, loss_max) = match self.situation.classes[*class].gate {
            true => (GATED_SHARE_KEPT, GATE_LOSS_KEPT),
            false => (GATED_SHARE_MIN, GATE_LOSS_MAX),
        };
        self.groups[group].gate = share >= share_min && loss <= loss_max;
    }

    /// Makes the dictionaries that are not there yet, as many at a time as there are threads. Where there is too little to
    /// learn from there is none.
    fn train(&mut self, mut recipes: Vec<Recipe>) -> Result<(), AnalysisError> {
        recipes.retain(|recipe| !self.recipes.contains(recipe));
        for recipes in recipes.chunks(self.threads) {
            for _ in recipes {
                self.step()?;
            }
            let lesson = |Recipe { groups, bytes_max }: &Recipe| {
                let training = groups.iter().flat_map(|&group| &self.groups[group].training);
                self.lesson(training.copied().collect(), *bytes_max)
            };
            let lessons: Vec<Lesson<'_>> = recipes.iter().map(lesson).collect();
            for (recipe, bytes) in recipes.iter().zip(train_each(&lessons, self.threads)) {
                let Some(bytes) = bytes else { continue };
                self.trained.push(bytes);
                self.recipes.push(recipe.clone());
            }
        }
        Ok(())
    }

    fn try_alone(&mut self, group: usize, codec: Codec) -> Result<bool, AnalysisError> {
        self.try_out(group, codec, DictionarySource::None)
    }

    fn try_present(
        &mut self,
        group: usize,
        parameters: CompressionParameters,
    ) -> Result<bool, AnalysisError> {
        let Present { codec, dictionary } = self.situation.present(parameters);
        self.try_out(group, codec, dictionary)
    }

    /// Takes up one candidate for a group, unless it is there already, and round-trips the hold-out; whether it saves
    /// an eighth.
    fn try_out(
        &mut self,
        group: usize,
        codec: Codec,
        source: DictionarySource,
    ) -> Result<bool, AnalysisError> {
        let raw_bytes = self.groups[group].raw_bytes();
        let known =
            self.contenders.iter().position(|known| known.choice.codec == codec && known.source == source);
        let at = match known {
            Some(at) => at,
            None => {
                let Ok(dictionary) = self.prepare(codec, source) else { return Ok(false) };
                let bytes = dictionary.as_ref().map_or(0, |dictionary| dictionary.bytes().len());
                let dictionary_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                let choice = CompressionChoice { codec, dictionary_bytes };
                let measured = self.groups.iter().map(|_| None).collect();
                self.contenders.push(Contender { choice, source, dictionary, measured });
                self.contenders.len() - 1
            }
        };
        if let Some(measured) = &self.contenders[at].measured[group] {
            return Ok(saves_enough(measured.stored_bytes, raw_bytes));
        }
        self.step()?;
        let measured = self.contenders[at].round_trip(&self.groups[group].holdout)?;
        let stored_bytes = measured.stored_bytes;
        self.contenders[at].measured[group] = Some(measured);
        Ok(saves_enough(stored_bytes, raw_bytes))
    }

    /// The candidate's dictionary, prepared anew: the one in use is prepared for other levels, and other threads use
    /// it. One that zstd refuses is no candidate.
    fn prepare(&self, codec: Codec, source: DictionarySource) -> Result<Option<Dictionary>, DecodeError> {
        let level = match codec {
            Codec::Zstd(level) => level,
            Codec::None | Codec::Lz4 => return Ok(None),
        };
        let bytes = match source {
            DictionarySource::None => return Ok(None),
            DictionarySource::Trained(index) => self.trained[index].clone(),
            DictionarySource::Current(slot) => match self.situation.dictionaries.read(slot).as_ref() {
                Some(current) => current.bytes().to_vec(),
                None => return Err(DecodeError::Dictionary { slot, bytes: 0 }),
            },
        };
        Dictionary::new(1, bytes, level).map(Some)
    }

    fn measured_on(&self, group: usize) -> impl Iterator<Item = usize> {
        (0..self.contenders.len()).filter(move |&at| self.contenders[at].measured[group].is_some())
    }

    /// What a candidate costs in a group, as far as is known.
    fn cost_in(&self, group: usize, at: usize) -> f64 {
        self.price(&self.contenders[at], &[group], Scope::Common).candidate.cost_ns
    }

    /// Every candidate there is for a scope, priced, cheapest first.
    pub(super) fn table(&self, scope: Scope) -> Vec<MeasuredCandidate> {
        let groups: Vec<usize> = match scope {
            Scope::Class { class, .. } => {
                (0..self.groups.len()).filter(|&group| self.groups[group].class == class).collect()
            }
            Scope::Common => {
                // A class that nothing shrinks has no part in it, unless that is so for all.
                let all_hopeless = self.groups.iter().all(|group| group.hopeless);
                let counts = |&group: &usize| all_hopeless || !self.groups[group].hopeless;
                (0..self.groups.len()).filter(counts).collect()
            }
        };
        let is_measured = |contender: &&Contender| {
            !groups.is_empty() && groups.iter().all(|&group| contender.measured[group].is_some())
        };
        let mut table: Vec<MeasuredCandidate> = self
            .contenders
            .iter()
            .filter(is_measured)
            .map(|contender| self.price(contender, &groups, scope))
            .collect();
        table.sort_by(|a, b| a.candidate.cost_ns.total_cmp(&b.candidate.cost_ns));
        table
    }

    /// The cost model of the analyzer's header, averaged over groups by their live entries.
    fn price(&self, contender: &Contender, groups: &[usize], scope: Scope) -> MeasuredCandidate {
        let Contender { choice, source, .. } = *contender;
        let (mut weights, mut compress_ns, mut decompress_ns, mut stored, mut raw) =
            (0.0, 0.0, 0.0, 0.0, 0.0);
        for &group in groups {
            let Some(measured) = &contender.measured[group] else { continue };
            let sampled = self.groups[group].holdout.len().max(1) as f64;
            let weight = self.situation.class_entries[self.groups[group].class].max(1) as f64;
            let a_sample = weight / sampled;
            weights += weight;
            compress_ns += a_sample * measured.best_ns.iter().map(|best| best.0).sum::<f64>();
            decompress_ns += a_sample * measured.best_ns.iter().map(|best| best.1).sum::<f64>();
            stored += a_sample * measured.stored_bytes as f64;
            raw += a_sample * self.groups[group].raw_bytes() as f64;
        }
        let (compress_ns, decompress_ns) = (compress_ns / weights, decompress_ns / weights);
        let dictionary_bytes = 2.0 * f64::from(choice.dictionary_bytes) / self.sharing(contender, scope);
        let write_share = self.situation.write_share();
        let cpu_ns = write_share * compress_ns + (1.0 - write_share) * decompress_ns;
        let cost_ns = cpu_ns + self.byte_price_ns * (stored / weights + dictionary_bytes);
        let ratio = if stored == 0.0 { 1.0 } else { raw / stored };
        let newly_trained = matches!(source, DictionarySource::Trained(_));
        let candidate = Candidate { choice, newly_trained, ratio, compress_ns, decompress_ns, cost_ns };
        MeasuredCandidate { candidate, dictionary: source }
    }

    /// Live entries over which the dictionary of a candidate is spread: all if it is or would be the common one,
    /// those of the classes that use it already, or those of the class.
    fn sharing(&self, contender: &Contender, scope: Scope) -> f64 {
        let entries = &self.situation.class_entries;
        let all: u64 = entries.iter().sum();
        let shared = match (scope, contender.source) {
            (Scope::Common, _) => all,
            (Scope::Class { common, .. }, source) if common.dictionary == source => all,
            (Scope::Class { class, .. }, DictionarySource::Current(slot)) => {
                let uses = |at: &usize| *at == class || self.situation.classes[*at].dictionary == slot;
                (0..CLASSES).filter(uses).map(|at| entries[at]).sum()
            }
            (Scope::Class { class, .. }, _) => entries[class],
        };
        shared.max(1) as f64
    }

    /// Reports the progress before the next training or candidate, or stops.
    fn step(&mut self) -> Result<(), AnalysisError> {
        if (self.should_stop)() {
            return Err(AnalysisError::Stopped);
        }
        (self.progress)(TIMING_FROM * (self.steps_done as f32 / self.steps_planned as f32).min(1.0));
        self.steps_done += 1;
        Ok(())
    }
}

impl Contender {
    fn store(&self, sample: &Sample, gate: bool) -> Encoded {
        let (key, value) = sample.parts();
        let slot = self.dictionary.as_ref().map_or(0, Dictionary::slot);
        let parameters = CompressionParameters { codec: self.choice.codec, dictionary: slot, gate };
        compress(key, value, parameters, self.dictionary.as_ref(), FRAME_ROOM)
    }

    /// Into a fresh buffer, as a `get` needs one.
    fn read(&self, stored: &mut Encoded, raw_len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        let dictionary = self.dictionary.as_ref().filter(|_| stored.dictionary != 0);
        decompress(stored.codec, dictionary, &mut stored.stored, raw_len, &mut out)?;
        Ok(out)
    }

    /// Stores and reads every entry, compares every byte and counts the stored ones. The times it takes are a first
    /// impression.
    fn round_trip(&self, holdout: &[&Sample]) -> Result<Measured, AnalysisError> {
        let mut measured = Measured { stored_bytes: 0, best_ns: Vec::new() };
        for run in holdout.chunks(RUN_ENTRIES) {
            let mut spent = (0.0, 0.0);
            for sample in run {
                let raw_len = sample.raw.len();
                let started = cpu_ns();
                let mut stored = self.store(sample, false);
                let between = cpu_ns();
                let read = self.read(&mut stored, raw_len);
                spent = (spent.0 + between - started, spent.1 + cpu_ns() - between);
                measured.stored_bytes += stored.stored.len() - FRAME_ROOM;
                let source = match read {
                    Ok(out) if out == sample.raw => continue,
                    Ok(_) => None,
                    Err(error) => Some(error),
                };
                return Err(AnalysisError::RoundTrip { choice: self.choice, raw_len, source });
            }
            measured.best_ns.push(spent);
        }
        Ok(measured)
    }

    /// One timed pass.
    fn time_once(&mut self, group: usize, holdout: &[&Sample], gate: bool) {
        for (run, place) in holdout.chunks(RUN_ENTRIES).zip(0..) {
            let started = cpu_ns();
            let mut stored: Vec<Encoded> = run.iter().map(|sample| self.store(sample, gate)).collect();
            let between = cpu_ns();
            for (stored, sample) in stored.iter_mut().zip(run) {
                // Compared in the round trip; only the time counts here.
                let _ = std::hint::black_box(self.read(stored, sample.raw.len()));
            }
            let ended = cpu_ns();
            let Some(measured) = &mut self.measured[group] else { return };
            let best: &mut (f64, f64) = &mut measured.best_ns[place];
            *best = (best.0.min(between - started), best.1.min(ended - between));
        }
    }
}

/// CPU time of this thread, in nanoseconds. On a busy machine the wall clock counts the other threads' turns too: one
/// preemption takes longer than a whole pass, and as it may hit any candidate, luck chose.
fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
