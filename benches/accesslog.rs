//! Benchmarks: parse and diagnose access log lines. Run `cargo bench --bench accesslog`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grpcmesh::accesslog::{LogLine, LogReader};
use grpcmesh::diagnosis::diagnose;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/accesslog/{name}", env!("CARGO_MANIFEST_DIR")))
        .expect("the fixture exists")
}

fn read_logs(criterion: &mut Criterion) {
    for name in ["istio-text.log", "istio-json.log"] {
        let log = fixture(name);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(log.len() as u64));
        group.bench_function("read", |bencher| {
            bencher.iter(|| {
                let mut reader = LogReader::default();
                for line in log.split(|byte| *byte == b'\n') {
                    black_box(reader.read(line));
                }
            });
        });
        group.bench_function("read and diagnose", |bencher| {
            bencher.iter(|| {
                let mut reader = LogReader::default();
                for line in log.split(|byte| *byte == b'\n') {
                    if let LogLine::Access(access) = reader.read(line) {
                        black_box(diagnose(&access));
                    }
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, read_logs);
criterion_main!(benches);
