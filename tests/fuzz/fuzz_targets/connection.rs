//! Any bytes, split anywhere: the server's state machine does not panic, takes the same requests out of them however
//! they are split, and none after one that it rejected.
#![no_main]

#[path = "../../../src/http/tests/drive/mod.rs"]
mod drive;

use drive::run;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first bytes say where the rest is split.
    let Some((cuts, bytes)) = input.split_at_checked(2) else {
        return;
    };
    let whole = run(&[bytes]);
    let mut places = [cuts[0], cuts[1]].map(|cut| usize::from(cut) * bytes.len() / 255);
    places.sort_unstable();
    let (a, rest) = bytes.split_at(places[0]);
    let (b, c) = rest.split_at(places[1] - places[0]);
    assert_eq!(run(&[a, b, c]), whole, "split at {places:?}");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(run(&single), whole, "byte by byte");
});
