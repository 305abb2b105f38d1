//! Decisions between measured candidates. They look at figures and touch nothing.

use super::trial::{Scope, Trial};
use super::{
    Analysis, CHANGE_MARGIN, DICTIONARY_MARGIN, Decision, DictionarySource, Findings, HOLDOUT_DIVISOR,
    MeasuredCandidate, SAMPLES_MIN, SAVING_RATIO, Sample, entropy_bits, samples_of,
};
use crate::cache::tier::cold::report::Candidate;
use crate::config::Codec;

/// A way to store records: what is in force, or what is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Codec and level.
    pub codec: Codec,
    /// Its dictionary.
    pub dictionary: DictionarySource,
}

impl std::fmt::Display for Present {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dictionary = match self.dictionary {
            DictionarySource::None => "",
            DictionarySource::Current(_) => " with its dictionary",
            DictionarySource::Trained(_) => " with a new dictionary",
        };
        write!(f, "{}{dictionary}", self.codec)
    }
}

/// Decides between measured candidates: the cheapest, unless the present choice comes within `margin` of it. A present
/// choice that is not among the candidates cannot be kept. One that saves under an eighth yields to "none" without a
/// margin: the bytes, which both store, would hide the time it wastes; and the way back needs the margin, so that
/// nothing flaps.
///
/// # Panics
/// If `candidates` is empty.
pub fn choose(candidates: &[MeasuredCandidate], previous: Present, margin: f64) -> Decision {
    let cost = |index: usize| candidates[index].candidate.cost_ns;
    let figures = |index: usize| figures(&candidates[index]);
    let all = 0..candidates.len();
    let best = all.min_by(|&a, &b| cost(a).total_cmp(&cost(b))).expect("candidates are never empty");
    let Some(present) = place_of(candidates, previous) else {
        let reason = format!("{} is the cheapest; the present {previous} was not measured", figures(best));
        return Decision { index: best, changed: true, reason };
    };
    // The present choice's rival: the cheapest of the others, but a new dictionary only if it beats the present one at
    // its best level by its margin. Else a mere change of level would swap equal dictionaries with it.
    let kept = |index: &usize| matches!(candidates[*index].dictionary, DictionarySource::Current(_));
    let kept_ns = (0..candidates.len()).filter(kept).map(cost).min_by(f64::total_cmp).unwrap_or(f64::MAX);
    let is_rival = |index: &usize| {
        let is_new = matches!(candidates[*index].dictionary, DictionarySource::Trained(_));
        *index != present && (!is_new || cost(*index) < kept_ns * (1.0 - DICTIONARY_MARGIN))
    };
    let rival = (0..candidates.len()).filter(is_rival).min_by(|&a, &b| cost(a).total_cmp(&cost(b)));
    let Some(rival) = rival else {
        let reason = format!("{} stays: nothing else was measured", figures(present));
        return Decision { index: present, changed: false, reason };
    };
    let gain = (1.0 - cost(rival) / cost(present)) * 100.0;
    let (margin, needed) = match candidates[rival].candidate.choice.codec {
        Codec::None if !saves(&candidates[present]) => (0.0, "which saves under an eighth".to_owned()),
        _ if margin == 0.0 => (0.0, "which was never measured before".to_owned()),
        _ => (margin, format!("over {:.0} % are needed", margin * 100.0)),
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

fn saves(measured: &MeasuredCandidate) -> bool {
    measured.candidate.ratio >= SAVING_RATIO
}

/// Where a way stands among the candidates.
fn place_of(candidates: &[MeasuredCandidate], way: Present) -> Option<usize> {
    candidates.iter().position(|measured| measured.way() == way)
}

fn figures(measured: &MeasuredCandidate) -> String {
    let newness = match measured.dictionary {
        DictionarySource::None => "",
        DictionarySource::Current(_) => " (present dictionary)",
        DictionarySource::Trained(_) => " (new dictionary)",
    };
    let Candidate { choice, ratio, compress_ns, decompress_ns, cost_ns, .. } = measured.candidate;
    format!(
        "{choice}{newness} at {cost_ns:.0} ns an entry (ratio {ratio:.2}, {compress_ns:.0} ns to store, \
         {decompress_ns:.0} ns to read)"
    )
}

/// Decides for all classes together, then for each; the trained dictionaries are added by the caller.
pub(super) fn decide(trial: &Trial<'_, '_>, samples: &[Sample]) -> Analysis {
    let situation = trial.situation();
    let enough_samples = samples.len() >= SAMPLES_MIN;
    let margin = if situation.settled { CHANGE_MARGIN } else { 0.0 };
    let present = situation.present(situation.common);
    let candidates = trial.table(Scope::Common);
    let decision = match place_of(&candidates, present) {
        Some(index) if !enough_samples => Decision {
            index,
            changed: false,
            reason: format!(
                "{} stays: only {} entries were sampled, {SAMPLES_MIN} are needed to judge",
                candidates[index].candidate.choice,
                samples.len(),
            ),
        },
        _ => choose(&candidates, present, margin),
    };
    let common = Findings {
        sampled_entries: samples.len(),
        sampled_bytes: samples.iter().map(|sample| sample.raw.len()).sum(),
        entropy_bits: entropy_bits(samples.iter().map(|sample| &sample.raw[..])),
        chosen: candidates[decision.index].way(),
        chosen_at: Some(decision.index),
        candidates,
        changed: decision.changed,
        is_own: false,
        gate: false,
        reason: decision.reason,
    };
    let classes = std::array::from_fn(|class| {
        let sampled = samples_of(samples, class);
        let mut findings = Findings {
            sampled_entries: sampled.len(),
            sampled_bytes: sampled.iter().map(|sample| sample.raw.len()).sum(),
            entropy_bits: entropy_bits(sampled.iter().map(|sample| &sample.raw[..])),
            candidates: trial.table(Scope::Class { class, common: common.chosen }),
            gate: trial.gate(class),
            ..common.clone()
        };
        decide_class(trial, class, &common, margin, enough_samples, &mut findings);
        findings
    });
    Analysis { common, classes, enough_samples, trained: Vec::new() }
}

/// A class keeps or gets a choice of its own only while that pays.
fn decide_class(
    trial: &Trial<'_, '_>,
    class: usize,
    common: &Findings,
    margin: f64,
    enough_samples: bool,
    findings: &mut Findings,
) {
    let situation = trial.situation();
    let before = situation.present(situation.classes[class]);
    let own = (before != situation.present(situation.common)).then_some(before);
    let table = &findings.candidates;
    let common_at = place_of(table, common.chosen);
    let (chosen, is_own, reason) = if !enough_samples {
        (before, own.is_some(), common.reason.clone())
    } else if findings.sampled_entries < SAMPLES_MIN {
        let count = findings.sampled_entries;
        (common.chosen, false, format!("follows the common choice: {count} entries of it were sampled"))
    } else {
        // A mean over few entries is worth little: 27 held out (of 110 sampled) moved by 10 % from sample to sample.
        let uncertainty = 0.5 / ((findings.sampled_entries / HOLDOUT_DIVISOR).max(1) as f64).sqrt();
        let margin = if margin > 0.0 { margin.max(uncertainty) } else { margin };
        // Where it follows, its present choice is the common one, as it is from now on.
        let decision = choose(table, own.unwrap_or(common.chosen), margin);
        let best = &table[decision.index];
        match common_at {
            None => (best.way(), best.way() != common.chosen, decision.reason),
            Some(at) => {
                let gain = 1.0 - best.candidate.cost_ns / table[at].candidate.cost_ns;
                let is_none = best.candidate.choice.codec == Codec::None;
                // What it has it keeps until another is cheaper by the margin, the common choice among them; "none" needs
                // no margin over what saves nothing.
                let is_kept = own == Some(best.way()) && best.way() != common.chosen;
                let needed = match is_none && !saves(&table[at]) {
                    true => 0.0,
                    false => CHANGE_MARGIN.max(uncertainty),
                };
                if is_kept || gain > needed {
                    (best.way(), true, decision.reason)
                } else {
                    let rival = match decision.index == at {
                        true => decision.reason,
                        false => format!(
                            "{} would cost {:.1} % less than {}, over {:.0} % are needed",
                            figures(best),
                            gain * 100.0,
                            figures(&table[at]),
                            needed * 100.0
                        ),
                    };
                    (common.chosen, false, format!("follows the common choice: {rival}"))
                }
            }
        }
    };
    findings.chosen_at = place_of(table, chosen);
    findings.changed = chosen != before;
    findings.chosen = chosen;
    findings.is_own = is_own;
    findings.reason = reason;
    // Nothing is compressed, so there is nothing to keep from it.
    findings.gate &= chosen.codec != Codec::None;
    if !enough_samples {
        findings.gate = situation.classes[class].gate;
    }
}
