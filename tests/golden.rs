//! Generated files are committed and equal to what the code makes. `GOLDEN=1` writes them.

use std::path::Path;

use grpcmesh::commands::completion::Kind;

#[track_caller]
fn golden(path: &str, expected: &[u8]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if option_env!("GOLDEN").is_some() || std::env::vars().any(|(name, _)| name == "GOLDEN") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
    }
    let have = std::fs::read(&file).unwrap_or_default();
    assert!(have == expected, "{path} is out of date: GOLDEN=1 cargo test --test golden");
}

#[test]
fn completions_are_up_to_date() {
    for kind in [Kind::Bash, Kind::Zsh, Kind::Fish, Kind::Powershell] {
        golden(&format!("completions/{}", kind.file()), &kind.script());
    }
}

#[test]
fn schemas_are_up_to_date() {
    let schemas = [
        ("inspect", schemars::schema_for!(grpcmesh::report::inspect::InspectReport)),
        ("explain", schemars::schema_for!(grpcmesh::report::explain::ExplainReport)),
        ("snapshot", schemars::schema_for!(grpcmesh::snapshot::codec::SnapshotFile<'static>)),
    ];
    for (name, schema) in schemas {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        golden(&format!("schemas/{name}.v1.json"), text.as_bytes());
    }
}
