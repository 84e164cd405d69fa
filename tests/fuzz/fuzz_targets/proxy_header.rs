//! Any first bytes of a connection that a proxy opens: they are judged the same however they were split.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| preforkd_http::proxy_header::check(bytes));
