//! The impact of each finding, verified with real calls. `effects/CODE.yaml` contains the objects, and comments at the
//! top of the file state the expectations:
//!
//! | Key | Value |
//! |---|---|
//! | `inspect:` | the finding that `inspect` must report: code and object; a final `*` matches a generated name |
//! | `calls:` | a caller, then the arguments of the client; may occur several times |
//! | `code:` | status codes of the calls above: `0 14` means exactly these, `4\|14` means any of these; default 0 |
//! | `flags:` | response flags in the caller's access log; `none` means no log line |
//! | `servers:` | number of pods that answered |
//! | `rejected:` | a part of the error with which the API server rejects the objects; excludes `calls:` |
//!
//! `EFFECTS=GM107,GM111` runs these files only.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{CallResult, Lab, Pod, Scenario};

struct Effect {
    yaml: String,
    /// Code and object of the finding.
    inspect: String,
    rejected: Option<String>,
    calls: Vec<ExpectedCalls>,
}

/// Calls of one caller with their expected results.
#[derive(Default)]
struct ExpectedCalls {
    /// The caller and the arguments of its client, separated by spaces.
    command: String,
    codes: BTreeSet<i32>,
    /// Whether any non-empty subset of `codes` is accepted.
    any_code: bool,
    flags: Option<String>,
    servers: Option<usize>,
}

impl Effect {
    fn read(path: &std::path::Path) -> Self {
        let yaml = std::fs::read_to_string(path).unwrap();
        let mut effect = Self { inspect: String::new(), rejected: None, calls: Vec::new(), yaml: String::new() };
        let comments = yaml.lines().map_while(|line| line.strip_prefix("# "));
        for (key, value) in comments.filter_map(|line| line.split_once(": ")) {
            let calls = effect.calls.last_mut();
            match (key, calls) {
                ("inspect", _) => value.clone_into(&mut effect.inspect),
                ("rejected", _) => effect.rejected = Some(value.to_owned()),
                ("calls", _) => {
                    effect.calls.push(ExpectedCalls { command: value.to_owned(), ..ExpectedCalls::default() });
                }
                ("code", Some(calls)) => {
                    calls.any_code = value.contains('|');
                    calls.codes = value.split([' ', '|']).map(|code| code.parse().unwrap()).collect();
                }
                ("flags", Some(calls)) => calls.flags = Some(value.to_owned()),
                ("servers", Some(calls)) => calls.servers = Some(value.parse().unwrap()),
                _ => {}
            }
        }
        // Without `code:`, all calls must succeed.
        effect.calls.iter_mut().filter(|calls| calls.codes.is_empty()).for_each(|calls| calls.codes.extend([0]));
        assert!(effect.rejected.is_some() || !effect.calls.is_empty(), "{}: no expectation", path.display());
        Self { yaml, ..effect }
    }
}

/// The calling pod: `pod:NAMESPACE/APP` is a pod of the effect file, `outside` the pod without a sidecar, and any other
/// name the client of that namespace.
fn find_caller(lab: &Lab, name: &str) -> Pod {
    match name.strip_prefix("pod:").and_then(|pod| pod.split_once('/')) {
        Some((namespace, app)) => {
            let pods = lab.pods(namespace, &format!("app={app}"));
            pods.into_iter().next().unwrap_or_else(|| panic!("{name}: pod not found"))
        }
        None if name == "outside" => lab.pod("legacy", "app=outside"),
        None => lab.client(name),
    }
}

/// Replaces `INGRESS` and `POD:APP:PORT` with addresses of the running lab.
fn resolve_address(lab: &Lab, argument: &str) -> String {
    let ip = |namespace: &str, labels: &str| {
        lab.kubectl(&["get", "pods", "-n", namespace, "-l", labels, "-o", "jsonpath={.items[0].status.podIP}"])
    };
    if let Some(rest) = argument.strip_prefix("INGRESS") {
        return ip("web", "istio=ingress") + rest;
    }
    match argument.strip_prefix("POD:").and_then(|rest| rest.split_once(':')) {
        Some((app, port)) => format!("{}:{port}", ip("shop", &format!("app={app}"))),
        None => argument.to_owned(),
    }
}

fn reports_finding(lab: &Lab, expected: &str, arguments: &[&str]) -> bool {
    let (code, object) = expected.split_once(' ').unwrap();
    let report = lab.inspect(arguments);
    report["findings"].as_array().unwrap().iter().any(|finding| {
        let part = |name: &str| finding["object"][name].as_str().unwrap().to_owned();
        let title = format!("{} {}/{}", part("kind"), part("namespace"), part("name"));
        let is_same_object = object.strip_suffix('*').map_or(title == object, |start| title.starts_with(start));
        finding["code"] == code && is_same_object
    })
}

fn check_effect(lab: &Lab, path: &std::path::Path) {
    let effect = Effect::read(path);
    let name = path.file_stem().unwrap().to_string_lossy();
    assert!(effect.inspect.starts_with(&*name), "{name}: the file expects another finding: {}", effect.inspect);
    if let Some(part) = &effect.rejected {
        let error = Scenario::dry_run_rejection(lab, &effect.yaml);
        assert!(error.contains(part), "{name}: unexpected error of the API server: {error}");
        assert!(
            reports_finding(lab, &effect.inspect, &["-A", "-f", path.to_str().unwrap()]),
            "{name}: inspect -f does not report {}",
            effect.inspect
        );
        return;
    }
    let _objects = Scenario::apply(lab, &effect.yaml);
    assert!(reports_finding(lab, &effect.inspect, &["-A"]), "{name}: inspect does not report {}", effect.inspect);
    for calls in &effect.calls {
        check_calls(lab, &name, calls);
    }
}

fn check_calls(lab: &Lab, name: &str, calls: &ExpectedCalls) {
    let mut arguments = calls.command.split_whitespace();
    let caller = find_caller(lab, arguments.next().unwrap());
    let arguments: Vec<String> = arguments.map(|argument| resolve_address(lab, argument)).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_expected = |results: &[CallResult]| {
        let codes: BTreeSet<i32> = results.iter().map(|result| result.code).collect();
        if calls.any_code { codes.is_subset(&calls.codes) && !codes.is_empty() } else { codes == calls.codes }
    };
    let mut mark = caller.log_position();
    let mut results = caller.call(&arguments);
    if !is_expected(&results) {
        // Connections from before a change keep the old policies of the server until Envoy has drained them.
        std::thread::sleep(Duration::from_secs(3));
        mark = caller.log_position();
        results = caller.call(&arguments);
    }
    assert!(is_expected(&results), "{name}: expected status codes {:?}, got {results:#?}", calls.codes);
    if let Some(count) = calls.servers {
        let servers: BTreeSet<_> = results.iter().map(|result| &result.server).collect();
        assert_eq!(servers.len(), count, "{name}: answered by {servers:?}");
    }
    match calls.flags.as_deref() {
        None => {}
        Some("none") => assert!(caller.log_since(mark, 1).is_empty(), "{name}: the caller's proxy logged the calls"),
        Some(flags) => {
            let lines = caller.log_since(mark, results.len());
            let has_flag =
                |line: &String| line.split(' ').nth(5).is_some_and(|field| field.split(',').any(|flag| flag == flags));
            assert!(
                lines.len() >= results.len() && lines.iter().all(has_flag),
                "{name}: flag {flags} is missing in {lines:#?}"
            );
        }
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn every_effect_file_is_reproduced_by_real_calls() {
    let lab = Lab::connect();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/effects");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|suffix| suffix == "yaml"));
    files.sort();
    assert!(files.len() >= 45);
    #[expect(clippy::disallowed_methods, reason = "test configuration, not part of the program")]
    if let Ok(selected) = std::env::var("EFFECTS") {
        files.retain(|path| selected.split(',').any(|code| path.file_stem().is_some_and(|stem| stem == code)));
    }
    let mut failed = Vec::new();
    for path in &files {
        let result = std::panic::catch_unwind(|| check_effect(&lab, path));
        if let Err(cause) = result {
            let text = cause.downcast_ref::<String>().cloned().unwrap_or_else(|| format!("{cause:?}"));
            failed.push(format!("{}: {text}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{} of {} effects failed:\n{}", failed.len(), files.len(), failed.join("\n"));
}
