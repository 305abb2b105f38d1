//! What could not be written: who is told, and how what it replaced is kept from coming back.

use std::sync::atomic::Ordering;

use super::{Ack, Pending, Writer};
use crate::cache::eviction::EvictionReason;
use crate::cache::tier::cold::core::segment::decode_record;
use crate::cache::tier::cold::in_flight::EncodedRecord;
use crate::cache::tier::cold::metadata_index::EntryId;
use crate::cache::tier::cold::queue::Charge;
use crate::cache::tier::cold::serialization::record::{RecordMeta, payload_sum};
use crate::cache::tier::cold::shared::{Shared, count};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::io::Disk;

impl<D: Disk> Writer<D> {
    /// Accepted records that could not be written read as misses from now on. Keys of which
    /// something older is on disk stay in the index as shadows, so that they are remembered until a tombstone has buried
    /// it. Newest first: of several records of one key in the batch, each gives way to what it replaced. Whoever waits
    /// for one of them is told of it, the others by the next flush.
    pub(super) fn lose<C: Clock>(&mut self, shared: &Shared<D, C>, records: Vec<Pending>, cause: &Error) {
        self.losses += 1;
        for Pending { record, place, charge, .. } in records.iter().rev() {
            let (id, sequence) = (EntryId::of(record.hash), record.meta.sequence);
            if let Some((entry, _)) = *place
                && !shared.index.get(id).is_some_and(|known| known.is_value_at(entry.location))
            {
                // What replaced it, or took its value away, has noted it as dead; it came to nothing instead.
                shared.slab.forget_dead(entry);
            }
            let place = place.map(|(entry, replaced)| (entry.location, replaced));
            if shared.hand_over().lose(id, sequence, place) {
                match key_of(record, shared) {
                    Some(key) => drop(self.doomed.insert(record.hash, key)),
                    // Its key cannot be told, so nothing can bury what it replaced.
                    None => {
                        let text = "a record that could not be written cannot be decoded either";
                        shared.condition.make_read_only(&Error::new(ErrorKind::ReadOnly, text));
                    }
                }
            }
            shared.release(*charge, &self.waker);
        }
        for Pending { record, .. } in
            records.iter().filter(|lost| !lost.charge.is_none() && !lost.record.meta.tombstone)
        {
            let key = || key_of(record, shared).map(bytes::Bytes::from);
            shared.tell_eviction(EvictionReason::WriteLost, 0, key);
        }
        // The writer's own tombstones take no room in the queue, and nobody misses them.
        let lost = records.iter().filter(|pending| !pending.charge.is_none());
        count(&shared.counters.writes_lost, lost.clone().count() as u64);
        self.lost += lost.filter(|pending| pending.acks.is_empty()).count() as u64;
        for ack in records.into_iter().flat_map(|pending| pending.acks) {
            let text = format!("the write was lost ({cause}); the entry reads as a miss");
            self.acks.push(Ack { lost: Some(Error::new(ErrorKind::WriteLost, text)), ..ack });
        }
    }

    pub(super) fn note_failure<C: Clock>(&mut self, shared: &Shared<D, C>, error: &Error) {
        match error.kind() {
            ErrorKind::ReadOnly => shared.condition.make_read_only(error),
            _ => shared.condition.stall(error),
        }
        tracing::error!(%error, lost = self.lost, "writing failed");
    }

    /// Writes a tombstone for every key whose write was lost. While that fails, no flush succeeds.
    pub(super) fn bury_doomed<C: Clock>(&mut self, shared: &Shared<D, C>) {
        let stalled = shared.condition.stalled.load(Ordering::SeqCst);
        if self.doomed.is_empty() && !stalled {
            return;
        }
        if shared.condition.read_only.load(Ordering::SeqCst) {
            return;
        }
        for (hash, key) in std::mem::take(&mut self.doomed) {
            match shared.in_flight.sequence_for_writer(EntryId::of(hash)) {
                Some(sequence) => {
                    self.append(shared, tombstone(hash, &key, sequence), Charge::default(), None)
                }
                // A newer record of the key is on its way: it buries the old one once it is appended.
                None => drop(self.doomed.insert(hash, key)),
            }
        }
        self.hand_over(shared);
        if !stalled {
            return;
        }
        // Whether there is room again shows only by writing: the clock, if nothing else.
        shared.condition.expiry_observed.store(true, Ordering::SeqCst);
        match self.sync(shared) {
            Ok(()) => shared.condition.stalled.store(false, Ordering::SeqCst),
            Err(error) => self.note_failure(shared, &error),
        }
    }
}

/// The key of a record, decoded from what was to be stored.
fn key_of<D: Disk, C: Clock>(record: &EncodedRecord, shared: &Shared<D, C>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; record.meta.header_bytes()];
    bytes.extend_from_slice(&record.stored);
    let mut raw = Vec::new();
    decode_record(&record.meta, &mut bytes, &shared.dictionaries, &mut raw).ok()?;
    raw.truncate(record.meta.key_len as usize);
    Some(raw)
}

/// A deletion, ready to be placed or appended.
pub(in crate::cache::tier::cold) fn tombstone(hash: u64, key: &[u8], sequence: u64) -> EncodedRecord {
    let mut record = EncodedRecord::new(hash, key.len(), key.len(), 0, 0);
    record.meta = RecordMeta { sequence, stored_len: key.len() as u32, tombstone: true, ..record.meta };
    record.stored = bytes::Bytes::copy_from_slice(key);
    record.sum = payload_sum(0, key);
    record
}
