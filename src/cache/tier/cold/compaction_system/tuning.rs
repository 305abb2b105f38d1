//! Tuning: sample live entries, measure, choose, apply, explain.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::files::{remove_file, replace_counted};
use super::sampling::{SAMPLED_AT, Sampled};
use super::{CompactionSystem, TuningReport};
use crate::cache::memory::efficiency_analyzer::{
    Analysis, AnalysisError, DictionarySource, Findings, MemoryEfficiencyAnalyzer, Present, Situation,
};
use crate::cache::tier::cold::classes::{CLASSES, class_bytes_max};
use crate::cache::tier::cold::compression::CompressionParameters;
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::core::tuning_file::encode_report;
use crate::cache::tier::cold::dictionary::Dictionary;
use crate::cache::tier::cold::parameters::{ParametersInForce, parameters_entry};
use crate::cache::tier::cold::report::{ClassReport, CompressionChoice};
use crate::cache::tier::cold::serialization::dictionary::{dictionary_id, encode_dictionary};
use crate::cache::tier::cold::serialization::edit::{DictionaryEntry, Edit};
use crate::cache::tier::cold::shared::Shared;
use crate::cache::tier::cold::view::compression_choice;
use crate::clock::Clock;
use crate::config::{Codec, Compression};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Disk;

/// A store that has hardly begun is taken for one of so many times its entries: a dictionary's own bytes, spread over the few
/// there are, would speak for a small one, and all that follows would have to be stored anew for a larger one's sake.
const BRIEF_GROWTH: u64 = 100;

/// What a tuning has decided, while it is put into force.
struct Applied {
    before: ParametersInForce,
    after: ParametersInForce,
    /// Slots of the new dictionaries, by their index among the trained ones.
    added: BTreeMap<usize, u8>,
    /// There was no slot left for one; everything stays.
    no_slot: bool,
}

impl CompactionSystem {
    pub(super) fn analyze<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        sampled: &Sampled,
    ) -> Result<Analysis> {
        let parameters = shared.parameters_in_force();
        let growth = if sampled.is_brief { BRIEF_GROWTH } else { 1 };
        let situation = Situation {
            read_share: read_share(shared),
            class_entries: sampled.entries.map(|entries| entries * growth),
            common: parameters.common,
            classes: parameters.classes,
            dictionaries: &shared.dictionaries,
            settled: self.parameters.expected_ratio > 0.0,
        };
        let threads = if sampled.is_alone { 2 } else { 1 };
        let analyzer =
            MemoryEfficiencyAnalyzer::new(shared.config.weights, fastrand::u64(..)).threads(threads);
        let analyzer = if sampled.is_brief { analyzer.brief() } else { analyzer };
        // Dictionaries and parameters are written down after this, from 0.9 on.
        let mut progress = |share: f32| shared.state.advance(SAMPLED_AT + 0.5 * share);
        let should_stop = || shared.state.should_stop();
        let analysis = analyzer.analyze(&sampled.samples, situation, &mut progress, &should_stop);
        analysis.map_err(|error| match error {
            AnalysisError::Stopped => Error::new(ErrorKind::Cancelled, "the tuning was cancelled"),
            AnalysisError::RoundTrip { .. } => Error::corruption(error.to_string()),
        })
    }

    /// Puts the decisions into force: the dictionaries durable first, then the parameters, then both in use. Last, the
    /// explanation is written down.
    pub(super) fn apply<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        sampled: &Sampled,
        analysis: &Analysis,
        started: Instant,
    ) -> Result<TuningReport> {
        let before = shared.parameters_in_force();
        let previous = choices(&before, shared);
        let read_share = read_share(shared);
        let expected_ratio = expected_ratio(analysis, sampled);
        let fixed = matches!(shared.config.compression, Compression::Fixed(_));
        let mut applied = Applied { before, after: before, added: BTreeMap::new(), no_slot: false };
        if !fixed && analysis.enough_samples {
            // What a brief look chose is nobody's choice yet: the next one is made as if there were none.
            let settled_ratio = if sampled.is_brief { 0.0 } else { expected_ratio };
            let outcome = self.put_into_force(shared, analysis, &mut applied, settled_ratio);
            if outcome.is_err() {
                // Durable, known, and needed by nothing.
                for &slot in applied.added.values() {
                    self.drop_dictionary(shared, slot)?;
                }
            }
            outcome?;
        }
        let now = shared.parameters_in_force();
        let chosen = choices(&now, shared);
        let report = |findings: &Findings, at: usize| {
            let way = |parameters: &ParametersInForce| parameters.each().nth(at);
            let stands = !fixed && !applied.no_slot;
            ClassReport {
                raw_bytes_max: None,
                entries: sampled.entries.iter().sum(),
                raw_bytes: sampled.raw_bytes.iter().sum(),
                sampled_entries: findings.sampled_entries as u64,
                sampled_bytes: findings.sampled_bytes as u64,
                entropy_bits: findings.entropy_bits,
                candidates: findings.candidates.iter().map(|measured| measured.candidate.clone()).collect(),
                chosen_at: match stands {
                    true => findings.chosen_at.map(|at| at as u32),
                    false => None,
                },
                chosen: chosen[at],
                previous: previous[at],
                changed: way(&now).map(ungated) != way(&before).map(ungated),
                is_own: stands && findings.is_own,
                gate: way(&now).is_some_and(|parameters| parameters.gate),
                reason: match (fixed, applied.no_slot) {
                    (true, _) => {
                        format!(
                            "the configuration fixes {}; measured only. {}",
                            previous[at], findings.reason
                        )
                    }
                    (_, true) => format!("no dictionary slot is free; nothing changes. {}", findings.reason),
                    _ if sampled.is_brief => format!("a first, brief look: {}", findings.reason),
                    _ => findings.reason.clone(),
                },
            }
        };
        let of_class = |class: usize| ClassReport {
            raw_bytes_max: class_bytes_max(class).map(|bytes| bytes as u64),
            entries: sampled.entries[class],
            raw_bytes: sampled.raw_bytes[class],
            ..report(&analysis.classes[class], class + 1)
        };
        let common = Box::new(report(&analysis.common, 0));
        let classes: Vec<ClassReport> = (0..CLASSES).map(of_class).collect();
        let report = TuningReport {
            at_ms: shared.clock.now_ms(),
            weights: shared.config.weights,
            read_share,
            sampled_entries: analysis.common.sampled_entries as u64,
            sampled_bytes: analysis.common.sampled_bytes as u64,
            changed: common.changed || classes.iter().any(|class| class.changed),
            common,
            classes,
            expected_ratio: if analysis.enough_samples { expected_ratio } else { 0.0 },
            duration: started.elapsed(),
        };
        explain(shared, &report)?;
        Ok(report)
    }

    fn put_into_force<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        analysis: &Analysis,
        applied: &mut Applied,
        settled_ratio: f64,
    ) -> Result<()> {
        let is_followed = analysis.classes.iter().any(|findings| !findings.is_own);
        let after = ParametersInForce {
            // What nobody follows stays as it is: a new dictionary for it would be one for nothing.
            common: match is_followed {
                true => self.parameters_for(shared, &analysis.common, analysis, applied)?,
                false => applied.before.common,
            },
            classes: {
                let mut classes = applied.before.classes;
                for (parameters, findings) in classes.iter_mut().zip(&analysis.classes) {
                    *parameters = self.parameters_for(shared, findings, analysis, applied)?;
                }
                classes
            },
        };
        if applied.no_slot {
            return Ok(());
        }
        applied.after = after;
        let is_changed = |(before, after): (CompressionParameters, CompressionParameters)| {
            ungated(before) != ungated(after)
        };
        let changed = applied.before.each().zip(after.each()).any(is_changed);
        if !changed && after == applied.before && self.parameters.expected_ratio > 0.0 {
            return Ok(());
        }
        self.save_parameters(shared, &after, settled_ratio as f32, changed)?;
        // First the levels of both, then the parameters, then those of the new ones alone.
        for slot in shared.dictionaries.slots() {
            let levels = [applied.before.levels_of(slot), after.levels_of(slot)].concat();
            if !after.levels_of(slot).is_empty() {
                shared.dictionaries.set_levels(slot, &levels);
            }
        }
        shared.set_parameters(&after);
        shared.slab.forget_savings();
        for slot in shared.dictionaries.slots() {
            shared.dictionaries.set_levels(slot, &after.levels_of(slot));
        }
        Ok(())
    }

    /// The parameters of a choice, its dictionary durable, known and in the table.
    fn parameters_for<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        findings: &Findings,
        analysis: &Analysis,
        applied: &mut Applied,
    ) -> Result<CompressionParameters> {
        let Present { codec, dictionary } = findings.chosen;
        let level = match codec {
            Codec::Zstd(level) => level,
            Codec::None | Codec::Lz4 => 0,
        };
        let dictionary = match dictionary {
            DictionarySource::None => 0,
            DictionarySource::Current(slot) => slot,
            DictionarySource::Trained(at) => match applied.added.get(&at) {
                Some(&slot) => slot,
                None => {
                    let Some(slot) = shared.dictionaries.free_slot() else {
                        tracing::warn!(
                            "255 dictionaries are in use; no new one until compaction has freed one"
                        );
                        applied.no_slot = true;
                        return Ok(CompressionParameters::plain(codec));
                    };
                    self.add_dictionary(shared, slot, &analysis.trained[at], level)?;
                    applied.added.insert(at, slot);
                    slot
                }
            },
        };
        Ok(CompressionParameters { codec, dictionary, gate: findings.gate })
    }

    /// Makes a dictionary durable, then known, then usable: no record names it before.
    fn add_dictionary<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        slot: u8,
        bytes: &[u8],
        level: i8,
    ) -> Result<()> {
        let id = dictionary_id(bytes);
        let dir = &shared.config.dir;
        let dictionary = Dictionary::new(slot, bytes.to_vec(), level)
            .map_err(|error| Error::corruption(format!("a freshly trained dictionary: {error}")))?;
        let path = names::dictionary(dir, slot, id);
        let encoded = encode_dictionary(slot, bytes);
        replace_counted(shared, &path, &encoded)?;
        let entry = DictionaryEntry { slot, id, bytes: bytes.len() as u32 };
        if let Err(error) = self.commit(Edit::AddDictionary(entry.clone())) {
            // If the commit may be on disk, so must the file be.
            if !error.is_read_only() && !error.is_closed() {
                remove_file(shared, &path);
            }
            return Err(error);
        }
        self.dictionaries.insert(slot, entry);
        drop(shared.dictionaries.install(dictionary));
        Ok(())
    }

    fn save_parameters<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        parameters: &ParametersInForce,
        expected_ratio: f32,
        changed: bool,
    ) -> Result<()> {
        let since =
            if changed { shared.next_file_id.load(Ordering::SeqCst) } else { self.parameters.since_file_id };
        let entry = parameters_entry(parameters, expected_ratio, since);
        self.commit(Edit::SetParameters(entry))?;
        self.parameters = entry;
        Ok(())
    }

    /// Deletes dictionaries that no segment needs and no writer can still use.
    pub(super) fn drop_unused_dictionaries<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
    ) -> Result<()> {
        let parameters = shared.parameters_in_force();
        let in_force = |slot: u8| parameters.each().any(|parameters| parameters.dictionary == slot);
        for slot in shared.dictionaries.slots() {
            let used = || shared.slab.accounts().iter().any(|account| account.summary.uses_dictionary(slot));
            if in_force(slot) || used() {
                continue;
            }
            // Callers compress with a dictionary in force for their class only, and hold its lock until their record
            // is in the queue. So once these have let go, and the queue has passed a barrier, every record that needs it is in
            // an account.
            shared.dictionaries.wait_for_readers(slot);
            self.wait_for_writer()?;
            if used() {
                continue;
            }
            self.drop_dictionary(shared, slot)?;
        }
        Ok(())
    }

    /// Forgets a dictionary that nothing uses: edit first, file after it.
    fn drop_dictionary<D: Disk, C: Clock>(&mut self, shared: &Shared<D, C>, slot: u8) -> Result<()> {
        let Some(entry) = self.dictionaries.get(&slot).cloned() else { return Ok(()) };
        self.commit(Edit::DropDictionary(slot))?;
        self.dictionaries.remove(&slot);
        drop(shared.dictionaries.remove(slot));
        remove_file(shared, &names::dictionary(&shared.config.dir, slot, entry.id));
        Ok(())
    }
}

/// Share of reads among the operations since the store was opened.
fn read_share<D: Disk, C: Clock>(shared: &Shared<D, C>) -> f64 {
    let counters = &shared.counters;
    let reads = (counters.hits.load(Ordering::Relaxed) + counters.misses.load(Ordering::Relaxed)) as f64;
    let writes = counters.inserts.load(Ordering::Relaxed) as f64;
    if reads + writes == 0.0 { 0.5 } else { reads / (reads + writes) }
}

/// The gate decides what is tried, not what is stored: another one is no change that segments would have to follow.
fn ungated(parameters: CompressionParameters) -> CompressionParameters {
    CompressionParameters { gate: false, ..parameters }
}

/// For people: the common choice, then that of each class.
fn choices<D: Disk, C: Clock>(
    parameters: &ParametersInForce,
    shared: &Shared<D, C>,
) -> Vec<CompressionChoice> {
    parameters.each().map(|parameters| compression_choice(parameters, &shared.dictionaries)).collect()
}

/// Raw / stored bytes of all live entries, if each class is stored as decided.
fn expected_ratio(analysis: &Analysis, sampled: &Sampled) -> f64 {
    let raw_bytes = sampled.raw_bytes.map(|bytes| bytes as f64);
    let classes = analysis.classes.iter().zip(raw_bytes);
    let stored: f64 = classes.map(|(findings, raw_bytes)| raw_bytes / findings.ratio()).sum();
    if stored > 0.0 { raw_bytes.iter().sum::<f64>() / stored } else { analysis.common.ratio() }
}

/// Writes the explanation down. A store that cannot is none the worse, unless the directory's sync failed.
fn explain<D: Disk, C: Clock>(shared: &Shared<D, C>, report: &TuningReport) -> Result<()> {
    match replace_counted(shared, &shared.config.dir.join(names::TUNING), &encode_report(report)) {
        Err(error) if error.is_read_only() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the tuning took effect, but its explanation was not written down");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
