//! What bytes cost, and where.

pub mod efficiency_analyzer;
