//! The front: a worker that serves the sites of a configuration, without application code.
#![forbid(unsafe_code)]

pub mod upstream;
