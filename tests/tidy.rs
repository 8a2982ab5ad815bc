//! The rules of the code base, as tests: layers, writes, public names, and plain English.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules of CORE from the bottom up. A module may import only modules further left.
const CORE: [&str; 13] = [
    "vocabulary",
    "schema",
    "accesslog",
    "diagnosis",
    "envoy",
    "snapshot",
    "mesh",
    "dataplane",
    "analysis",
    "compare",
    "rules",
    "shift",
    "doctor",
];

/// Modules of CORE that answer different questions about a mesh, and must not import each other.
const INDEPENDENT: [&str; 4] = ["compare", "rules", "shift", "doctor"];

/// Access to the outside world that CORE and VIEW must not have.
const OUTSIDE: [&str; 8] =
    ["kube::", "tokio::", "clap::", "std::fs", "std::env", "SystemTime", "Timestamp::now", "async fn"];

/// All Rust files below a folder of this repository, sorted.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    files(folder, &["rs"])
}

fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if extensions.contains(&extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The code of a file above its unit tests, without comment lines.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn forbid(folder: &str, words: &[&str], fix: &str) {
    for path in rust_files(folder) {
        for line in code(&path).lines() {
            for word in words {
                assert!(!line.contains(word), "{}: \"{word}\" in: {line}\n{fix}", path.display());
            }
        }
    }
}

/// The top-level modules of this crate that a file imports or names.
fn imported_modules(path: &Path) -> Vec<String> {
    let code = code(path);
    let paths = code.split("crate::").skip(1);
    let name = |path: &str| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules: Vec<String> = paths
        .flat_map(|path| match path.strip_prefix('{') {
            Some(group) => {
                let group = group.split(';').next().unwrap_or_default();
                group.split([',', '\n']).map(|item| name(item.trim())).collect()
            }
            None => vec![name(path)],
        })
        .filter(|module| !module.is_empty())
        .collect();
    modules.sort();
    modules.dedup();
    modules
}

#[test]
fn core_has_no_access_to_the_outside_world() {
    for module in CORE {
        let folder = format!("src/{module}");
        forbid(&folder, &OUTSIDE, "CORE computes values from values; move this to cluster/ or cli/");
    }
}

#[test]
fn core_modules_import_only_modules_below_them() {
    for (level, module) in CORE.iter().enumerate() {
        for path in rust_files(&format!("src/{module}")) {
            for imported in imported_modules(&path) {
                let is_below = CORE[..=level].contains(&imported.as_str());
                let is_independent =
                    INDEPENDENT.contains(module) && INDEPENDENT.contains(&imported.as_str()) && imported != *module;
                assert!(
                    is_below && !is_independent,
                    "{} imports crate::{imported}: move what both need to a module below {module}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn views_neither_read_nor_print() {
    for folder in ["src/report", "src/render"] {
        forbid(folder, &OUTSIDE, "VIEW gets reports and a writer");
        forbid(
            folder,
            &["stdout", "crate::cluster", "crate::cli", "crate::commands"],
            "VIEW gets reports and a writer",
        );
    }
}

#[test]
fn edge_modules_know_neither_flags_nor_each_other() {
    forbid(
        "src/cluster",
        &["clap::", "crate::cli", "crate::commands", "crate::report", "crate::terminal"],
        "EDGE returns CORE types",
    );
    forbid(
        "src/terminal",
        &["clap::", "crate::cli", "crate::commands", "crate::report", "crate::cluster"],
        "EDGE receives texts",
    );
}

#[test]
fn rules_do_not_import_rules() {
    let shared = ["mod", "finding", "select", "testing"];
    let rules: Vec<(PathBuf, String)> = rust_files("src/rules")
        .into_iter()
        .map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            (path, stem)
        })
        .filter(|(path, stem)| {
            !shared.contains(&stem.as_str()) && !path.components().any(|part| part.as_os_str() == "invalid_value")
        })
        .collect();
    assert!(rules.len() > 50, "{}", rules.len());
    for (path, own) in &rules {
        let code = code(path);
        for (_, other) in rules.iter().filter(|(_, other)| other != own) {
            assert!(!code.contains(&format!("{other}::")), "{}: imports the rule {other}", path.display());
        }
    }
}

#[test]
fn one_file_writes_to_a_cluster() {
    for path in rust_files("src").into_iter().filter(|path| !path.ends_with("cluster/write.rs")) {
        let code = code(&path);
        for word in [
            "Method::PATCH",
            "Method::POST",
            "Method::PUT",
            "Method::DELETE",
            "Request::patch",
            "Request::post",
            "Request::put",
        ] {
            assert!(!code.contains(word), "{}: {word}: only src/cluster/write.rs writes to a cluster", path.display());
        }
    }
}

#[test]
fn every_file_starts_with_module_documentation() {
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{}: start with //! and what the file contains", path.display());
    }
}

/// The public types that a file declares. Fields and methods do not count.
fn public_types(path: &Path) -> Vec<String> {
    let mut types = Vec::new();
    for line in code(path).lines() {
        let line = line.trim_start();
        let Some(declaration) = line.strip_prefix("pub") else { continue };
        let declaration = match declaration.strip_prefix('(') {
            Some(rest) => rest.split_once(')').map_or("", |(_, rest)| rest),
            None => declaration,
        };
        let mut words = declaration.split_whitespace();
        if words.next().is_some_and(|keyword| ["struct", "enum", "trait", "type", "union"].contains(&keyword)) {
            let name = words.next().unwrap_or_default();
            let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
            // A macro declares several types under a metavariable.
            types.extend(Some(name).filter(|name| !name.is_empty()));
        }
    }
    types
}

#[test]
fn a_public_type_name_means_one_type() {
    let mut files_by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in rust_files("src") {
        for name in public_types(&path) {
            files_by_name.entry(name).or_default().push(path.display().to_string());
        }
    }
    assert!(files_by_name.len() > 300, "{}", files_by_name.len());
    files_by_name.retain(|_, files| files.len() > 1);
    assert!(files_by_name.is_empty(), "rename one of each, so that a reader can search for it: {files_by_name:#?}");
}

/// Constructions and British spellings that docs/style.md rules out, in lower case. Each construction reads as if it
/// had been translated, or names no subject. The list is short so that it raises no false alarms.
const UNCLEAR_ENGLISH: [&str; 28] = [
    " is told",
    " are told",
    " is said",
    "is wished",
    "somebody",
    "everybody",
    "nobody",
    "of which nothing",
    "is no share",
    "is no list",
    "is no object",
    "is no number",
    "is no name",
    "there is nothing to be",
    "way back",
    "roll-back",
    "take it back",
    "in silence",
    "yardstick",
    "what stands",
    "where it stands",
    "beside it stands",
    "behaviour",
    "dialled",
    "favour",
    "labelled",
    "neighbour",
    "recognis",
];

#[test]
fn texts_and_comments_are_plain_english() {
    let folders = [("src", &["rs"][..]), ("tests", &["rs"]), ("docs", &["md", "yaml"])];
    let mut paths: Vec<PathBuf> = folders.iter().flat_map(|(folder, extensions)| files(folder, extensions)).collect();
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "plugin.yaml"];
    paths.extend(top.map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name)));
    let mut unclear = Vec::new();
    for path in paths.iter().filter(|path| !path.ends_with("tests/tidy.rs") && !path.ends_with("docs/style.md")) {
        let text = std::fs::read_to_string(path).unwrap();
        for (index, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for phrase in UNCLEAR_ENGLISH.iter().filter(|phrase| lower.contains(**phrase)) {
                unclear.push(format!("{}:{}: \"{phrase}\" in: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    assert!(unclear.is_empty(), "see docs/style.md:\n{}", unclear.join("\n"));
}

#[test]
fn the_manifest_has_the_version_of_the_crate() {
    let manifest = include_str!("../plugin.yaml");
    assert!(manifest.contains(&format!("version: v{}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn every_dependency_has_a_documented_reason() {
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let reasons = std::fs::read_to_string("docs/dependencies.md").unwrap();
    let mut section = "";
    let mut dependencies = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
        {
            dependencies += 1;
            let mut words = reasons.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
            assert!(words.any(|word| word == name), "docs/dependencies.md gives no reason for {name}");
        }
    }
    assert!(dependencies > 30, "{dependencies}");
}
