//! preforkd.
pub mod supervisor;
