//! Any frames of a client: each stream gives one request at most, and nothing after it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first byte says how long the pieces are.
    if let Some((&size, bytes)) = input.split_first() {
        let pieces: Vec<&[u8]> = bytes.chunks(usize::from(size) + 1).collect();
        preforkd_front::h2::drive::check(&pieces);
    }
});
