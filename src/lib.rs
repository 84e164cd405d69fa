//! preforkd.
pub mod config;
pub mod plan;
pub mod supervisor;
