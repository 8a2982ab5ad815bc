//! Manifests and snapshots: read, resolved and judged.
#![no_main]

use std::sync::Arc;

use grpcmesh::mesh::{Options, resolve};
use grpcmesh::report::inspect::{Request, inspect};
use grpcmesh::rules;
use grpcmesh::rules::select::Selection;
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
    let mesh = resolve(&snapshot, &Options::default());
    let outcome = rules::run(&mesh, &Selection::default());
    serde_json::to_vec(&inspect(&mesh, &outcome, &Request::default())).expect("a report is JSON");
});
