//! Manifests and snapshots: reads, resolves and checks them.
#![no_main]

use std::sync::Arc;

use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::report::inspect::{InspectRequest, inspect};
use grpcmesh::rules;
use grpcmesh::rules::select::FindingSelection;
use grpcmesh::snapshot::manifest::{OnMalformed, read};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText, codec};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut snapshot = Snapshot::new(SourceKind::Demo);
    if codec::is_snapshot(text) {
        let Ok(decoded) = codec::decode(text) else { return };
        snapshot = decoded;
    } else {
        let source = Arc::new(SourceText { path: "fuzz.yaml".to_owned(), text: text.to_owned() });
        let _ = read(&mut snapshot, source, "default", OnMalformed::KeepGoing);
    }
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    let outcome = rules::run(&mesh, &FindingSelection::default());
    serde_json::to_vec(&inspect(&mesh, &outcome, &InspectRequest::default())).expect("a report serializes to JSON");
});
