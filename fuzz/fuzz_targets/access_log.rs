//! The output of a proxy's container: reads, diagnoses, counts and prints each line, and checks that no control
//! character reaches the terminal.
#![no_main]

use grpcmesh::accesslog::{AccessEntry, LogReader};
use grpcmesh::diagnosis::diagnose;
use grpcmesh::render;
use grpcmesh::render::style::Style;
use grpcmesh::report::tail::{AddressNames, LogOrigin, TailLine};
use grpcmesh::report::tail_summary::SummaryCounter;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut reader, mut counter) = (LogReader::default(), SummaryCounter::default());
    let style = Style { color: false, width: Some(80), headers: true, wide: false };
    let mut output = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut access = AccessEntry::default();
        match reader.read_into(line, &mut access) {
            Ok(_) => {
                let diagnosis = diagnose(&access);
                counter.count_in_range(&diagnosis);
                counter.add(&access, &diagnosis);
                let line = TailLine::new(&access, &diagnosis, &LogOrigin::default(), &AddressNames::default());
                render::tail::line(&line, &style, &mut output).expect("writing to memory succeeds");
            }
            Err(kind) => counter.count_other_line(kind),
        }
    }
    assert!(!output.iter().any(|byte| byte.is_ascii_control() && *byte != b'\n'), "a control character was printed");
    serde_json::to_vec(&counter.report()).expect("a report serializes to JSON");
});
