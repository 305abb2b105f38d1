//! Which output a survivor goes to: again, records that are likely to die together lie together.
//!
//! What expires is spread by the time of its expiry, so many ranges as there are full segments of it: the outputs die one
//! by one, and only the last one is not full. What does not expire goes to the group of its victim, or an older one.

use super::relocation::Survivor;
use crate::cache::tier::cold::groups::{CLASSES, EXPIRING};
use crate::cache::tier::cold::serialization::record::RecordMeta;

/// The ranges of one round.
#[derive(Debug, Default)]
pub(super) struct SurvivorGroups {
    /// Latest expiry of each range but the last, rising.
    expires_until_ms: Vec<u64>,
}

impl SurvivorGroups {
    /// Divides what expires into ranges of about `segment_bytes`.
    pub(super) fn new<'a>(survivors: impl Iterator<Item = &'a Survivor>, segment_bytes: u64) -> Self {
        let expiring = survivors.filter(|survivor| !survivor.shadow && survivor.row.expires_at_ms != 0);
        let mut expiring: Vec<(u64, u64)> =
            expiring.map(|survivor| (survivor.row.expires_at_ms, survivor.bytes)).collect();
        expiring.sort_unstable();
        let bytes: u64 = expiring.iter().map(|(_, bytes)| bytes).sum();
        let ranges = bytes.div_ceil(segment_bytes.max(1)).clamp(1, CLASSES as u64);
        let mut expires_until_ms = Vec::new();
        let mut before = 0;
        for (expires_at_ms, bytes_of_one) in expiring {
            before += bytes_of_one;
            if before * ranges >= bytes * (expires_until_ms.len() as u64 + 1) {
                expires_until_ms.push(expires_at_ms);
            }
        }
        expires_until_ms.pop();
        Self { expires_until_ms }
    }

    /// The group of a survivor as it will be written.
    pub(super) fn group_of(&self, survivor: &Survivor, meta: &RecordMeta) -> u8 {
        if survivor.shadow || meta.expires_at_ms == 0 {
            return survivor.group;
        }
        EXPIRING + self.expires_until_ms.partition_point(|until_ms| *until_ms < meta.expires_at_ms) as u8
    }
}
