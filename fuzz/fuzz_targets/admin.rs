//! Answers of an admin port and of istiod.
#![no_main]

use grpcmesh::envoy;
use grpcmesh::envoy::config_dump::{QUESTIONS, Running};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for at in 0..QUESTIONS.len() {
        let mut answers = vec![None; QUESTIONS.len()];
        answers[at] = Some(bytes.to_vec());
        if let Ok(running) = Running::read(&answers) {
            let text = serde_json::to_vec(&running).expect("what was read is JSON");
            let again: Running = serde_json::from_slice(&text).expect("and can be read again");
            assert_eq!(running, again);
        }
    }
    let _ = envoy::sync::read(bytes);
    let _ = envoy::log_formats(bytes);
    let _ = envoy::counters::read(bytes, |_| true);
});
