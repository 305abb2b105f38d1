//! The tiers. They do not know each other.

pub mod cold;
