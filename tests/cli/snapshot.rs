//! `snapshot`.

use super::assert_rejected;
use super::support::TestEnv;

#[test]
fn a_saved_snapshot_gives_the_same_findings_as_its_source() {
    let env = TestEnv::new();
    for (name, redact) in [("a.json", &[][..]), ("b.json.gz", &["--redact"])] {
        let path = env.path(name);
        let run = env.run(&[&["snapshot", "--from", "demo", "-o", &path], redact].concat());
        assert_eq!(run.code(), 0);
        insta::assert_snapshot!(format!("snapshot-{}", name.split('.').next().unwrap()), run);
        let codes = |from: &str| {
            let report = env.run(&["inspect", "--from", from, "-o", "json"]).json();
            let findings = report["findings"].as_array().unwrap().iter();
            let mut codes: Vec<String> = findings.map(|finding| finding["code"].to_string()).collect();
            codes.sort();
            codes
        };
        assert_eq!(codes(&path), codes("demo"));
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_a_snapshot() {
    use std::os::unix::fs::PermissionsExt as _;
    let env = TestEnv::new();
    let path = env.path("a.json");
    assert_eq!(env.run(&["snapshot", "--from", "demo", "-o", &path]).code(), 0);
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[cfg(unix)]
#[test]
fn a_snapshot_follows_links_and_writes_into_pipes() {
    use std::os::unix::fs::FileTypeExt as _;
    let env = TestEnv::new();
    let (target, link, pipe) = (env.write("target.json", ""), env.path("link.json"), env.path("pipe"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(env.run(&["snapshot", "--from", "demo", "-o", &link]).code(), 0);
    assert!(std::path::Path::new(&link).is_symlink() && std::fs::metadata(&target).unwrap().len() > 1_000);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap().len()
    });
    assert_eq!(env.run(&["snapshot", "--from", "demo", "-o", &pipe]).code(), 0);
    assert!(reader.join().unwrap() > 1_000);
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn rejects_a_namespace_for_a_source_that_is_kept_whole() {
    assert_rejected("snapshot-rejected", &["snapshot --from demo -n shop -o x.json"]);
}
