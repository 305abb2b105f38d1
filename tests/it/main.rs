//! Integration tests of the library, one binary.

mod scripted; // not a test: a disk that fails, holds and cuts short on cue
mod small_disk; // not a test: a disk of few bytes that others fill
mod stores; // not a test: configurations, values, whole directories, the comparison with a model
mod watched; // not a test: loads, a directory watched meanwhile, the ledger

mod admission; // who is let in, and what callers at a full capacity are told
mod after_failures; // who is told, and what index and accounts say once a write or a task has failed
mod capacity; // the directory within its bytes
mod compaction; // what a compaction keeps, gives back and leaves behind, stopped, failed or cancelled at any call
mod compaction_histories; // what stays away over many compactions; four threads while all tasks run
mod compression; // codecs and dictionaries: every byte back, damage refused
mod config; // what is refused by name, who may open a directory, newer and foreign files
mod due; // what maintenance does by itself, at which bound, and in which order
mod durability; // what is synced when, and what stands after a sync that failed
mod eviction; // what goes at capacity, and who learns of it
mod expiry; // to the millisecond, for good, and whole segments unread
mod faults; // full queues, dead workers, values of every size
mod formats; // every byte on disk
mod formats_damage; // round trips, and damage that never passes for content
mod formats_kept; // what the format costs, and the store kept of this version
mod full_disk; // what is lost, what stands, and how space comes back
mod groups; // what dies together lies together
mod large_openings; // openings that are spread over threads
mod life; // what one caller sees: insert, get, remove, expiry, the tasks, reopening
mod looking; // from outside, closed or in use: nothing changed, nothing mistaken for damage
mod multi_get; // many keys at once, or all: the same answers, and a disk that is asked before it is waited for
mod pieces; // how much the disk is asked for at once
mod regressions; // bugs that were found, each with the sequence that showed it
mod repair; // damage found and mended: verify, repair, and what a start adopts
mod reserve; // a disk that others have filled: maintenance goes on
mod snapshots; // the saved index: what its parity makes up for
mod tidy; // rules of the house that no compiler checks
mod torn_tail; // a killed store, its segment cut at every length
mod tuning; // what is measured, decided, applied, kept and cleaned up
mod tuning_by_itself; // the brief look at a new store, the thorough one behind it, and rest
mod tuning_classes; // choices by size, the gate, the explanation, several dictionaries
mod unreadable; // damage met while the store is open: what it costs, and what is left alone
