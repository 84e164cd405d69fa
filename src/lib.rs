//! preforkd.
