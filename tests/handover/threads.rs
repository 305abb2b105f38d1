//! The threads of the models: callers, readers, the writer, the compaction worker.

use std::collections::BTreeSet;

use larder::internals::frontier::Frontier;
use larder::internals::in_flight::EncodedRecord;
use larder::internals::metadata_index::{EntryId, IndexEntry, Location, SizeClass};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use crate::world::{RECORD, Segment, Stored, World, entry, id_of, key_of, record};

/// What the writer may be asked.
pub enum Request {
    Append(EncodedRecord),
    /// Answered when everything before is in a file, or lost and buried: what a task's commit waits for (C5).
    Commit(Sender<()>),
}

/// Overwrites or deletes a key, as `ColdTier::send` does.
pub fn put(world: &World, writer: &Sender<Request>, key: usize, tombstone: bool) {
    world.oracle.begin(key, tombstone);
    let placed = world.in_flight.place(record(key, tombstone));
    world.oracle.placed(key, placed.meta.sequence, tombstone);
    writer.send(Request::Append(placed)).expect("the writer outlives its callers");
}

/// Reads keys, one after the other, and checks each.
pub fn read(world: &World, keys: &[usize]) {
    let mut seen = [0; crate::world::KEYS];
    for key in keys {
        let expected = world.oracle.expect(*key, seen[*key]);
        let found = world.look(*key);
        world.oracle.check(&expected, found);
        if let crate::oracle::Found::Value(sequence) = found {
            seen[*key] = sequence;
        }
    }
}

struct Pending {
    record: EncodedRecord,
    location: Location,
    replaced: Option<IndexEntry>,
}

/// The writer; its steps are those of `writer.rs`.
pub struct Writer<'a> {
    world: &'a World,
    requests: Receiver<Request>,
    frontier: Frontier,
    active: Segment,
    /// Where the next record goes.
    end: u32,
    pending: Vec<Pending>,
    doomed: BTreeSet<usize>,
    /// Writes fail by chance.
    fails: bool,
}

impl<'a> Writer<'a> {
    pub fn new(world: &'a World, requests: Receiver<Request>, fails: bool) -> Self {
        let active = world.reserve();
        world.install(active);
        let frontier = Frontier::new(world.in_flight.next_sequence());
        Self {
            world,
            requests,
            frontier,
            active,
            end: RECORD,
            pending: Vec::new(),
            doomed: BTreeSet::new(),
            fails,
        }
    }

    /// Serves until every sender is gone. What fails, fails for a while: at the end everything is buried.
    pub fn run(mut self) {
        loop {
            let request = match self.requests.try_recv() {
                Ok(request) => request,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.hand_over();
                    let Ok(request) = self.requests.recv() else { break };
                    request
                }
            };
            match request {
                Request::Append(record) => self.append(record),
                Request::Commit(reply) => {
                    self.hand_over();
                    self.bury();
                    reply.send(()).expect("the task waits");
                }
            }
        }
        self.hand_over();
        self.bury();
    }

    fn chance(&self) -> bool {
        self.fails && thread_rng().gen_bool(0.5)
    }

    fn append(&mut self, record: EncodedRecord) {
        let world = self.world;
        let (id, sequence) = (EntryId::of(record.hash), record.meta.sequence);
        if !self.frontier.arrive(sequence, id) {
            world.core().let_go(id, sequence);
            return;
        }
        if self.chance() {
            self.lose(&record, None);
            return;
        }
        self.place(record);
    }

    fn place(&mut self, record: EncodedRecord) {
        let id = EntryId::of(record.hash);
        let pointed = entry(self.active.slot, self.end, record.meta.tombstone);
        self.end += RECORD;
        let replaced = self.world.core().point(id, pointed);
        self.doomed.remove(&key_of(record.hash));
        self.pending.push(Pending { record, location: pointed.location, replaced });
    }

    fn hand_over(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() && self.chance() {
            // The next ones are written in their place.
            self.end = pending[0].location.offset;
            for Pending { record, location, replaced } in pending.iter().rev() {
                self.lose(record, Some((*location, *replaced)));
            }
            return;
        }
        for Pending { record, location, .. } in &pending {
            let (key, sequence) = (key_of(record.hash), record.meta.sequence);
            let stored = Stored { key, sequence, tombstone: record.meta.tombstone };
            self.world.write(self.active.file, location.offset, stored);
        }
        for Pending { record, .. } in &pending {
            self.world.core().let_go(EntryId::of(record.hash), record.meta.sequence);
        }
    }

    fn lose(&mut self, record: &EncodedRecord, place: Option<(Location, Option<IndexEntry>)>) {
        let (key, sequence) = (key_of(record.hash), record.meta.sequence);
        self.world.oracle.may_miss(key, sequence);
        if self.world.core().lose(EntryId::of(record.hash), sequence, place) {
            self.doomed.insert(key);
        }
        self.world.oracle.gone(key, sequence);
    }

    fn bury(&mut self) {
        // What is tried again for as long as it takes succeeds in the end.
        let fails = std::mem::take(&mut self.fails);
        for key in std::mem::take(&mut self.doomed) {
            match self.world.in_flight.sequence_for_writer(id_of(key)) {
                Some(sequence) => {
                    let mut tombstone = record(key, true);
                    tombstone.meta.sequence = sequence;
                    self.append(tombstone);
                }
                None => assert!(self.doomed.insert(key)),
            }
        }
        self.hand_over();
        self.fails = fails;
    }
}

/// Waits until the writer has everything in a file.
fn commit(writer: &Sender<Request>) {
    let (reply, wait) = channel();
    writer.send(Request::Commit(reply)).expect("the writer outlives its tasks");
    wait.recv().expect("the writer answers");
}

/// A round of a compaction, in the order of `compaction_system/round.rs`: list, copy, open, commit, repoint, retire.
pub fn compact(world: &World, writer: &Sender<Request>, victim: Segment) -> Segment {
    let mut survivors = Vec::new();
    for (offset, stored) in world.records(victim.file) {
        let from = Location { slot: victim.slot, offset };
        if let Some(known) = world.index.get(id_of(stored.key)).filter(|known| known.location == from) {
            survivors.push((from, stored, known.is_shadow()));
        }
    }
    let output = world.reserve();
    let mut moved = Vec::new();
    for (at, (from, stored, shadow)) in survivors.iter().enumerate() {
        let to = entry(output.slot, RECORD * (at as u32 + 1), *shadow);
        let tombstone = stored.tombstone || *shadow;
        world.write(output.file, to.location.offset, Stored { tombstone, ..*stored });
        moved.push((id_of(stored.key), *from, to));
    }
    world.install(output);
    commit(writer);
    for (id, from, to) in moved {
        world.core().repoint(id, from, to);
    }
    world.remove_segment(victim);
    output
}

/// What becomes of an entry that a cleanup or an eviction takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Nothing older of the key is on disk.
    Nothing,
    /// Something may be: it stays as a shadow.
    Shadow,
}

/// Takes what is in a segment out of the index, as `expire_row` and `forget_evicted` do.
pub fn take_out(world: &World, segment: Segment, leave: Leave) {
    for (offset, stored) in world.records(segment.file) {
        let at = Location { slot: segment.slot, offset };
        let id = id_of(stored.key);
        if world.index.get(id).is_none_or(|known| known.location != at) {
            continue;
        }
        world.oracle.may_miss(stored.key, stored.sequence);
        let shadow = IndexEntry { location: at, size: SizeClass::SHADOW };
        if world.index.replace_if(id, at, (leave == Leave::Shadow).then_some(shadow)) {
            world.oracle.gone(stored.key, stored.sequence);
        }
    }
}
