//! The output of a proxy's container: reads, diagnoses, counts and prints each line, and checks that no control
//! character reaches the terminal.
#![no_main]

use grpcmesh::accesslog::{LineReader, ReadLine};
use grpcmesh::diagnosis::diagnose;
use grpcmesh::render;
use grpcmesh::render::style::Style;
use grpcmesh::report::tail::{AddressNames, LogOrigin, TailLine};
use grpcmesh::report::tail_summary::SummaryCounter;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut reader, mut counter) = (LineReader::default(), SummaryCounter::default());
    let style = Style { color: false, width: Some(80), headers: true, wide: false };
    let mut output = Vec::new();
    let mut each = |_: &[u8], read: ReadLine<'_, '_>| {
        match read {
            ReadLine::Access(access, names) => {
                let diagnosis = diagnose(access);
                counter.count_in_range(&diagnosis);
                counter.add(access, &diagnosis);
                let origin = LogOrigin { pod: names.pod.map(str::to_owned), ..LogOrigin::default() };
                let line = TailLine::new(access, &diagnosis, &origin, &AddressNames::default());
                render::tail::line(&line, &style, &mut output)
            }
            ReadLine::Other(kind) => {
                counter.count_other_line(kind);
                Ok(())
            }
        }
    };
    for line in bytes.split(|byte| *byte == b'\n') {
        reader.read(line, &mut each).expect("writing to memory succeeds");
    }
    reader.finish(&mut each).expect("writing to memory succeeds");
    assert!(!output.iter().any(|byte| byte.is_ascii_control() && *byte != b'\n'), "a control character was printed");
    serde_json::to_vec(&counter.report()).expect("a report serializes to JSON");
});
