//! Kubeconfigs: interprets them without files and plugins.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| grpcmesh::fuzzing::kubeconfig(text));
