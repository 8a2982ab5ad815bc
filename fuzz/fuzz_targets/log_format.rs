//! A log format and a line, separated by the first line break.
#![no_main]

use grpcmesh::accesslog::format::LogFormat;
use grpcmesh::accesslog::{AccessEntry, LogReader};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let Ok(text) = std::str::from_utf8(&bytes[..end]) else { return };
    if let Ok(format) = LogFormat::compile(text) {
        let mut reader = LogReader::with_formats([format].into());
        let _ = reader.read_into(bytes.get(end + 1..).unwrap_or_default(), &mut AccessEntry::default());
    }
});
