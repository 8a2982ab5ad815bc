//! The house rules, as tests.

use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|suffix| suffix == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The lines of a file above its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

#[track_caller]
fn forbids(folder: &str, words: &[&str], repair: &str) {
    for path in sources(folder) {
        for line in code(&path).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{}: \"{word}\" in: {line}\n{repair}", path.display());
            }
        }
    }
}

const OUTSIDE: [&str; 8] =
    ["kube::", "tokio::", "clap::", "std::fs", "std::env", "SystemTime", "Timestamp::now", "async fn"];

#[test]
fn the_core_cannot_reach_the_world() {
    for folder in [
        "src/schema",
        "src/snapshot",
        "src/mesh",
        "src/rules",
        "src/accesslog",
        "src/verdict",
        "src/envoy",
        "src/compare",
        "src/shift",
        "src/guard",
        "src/doctor",
    ] {
        forbids(folder, &OUTSIDE, "CORE takes values and gives values; move this to cluster/ or cli/");
        forbids(
            folder,
            &["crate::report", "crate::render", "crate::cluster", "crate::terminal", "crate::cli", "crate::commands"],
            "CORE does not look outward",
        );
    }
}

#[test]
fn views_neither_read_nor_print() {
    for folder in ["src/report", "src/render"] {
        forbids(folder, &OUTSIDE, "VIEW takes reports and a writer");
        forbids(
            folder,
            &["stdout", "crate::cluster", "crate::cli", "crate::commands"],
            "VIEW takes reports and a writer",
        );
    }
}

#[test]
fn edges_know_neither_flags_nor_each_other() {
    forbids(
        "src/cluster",
        &["clap::", "crate::cli", "crate::commands", "crate::report", "crate::terminal"],
        "EDGE gives CORE types",
    );
    forbids(
        "src/terminal",
        &["clap::", "crate::cli", "crate::commands", "crate::report", "crate::cluster"],
        "EDGE is told what to say",
    );
}

#[test]
fn the_model_does_not_import_the_rules_and_rules_import_no_rule() {
    forbids("src/mesh", &["crate::rules"], "the model does not know what is judged");
    forbids("src/schema", &["crate::snapshot", "crate::mesh", "crate::rules"], "schema is leftmost");
    for path in sources("src/rules") {
        let text = code(&path);
        let own = path.file_stem().unwrap().to_string_lossy().into_owned();
        if own == "mod" || own == "testing" {
            continue;
        }
        for other in sources("src/rules") {
            let other = other.file_stem().unwrap().to_string_lossy().into_owned();
            if ["mod", "finding", "select", "testing"].contains(&other.as_str()) || other == own {
                continue;
            }
            assert!(!text.contains(&format!("super::{other}::")), "{own} imports {other}");
        }
    }
}

#[test]
fn one_file_writes_to_a_cluster() {
    for path in sources("src").into_iter().filter(|path| !path.ends_with("cluster/write.rs")) {
        let text = code(&path);
        for word in [
            "Method::PATCH",
            "Method::POST",
            "Method::PUT",
            "Method::DELETE",
            "Request::patch",
            "Request::post",
            "Request::put",
        ] {
            assert!(!text.contains(word), "{}: {word}: what writes stands in src/cluster/write.rs", path.display());
        }
    }
}

#[test]
fn every_file_says_what_lives_in_it() {
    for path in sources("src").into_iter().chain(sources("tests")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{}: begin with //! and what lives here", path.display());
    }
}

#[test]
fn the_manifest_has_the_programs_version() {
    let manifest = include_str!("../plugin.yaml");
    assert!(manifest.contains(&format!("version: v{}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let list = std::fs::read_to_string("docs/dependencies.md").unwrap();
    let is_part = |line: &&str| line.starts_with('[');
    let mut part = "";
    let mut seen = 0;
    for line in manifest.lines() {
        if is_part(&line) {
            part = line;
        } else if part.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
        {
            seen += 1;
            let words = list.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
            assert!(words.into_iter().any(|word| word == name), "docs/dependencies.md does not say what {name} is for");
        }
    }
    assert!(seen > 30, "{seen}");
}
