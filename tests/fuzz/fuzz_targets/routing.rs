//! Any path: no spelling of one passes a rule for it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &[u8]| preforkd_front::layers::drive::check(path));
