//! Integration tests of the library, one binary.

mod scripted; // not a test: a disk that fails, holds and cuts short on cue
mod stores; // not a test: configurations, values, whole directories, the comparison with a model

mod capacity; // the directory within its bytes, and what goes when it is full
mod compaction; // what a compaction keeps, gives back and leaves behind, stopped, failed or cancelled at any call
mod compression; // codecs and dictionaries: every byte back, damage refused
mod config; // what is refused by name, who may open a directory, newer and foreign files
mod expiry; // to the millisecond, for good, and whole segments unread
mod faults; // full queues, full disks, failed syncs, dead workers, values of every size
mod formats; // every byte on disk, damage, and the store kept of version 1
mod groups; // what dies together lies together
mod life; // what one caller sees: insert, get, remove, expiry, the tasks, reopening
mod looking; // from outside, closed or in use: nothing changed, nothing mistaken for damage
mod regressions; // bugs that were found, each with the sequence that showed it
mod repair; // damage found and mended: verify, repair, and what a start adopts
mod tidy; // rules of the house that no compiler checks
mod torn_tail; // a killed store, its segment cut at every length
mod tuning; // what is measured, decided, applied, kept and cleaned up
mod tuning_classes; // choices by size, the gate, the explanation, several dictionaries
