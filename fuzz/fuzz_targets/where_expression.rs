//! Expressions of `tail --where`: compiles and evaluates them.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| grpcmesh::fuzzing::where_expression(text));
