//! Broken promises: what kind, and the evidence.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a store broke its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A miss that nothing explains.
    Lost,
    /// A value, an expiry or a key that was never there, or two answers that contradict each other.
    Wrong,
    /// A state the key had left before the last acknowledgement.
    Resurrected,
    /// A value past its time.
    ExpiredServed,
    /// A call that should have worked did not.
    Failed,
    /// A panic.
    Panicked,
}

/// A broken promise, and the evidence.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub text: String,
}

impl Fault {
    pub fn new(kind: FaultKind, key: &[u8], text: impl fmt::Display) -> Self {
        Self { kind, text: format!("key {:?}: {text}", String::from_utf8_lossy(&key[..key.len().min(60)])) }
    }

    /// A call that should have worked.
    pub fn failed(call: &str, error: impl fmt::Display) -> Self {
        Self { kind: FaultKind::Failed, text: format!("{call}: {error}") }
    }

    /// Says in which phase of a check it happened.
    pub fn when(self, phase: &str) -> Self {
        Self { kind: self.kind, text: format!("{phase}: {}", self.text) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// A panic is a broken promise like the others.
pub fn unwinding<T>(check: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_default();
        Err(Fault { kind: FaultKind::Panicked, text })
    })
}
