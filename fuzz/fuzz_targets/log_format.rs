//! A format and a line of it, divided by the first line break.
#![no_main]

use grpcmesh::accesslog::format::Format;
use grpcmesh::accesslog::{Access, Reader};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let Ok(text) = std::str::from_utf8(&bytes[..at]) else { return };
    if let Ok(format) = Format::compile(text) {
        let mut reader = Reader::with_formats([format].into());
        let _ = reader.fill(bytes.get(at + 1..).unwrap_or_default(), &mut Access::default());
    }
});
