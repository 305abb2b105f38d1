//! `ColdTier`: what callers hold. Reads happen on their threads; writes leave as one message.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::core::segment::key_hash;
use super::core::tuning_file::read_report;
use super::courtesy::let_others_in;
use super::crew::Crew;
use super::encoding::{encode, is_left_to_writer, leave_to_writer};
use super::in_flight::EncodedRecord;
use super::iter::Iter;
use super::lookup::{Lookup, lookup, lookup_cached};
use super::message::{TaskRequest, WriteRequest};
use super::metadata_index::EntryId;
use super::queue::Charge;
use super::report::{CompactionTask, CompressionChoice, TaskReport, TuningReport};
use super::shared::{Shared, count};
use super::state::CompactionState;
use super::view::{SegmentInfo, cold_stats, compression_choice, segment_infos};
use super::writer::tombstone;
use crate::cache::eviction::EvictionReason;
use crate::cache::stats::ColdStats;
use crate::clock::{Clock, SystemClock};
use crate::config::{ColdTierConfig, Durability, Maintenance, TTL_LIMIT, check_capacity};
use crate::error::{Error, Result};
use crate::io::{Disk, OsDisk};

/// At one of so many insertions a caller that has encoded its record lets in who waits for its processor: with the queue
/// as full as that the store's threads and the other callers have long been waiting for it.
const ENCODED_IN_A_ROW: u64 = 16;
/// After so many insertions there is something to judge by: how the next ones are best compressed. With 2,000 the dictionary of
/// records that change on the way (JSON, 300,000) was trained anew in two loads of four, and a third of them stored again.
const FIRST_LOOK_AT: u64 = 6000;
/// Keys of a `multi_get` that the disk is asked for before the first is waited for: as many as a drive takes at once.
const MULTI_GET_AHEAD: usize = 64;

/// Remaining life of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Ttl {
    /// It does not expire.
    Never,
    /// It expires after this time.
    Remaining(Duration),
}

/// An entry, as `iter` yields it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// When it expires, in unix milliseconds of the store's clock; `None` = never.
    pub expires_at_ms: Option<u64>,
}

/// The cache tier on disk.
///
/// An owned value: all methods take `&self`, any number of threads may call them. It owns two worker threads, which
/// end when it is closed or dropped.
///
/// # What a crash can lose
/// After a process kill: writes that were still in the queue (none after `flush`, none with [`Durability::Always`]).
/// After a power cut: writes since the last sync (at most one interval). Per key, what is found again is the state
/// after some prefix of the accepted operations; a delete or overwrite that was synced never comes undone, and what has
/// expired stays expired.
///
/// ```
/// # fn main() -> larder::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use larder::{ColdTier, ColdTierConfig};
/// use std::time::Duration;
///
/// let cold = ColdTier::open(ColdTierConfig::new(dir.path()))?;
/// cold.insert(b"key", b"value")?;
/// cold.insert_with_ttl(b"session", b"token", Duration::from_secs(60))?;
/// assert_eq!(cold.get(b"key")?.as_deref(), Some(&b"value"[..]));
/// cold.remove(b"key")?;
/// assert_eq!(cold.get(b"key")?, None);
/// cold.close()?;
/// # Ok(()) }
/// ```
pub struct ColdTier<D: Disk = OsDisk, C: Clock = SystemClock> {
    crew: Crew<Shared<D, C>>,
    /// `None` once closed.
    writer: Option<Sender<WriteRequest>>,
    worker: Option<Sender<TaskRequest>>,
    /// Released after the workers have ended: fields drop in this order, and `shut_down` has joined them before.
    _lock: D::Lock,
}

impl ColdTier {
    /// Opens the store in the configured directory: creates it if there is none, otherwise recovers it.
    ///
    /// # Errors
    /// `is_config` for a bad value (nothing was touched), `is_locked` if another store has the directory,
    /// [`ErrorKind::NewerFormat`](crate::ErrorKind::NewerFormat) for files of a newer version,
    /// [`ErrorKind::OlderFormat`](crate::ErrorKind::OlderFormat) for those of before the first release (all left untouched), or
    /// what the operating system refused. Damage is no error: it is counted in [`ColdStats::recovery`].
    pub fn open(config: ColdTierConfig) -> Result<Self> {
        Self::open_with(config, OsDisk, SystemClock::default())
    }
}

impl<D: Disk, C: Clock> ColdTier<D, C> {
    /// Opens the store on another disk or by another clock: for tests and simulations.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(config: ColdTierConfig, disk: D, clock: C) -> Result<Self> {
        let opened = super::open::open(config, disk, clock)?;
        Ok(Self {
            crew: opened.crew,
            writer: Some(opened.writer),
            worker: Some(opened.worker),
            _lock: opened.lock,
        })
    }

    /// Inserts an entry, or replaces it, with the default time to live of the configuration, if there is one.
    ///
    /// Returns when every later `get` sees it, and when it is durable if the configuration says `Always`. One message
    /// to the writer, about the cost of compressing the value.
    ///
    /// # Errors
    /// `is_config` for a key or value outside its limits, `is_busy`, `is_full`, `is_read_only`, `is_closed`; after any
    /// of these nothing has changed. With `Always`, also what kept the entry from becoming durable.
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.insert_for(key, value, self.crew.config.default_ttl)
    }

    /// Inserts an entry that expires after `ttl` (rounded up to the millisecond; 1 ms to 100 years).
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and `is_config` for a time to live outside its limits.
    pub fn insert_with_ttl(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<()> {
        if ttl.is_zero() || ttl > TTL_LIMIT {
            return Err(Error::config("ttl", format!("{ttl:?} is outside 1 ms to 100 years")));
        }
        self.insert_for(key, value, Some(ttl))
    }

    fn insert_for(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let shared = &*self.crew;
        self.check_key(key)?;
        let value_max = shared.config.value_bytes_max;
        if value.len() > value_max {
            return Err(Error::config("value", format!("{} bytes, more than {value_max}", value.len())));
        }
        shared.condition.check_writable()?;
        let raw_len = key.len() + value.len();
        shared.ledger.check_record(raw_len as u64)?;
        let hash = key_hash(key, shared.hash_seed);
        // Room is reserved before anything changes; what compression saves is given back.
        let reserved = Charge::of(raw_len as u64, &shared.ledger);
        if let Some(reason) = shared.reject(hash, reserved.disk_bytes) {
            return self.turn_away(key, hash, reason);
        }
        self.reserve(raw_len as u64, reserved)?;
        let expires_at_ms = ttl.map_or(0, |ttl| shared.clock.now_ms() + millis_up(ttl));
        let ttl_ms = ttl.map_or(0, millis_up);
        let mut record = EncodedRecord::new(hash, key.len(), raw_len, expires_at_ms, ttl_ms);
        let in_force = match is_left_to_writer(shared, raw_len) {
            true => {
                leave_to_writer(&mut record, key, value);
                None
            }
            false => Some(encode(shared, &mut record, key, value)),
        };
        let charge = Charge::of(record.meta.stored_len.into(), &shared.ledger);
        let saved = reserved - charge;
        shared.budget.give_back(saved.queue_bytes);
        shared.ledger.strike(saved.disk_bytes);
        let number = shared.counters.inserts.fetch_add(1, Ordering::Relaxed);
        if number == FIRST_LOOK_AT {
            self.ask_for_first_look();
        }
        count(&shared.counters.raw_bytes_inserted, raw_len as u64);
        let wait = self.send(record, charge)?;
        let encoded_here = in_force.is_some();
        drop(in_force);
        if encoded_here && number.is_multiple_of(ENCODED_IN_A_ROW) {
            let_others_in();
        }
        self.wait_durable(wait)
    }

    /// Has maintenance that runs by itself look now. Nobody waits for it.
    fn ask_for_first_look(&self) {
        if self.crew.config.maintenance == Maintenance::Automatic
            && let Some(worker) = &self.worker
        {
            // A worker that has ended looks at nothing any more.
            drop(worker.send(TaskRequest::LookAround));
        }
    }

    /// Reserves room in the queue and on the disk, and asks for more in time.
    fn reserve(&self, raw_bytes: u64, charge: Charge) -> Result<()> {
        let shared = &*self.crew;
        let bytes = charge.disk_bytes;
        shared.brake.wait(raw_bytes);
        shared.budget.reserve(charge.queue_bytes, || {
            shared.condition.check_writable()?;
            let entries = shared.index.entries();
            if shared.ledger.asks_for_relief(bytes, entries) {
                self.request(TaskRequest::Relieve)?;
            }
            shared.ledger.reserve(bytes, entries)
        })
    }

    /// Does not store an entry; an older version of it goes all the same.
    fn turn_away(&self, key: &[u8], hash: u64, reason: EvictionReason) -> Result<()> {
        count(&self.crew.counters.rejected, 1);
        self.crew.tell_eviction(reason, 0, || Some(Bytes::copy_from_slice(key)));
        self.remove_hash(key, hash)
    }

    /// Puts a record in flight and sends it. The in-flight map's lock is released before the channel is touched.
    fn send(&self, record: EncodedRecord, charge: Charge) -> Result<Option<Receiver<Result<()>>>> {
        let (ack, wait) = match self.crew.config.durability {
            Durability::Always => {
                let (ack, wait) = bounded(1);
                (Some(ack), Some(wait))
            }
            _ => (None, None),
        };
        let record = self.crew.in_flight.place(record);
        self.writer()?.send(WriteRequest::Append { record, charge, ack }).map_err(|_| Error::closed())?;
        Ok(wait)
    }

    /// With `Durability::Always`, waits until what was written before is durable.
    fn wait_for_what_is_written(&self) -> Result<()> {
        if self.crew.config.durability != Durability::Always {
            return Ok(());
        }
        let (ack, wait) = bounded(1);
        self.writer()?.send(WriteRequest::Await { ack }).map_err(|_| Error::closed())?;
        self.wait_durable(Some(wait))
    }

    fn wait_durable(&self, wait: Option<Receiver<Result<()>>>) -> Result<()> {
        match wait {
            Some(wait) => wait.recv().map_err(|_| Error::closed())?,
            None => Ok(()),
        }
    }

    /// Removes an entry. Returns when no later `get` can see it; removing what is not there is no error. With
    /// [`Durability::Always`] what was removed stays so once any such call has returned: one for a key that was removed
    /// before waits for a sync too, for as long as that has to be remembered.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn remove(&self, key: &[u8]) -> Result<()> {
        let shared = &*self.crew;
        self.check_key(key)?;
        shared.condition.check_writable()?;
        self.remove_hash(key, key_hash(key, shared.hash_seed))
    }

    fn remove_hash(&self, key: &[u8], hash: u64) -> Result<()> {
        let shared = &*self.crew;
        let id = EntryId::of(hash);
        // First in flight, then in the index: a record moves the other way.
        if shared.in_flight.get(id).is_none() {
            match shared.index.get(id) {
                None => return Ok(()),
                // Removed before, perhaps a moment ago and not durably yet.
                Some(entry) if entry.is_shadow() => return self.wait_for_what_is_written(),
                Some(_) => {}
            }
        }
        let charge = Charge::of(key.len() as u64, &shared.ledger);
        self.reserve(key.len() as u64, charge)?;
        count(&shared.counters.removes, 1);
        let wait = self.send(tombstone(hash, key, 0), charge)?;
        self.wait_durable(wait)
    }

    /// The value of a key: on the caller's thread, about one positional read.
    ///
    /// A damaged record is a miss (counted in [`ColdStats::damaged_misses`]); an expired one is a miss from the very
    /// millisecond.
    ///
    /// # Errors
    /// `is_config` for a key outside its limits, `is_closed`, or a read that the operating system refused.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.counted(self.lookup(key, true)?))
    }

    /// The values of many keys, in the order of the keys: as a [`get`](Self::get) of each, and no snapshot of all of them.
    ///
    /// What is not in memory is asked of the disk for up to 64 keys before the first of it is waited for, so that the disk
    /// works on all of them at once. Where nothing has to wait, it costs as much as the `get`s.
    ///
    /// # Errors
    /// As [`get`](Self::get), of the first key that meets one; what the others would have found is not told.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        keys.iter().try_for_each(|key| self.check_key(key.as_ref()))?;
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(MULTI_GET_AHEAD) {
            let (first, mut awaited) = (values.len(), Vec::new());
            for (number, key) in keys.iter().enumerate() {
                let (key, id) = (key.as_ref(), self.id_of(key.as_ref()));
                let found = lookup_cached(&self.crew, id, true)?;
                if found.is_none() {
                    awaited.push((number, key, id));
                }
                values.push(found.and_then(|found| self.counted(found.of(key))));
            }
            for (number, key, id) in awaited {
                // The first look has counted the read.
                let found = lookup(&self.crew, id, false)?;
                values[first + number] = self.counted(found.of(key));
            }
        }
        Ok(values)
    }

    /// The value of a lookup that a caller asked for; hit or miss, it is counted.
    #[inline]
    fn counted(&self, found: Lookup) -> Option<Bytes> {
        let counters = &self.crew.counters;
        match found {
            Lookup::Found(meta, raw) => {
                count(&counters.hits, 1);
                let mut bytes = Bytes::from(raw);
                bytes.advance(meta.key_len as usize);
                return Some(bytes);
            }
            Lookup::Absent => {}
            Lookup::Expired => count(&counters.expired_misses, 1),
            Lookup::Collision => count(&counters.collision_misses, 1),
            Lookup::Damaged => count(&counters.damaged_misses, 1),
        }
        count(&counters.misses, 1);
        None
    }

    /// Whether a `get` of this key would find a value. Costs as much; hits and misses are not counted.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, key: &[u8]) -> Result<bool> {
        Ok(matches!(self.lookup(key, false)?, Lookup::Found(..)))
    }

    /// How long an entry has still to live; `None` if there is no such entry. Costs a `get`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn ttl(&self, key: &[u8]) -> Result<Option<Ttl>> {
        Ok(match self.lookup(key, false)? {
            Lookup::Found(meta, _) if meta.expires_at_ms == 0 => Some(Ttl::Never),
            Lookup::Found(meta, _) => {
                let left_ms = meta.expires_at_ms.saturating_sub(self.crew.clock.now_ms());
                (left_ms > 0).then(|| Ttl::Remaining(Duration::from_millis(left_ms)))
            }
            _ => None,
        })
    }

    fn lookup(&self, key: &[u8], counts: bool) -> Result<Lookup> {
        self.check_key(key)?;
        Ok(lookup(&self.crew, self.id_of(key), counts)?.of(key))
    }

    fn id_of(&self, key: &[u8]) -> EntryId {
        EntryId::of(key_hash(key, self.crew.hash_seed))
    }

    /// Entries, those included that have expired and not been cleaned up yet. Waits for the writer if something is
    /// still in its queue.
    pub fn len(&self) -> u64 {
        if !self.crew.in_flight.is_empty() {
            // A failed worker keeps its records in flight; what is in files is counted all the same.
            drop(self.barrier(false));
        }
        self.crew.index.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in no order. Every key present throughout appears exactly once; keys inserted or removed meanwhile
    /// may or may not appear. Memory is bounded by a few partitions of the index; no file is kept from being removed.
    /// Where the disk has to be waited for, it is asked for the records of the next 64 entries (4 MiB) as well.
    ///
    /// Items are errors only where the operating system refuses to read; damaged entries are left out.
    pub fn iter(&self) -> Iter<'_, D, C> {
        // Everything accepted so far has to be in the index before the walk begins.
        let ready = self.barrier(false);
        Iter::new(&self.crew, ready)
    }

    /// Makes everything accepted before it durable.
    ///
    /// # Errors
    /// [`ErrorKind::WriteLost`](crate::ErrorKind::WriteLost), once, if accepted writes were lost; `is_full` while the
    /// disk is full; `is_read_only` after a failed sync; `is_closed`.
    pub fn flush(&self) -> Result<()> {
        self.barrier(true)
    }

    fn barrier(&self, sync: bool) -> Result<()> {
        self.crew.condition.check_open()?;
        let (reply, answer) = bounded(1);
        self.writer()?.send(WriteRequest::Barrier { sync, reply }).map_err(|_| Error::closed())?;
        answer.recv().map_err(|_| Error::closed())?
    }

    /// Runs a maintenance task on what was accepted before, and waits for its report. Readers and writers go on
    /// meanwhile.
    ///
    /// # Errors
    /// Whatever stopped the task; it leaves the store as it was. `Cancelled` after [`cancel`](Self::cancel).
    pub fn run(&self, task: CompactionTask) -> Result<TaskReport> {
        // Here and not in the worker: a long queue keeps the worker from nothing else.
        self.barrier(false)?;
        let (reply, answer) = bounded(1);
        self.request(TaskRequest::Run { task, reply: Some(reply) })?;
        answer.recv().map_err(|_| Error::closed())?
    }

    /// Asks for a maintenance task and returns at once. What the writer has not got to by then is left to the next one.
    ///
    /// # Errors
    /// `is_closed`.
    pub fn schedule(&self, task: CompactionTask) -> Result<()> {
        self.request(TaskRequest::Run { task, reply: None })
    }

    /// Runs every maintenance task that is due by the store's clock, as automatic maintenance would by itself, until
    /// none is; returns how many ran. For [`Maintenance::Manual`](crate::Maintenance::Manual) and simulations.
    ///
    /// # Errors
    /// Whatever stopped a task; it leaves the store as it was.
    pub fn run_due(&self) -> Result<u64> {
        self.barrier(false)?;
        let (reply, answer) = bounded(1);
        self.request(TaskRequest::RunDue { reply })?;
        answer.recv().map_err(|_| Error::closed())?
    }

    /// Changes the bytes that the directory may take, as [`ColdTierConfig::capacity_bytes`] sets them; `None` = no bound.
    /// Returns when the directory is within them, which may take evicting entries.
    ///
    /// # Errors
    /// `is_config` for too little; nothing was changed then. What kept maintenance from making room otherwise.
    pub fn set_capacity(&self, bytes: Option<u64>) -> Result<()> {
        if let Some(bytes) = bytes {
            check_capacity(bytes, self.crew.config.segment_bytes)?;
        }
        self.crew.ledger.set_capacity(bytes);
        let (reply, answer) = bounded(1);
        self.request(TaskRequest::FitCapacity { reply })?;
        answer.recv().map_err(|_| Error::closed())?
    }

    /// Asks the running task to stop at its next record. It leaves nothing behind.
    pub fn cancel(&self) {
        self.crew.state.cancel();
    }

    fn request(&self, request: TaskRequest) -> Result<()> {
        self.crew.condition.check_open()?;
        self.crew.state.note_request();
        self.worker.as_ref().ok_or_else(Error::closed)?.send(request).map_err(|_| Error::closed())
    }

    /// The state of maintenance, live: look at it as often as you like.
    pub fn compaction_state(&self) -> &CompactionState {
        &self.crew.state
    }

    /// Figures of the moment.
    pub fn stats(&self) -> ColdStats {
        cold_stats(&self.crew)
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        segment_infos(&self.crew.slab)
    }

    /// How records are compressed at the moment, unless their class has a choice of its own.
    pub fn compression(&self) -> CompressionChoice {
        compression_choice(self.crew.parameters_in_force().common, &self.crew.dictionaries)
    }

    /// How records of a key and a value of this length together, in bytes, are compressed at the moment.
    pub fn compression_of(&self, raw_bytes: usize) -> CompressionChoice {
        compression_choice(self.crew.parameters(raw_bytes), &self.crew.dictionaries)
    }

    /// The last tuning of this store with everything it measured, also one before the last restart; `None` if there
    /// was none, or its file (`TUNING`) is damaged. Reads that file, a few KiB.
    ///
    /// # Errors
    /// A read that the operating system refused.
    pub fn explain(&self) -> Result<Option<TuningReport>> {
        read_report(&self.crew.disk, &self.crew.config.dir)
    }

    /// The clock the store was opened with.
    pub fn clock(&self) -> &C {
        self.crew.clock.source()
    }

    /// The disk the store was opened on.
    pub fn disk(&self) -> &D {
        &self.crew.disk
    }

    /// Makes everything durable, saves the index, ends the workers and releases the directory. Dropping does the same
    /// without telling the outcome.
    ///
    /// # Errors
    /// What kept the last writes from becoming durable.
    pub fn close(mut self) -> Result<()> {
        self.shut_down()
    }

    /// Ends the workers without writing anything, as a kill would: for crash tests.
    #[doc(hidden)]
    pub fn abandon(mut self) {
        self.crew.condition.abandoned.store(true, Ordering::SeqCst);
        drop(self.shut_down());
    }

    fn shut_down(&mut self) -> Result<()> {
        let (Some(writer), Some(worker)) = (self.writer.take(), self.worker.take()) else { return Ok(()) };
        self.crew.state.close();
        let (reply, answer) = bounded(1);
        let saved = match worker.send(TaskRequest::Close { reply }) {
            Ok(()) => answer.recv().unwrap_or_else(|_| Err(Error::closed())),
            Err(_) => Err(Error::closed()),
        };
        drop(worker);
        let (reply, answer) = bounded(1);
        let flushed = match writer.send(WriteRequest::Close { reply }) {
            Ok(()) => answer.recv().unwrap_or_else(|_| Err(Error::closed())),
            Err(_) => Err(Error::closed()),
        };
        drop(writer);
        let ended_well = self.crew.join();
        if !ended_well {
            return Err(Error::closed());
        }
        flushed.and(saved)
    }

    fn writer(&self) -> Result<&Sender<WriteRequest>> {
        self.writer.as_ref().ok_or_else(Error::closed)
    }

    fn check_key(&self, key: &[u8]) -> Result<()> {
        let key_max = self.crew.config.key_bytes_max;
        if key.is_empty() || key.len() > key_max {
            return Err(Error::config("key", format!("{} bytes, outside 1 to {key_max}", key.len())));
        }
        Ok(())
    }
}

impl<D: Disk, C: Clock> Drop for ColdTier<D, C> {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "closing the store failed");
        }
    }
}

impl<D: Disk, C: Clock> std::fmt::Debug for ColdTier<D, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdTier").field("dir", &self.crew.config.dir).finish_non_exhaustive()
    }
}

/// Whole milliseconds, rounded up, so that nothing expires early.
fn millis_up(ttl: Duration) -> u64 {
    ttl.as_nanos().div_ceil(1_000_000) as u64
}
