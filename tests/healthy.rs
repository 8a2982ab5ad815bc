//! Healthy applications give no error and no warning; the demo shop gives its known set of faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::rules::select::FindingSelection;
use grpcmesh::rules::{self, Finding, Severity};
use grpcmesh::snapshot::manifest::{OnMalformed, read};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};

const SHOP: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/shop.yaml"));
const HEALTHY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/healthy.yaml"));

/// The findings on some texts, each with its path, read into one snapshot.
fn findings(source: SourceKind, texts: &[(String, String)]) -> Vec<Finding> {
    let mut snapshot = Snapshot::new(source);
    for (path, text) in texts {
        let text = Arc::new(SourceText { path: path.clone(), text: text.clone() });
        let counts = read(&mut snapshot, text, "default", OnMalformed::Stop).unwrap_or_else(|error| panic!("{error}"));
        assert!(counts.taken > 0, "{path} has no object that is read");
    }
    if source == SourceKind::Manifests {
        snapshot.note_absent_kinds();
    }
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    rules::run(&mesh, &FindingSelection::default()).findings
}

/// Findings as lines of text.
fn show<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> String {
    findings.into_iter().fold(String::new(), |mut lines, finding| {
        let Finding { code, severity, object, field, message, .. } = finding;
        let _ = writeln!(lines, "{severity} {code} {object} {field}: {message}");
        lines
    })
}

/// Errors and warnings of all `cases`, each a title with its texts.
fn faults<'c>(cases: impl IntoIterator<Item = (&'c str, &'c [(String, String)])>) -> String {
    let mut all = String::new();
    for (title, texts) in cases {
        let found = findings(SourceKind::Manifests, texts);
        let bad = show(found.iter().filter(|finding| finding.severity != Severity::Info));
        if !bad.is_empty() {
            let _ = writeln!(all, "{title}:\n{bad}");
        }
    }
    all
}

/// The fixtures by path.
fn fixtures() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/healthy");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("the fixtures are there")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("the fixture is text"))).collect()
}

#[test]
fn each_healthy_file_is_without_faults() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    let bad = faults(fixtures.iter().map(|fixture| (fixture.0.as_str(), std::slice::from_ref(fixture))));
    assert!(bad.is_empty(), "\n{bad}");
}

#[test]
fn the_files_of_one_app_together_are_without_faults() {
    // A file is named `app.yaml` or `app-part.yaml`. Of bookinfo's routes a cluster has one form at a time: each
    // `bookinfo-route-*.yaml` is laid alone over the rest.
    let mut apps: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let (routes, others): (Vec<_>, Vec<_>) =
        fixtures().into_iter().partition(|(path, _)| path.starts_with("bookinfo-route-"));
    for fixture in others {
        let app = fixture.0.split(['-', '.']).next().unwrap_or_default().to_owned();
        apps.entry(app).or_default().push(fixture);
    }
    let bookinfo = apps.get("bookinfo").cloned().unwrap_or_default();
    assert!(bookinfo.len() > 1 && routes.len() > 1);
    for route in routes {
        let mut files = bookinfo.clone();
        let title = format!("bookinfo with {}", route.0);
        files.push(route);
        apps.insert(title, files);
    }
    let bad = faults(apps.iter().map(|(app, files)| (app.as_str(), files.as_slice())));
    assert!(bad.is_empty(), "\n{bad}");
}

#[test]
fn the_healthy_shop_gives_no_finding() {
    let found = findings(SourceKind::Demo, &[("healthy.yaml".to_owned(), HEALTHY.to_owned())]);
    assert!(found.is_empty(), "\n{}", show(&found));
}

#[test]
fn the_demo_shop_has_its_faults() {
    let found = findings(SourceKind::Demo, &[("shop.yaml".to_owned(), SHOP.to_owned())]);
    let codes: Vec<_> = found.iter().map(|finding| finding.code).collect::<BTreeSet<_>>().into_iter().collect();
    assert!(codes.len() >= 12, "\n{}", show(&found));
    assert_eq!(
        codes,
        [
            "GM101", "GM102", "GM103", "GM105", "GM111", "GM201", "GM203", "GM204", "GM205", "GM301", "GM304", "GM305",
            "GM401", "GM403", "GM409", "GM501", "GM508", "GM701", "GM702", "GM718",
        ],
        "\n{}",
        show(&found)
    );
    for severity in [Severity::Error, Severity::Warning, Severity::Info] {
        assert!(found.iter().any(|finding| finding.severity == severity), "no {severity}");
    }
}
