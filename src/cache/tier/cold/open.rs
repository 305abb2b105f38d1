//! Opening a store: lock, manifest, recovery, workers; in this order, and nothing is written before the lock is held.

use std::sync::atomic::{AtomicU32, AtomicU64};

use crossbeam_channel::{Sender, unbounded};

use super::admission::Admittance;
use super::brake::Brake;
use super::compaction_system::CompactionSystem;
use super::compression::CompressionParameters;
use super::core::adoption::adopt_unknown;
use super::core::manifest::{LoadedManifest, load};
use super::core::names;
use super::core::recovery::{Recovered, recover};
use super::core::storage::ColdTierStorage;
use super::crew::Crew;
use super::in_flight::InFlight;
use super::ledger::{DiskLedger, in_blocks};
use super::message::{TaskRequest, ToWriter, WriteRequest};
use super::parameters::{ParametersInForce, parameters_entry, parameters_of};
use super::queue::QueueBudget;
use super::serialization::edit::{ManifestState, ParametersEntry};
use super::shared::{Condition, Counters, Shared};
use super::state::CompactionState;
use super::worker::CompactionWorker;
use super::writer::Writer;
use crate::clock::{Clock, StoreClock};
use crate::config::{Codec, ColdTierConfig, Compression};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, DiskFile};

/// What `ColdTier` is made of.
pub(super) struct Opened<D: Disk, C: Clock> {
    pub crew: Crew<Shared<D, C>>,
    pub writer: Sender<WriteRequest>,
    pub worker: Sender<TaskRequest>,
    pub lock: D::Lock,
}

/// Before anything has been measured: a fifth of zstd's time. What it leaves uncompressed, compaction stores anew once
/// the data has been measured.
const UNTUNED: Codec = Codec::Lz4;

pub(super) fn open<D: Disk, C: Clock>(config: ColdTierConfig, disk: D, clock: C) -> Result<Opened<D, C>> {
    config.validate()?;
    let dir = config.dir.clone();
    disk.create_dir(&dir).map_err(|error| Error::io("create", &dir, error))?;
    let lock = take_lock(&disk, &dir)?;
    let parts = match load(&disk, &dir)? {
        Some(loaded) => reopen(&disk, &config, loaded),
        None => create(&disk, &config, &clock),
    };
    // There is no store yet that could be read-only.
    let (storage, loaded, recovered) = parts.map_err(|error| match error.kind() {
        ErrorKind::ReadOnly => Error::new(ErrorKind::Io, format!("the store could not be opened: {error}")),
        _ => error,
    })?;
    for warning in loaded.warnings.iter().chain(&recovered.warnings) {
        tracing::warn!("{warning}");
    }
    let state = storage.state().clone();
    let (clock, refused) = StoreClock::new(clock, state.clock_ms, config.clock_jump_max.as_millis() as u64);
    if let Some(jump) = refused {
        tracing::warn!(by_ms = jump.by_ms, "the wall clock is too far ahead of the saved one; not followed");
    }
    let (budget, waker) = QueueBudget::new(config.queue_bytes_max, config.queue_full);
    let (writer, write_requests) = unbounded();
    let (maintenance, maintenance_requests) = unbounded();
    let (worker, task_requests) = unbounded();
    let parameters = parameters_to_use(&config, &state.parameters, &recovered);
    tracing::info!(dir = %dir.display(), entries = recovered.index.len(), segments = state.segments.len(), "opened");
    let counters = Counters::default();
    counters.snapshot_bytes.store(
        state.snapshot.map_or(0, |snapshot| snapshot.file_bytes),
        std::sync::atomic::Ordering::Relaxed,
    );
    counters.clock_jumps_refused.store(u64::from(refused.is_some()), std::sync::atomic::Ordering::Relaxed);
    let ledger = DiskLedger::new(&config, directory_bytes(&disk, &dir)?);
    let admittance = Admittance::new(&config, clock.now_ms());
    let shared = Shared {
        memory_bytes: disk.memory_bytes().unwrap_or(u64::MAX),
        disk,
        clock,
        store_id: state.store_id,
        hash_seed: state.hash_seed,
        index: recovered.index,
        in_flight: InFlight::new(recovered.next_sequence),
        slab: recovered.slab,
        dictionaries: recovered.dictionaries,
        parameters: parameters.classes.map(|class| AtomicU32::new(class.to_bits())),
        common_parameters: AtomicU32::new(parameters.common.to_bits()),
        next_file_id: AtomicU64::new(recovered.next_file_id),
        processed_sequence: AtomicU64::new(recovered.next_sequence - 1),
        budget,
        ledger,
        brake: Brake::default(),
        admittance,
        state: CompactionState::default(),
        counters,
        condition: Condition::default(),
        recovery: recovered.stats,
        config,
    };
    let (next_sequence, is_snapshot_worn) = (recovered.next_sequence, recovered.is_snapshot_worn);
    let mut crew = Crew::new(shared);
    let writer_thread = Writer::new(storage, (write_requests, maintenance_requests), waker, next_sequence);
    let to_writer = ToWriter { queue: writer.clone(), maintenance };
    let system = CompactionSystem::new(&state, to_writer, crew.clock.now_ms(), is_snapshot_worn);
    let worker_thread = CompactionWorker::new(system, task_requests);
    let spawned = crew
        .spawn("larder-writer", move |shared: &Shared<D, C>| writer_thread.run(shared))
        .and_then(|()| crew.spawn("larder-compact", move |shared: &Shared<D, C>| worker_thread.run(shared)));
    match spawned {
        Ok(()) => Ok(Opened { crew, writer, worker, lock }),
        Err(error) => {
            // The crew waits for whichever thread did start; it ends when its senders are gone.
            drop((writer, worker));
            Err(Error::io("start the workers of", &dir, error))
        }
    }
}

/// Bytes that the files in the directory take, foreign ones included.
pub(super) fn directory_bytes<D: Disk>(disk: &D, dir: &std::path::Path) -> Result<u64> {
    let names = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    // What cannot be opened (a directory, a file of somebody else) is not counted.
    let bytes_of = |name: &String| disk.open_read(&dir.join(name)).and_then(|file| file.len()).unwrap_or(0);
    Ok(names.iter().map(|name| in_blocks(bytes_of(name))).sum())
}

/// Makes a new store's directory durable in the one above it. An earlier attempt may have made it and died.
fn sync_name_of<D: Disk>(disk: &D, dir: &std::path::Path) -> Result<()> {
    let above = match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        Some(_) => std::path::Path::new("."),
        None => return Ok(()),
    };
    match disk.sync_dir(above) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::warn!(dir = %above.display(), %error, "not synced: a power cut may take the new store's name");
            Ok(())
        }
        outcome => outcome.map_err(|error| Error::io("sync", above, error)),
    }
}

/// Takes the lock of a store's directory.
pub(super) fn take_lock<D: Disk>(disk: &D, dir: &std::path::Path) -> Result<D::Lock> {
    let path = dir.join(names::LOCK);
    disk.lock(&path)
        .map_err(|error| Error::io("lock", &path, error))?
        .ok_or_else(|| Error::locked(dir.into()))
}

type Parts<D> = (ColdTierStorage<D>, LoadedManifest, Recovered<D>);

fn reopen<D: Disk>(disk: &D, config: &ColdTierConfig, mut loaded: LoadedManifest) -> Result<Parts<D>> {
    adopt_unknown(disk, &config.dir, &mut loaded)?;
    let mut recovered = recover(disk, &config.dir, &loaded.state, loaded.broken || loaded.state.damaged)?;
    let storage = ColdTierStorage::open(disk, config.dir.clone(), &loaded, &mut recovered)?;
    Ok((storage, loaded, recovered))
}

fn create<D: Disk, C: Clock>(disk: &D, config: &ColdTierConfig, clock: &C) -> Result<Parts<D>> {
    let codec = match config.compression {
        Compression::Fixed(codec) => codec,
        Compression::Tuned => UNTUNED,
    };
    let parameters = parameters_entry(&ParametersInForce::all(CompressionParameters::plain(codec)), 0.0, 0);
    sync_name_of(disk, &config.dir)?;
    let state = ManifestState::new(fastrand::u64(..), fastrand::u64(..), clock.wall_ms().max(1), parameters);
    let storage = ColdTierStorage::create(disk, config.dir.clone(), state.clone())?;
    let recovered = recover(disk, &config.dir, &state, false)?;
    let loaded = LoadedManifest {
        state,
        number: 1,
        highest_number: 1,
        end: 0,
        state_end: 0,
        clean: true,
        broken: false,
        adopted: Vec::new(),
        warnings: Vec::new(),
    };
    Ok((storage, loaded, recovered))
}

/// A fixed codec overrides what tuning chose; a dictionary that was lost is not used.
fn parameters_to_use<D: Disk>(
    config: &ColdTierConfig,
    saved: &ParametersEntry,
    recovered: &Recovered<D>,
) -> ParametersInForce {
    if let Compression::Fixed(codec) = config.compression {
        return ParametersInForce::all(CompressionParameters::plain(codec));
    }
    let saved = parameters_of(saved);
    for slot in recovered.dictionaries.slots() {
        recovered.dictionaries.set_levels(slot, &saved.levels_of(slot));
    }
    let usable = |parameters: CompressionParameters| match parameters.dictionary {
        slot if slot == 0 || recovered.dictionaries.read(slot).is_some() => parameters,
        _ => CompressionParameters::plain(UNTUNED),
    };
    ParametersInForce { common: usable(saved.common), classes: saved.classes.map(usable) }
}
