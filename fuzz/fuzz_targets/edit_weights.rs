//! Manifests that `shift --edit` changes.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| grpcmesh::fuzzing::edit_weights(text));
