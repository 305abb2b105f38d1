//! The cache: its tiers, what it measures, what it reports.

pub mod eviction;
pub mod memory;
pub mod stats;
pub mod tier;
