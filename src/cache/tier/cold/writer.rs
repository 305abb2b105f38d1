//! The writer: the one thread that appends records and commits edits.
//!
//! It takes requests in the order of its queue, those of maintenance before them (Q5), writes what has come together, and
//! only then lets go of the in-flight copies, so that a reader finds every accepted record in one place or the other. It
//! never waits for anybody.

mod losses;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, never, select};

pub(super) use self::losses::tombstone;
use super::core::storage::{ColdTierStorage, Placement};
use super::courtesy::let_others_in;
use super::encoding::encode_raw;
use super::frontier::Frontier;
use super::groups::{ExpiryGroups, UNKNOWN_CLASS, group_of_replacement};
use super::in_flight::EncodedRecord;
use super::message::{ActiveRows, Committed, MaintenanceRequest, WriteRequest};
use super::metadata_index::{EntryId, IndexEntry, Location, SizeClass};
use super::queue::{Charge, Waker};
use super::serialization::edit::Edit;
use super::serialization::record::RecordMeta;
use super::shared::{PanicNotice, Shared, count};
use crate::clock::Clock;
use crate::config::Durability;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Disk;

/// A batch is handed to the kernel, whole, when it has grown to this; the page cache's whole pieces of it go before.
const BATCH_BYTES: usize = 1 << 20;
/// While records keep coming one by one, they are gathered for as long as this before the next look at the queue: a
/// caller need not wake the writer for each, nor the writer call the kernel for each.
const GATHER: Duration = Duration::from_micros(200);
/// An empty queue is waited at for no longer than this since the last write.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// Unless so many bytes come in that time that whole pieces can be expected: then in this.
const GATHER_PIECE_MAX: Duration = Duration::from_millis(20);
const GATHER_PIECE_BYTES: usize = 16 << 10;
/// Segments of age are sealed this often while the queue is never empty.
const SEAL_AGED_EVERY: Duration = Duration::from_millis(500);
/// After that many records the writer asks whether anybody waits for its processor: a burst of fifty that were left to it to
/// encode takes a third of a millisecond, and a reader whom the disk has answered meanwhile is not let in before its end.
const RECORDS_IN_A_ROW: u32 = 16;
/// What a record that was left to it to encode counts for.
const ENCODED_HERE: u32 = 4;
/// With no interval to keep, the writer looks at its clock this often.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// After a failed write, the next attempt comes after this.
const STALLED_TICK: Duration = Duration::from_millis(100);

pub(super) struct Writer<D: Disk> {
    storage: ColdTierStorage<D>,
    requests: Receiver<WriteRequest>,
    maintenance: Receiver<MaintenanceRequest>,
    waker: Waker,
    frontier: Frontier,
    groups: ExpiryGroups,
    /// What a record that was left to the writer is encoded to.
    encoded: Vec<u8>,
    /// Appended to the buffer, not yet in the file, or not whole.
    pending: Vec<Pending>,
    /// Those whose records are in the files, and wait for a sync, or are lost.
    acks: Vec<Ack>,
    /// Keys whose accepted write was lost: what they replaced must not come back, so each gets a tombstone.
    doomed: HashMap<u64, Vec<u8>>,
    /// Accepted writes lost since the last flush, but for those whose callers waited.
    lost: u64,
    /// How often writes were lost.
    losses: u64,
    synced_at: Instant,
    /// When the first record was appended to an empty batch, or the last write ended.
    batch_begun: Instant,
    /// When segments of age were last sealed while more was queued.
    sealed_aged_at: Option<Instant>,
    /// Records since it last asked.
    records_in_a_row: u32,
}

/// Who waits until a record is durable.
struct Ack {
    caller: Sender<Result<()>>,
    /// It never will be.
    lost: Option<Error>,
}

struct Pending {
    record: EncodedRecord,
    /// Its index entry, which says where it is going to be, and that which it took the place of; `None` if no place could
    /// be had.
    place: Option<(IndexEntry, Option<IndexEntry>)>,
    charge: Charge,
    acks: Vec<Ack>,
}

impl Pending {
    /// Whether it was to be written to one of these segments.
    fn is_in(&self, failed: &[(u32, Error)]) -> bool {
        self.place.is_some_and(|(entry, _)| failed.iter().any(|(slot, _)| *slot == entry.location.slot))
    }
}

enum Next {
    Request(WriteRequest),
    Maintenance(MaintenanceRequest),
    Tick,
    End,
}

impl<D: Disk> Writer<D> {
    pub(super) fn new(
        storage: ColdTierStorage<D>,
        (requests, maintenance): (Receiver<WriteRequest>, Receiver<MaintenanceRequest>),
        waker: Waker,
        next_sequence: u64,
    ) -> Self {
        Self {
            storage,
            requests,
            maintenance,
            waker,
            frontier: Frontier::new(next_sequence),
            groups: ExpiryGroups::default(),
            encoded: Vec::new(),
            pending: Vec::new(),
            acks: Vec::new(),
            doomed: HashMap::new(),
            lost: 0,
            losses: 0,
            synced_at: Instant::now(),
            sealed_aged_at: None,
            batch_begun: Instant::now(),
            records_in_a_row: 0,
        }
    }

    /// Works until `Close`, or until every sender is gone.
    pub(super) fn run<C: Clock>(mut self, shared: &Shared<D, C>) {
        let _notice = PanicNotice(&shared.condition);
        loop {
            match self.next(shared) {
                Next::Request(WriteRequest::Close { reply }) => {
                    let _notice = PanicNotice(&shared.condition);
                    // A caller that gave up waiting has no use for the answer.
                    drop(reply.send(self.close(shared)));
                    return;
                }
                Next::Request(request) => self.serve(shared, request),
                Next::Maintenance(request) => self.maintain(shared, &request),
                Next::Tick => self.tick(shared),
                Next::End => return,
            }
        }
    }

    fn next<C: Clock>(&mut self, shared: &Shared<D, C>) -> Next {
        match self.maintenance.try_recv() {
            Ok(request) => return Next::Maintenance(request),
            Err(TryRecvError::Empty) => {}
            // The compaction worker has ended: what is queued is written all the same.
            Err(TryRecvError::Disconnected) => self.maintenance = never(),
        }
        // While there is more in the queue, batches grow; an empty queue ends the batch.
        if let Some(request) = self.queued(shared) {
            return if self.is_sync_due(shared) {
                self.sync_then(shared, request)
            } else {
                Next::Request(request)
            };
        }
        self.hand_over(shared);
        self.answer_acks(shared);
        // The time before the queue: what was accepted by then has been written if nothing waits now.
        let now_ms = shared.clock.now_ms();
        if self.requests.is_empty() {
            self.seal_aged(shared, now_ms);
        }
        let wait = self.until_tick(shared);
        select! {
            recv(self.requests) -> request => request.map_or(Next::End, Next::Request),
            recv(self.maintenance) -> request => request.map_or(Next::Tick, Next::Maintenance),
            default(wait) => Next::Tick,
        }
    }

    /// The next request, if there is one; waits a little for it where a batch has been begun and nobody waits for it, or for
    /// the room that it takes.
    fn queued<C: Clock>(&mut self, shared: &Shared<D, C>) -> Option<WriteRequest> {
        if let Ok(request) = self.requests.try_recv() {
            return Some(request);
        }
        if self.pending.is_empty() || self.is_waited_for(shared) || shared.budget.has_waiters() {
            return None;
        }
        let is_large = self.storage.buffered_bytes() >= GATHER_PIECE_BYTES;
        if self.batch_begun.elapsed() >= if is_large { GATHER_PIECE_MAX } else { GATHER_MAX } {
            return None;
        }
        std::thread::sleep(GATHER);
        self.requests.try_recv().ok()
    }

    /// Whether a caller waits for what has been appended.
    fn is_waited_for<C: Clock>(&self, shared: &Shared<D, C>) -> bool {
        shared.config.durability == Durability::Always && !(self.pending.is_empty() && self.acks.is_empty())
    }

    fn sync_then<C: Clock>(&mut self, shared: &Shared<D, C>, request: WriteRequest) -> Next {
        self.tick(shared);
        Next::Request(request)
    }

    fn interval<C: Clock>(shared: &Shared<D, C>) -> Option<Duration> {
        match shared.config.durability {
            Durability::Interval(interval) => Some(interval),
            Durability::Never | Durability::Always => None,
        }
    }

    fn is_sync_due<C: Clock>(&self, shared: &Shared<D, C>) -> bool {
        Self::interval(shared).is_some_and(|interval| self.synced_at.elapsed() >= interval)
    }

    fn until_tick<C: Clock>(&self, shared: &Shared<D, C>) -> Duration {
        if shared.condition.stalled.load(Ordering::Relaxed) {
            return STALLED_TICK;
        }
        let interval = Self::interval(shared).unwrap_or(IDLE_TICK);
        let next_seal_ms = self.storage.next_seal_ms();
        let until_seal = match next_seal_ms {
            u64::MAX => Duration::MAX,
            // Nothing is sealed any more, however old it grows.
            _ if shared.condition.read_only.load(Ordering::Relaxed) => Duration::MAX,
            // Not by the store's clock alone: one that stands still must not keep the writer awake.
            next_seal_ms => Duration::from_millis(next_seal_ms.saturating_sub(shared.clock.now_ms())),
        };
        interval.saturating_sub(self.synced_at.elapsed()).min(until_seal).max(Duration::from_millis(1))
    }

    /// Follows the wall clock; syncs if it is time; tries again what failed.
    fn tick<C: Clock>(&mut self, shared: &Shared<D, C>) {
        let sync_due = self.is_sync_due(shared);
        if sync_due || Self::interval(shared).is_none() {
            self.synced_at = Instant::now();
        }
        if let Some(jump) = shared.clock.follow_wall() {
            count(&shared.counters.clock_jumps_refused, 1);
            tracing::warn!(by_ms = jump.by_ms, "forward jump of the wall clock refused");
        }
        self.hand_over(shared);
        self.bury_doomed(shared);
        if sync_due {
            // The queue may never be empty; otherwise `next` seals.
            self.seal_aged(shared, shared.clock.now_ms());
        }
        let observed = shared.condition.expiry_observed.load(Ordering::Relaxed);
        if sync_due
            && (self.storage.is_dirty() || observed)
            && let Err(error) = self.sync(shared)
        {
            tracing::warn!(%error, "sync failed; the next flush tells");
        }
    }

    fn serve<C: Clock>(&mut self, shared: &Shared<D, C>, request: WriteRequest) {
        match request {
            WriteRequest::Append { record, charge, ack } => {
                let _notice = PanicNotice(&shared.condition);
                self.append(shared, record, charge, ack.map(|caller| Ack { caller, lost: None }));
                self.write_if_grown(shared);
            }
            WriteRequest::Barrier { sync, reply } => {
                // Dropped before the reply: whoever learns of a panic by it finds the store closed.
                let _notice = PanicNotice(&shared.condition);
                self.hand_over(shared);
                // Barriers may come one after the other for ever.
                self.answer_acks(shared);
                self.seal_aged(shared, shared.clock.now_ms());
                let result = if sync { self.flush(shared) } else { Ok(()) };
                // An answer that nobody waits for any more is dropped.
                drop(reply.send(result));
            }
            WriteRequest::Await { ack } => self.acks.push(Ack { caller: ack, lost: None }),
            WriteRequest::Close { .. } => unreachable!("run answers it"),
        }
    }

    /// Writes what has come together, without waiting for the end of the batch.
    fn write_if_grown<C: Clock>(&mut self, shared: &Shared<D, C>) {
        let is_grown = self.storage.buffered_bytes() >= BATCH_BYTES;
        if is_grown || (self.is_waited_for(shared) && self.storage.has_pieces()) {
            self.hand_over(shared);
            self.seal_aged_seldom(shared);
            self.answer_acks(shared);
        } else if self.storage.has_pieces() {
            let failed = self.storage.write_pieces(shared);
            self.settle(shared, failed);
            self.publish_progress(shared);
            self.seal_aged_seldom(shared);
        }
    }

    /// The queue may never be empty: what is of age is sealed all the same. But not at each write: a writer that is behind
    /// opens segments that are of age already.
    fn seal_aged_seldom<C: Clock>(&mut self, shared: &Shared<D, C>) {
        let now_ms = shared.clock.now_ms();
        let is_time = self.sealed_aged_at.is_none_or(|at| at.elapsed() >= SEAL_AGED_EVERY);
        if is_time && self.storage.next_seal_ms() <= now_ms {
            self.hand_over(shared);
            self.seal_aged(shared, now_ms);
            self.sealed_aged_at = Some(Instant::now());
        }
    }

    fn maintain<C: Clock>(&mut self, shared: &Shared<D, C>, request: &MaintenanceRequest) {
        let _notice = PanicNotice(&shared.condition);
        self.hand_over(shared);
        self.seal_aged(shared, shared.clock.now_ms());
        match request {
            // Done.
            MaintenanceRequest::HandOver { reply } => drop(reply.send(Ok(self.losses))),
            MaintenanceRequest::Seal { reply } => {
                let result = self.check_writable(shared).and_then(|()| self.seal(shared, None));
                drop(reply.send(self.noted(shared, result)));
            }
            MaintenanceRequest::ExpiredRows { slot, now_ms, reply } => {
                drop(reply.send(Ok(self.expired_rows(shared, *slot, *now_ms))));
            }
            MaintenanceRequest::Commit { edit, if_losses, reply } => {
                let result = self.commit(shared, edit, *if_losses);
                drop(reply.send(self.noted(shared, result).map(|edit| Committed { edit })));
            }
        }
    }

    /// No task may commit while a key's newest record is lost and not buried: the task may have counted on it (C5). Nor a
    /// snapshot that was taken while records were lost: it may have them.
    fn commit<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        edit: &Edit,
        if_losses: Option<u64>,
    ) -> Result<u64> {
        self.bury_doomed(shared);
        self.check_writable(shared)?;
        if !self.doomed.is_empty() || if_losses.is_some_and(|losses| losses != self.losses) {
            return Err(shared.condition.check_writable().err().unwrap_or_else(|| {
                Error::new(
                    ErrorKind::WriteLost,
                    "accepted writes were just lost; the task is tried again later",
                )
            }));
        }
        self.storage.commit(shared, edit)
    }

    fn check_writable<C: Clock>(&self, shared: &Shared<D, C>) -> Result<()> {
        if shared.condition.read_only.load(Ordering::SeqCst) {
            return shared.condition.check_writable();
        }
        Ok(())
    }

    /// Appends a record to the buffer and points the index at where it will be. Readers look at the in-flight copy
    /// until the bytes are there.
    fn append<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        record: EncodedRecord,
        charge: Charge,
        ack: Option<Ack>,
    ) {
        let acks: Vec<Ack> = ack.into_iter().collect();
        // Dropped before the acks: whoever learns of a panic by one finds the store closed.
        let _notice = PanicNotice(&shared.condition);
        let id = EntryId::of(record.hash);
        if !self.frontier.arrive(record.meta.sequence, id) {
            shared.in_flight.remove(id, record.meta.sequence);
            shared.release(charge, &self.waker);
            // The newer one speaks for it: it is still pending, or in a file.
            let is_newer = |pending: &&mut Pending| EntryId::of(pending.record.hash) == id;
            let newer = self.pending.iter_mut().rfind(is_newer);
            newer.map_or(&mut self.acks, |newer| &mut newer.acks).extend(acks);
            return;
        }
        self.count_in_a_row(if record.is_raw { ENCODED_HERE } else { 1 });
        let mut encoded = std::mem::take(&mut self.encoded);
        let (mut meta, sum, stored) = match record.is_raw {
            true => {
                let (meta, sum) = encode_raw(shared, &record, &mut encoded);
                (meta, sum, &encoded[..])
            }
            false => (record.meta, record.sum, &record.stored[..]),
        };
        match self.place(shared, record.hash, &meta, record.ttl_ms) {
            Ok((group, location)) => {
                let size =
                    if meta.tombstone { SizeClass::SHADOW } else { SizeClass::of(meta.record_bytes()) };
                let entry = IndexEntry { location, size };
                let replaced = shared.hand_over().point(id, entry);
                meta.first = replaced.is_none();
                if let Some(replaced) = replaced {
                    meta.outlasts = self.outlasts(shared, &meta, replaced);
                }
                self.storage.append(group, record.hash, &meta, stored, sum);
                if !self.doomed.is_empty() {
                    self.doomed.remove(&record.hash);
                }
                if self.pending.is_empty() {
                    self.batch_begun = Instant::now();
                }
                self.pending.push(Pending { record, place: Some((entry, replaced)), charge, acks });
            }
            Err(error) => {
                self.lose(shared, vec![Pending { record, place: None, charge, acks }], &error);
                self.note_failure(shared, &error);
            }
        }
        self.encoded = encoded;
    }

    /// Lets threads that wait for this processor run, now and then. Costs a system call where there are none.
    fn count_in_a_row(&mut self, records: u32) {
        self.records_in_a_row += records;
        if self.records_in_a_row >= RECORDS_IN_A_ROW {
            self.records_in_a_row = 0;
            let_others_in();
        }
    }

    /// Finds a group for a record and a place in the group's active segment.
    fn place<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        hash: u64,
        meta: &RecordMeta,
        ttl_ms: u64,
    ) -> Result<(u8, Location)> {
        let (group, seal_age_ms) = self.group_of(shared, hash, meta, ttl_ms)?;
        let sequence = meta.sequence;
        let placement = Placement {
            group,
            accepted_ms: meta.expires_at_ms.saturating_sub(ttl_ms),
            seal_age_ms,
            bytes: meta.record_bytes(),
            segment_bytes: shared.segment_bytes(),
            sequence,
            base_sequence: self.frontier.next().min(sequence),
        };
        if self.storage.wants_seal(&placement) {
            self.write_batch(shared);
        }
        self.check_writable(shared)?;
        self.storage.place(shared, &placement).map(|location| (group, location))
    }

    /// The group a record belongs to, and the age at which its segment is sealed.
    fn group_of<C: Clock>(
        &mut self,
        shared: &Shared<D, C>,
        hash: u64,
        meta: &RecordMeta,
        ttl_ms: u64,
    ) -> Result<(u8, Option<u64>)> {
        if ttl_ms == 0 {
            return Ok((self.lasting_group(shared, hash, meta), None));
        }
        let group = self.groups.group_of(ttl_ms);
        if group.renewed {
            self.write_batch(shared);
            self.check_writable(shared)?;
            self.storage.seal(shared, group.number)?;
        }
        Ok((group.number, Some(ExpiryGroups::seal_age_ms(ttl_ms))))
    }

    fn lasting_group<C: Clock>(&self, shared: &Shared<D, C>, hash: u64, meta: &RecordMeta) -> u8 {
        let Some(replaced) = shared.index.get(EntryId::of(hash)) else { return UNKNOWN_CLASS };
        if meta.tombstone || replaced.is_shadow() {
            return UNKNOWN_CLASS;
        }
        let slot = replaced.location.slot;
        let Some((group, summary)) = self.storage.active_of(slot).or_else(|| shared.slab.summary(slot))
        else {
            return UNKNOWN_CLASS;
        };
        group_of_replacement(group, &summary, meta.sequence, shared.index.len())
    }

    /// Whether everything that may be on disk of a record's key expires no later than the record itself, judged by the
    /// segment of the one that it replaces: whatever is in there is gone by then, and hides nothing that is not
    /// covered (by induction, for what came before).
    fn outlasts<C: Clock>(&self, shared: &Shared<D, C>, meta: &RecordMeta, replaced: IndexEntry) -> bool {
        let slot = replaced.location.slot;
        let summary = self.storage.active_of(slot).or_else(|| shared.slab.summary(slot));
        let covered = self.storage.state().covered();
        summary.is_some_and(|(_, summary)| {
            summary.unexpiring == 0
                && summary.expiry_max_ms <= meta.expires_at_ms
                && summary.exposing_max <= covered
        })
    }

    /// Seals active segments: all of them, or those that have come of age by this time.
    fn seal<C: Clock>(&mut self, shared: &Shared<D, C>, aged_at_ms: Option<u64>) -> Result<()> {
        for group in self.storage.groups_to_seal(aged_at_ms) {
            self.storage.seal(shared, group)?;
        }
        Ok(())
    }

    /// Seals what has come of age. The batch has just been handed over.
    fn seal_aged<C: Clock>(&mut self, shared: &Shared<D, C>, now_ms: u64) {
        if self.storage.next_seal_ms() <= now_ms
            && self.check_writable(shared).is_ok()
            && let Err(error) = self.seal(shared, Some(now_ms))
        {
            self.note_failure(shared, &error);
        }
    }

    /// Writes the batch, and says how far the index has come. Not while a record is being placed: the frontier has it,
    /// the index not yet, and a snapshot taken meanwhile would be without it and claim to have it (N1).
    fn hand_over<C: Clock>(&mut self, shared: &Shared<D, C>) {
        self.write_batch(shared);
        self.publish_progress(shared);
    }

    fn publish_progress<C: Clock>(&self, shared: &Shared<D, C>) {
        shared.processed_sequence.store(self.frontier.next() - 1, Ordering::SeqCst);
    }

    fn write_batch<C: Clock>(&mut self, shared: &Shared<D, C>) {
        if self.pending.is_empty() {
            return;
        }
        let failed = self.storage.write_out(shared);
        self.settle(shared, failed);
    }

    /// After a write, and only then, lets go of the in-flight copies of what is in the files now, and gives up what could
    /// not be written.
    fn settle<C: Clock>(&mut self, shared: &Shared<D, C>, failed: Vec<(u32, Error)>) {
        if !failed.is_empty() {
            for (slot, error) in &failed {
                if let Err(left) = self.storage.discard(shared, *slot) {
                    self.note_failure(shared, &left);
                }
                self.note_failure(shared, error);
            }
            let (lost, others): (Vec<Pending>, Vec<Pending>) =
                std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.is_in(&failed));
            self.pending = others;
            self.lose(shared, lost, &failed[0].1);
        }
        let (mut charge, storage, written) = (Charge::default(), &self.storage, &mut self.acks);
        self.pending.retain_mut(|Pending { record, place, charge: of_record, acks }| {
            let is_waiting = place.is_some_and(|(entry, _)| !storage.is_written(entry.location));
            if !is_waiting {
                shared.hand_over().let_go(EntryId::of(record.hash), record.meta.sequence);
                charge += *of_record;
                written.append(acks);
            }
            is_waiting
        });
        // What is left came last, or is of another segment, which the next pieces take with them.
        self.batch_begun = Instant::now();
        shared.release(charge, &self.waker);
        // Not before: until then what has been written counts twice.
        self.count_in_a_row(RECORDS_IN_A_ROW);
    }

    fn noted<C: Clock, T>(&mut self, shared: &Shared<D, C>, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.is_read_only()
        {
            shared.condition.make_read_only(error);
            tracing::error!(%error, "the store is read-only now");
        }
        result
    }

    /// Everything accepted before is durable, or the caller learns what is not.
    fn flush<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        self.make_durable(shared)?;
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let text = format!("{lost} accepted writes were lost since the last flush; they read as misses");
            return Err(Error::new(ErrorKind::WriteLost, text));
        }
        Ok(())
    }

    /// Makes everything that is in the files durable, and what has been lost unable to come back.
    fn make_durable<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        self.bury_doomed(shared);
        self.check_writable(shared)?;
        if !self.doomed.is_empty() {
            let text = "accepted writes were lost, and what they replaced cannot be buried yet";
            let unburied = || Error::new(ErrorKind::WriteLost, text);
            return Err(shared.condition.check_writable().err().unwrap_or_else(unburied));
        }
        // Time is part of what is made durable: what has expired by now stays expired.
        if shared.clock.now_ms() > self.storage.state().clock_ms {
            shared.condition.expiry_observed.store(true, Ordering::SeqCst);
        }
        self.sync(shared)
    }

    fn sync<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        self.check_writable(shared)?;
        let result = self.storage.sync(shared);
        self.noted(shared, result)
    }

    fn answer_acks<C: Clock>(&mut self, shared: &Shared<D, C>) {
        if self.acks.is_empty() {
            return;
        }
        let acks = std::mem::take(&mut self.acks);
        let _notice = PanicNotice(&shared.condition);
        let result = self.make_durable(shared);
        for Ack { caller, lost } in acks {
            let durable = || result.as_ref().map_err(Error::echo).copied();
            // A caller that gave up waiting has no use for the answer.
            drop(caller.send(lost.map_or_else(durable, Err)));
        }
    }

    fn expired_rows<C: Clock>(&self, shared: &Shared<D, C>, slot: u32, now_ms: u64) -> Option<ActiveRows> {
        let (rows, records_end) = self.storage.active_rows(slot)?;
        let bytes = |at: usize| super::core::segment::row_bytes(rows, at, records_end) as u64;
        let expired = (0..rows.len()).filter(|at| rows[*at].is_expired(now_ms));
        let left = rows.iter().filter(|row| row.expires_at_ms > now_ms).map(|row| row.expires_at_ms).min();
        shared.slab.set_next_expiry(slot, left.unwrap_or(u64::MAX));
        Some(expired.map(|at| (rows[at], bytes(at))).collect())
    }

    fn close<C: Clock>(&mut self, shared: &Shared<D, C>) -> Result<()> {
        if shared.condition.abandoned.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.hand_over(shared);
        let flushed = self.flush(shared);
        if shared.condition.read_only.load(Ordering::SeqCst) {
            return flushed;
        }
        let sealed = self.seal(shared, None).and_then(|()| {
            shared.condition.expiry_observed.store(true, Ordering::SeqCst);
            self.storage.sync(shared)
        });
        flushed.and(sealed)
    }
}
