//! Tuning: sample live entries, measure, choose, apply.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::files::remove_file;
use super::{CompactionSystem, TuningReport};
use crate::cache::memory::efficiency_analyzer::{
    Analysis, AnalysisError, DictionarySource, MemoryEfficiencyAnalyzer, Sample, Situation, Weights,
};
use crate::cache::tier::cold::compression::{CompressionParameters, Dictionary};
use crate::cache::tier::cold::core::manifest::replace_file;
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::handle::{Lookup, lookup};
use crate::cache::tier::cold::message::WriteRequest;
use crate::cache::tier::cold::metadata_index::PARTITIONS;
use crate::cache::tier::cold::open::parameters_entry;
use crate::cache::tier::cold::serialization::dictionary::{dictionary_id, encode_dictionary};
use crate::cache::tier::cold::serialization::edit::{DictionaryEntry, Edit};
use crate::cache::tier::cold::shared::Shared;
use crate::cache::tier::cold::view::compression_choice;
use crate::clock::Clock;
use crate::config::{Codec, Compression};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Disk;

/// Entries taken from one partition of the index before the next one is looked at: partitions are cut by hash, so any
/// of them is a fair sample, but a spread one is fairer.
const SAMPLES_A_PARTITION: usize = 8;
/// Raw bytes of a sample at most.
const SAMPLE_BYTES_MAX: usize = 64 << 20;

impl CompactionSystem {
    /// Up to `sample_entries_max` live entries, each as likely as the next: partitions in random order, and of each a
    /// few entries at random.
    pub(super) fn sample_entries<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> Result<Vec<Sample>> {
        let wanted = shared.config.sample_entries_max;
        let mut order: Vec<u16> = (0..PARTITIONS).map(|number| number as u16).collect();
        fastrand::shuffle(&mut order);
        let mut samples = Vec::with_capacity(wanted);
        let mut bytes = 0;
        for number in order {
            let mut entries = shared.index.partition(number);
            entries.retain(|(_, entry)| !entry.is_shadow());
            fastrand::shuffle(&mut entries);
            for (id, entry) in entries.into_iter().take(SAMPLES_A_PARTITION) {
                if samples.len() == wanted {
                    return Ok(samples);
                }
                self.check_stop(shared)?;
                // The very large ones are left out once they have had their share.
                if bytes + entry.size.bytes_estimate() as usize > SAMPLE_BYTES_MAX {
                    continue;
                }
                if let Lookup::Found(meta, raw) = lookup(shared, id, false)? {
                    bytes += raw.len();
                    samples.push(Sample { raw, key_len: meta.key_len as usize });
                    shared.state.advance(0.4 * samples.len() as f32 / wanted as f32);
                }
            }
        }
        Ok(samples)
    }

    pub(super) fn analyze<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        samples: &[Sample],
    ) -> Result<Analysis> {
        let parameters = shared.parameters();
        let guard = shared.dictionaries.read(parameters.dictionary);
        let situation = Situation {
            read_share: read_share(shared),
            live_entries: shared.index.len(),
            codec: parameters.codec,
            dictionary: guard.as_ref(),
        };
        let analyzer = MemoryEfficiencyAnalyzer::new(Weights::Balanced, fastrand::u64(..));
        // Dictionary and parameters are written down after this, from 0.9 on.
        let mut progress = |share: f32| shared.state.advance(0.4 + 0.5 * share);
        let analysis = analyzer.analyze(samples, situation, &mut progress, &|| shared.state.should_stop());
        analysis.map_err(|error| match error {
            AnalysisError::Stopped => Error::new(ErrorKind::Cancelled, "the tuning was cancelled"),
            AnalysisError::RoundTrip { .. } => Error::corruption(error.to_string()),
        })
    }

    /// Puts the decision into force: the dictionary durable first, then the parameters, then both in use.
    pub(super) fn apply<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        analysis: Analysis,
        started: Instant,
    ) -> Result<TuningReport> {
        let before = shared.parameters();
        let previous = compression_choice(before, &shared.dictionaries);
        let read_share = read_share(shared);
        let decision = analysis.decision.clone();
        let chosen = analysis.chosen().clone();
        let fixed = matches!(shared.config.compression, Compression::Fixed(_));
        let mut reason = decision.reason;
        let mut after = None;
        if fixed {
            reason = format!("the configuration fixes {previous}; measured only. {reason}");
        } else if decision.changed {
            let codec = chosen.candidate.choice.codec;
            after = self.parameters_for(shared, codec, chosen.dictionary, &analysis)?;
        }
        let changed = after.is_some();
        if changed || (!fixed && self.parameters.expected_ratio == 0.0) {
            let after = after.unwrap_or(before);
            let saved = self.save_parameters(shared, after, chosen.candidate.ratio as f32, changed);
            if let (Err(_), DictionarySource::Trained(_), true) = (&saved, chosen.dictionary, changed) {
                self.drop_dictionary(shared, after.dictionary)?;
            }
            saved?;
            if let (DictionarySource::Current, Codec::Zstd(level)) = (chosen.dictionary, after.codec) {
                shared.dictionaries.set_level(after.dictionary, level);
            }
            shared.parameters.store(after.to_bits(), Ordering::Release);
        }
        Ok(TuningReport {
            sampled_entries: analysis.sampled_entries as u64,
            sampled_bytes: analysis.sampled_bytes as u64,
            entropy_bits: analysis.entropy_bits,
            read_share,
            candidates: analysis.candidates.into_iter().map(|measured| measured.candidate).collect(),
            chosen: compression_choice(shared.parameters(), &shared.dictionaries),
            previous,
            changed,
            reason,
            duration: started.elapsed(),
        })
    }

    /// The parameters of a choice, its dictionary ready for use; `None` if there is no slot left for a new one.
    fn parameters_for<D: Disk, C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        codec: Codec,
        source: DictionarySource,
        analysis: &Analysis,
    ) -> Result<Option<CompressionParameters>> {
        let level = match codec {
            Codec::Zstd(level) => level,
            Codec::None | Codec::Lz4 => 0,
        };
        let dictionary = match source {
            DictionarySource::None => 0,
            DictionarySource::Current => shared.parameters().dictionary,
            DictionarySource::Trained(at) => {
                let Some(slot) = shared.dictionaries.free_slot() else {
                    tracing::warn!("255 dictionaries are in use; no new one until compaction has freed one");
                    return Ok(None);
                };
                self.add_dictionary(shared, slot, &analysis.trained[at], level)?;
                slot
            }
        };
        Ok(Some(CompressionParameters { codec, dictionary }))
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
        replace_file(&shared.disk, dir, &path, &encode_dictionary(slot, bytes))?;
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
        parameters: CompressionParameters,
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
        let current = shared.parameters().dictionary;
        for slot in shared.dictionaries.slots() {
            let used = || shared.slab.accounts().iter().any(|account| account.summary.uses_dictionary(slot));
            if slot == current || used() {
                continue;
            }
            // Callers compress with the dictionary in force only, and hold its lock until their record is in the
            // queue. So once these have let go, and the queue has passed a barrier, every record that needs it is in
            // an account.
            shared.dictionaries.wait_for_readers(slot);
            self.ask(|reply| WriteRequest::Barrier { sync: false, reply })?;
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
