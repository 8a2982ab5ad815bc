//! Findings on complete applications: none on healthy ones, and a fixed set on the demo shop.

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

/// The findings on manifests, given as pairs of path and text, that are read into one snapshot.
fn findings(source: SourceKind, texts: &[(String, String)]) -> Vec<Finding> {
    let mut snapshot = Snapshot::new(source);
    for (path, text) in texts {
        let text = Arc::new(SourceText { path: path.clone(), text: text.clone() });
        let counts = read(&mut snapshot, text, "default", OnMalformed::Stop).unwrap_or_else(|error| panic!("{error}"));
        assert!(counts.objects > 0, "{path} contains no object that the tool reads");
    }
    if source == SourceKind::Manifests {
        snapshot.add_gaps_for_absent_kinds();
    }
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    rules::run(&mesh, &FindingSelection::default()).findings
}

/// One line for each finding.
fn format<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> String {
    findings.into_iter().fold(String::new(), |mut lines, finding| {
        let Finding { code, severity, object, field, message, .. } = finding;
        let _ = writeln!(lines, "{severity} {code} {object} {field}: {message}");
        lines
    })
}

/// Errors and warnings of all `cases`, each a title with its manifests. Empty if there are none.
fn errors_and_warnings<'c>(cases: impl IntoIterator<Item = (&'c str, &'c [(String, String)])>) -> String {
    let mut report = String::new();
    for (title, texts) in cases {
        let findings = findings(SourceKind::Manifests, texts);
        let lines = format(findings.iter().filter(|finding| finding.severity != Severity::Info));
        if !lines.is_empty() {
            let _ = writeln!(report, "{title}:\n{lines}");
        }
    }
    report
}

/// The fixtures, as pairs of file name and text, sorted.
fn fixtures() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/healthy");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("the fixtures exist")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("the fixture is text"))).collect()
}

#[test]
fn each_healthy_file_has_no_errors_or_warnings() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    let report =
        errors_and_warnings(fixtures.iter().map(|fixture| (fixture.0.as_str(), std::slice::from_ref(fixture))));
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn each_application_has_no_errors_or_warnings() {
    // Files are named `app.yaml` or `app-part.yaml`. The `bookinfo-route-*.yaml` files are alternatives, so each of
    // them is tested alone with the rest of bookinfo.
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
    let report = errors_and_warnings(apps.iter().map(|(app, files)| (app.as_str(), files.as_slice())));
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn the_healthy_shop_has_no_findings() {
    let findings = findings(SourceKind::Demo, &[("healthy.yaml".to_owned(), HEALTHY.to_owned())]);
    assert!(findings.is_empty(), "\n{}", format(&findings));
}

#[test]
fn the_demo_shop_has_a_fixed_set_of_findings() {
    let findings = findings(SourceKind::Demo, &[("shop.yaml".to_owned(), SHOP.to_owned())]);
    let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect::<BTreeSet<_>>().into_iter().collect();
    assert!(codes.len() >= 12, "\n{}", format(&findings));
    assert_eq!(
        codes,
        [
            "GM101", "GM102", "GM103", "GM105", "GM111", "GM201", "GM203", "GM204", "GM205", "GM301", "GM304", "GM305",
            "GM401", "GM403", "GM409", "GM501", "GM508", "GM603", "GM701", "GM702", "GM718",
        ],
        "\n{}",
        format(&findings)
    );
    for severity in [Severity::Error, Severity::Warning, Severity::Info] {
        assert!(findings.iter().any(|finding| finding.severity == severity), "no {severity}");
    }
}
