//! Any bytes, read as a file of workflows: an answer, no panic, in bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    xene::compile::validate(&[("a.yaml".to_owned(), bytes.to_vec()), ("b.json".to_owned(), bytes.to_vec())]);
    if let Some(converted) = xene::compile::convert("a.yaml", bytes) {
        xene::compile::validate(&[("a.yaml".to_owned(), converted.into_bytes())]);
    }
});
