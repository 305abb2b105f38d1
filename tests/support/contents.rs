//! What a store holds: read in every way there is, and compared with what it should hold.

use std::collections::BTreeMap;
use std::fmt;

use larder::{Clock, ColdTier, Disk, Ttl};

use crate::fault::{Fault, FaultKind};

/// A value that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub value: Vec<u8>,
    pub expires_at_ms: Option<u64>,
}

impl Present {
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms)
    }
}

impl fmt::Display for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.value[..self.value.len().min(8)];
        write!(f, "{} bytes {head:02x?}", self.value.len())?;
        match self.expires_at_ms {
            Some(at) => write!(f, " until {at}"),
            None => f.write_str(" for ever"),
        }
    }
}

/// Every readable entry of a store, by key.
pub type Contents = BTreeMap<Vec<u8>, Present>;

/// Reads a whole store in every way there is, and insists that all ways agree. `now_ms` is the store's time, where the
/// caller knows it exactly.
pub fn read_all<'a, D: Disk, C: Clock>(
    cold: &ColdTier<D, C>,
    keys: impl Iterator<Item = &'a Vec<u8>>,
    now_ms: Option<u64>,
) -> Result<Contents, Fault> {
    let mut contents = Contents::new();
    for entry in cold.iter() {
        let entry = entry.map_err(|error| Fault::failed("iter", error))?;
        let present = Present { value: entry.value.to_vec(), expires_at_ms: entry.expires_at_ms };
        if contents.insert(entry.key.to_vec(), present).is_some() {
            return Err(Fault::new(FaultKind::Wrong, &entry.key, "iter yields it twice"));
        }
    }
    let keys: Vec<&Vec<u8>> = keys.collect();
    let together = cold.multi_get(&keys).map_err(|error| Fault::failed("multi_get", error))?;
    let mut found = 0;
    for (key, together) in keys.into_iter().zip(together) {
        if together.as_deref() != contents.get(key).map(|present| &*present.value) {
            return Err(Fault::new(FaultKind::Wrong, key, "multi_get and iter do not agree"));
        }
        let got = cold.get(key).map_err(|error| Fault::failed("get", error))?;
        let is_there = cold.contains_key(key).map_err(|error| Fault::failed("contains_key", error))?;
        let ttl = cold.ttl(key).map_err(|error| Fault::failed("ttl", error))?;
        let listed = contents.get(key);
        found += u64::from(listed.is_some());
        if got.as_deref() != listed.map(|present| &*present.value) {
            let text = format!(
                "get reads {:?} bytes, iter {:?}",
                got.map(|v| v.len()),
                listed.map(|p| p.value.len())
            );
            return Err(Fault::new(FaultKind::Wrong, key, text));
        }
        if is_there != got.is_some() || ttl.is_some() != got.is_some() {
            let text = format!("get {}, contains_key {is_there}, ttl {ttl:?}", got.is_some());
            return Err(Fault::new(FaultKind::Wrong, key, text));
        }
        let Some(present) = listed else { continue };
        let agrees = match (present.expires_at_ms, &ttl) {
            (None, Some(Ttl::Never)) => true,
            (Some(at), Some(Ttl::Remaining(left))) => {
                now_ms.is_none_or(|now_ms| at.checked_sub(now_ms).map(u128::from) == Some(left.as_millis()))
            }
            _ => false,
        };
        if !agrees {
            let text = format!("iter says {present}, ttl says {ttl:?}, store time {now_ms:?}");
            return Err(Fault::new(FaultKind::Wrong, key, text));
        }
        if now_ms.is_some_and(|now_ms| present.is_expired(now_ms)) {
            return Err(Fault::new(
                FaultKind::ExpiredServed,
                key,
                format!("{present}, store time {now_ms:?}"),
            ));
        }
    }
    if found != contents.len() as u64 {
        return Err(Fault::new(FaultKind::Wrong, b"", "iter yields a key that was never inserted"));
    }
    if cold.len() < found {
        return Err(Fault::new(FaultKind::Wrong, b"", format!("len {} with {found} readable", cold.len())));
    }
    Ok(contents)
}

/// Insists that a store holds exactly this.
pub fn expect_contents(expected: &Contents, read: &Contents) -> Result<(), Fault> {
    for (key, present) in expected {
        match read.get(key) {
            Some(found) if found == present => {}
            Some(found) => {
                return Err(Fault::new(FaultKind::Wrong, key, format!("read {found}, expected {present}")));
            }
            None => return Err(Fault::new(FaultKind::Lost, key, format!("expected {present}"))),
        }
    }
    match read.keys().find(|key| !expected.contains_key(*key)) {
        Some(key) => {
            Err(Fault::new(FaultKind::Resurrected, key, format!("read {}, expected nothing", read[key])))
        }
        None => Ok(()),
    }
}

/// Insists that a store holds exactly this, by looking up every key: cheaper than reading all, which lists the store.
pub fn look_up<'a, D: Disk, C: Clock>(
    cold: &ColdTier<D, C>,
    keys: impl Iterator<Item = &'a Vec<u8>>,
    expected: &Contents,
    now_ms: Option<u64>,
) -> Result<(), Fault> {
    for key in keys {
        let got = cold.get(key).map_err(|error| Fault::failed("get", error))?;
        let is_there = cold.contains_key(key).map_err(|error| Fault::failed("contains_key", error))?;
        let ttl = cold.ttl(key).map_err(|error| Fault::failed("ttl", error))?;
        let present = expected.get(key);
        let kind = match (&got, present) {
            (Some(got), Some(present)) if *got != present.value => Some(FaultKind::Wrong),
            (Some(_), None) => Some(FaultKind::Resurrected),
            (None, Some(_)) => Some(FaultKind::Lost),
            _ => (is_there != got.is_some()).then_some(FaultKind::Wrong),
        };
        let left_ms = match &ttl {
            Some(Ttl::Remaining(left)) => Some(left.as_millis() as u64),
            _ => None,
        };
        let life_ms =
            |now_ms| present.and_then(|present| present.expires_at_ms).map(|at| at.checked_sub(now_ms));
        let ttl_agrees = ttl.is_some() == got.is_some()
            && now_ms.is_none_or(|now_ms| life_ms(now_ms).flatten() == left_ms);
        let Some(kind) = kind.or((!ttl_agrees).then_some(FaultKind::Wrong)) else { continue };
        let (got, expected) = (got.map(|value| value.len()), present.map(Present::to_string));
        let text = format!(
            "get reads {got:?} bytes, contains_key says {is_there}, ttl {ttl:?}; expected {expected:?}, store time \
             {now_ms:?}"
        );
        return Err(Fault::new(kind, key, text));
    }
    Ok(())
}
