//! What a store may answer after a crash: per key, a state the key had after some prefix of the operations on it, no
//! older than the last acknowledged one, no newer than the last one begun; an expired state reads as absent.
//!
//! Where capacity is larger than the data, every miss that no allowed state explains is a loss; where the store evicts,
//! no miss is.

use std::collections::BTreeMap;
use std::fmt;

use crate::contents::{Contents, Present};
use crate::fault::{Fault, FaultKind};

/// A state a key was given by operation `op`; `None` = removed, or never there (operation 0).
#[derive(Clone, Debug)]
pub struct Version {
    pub op: u64,
    pub state: Option<Present>,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            Some(present) => write!(f, "op {}: {present}", self.op),
            None => write!(f, "op {}: absent", self.op),
        }
    }
}

/// Which part of the history a crash leaves open.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Every operation up to this one must have survived.
    pub floor: u64,
    /// No operation after this one had begun.
    pub ceiling: u64,
    /// What had expired by then must read as absent.
    pub now_min_ms: u64,
    /// What expires later must be readable.
    pub now_max_ms: u64,
}

/// The states every key went through, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub keys: BTreeMap<Vec<u8>, Vec<Version>>,
    /// The store may let any entry go.
    pub evicts: bool,
}

impl History {
    /// Notes what operation `op` did to a key. Operations are numbered from 1, in order.
    pub fn note(&mut self, op: u64, key: &[u8], state: Option<Present>) {
        let never = || vec![Version { op: 0, state: None }];
        let versions = self.keys.entry(key.to_vec()).or_insert_with(never);
        assert!(versions.last().is_some_and(|last| last.op < op), "operations are noted in order");
        versions.push(Version { op, state });
    }

    /// Notes the contents that were read from a recovered store as operation `op`, a state like any other; operations
    /// after `ceiling` never happened.
    pub fn note_recovery(&mut self, op: u64, ceiling: u64, contents: &Contents) {
        for (key, versions) in &mut self.keys {
            versions.retain(|version| version.op <= ceiling);
            versions.push(Version { op, state: contents.get(key).cloned() });
        }
    }

    /// The states a key may be found in.
    fn allowed(versions: &[Version], window: Window) -> &[Version] {
        let end = versions.partition_point(|version| version.op <= window.ceiling);
        let start = versions.partition_point(|version| version.op <= window.floor).saturating_sub(1);
        &versions[start..end]
    }

    /// Judges the contents of a recovered store.
    pub fn judge(&self, window: Window, contents: &Contents) -> Result<(), Fault> {
        for key in contents.keys() {
            if !self.keys.contains_key(key) {
                return Err(Fault::new(FaultKind::Wrong, key, "a key that was never inserted"));
            }
        }
        let mut faults = self.keys.iter().filter_map(|(key, versions)| {
            let allowed = Self::allowed(versions, window);
            let kind = verdict(versions, allowed, window, contents.get(key))?;
            (!self.evicts || kind != FaultKind::Lost).then_some((kind, key, versions, allowed))
        });
        let Some((kind, key, versions, allowed)) = faults.next() else { return Ok(()) };
        let read = contents.get(key).map_or("nothing".to_string(), Present::to_string);
        let list = |versions: &[Version]| versions.iter().map(|v| format!("\n    {v}")).collect::<String>();
        let text = format!(
            "read {read}, store time {} to {}; {} more keys like this; allowed:{}\n  all versions:{}",
            window.now_min_ms,
            window.now_max_ms,
            faults.count(),
            list(allowed),
            list(versions)
        );
        Err(Fault::new(kind, key, text))
    }
}

fn verdict(
    all: &[Version],
    allowed: &[Version],
    window: Window,
    read: Option<&Present>,
) -> Option<FaultKind> {
    let Some(read) = read else {
        let may_be_absent = allowed.iter().any(|version| {
            version.state.as_ref().is_none_or(|present| present.is_expired(window.now_max_ms))
        });
        return (!may_be_absent).then_some(FaultKind::Lost);
    };
    let is_it = |version: &Version| version.state.as_ref() == Some(read);
    if allowed.iter().any(is_it) {
        return read.is_expired(window.now_min_ms).then_some(FaultKind::ExpiredServed);
    }
    let oldest_allowed = allowed.first().map_or(0, |version| version.op);
    let was_left = all.iter().any(|version| version.op < oldest_allowed && is_it(version));
    Some(if was_left { FaultKind::Resurrected } else { FaultKind::Wrong })
}
