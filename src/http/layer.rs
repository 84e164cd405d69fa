//! Layers: what looks at each exchange between the protocol and what answers it. One module a file.

pub(crate) mod access_log;
