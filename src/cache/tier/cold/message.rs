//! What may be asked of the two workers. Every request that waits carries the sender of its answer.

use crossbeam_channel::Sender;

use super::in_flight::EncodedRecord;
use super::queue::Charge;
use super::report::{CompactionTask, TaskReport};
use super::serialization::edit::Edit;
use super::serialization::footer::FooterRow;
use crate::error::Result;

/// Asked of the writer. Answered in the order of the queue.
pub(super) enum WriteRequest {
    /// Append a record that is in flight. `ack` is answered once it is durable (`Durability::Always`).
    Append { record: EncodedRecord, charge: Charge, ack: Option<Sender<Result<()>>> },
    /// Hand everything before this to the kernel; if `sync`, make it durable too.
    Barrier { sync: bool, reply: Sender<Result<()>> },
    /// Answer once everything before this is durable, together with others that wait for it.
    Await { ack: Sender<Result<()>> },
    /// Hand over, seal, make durable, end. Nothing comes after it.
    Close { reply: Sender<Result<()>> },
}

/// Asked of the writer by the compaction worker, one at a time. Answered before whatever is queued: what gives space back
/// does not wait behind what takes it. "Before" a request is what the writer has appended by then.
pub(super) enum MaintenanceRequest {
    /// Hand what has been appended to the kernel, so that the index is as new as can be. Answers how often writes were lost.
    HandOver { reply: Sender<Result<u64>> },
    /// Seal the active segments that hold records.
    Seal { reply: Sender<Result<()>> },
    /// The rows of the active segment in this slot whose time has passed; `None` if it is sealed by now.
    ExpiredRows { slot: u32, now_ms: u64, reply: Sender<Result<Option<ActiveRows>>> },
    /// Make everything before this durable, then the edit: the commit point of every task. Answers its number. With
    /// `if_losses` only if writes were lost so often and not once more.
    Commit { edit: Edit, if_losses: Option<u64>, reply: Sender<Result<Committed>> },
}

/// The compaction worker's ways to the writer.
pub(super) struct ToWriter {
    /// Behind what callers have handed in.
    pub queue: Sender<WriteRequest>,
    /// Past it.
    pub maintenance: Sender<MaintenanceRequest>,
}

/// What the manifest says after a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    /// Number of the edit.
    pub edit: u64,
}

/// Rows of an active segment, with the bytes their records take.
pub(super) type ActiveRows = Vec<(FooterRow, u64)>;

/// Asked of the compaction worker.
pub(super) enum TaskRequest {
    /// Run a task; `reply` is absent when nobody waits.
    Run { task: CompactionTask, reply: Option<Sender<Result<TaskReport>>> },
    /// See whether something is due, before the next look would come round.
    LookAround,
    /// Make room below the capacity. Sent once, until the worker has begun.
    Relieve,
    /// Make the directory fit its capacity.
    FitCapacity { reply: Sender<Result<()>> },
    /// Run what is due, as automatic maintenance would, until nothing is. Answers how many tasks ran.
    RunDue { reply: Sender<Result<u64>> },
    /// Save the index if that is worth it, then end.
    Close { reply: Sender<Result<()>> },
}
