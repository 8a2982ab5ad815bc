//! Checks `plugin.yaml` against the rules of krew and of its index.
//!
//! Source: `internal/index/validation` of kubernetes-sigs/krew, and its developer guide.

use std::collections::BTreeSet;

use serde_json::Value;

fn manifest() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/plugin.yaml")).unwrap();
    let json = grpcmesh::snapshot::yaml::to_json(&text).unwrap().json.unwrap();
    serde_json::from_str(json.get()).unwrap()
}

#[test]
fn the_manifest_follows_the_rules_of_the_krew_index() {
    let manifest = manifest();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&"Plugin".into(), &"grpcmesh".into()));
    let spec = &manifest["spec"];
    assert_eq!(spec["version"], format!("v{}", env!("CARGO_PKG_VERSION")));
    let short = spec["shortDescription"].as_str().unwrap();
    assert!(short.len() <= 50 && !short.contains('\n') && !short.ends_with('.'), "{short}");
    for field in ["description", "caveats"] {
        let text = spec[field].as_str().unwrap();
        assert!(text.lines().all(|line| line.len() <= 80), "{field} is wrapped at 80 columns");
    }
    let caveats = spec["caveats"].as_str().unwrap();
    assert!(caveats.contains("Rights") && caveats.contains("completion install"), "{caveats}");
    assert!(spec["homepage"].as_str().unwrap().starts_with("https://"));
}

#[test]
fn the_manifest_has_each_released_platform_once() {
    const SUPPORTED: [&str; 11] = [
        "linux/386",
        "linux/amd64",
        "linux/arm",
        "linux/arm64",
        "linux/ppc64le",
        "darwin/386",
        "darwin/amd64",
        "darwin/arm64",
        "windows/386",
        "windows/amd64",
        "windows/arm64",
    ];
    let manifest = manifest();
    let mut platforms = BTreeSet::new();
    for platform in manifest["spec"]["platforms"].as_array().unwrap() {
        let labels = platform["selector"]["matchLabels"].as_object().unwrap();
        assert_eq!(labels.keys().collect::<Vec<_>>(), ["arch", "os"], "selectors use only these labels");
        let name = format!("{}/{}", labels["os"].as_str().unwrap(), labels["arch"].as_str().unwrap());
        assert!(SUPPORTED.contains(&name.as_str()), "{name}");
        let digest = platform["sha256"].as_str().unwrap();
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        let program = platform["bin"].as_str().unwrap();
        assert_eq!(program == "kubectl-grpcmesh.exe", name.starts_with("windows"), "{name}");
        let uri = platform["uri"].as_str().unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert!(uri.contains(&format!("/v{version}/")) && uri.contains(&name.replace('/', "_")), "{uri}");
        let files = platform["files"].as_array().unwrap();
        let sources: Vec<_> = files.iter().map(|file| file["from"].as_str().unwrap()).collect();
        assert_eq!(sources, [program, "LICENSE"], "{name}");
        assert!(files.iter().all(|file| file["to"] == "."), "krew rejects paths that are not cleaned");
        assert!(platforms.insert(name), "selectors do not overlap");
    }
    let released = ["darwin/amd64", "darwin/arm64", "linux/amd64", "linux/arm64", "windows/amd64"];
    assert_eq!(platforms, released.map(str::to_owned).into());
}

#[test]
fn the_manifest_is_generated_from_its_template() {
    let root = env!("CARGO_MANIFEST_DIR");
    let template = std::fs::read_to_string(format!("{root}/scripts/plugin.yaml.in")).unwrap();
    let manifest = std::fs::read_to_string(format!("{root}/plugin.yaml")).unwrap();
    let expected_start = template.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    assert!(manifest.starts_with(&expected_start), "run scripts/dist.py --manifest");
}
