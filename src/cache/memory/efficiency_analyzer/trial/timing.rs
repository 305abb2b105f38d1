//! The timing of a trial's candidates: turn and turn about, until nobody who may still be chosen gets any better.

use super::{Contender, Group, Scope, Trial, cpu_ns};
use crate::cache::memory::efficiency_analyzer::{
    AnalysisError, CHANGE_MARGIN, NOT_HOPELESS, OWN_SAMPLES_MIN, ROUND_NS, ROUNDS, STEADY, STILL_POSSIBLE,
    TIMING_FROM, TURN_NS, TURN_PASSES,
};

impl Trial<'_, '_> {
    /// Times the candidates, turn and turn about: first those that did not look hopeless when they were tried out, then
    /// those that may still be chosen.
    pub(in crate::cache::memory::efficiency_analyzer) fn time(&mut self) -> Result<(), AnalysisError> {
        let mut turns = self.within(NOT_HOPELESS);
        let mut costs = self.deciding_costs();
        let rounds = if self.brief { 1 } else { ROUNDS };
        for round in 0..rounds {
            let round_began = cpu_ns();
            for (done, &(group, at)) in turns.iter().enumerate() {
                if (self.should_stop)() {
                    return Err(AnalysisError::Stopped);
                }
                let done = (round as f32 + done as f32 / turns.len() as f32) / rounds as f32;
                (self.progress)(TIMING_FROM + (1.0 - TIMING_FROM) * done);
                let Group { holdout, gate, hopeless, .. } = &self.groups[group];
                // Where nothing shrinks, the gate would hide what the attempts cost.
                let gate = *gate && !hopeless;
                let began = cpu_ns();
                for _ in 0..TURN_PASSES {
                    self.contenders[at].time_once(group, holdout, gate);
                    if cpu_ns() - began >= TURN_NS {
                        break;
                    }
                }
            }
            if round == 0 {
                turns = self.within(STILL_POSSIBLE);
            }
            let before = std::mem::replace(&mut costs, self.deciding_costs());
            if round > 0 && cpu_ns() - round_began > ROUND_NS && are_steady(&before, &costs) {
                break;
            }
        }
        Ok(())
    }

    /// Of each group, the candidates that cost at most so many times as much as the best.
    fn within(&self, times: f64) -> Vec<(usize, usize)> {
        let mut turns = Vec::new();
        for group in 0..self.groups.len() {
            let best = self.measured_on(group).map(|at| self.cost_in(group, at)).fold(f64::MAX, f64::min);
            let near = self.measured_on(group).filter(|&at| self.cost_in(group, at) <= best * times);
            turns.extend(near.map(|at| (group, at)));
        }
        turns
    }

    /// What the candidates cost where choices are made: in all classes that shrink together, and in each that may have a choice
    /// of its own; only those that were measured there.
    fn deciding_costs(&self) -> Vec<Vec<(usize, f64)>> {
        let all_hopeless = self.groups.iter().all(|group| group.hopeless);
        let counts = |&group: &usize| all_hopeless || !self.groups[group].hopeless;
        let together: Vec<usize> = (0..self.groups.len()).filter(counts).collect();
        let own = (0..self.groups.len()).filter(|&group| self.groups[group].sampled >= OWN_SAMPLES_MIN);
        let costs_in = |groups: Vec<usize>| {
            let is_measured =
                |contender: &Contender| groups.iter().all(|&group| contender.measured[group].is_some());
            let measured = self.contenders.iter().enumerate().filter(|(_, contender)| is_measured(contender));
            let cost = |contender| self.price(contender, &groups, Scope::Common).candidate.cost_ns;
            measured.map(|(at, contender)| (at, cost(contender))).collect()
        };
        std::iter::once(together).chain(own.map(|group| vec![group])).map(costs_in).collect()
    }
}

/// Whether nobody near the best of any choice has become much cheaper in the last round.
fn are_steady(before: &[Vec<(usize, f64)>], now: &[Vec<(usize, f64)>]) -> bool {
    before.iter().zip(now).all(|(before, now)| {
        let best = now.iter().map(|(_, cost)| *cost).fold(f64::MAX, f64::min);
        let is_steady = |(before, now): (&(usize, f64), &(usize, f64))| {
            now.1 > best * (1.0 + CHANGE_MARGIN) || now.1 >= before.1 * (1.0 - STEADY)
        };
        before.iter().zip(now).all(is_steady)
    })
}
