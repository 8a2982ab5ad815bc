//! A container's output: each line is read, judged, counted and shown, and nothing dangerous reaches the terminal.
#![no_main]

use grpcmesh::accesslog::{Access, Reader};
use grpcmesh::render::style::Style;
use grpcmesh::render;
use grpcmesh::report::tail::{Names, Origin, TailLine};
use grpcmesh::report::tail_summary::Counter;
use grpcmesh::diagnosis::judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut reader, mut counter) = (Reader::default(), Counter::default());
    let mut shown = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut access = Access::default();
        match reader.fill(line, &mut access) {
            Ok(_) => {
                let verdict = judge(&access);
                counter.see();
                counter.add(&access, &verdict);
                let line = TailLine::new(&access, &verdict, &Origin::default(), &Names::default());
                let style = Style { color: false, width: Some(80), headers: true, wide: false };
                render::tail::line(&line, &style, &mut shown).expect("memory takes everything");
            }
            Err(kind) => counter.other(kind),
        }
    }
    assert!(!shown.iter().any(|byte| byte.is_ascii_control() && *byte != b'\n'), "a control character was printed");
    serde_json::to_vec(&counter.report()).expect("a report is JSON");
});
