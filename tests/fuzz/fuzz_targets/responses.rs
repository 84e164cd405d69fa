//! Any bytes of an upstream that speaks FastCGI, SCGI or HTTP: what becomes of the response does not depend on how they were split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preforkd_front::upstream::protocol::{Protocol, drive};

fuzz_target!(|input: &[u8]| {
    let [choice, cut, bytes @ ..] = input else {
        return;
    };
    let protocol = match choice % 3 {
        0 => Protocol::FastCgi,
        1 => Protocol::Scgi,
        _ => Protocol::Http,
    };
    drive::check(protocol, bytes, (*cut).into());
});
