//! Benchmarks: read manifests, resolve the mesh, run the rules, build the report. Run `cargo bench --bench mesh`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::report::inspect::{InspectRequest, inspect};
use grpcmesh::rules;
use grpcmesh::rules::select::FindingSelection;
use grpcmesh::snapshot::manifest::{OnMalformed, read};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};

mod generated;

const PODS_PER_SERVICE: usize = 3;

fn snapshot(text: &Arc<SourceText>) -> Snapshot {
    let mut snapshot = Snapshot::new(SourceKind::Demo);
    read(&mut snapshot, Arc::clone(text), "default", OnMalformed::Stop).expect("generated manifests are valid");
    snapshot
}

fn manifests_of(services: usize) -> Arc<SourceText> {
    Arc::new(SourceText { path: "generated.yaml".to_owned(), text: generated::manifests(services, PODS_PER_SERVICE) })
}

fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifests");
    group.sample_size(10);
    for services in [100, 1_000] {
        let text = manifests_of(services);
        group.throughput(Throughput::Bytes(text.text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(services), &text, |bencher, text| {
            bencher.iter(|| black_box(snapshot(text)));
        });
    }
    group.finish();
}

fn mesh(criterion: &mut Criterion) {
    for services in [1_000, 10_000] {
        let snapshot = snapshot(&manifests_of(services));
        let mut group = criterion.benchmark_group(format!("mesh of {services} Services"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(services as u64));
        group.bench_function("resolve", |bencher| {
            bencher.iter(|| black_box(resolve(&snapshot, &ResolveOptions::default())));
        });
        group.bench_function("resolve and run rules", |bencher| {
            bencher.iter(|| {
                let mesh = resolve(&snapshot, &ResolveOptions::default());
                black_box(rules::run(&mesh, &FindingSelection::default()))
            });
        });
        group.bench_function("resolve, run rules and report", |bencher| {
            bencher.iter(|| {
                let mesh = resolve(&snapshot, &ResolveOptions::default());
                let outcome = rules::run(&mesh, &FindingSelection::default());
                black_box(inspect(&mesh, &outcome, &InspectRequest::default()))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, manifests, mesh);
criterion_main!(benches);
