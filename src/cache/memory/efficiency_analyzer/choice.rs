//! Decisions between measured candidates. They look at figures and touch nothing.

use super::trial::{Scope, Trial};
use super::{
    Analysis, CHANGE_MARGIN, DICTIONARY_MARGIN, Decision, DictionarySource, EQUAL_BYTES, EQUAL_COST,
    Findings, MeasuredCandidate, OWN_SAMPLES_MIN, OWN_SHARE_MIN, SAMPLES_MIN, SAVING_RATIO, Situation,
    entropy_bits, samples_of,
};
use crate::cache::tier::cold::classes::CLASSES;
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

/// What may be changed: after the first trial of two, what won it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    common: bool,
    classes: [bool; CLASSES],
}

impl Allowed {
    /// Everything.
    pub(super) const ALL: Self = Self { common: true, classes: [true; CLASSES] };

    /// What this analysis would change.
    pub(super) fn by(analysis: &Analysis) -> Self {
        let classes = std::array::from_fn(|class| analysis.classes[class].changed);
        Self { common: analysis.common.changed, classes }
    }
}

/// Decides between measured candidates: the cheapest of those that save an eighth (or store as is, or look first, if
/// `gate`), unless the present choice comes within `margin` of it. A present choice that is not among the candidates
/// cannot be kept. One that saves under an eighth is not kept either, whatever its bytes are worth: every later value
/// would pay for an attempt that is mostly in vain.
///
/// # Panics
/// If "none" is not among the candidates.
pub fn choose(candidates: &[MeasuredCandidate], previous: Present, margin: f64, gate: bool) -> Decision {
    let cost = |index: usize| candidates[index].candidate.cost_ns;
    let figures = |index: usize| figures(&candidates[index]);
    let pays = |index: &usize| pays(&candidates[*index], gate);
    let cheapest = |those: &dyn Fn(&usize) -> bool| {
        let paying = (0..candidates.len()).filter(pays).filter(|index| those(index));
        let best = paying.clone().min_by(|&a, &b| cost(a).total_cmp(&cost(b)))?;
        // Of levels that cost the same, those that store least, and of these the lowest: the next sample may as well find
        // any of them the cheapest.
        let same = |index: &usize| candidates[*index].dictionary == candidates[best].dictionary;
        let equals = paying.filter(same).filter(|&index| cost(index) <= cost(best) * (1.0 + EQUAL_COST));
        let ratio = |index: usize| candidates[index].candidate.ratio;
        let greatest = equals.clone().map(ratio).fold(0.0, f64::max);
        let smallest = equals.filter(|&index| ratio(index) * (1.0 + EQUAL_BYTES) >= greatest);
        smallest.min_by_key(|&index| candidates[index].candidate.choice.codec)
    };
    let best = cheapest(&|_| true).expect("storing as is always pays");
    let Some(present) = place_of(candidates, previous) else {
        let reason = format!("{} is the cheapest; the present {previous} was not measured", figures(best));
        return Decision { index: best, changed: true, reason };
    };
    if !pays(&present) {
        let reason =
            format!("the present {} saves under an eighth; {} is chosen", figures(present), figures(best));
        return Decision { index: best, changed: true, reason };
    }
    // The present choice's rival: the cheapest of the others, but a new dictionary only if it beats the present one at
    // its best level by the margin, or by a little where anything cheaper will do. Else a mere change of level would swap
    // equal dictionaries with it, and all that has been stored by the present one would be stored anew.
    let is_kept = |index: &usize| matches!(candidates[*index].dictionary, DictionarySource::Current(_));
    let kept_ns = cheapest(&is_kept).map_or(f64::MAX, cost);
    let is_rival = |index: &usize| {
        let is_new = matches!(candidates[*index].dictionary, DictionarySource::Trained(_));
        *index != present && (!is_new || cost(*index) < kept_ns * (1.0 - margin.max(DICTIONARY_MARGIN)))
    };
    let Some(rival) = cheapest(&is_rival) else {
        let reason = format!("{} stays: nothing else saves anything", figures(present));
        return Decision { index: present, changed: false, reason };
    };
    let gain = (1.0 - cost(rival) / cost(present)) * 100.0;
    let needed = match margin > 0.0 {
        true => format!("over {:.0} % are needed", margin * 100.0),
        false => "which nobody chose".to_owned(),
    };
    let changed = cost(rival) < cost(present) * (1.0 - margin);
    let (rival_is, present_is) = (figures(rival), figures(present));
    let reason = match changed {
        true => format!("{rival_is} costs {gain:.1} % less than the present {present_is}, {needed}"),
        false if gain > 0.0 => {
            format!("{present_is} stays: {rival_is} costs only {gain:.1} % less, {needed}")
        }
        false => format!("{present_is} stays the cheapest, ahead of {rival_is}"),
    };
    Decision { index: if changed { rival } else { present }, changed, reason }
}

/// Whether it may be chosen: it saves an eighth, tries nothing, or (`gate`) not on what looks random.
fn pays(measured: &MeasuredCandidate, gate: bool) -> bool {
    let Candidate { choice, ratio, .. } = measured.candidate;
    choice.codec == Codec::None || ratio >= SAVING_RATIO || gate
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
pub(super) fn decide(trial: &Trial<'_, '_>, allowed: Allowed) -> Analysis {
    let (situation, samples) = (trial.situation(), trial.samples());
    let enough_samples = samples.len() >= SAMPLES_MIN;
    let present = situation.present(situation.common);
    let candidates = trial.table(Scope::Common);
    let decision = match place_of(&candidates, present) {
        Some(index) if !enough_samples || !allowed.common => {
            let choice = candidates[index].candidate.choice;
            let reason = match enough_samples {
                true => format!(
                    "{choice} stays: nothing cost {:.0} % less in the first of two trials",
                    CHANGE_MARGIN * 100.0
                ),
                false => format!(
                    "{choice} stays: only {} entries were sampled, {SAMPLES_MIN} are needed to judge",
                    samples.len(),
                ),
            };
            Decision { index, changed: false, reason }
        }
        _ => choose(&candidates, present, margin_of(situation), false),
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
    let mut classes: [Findings; CLASSES] = std::array::from_fn(|class| {
        let sampled = samples_of(samples, class);
        Findings {
            sampled_entries: sampled.len(),
            sampled_bytes: sampled.iter().map(|sample| sample.raw.len()).sum(),
            entropy_bits: entropy_bits(sampled.iter().map(|sample| &sample.raw[..])),
            candidates: trial.table(Scope::Class { class, common: common.chosen }),
            gate: trial.gate(class).0,
            ..common.clone()
        }
    });
    let entries = |class: usize| situation.class_entries[class].max(1) as f64;
    // What the whole store costs if all follow the common choice.
    let cost_of = |class: usize| {
        let table = &classes[class].candidates;
        let at = place_of(table, common.chosen).unwrap_or(0);
        table.get(at).map_or(0.0, |measured| measured.candidate.cost_ns * entries(class))
    };
    let store_ns: f64 = (0..CLASSES).map(cost_of).sum();
    for (class, findings) in classes.iter_mut().enumerate() {
        let before = situation.present(situation.classes[class]);
        let own = (before != present).then_some(before);
        let (chosen, reason) = if !enough_samples || !allowed.classes[class] {
            let why = match enough_samples {
                true => {
                    format!("nothing cost {:.0} % less in the first of two trials", CHANGE_MARGIN * 100.0)
                }
                false => common.reason.clone(),
            };
            (before, format!("{before} stays: {why}"))
        } else {
            // Where nothing shrinks there is nothing that a gate would keep for compression.
            let gate = trial.gate(class) == (true, true);
            let margin = margin_of(situation);
            decide_class(findings, gate, common.chosen, own, margin, store_ns / entries(class))
        };
        findings.chosen_at = place_of(&findings.candidates, chosen);
        findings.changed = chosen != before;
        findings.is_own = chosen != common.chosen;
        (findings.chosen, findings.reason) = (chosen, reason);
        // Nothing is compressed, so there is nothing to keep from it.
        findings.gate &= chosen.codec != Codec::None;
        if !enough_samples {
            findings.gate = situation.classes[class].gate;
        }
    }
    Analysis { common, classes, enough_samples, trained: Vec::new() }
}

fn margin_of(situation: &Situation<'_>) -> f64 {
    if situation.settled { CHANGE_MARGIN } else { 0.0 }
}

/// A class gets a choice of its own only if that clearly pays, for itself and for the store, and keeps it until
/// another is cheaper by the margin, the common one among them. `store_ns` is the cost of the whole store for each
/// entry of the class.
fn decide_class(
    findings: &Findings,
    gate: bool,
    common: Present,
    own: Option<Present>,
    margin: f64,
    store_ns: f64,
) -> (Present, String) {
    let (table, count) = (&findings.candidates, findings.sampled_entries);
    if count < SAMPLES_MIN {
        let why = format!("{count} entries of it were sampled, {SAMPLES_MIN} are needed to judge");
        return (common, format!("follows the common choice: {why}"));
    }
    let decision = choose(table, own.unwrap_or(common), margin, gate);
    let best = &table[decision.index];
    let common_at = place_of(table, common).filter(|&at| pays(&table[at], gate));
    let none_at = table.iter().position(|measured| measured.candidate.choice.codec == Codec::None);
    let Some(base) = common_at.or(none_at).map(|at| &table[at]) else {
        return (best.way(), decision.reason);
    };
    if best.way() == base.way() || own == Some(best.way()) {
        return match base.way() == common && best.way() == common {
            true => (common, format!("follows the common choice: {}", decision.reason)),
            false => (best.way(), decision.reason),
        };
    }
    let saved_ns = base.candidate.cost_ns - best.candidate.cost_ns;
    let (gain, share) = (saved_ns / base.candidate.cost_ns, saved_ns / store_ns);
    if count >= OWN_SAMPLES_MIN && gain > CHANGE_MARGIN && share >= OWN_SHARE_MIN {
        return (best.way(), decision.reason);
    }
    let reason = format!(
        "{} would cost {:.1} % less than {}, {:.1} % of the store's cost, as {count} entries say; {:.0} %, {:.0} % \
         and {OWN_SAMPLES_MIN} entries are needed",
        figures(best),
        gain * 100.0,
        figures(base),
        share * 100.0,
        CHANGE_MARGIN * 100.0,
        OWN_SHARE_MIN * 100.0,
    );
    let follows = if base.way() == common { "follows the common choice: " } else { "" };
    (base.way(), format!("{follows}{reason}"))
}
