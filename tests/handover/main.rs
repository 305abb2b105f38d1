//! Models of the hand-over: the shipped index, in-flight map, slab, frontier and lookup under shuttle's schedules.
//!
//! Built with `--cfg larder_model` only, and empty otherwise: `tests/handover.sh` runs it. The threads here take the
//! steps of `handle.rs`, `writer.rs` and `compaction_system/round.rs` in their order; an oracle outside of the schedule
//! knows what a reader may find. `LARDER_SCHEDULES` says how many schedules each scheduler tries a model on, and
//! `LARDER_SEED` which.

#![cfg(larder_model)]

mod models;
mod oracle;
mod threads;
mod world;
