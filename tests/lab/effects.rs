//! Each finding whose effect a client can see, seen: `effects/CODE.yaml` holds the objects and what happens.
//!
//! Comments at the head of a file say it: `inspect:` the finding (a `*` ends a name that a controller made), then once or
//! more often `calls:` who calls what, with `code:` the gRPC statuses of the calls (`0 14` is both, `4|14` is either), `flags:` what the caller's access log
//! shows (`none`: no line at all) and `servers:` how many pods answered; or `refused:` a part of what the API server says
//! when it is asked to store the objects.
//!
//! `EFFECTS=GM107,GM111` looks at these files only.

use std::collections::BTreeSet;

use crate::support::{Lab, Pod, Scenario};

struct Effect {
    yaml: String,
    inspect: String,
    refused: Option<String>,
    calls: Vec<Calls>,
}

/// Calls of one caller, and what becomes of them.
#[derive(Default)]
struct Calls {
    words: String,
    codes: BTreeSet<i32>,
    /// Whether each of the codes may be missing.
    either: bool,
    flags: Option<String>,
    servers: Option<usize>,
}

impl Effect {
    fn read(path: &std::path::Path) -> Self {
        let yaml = std::fs::read_to_string(path).unwrap();
        let mut effect = Self { inspect: String::new(), refused: None, calls: Vec::new(), yaml: String::new() };
        let comments = yaml.lines().map_while(|line| line.strip_prefix("# "));
        for (key, value) in comments.filter_map(|line| line.split_once(": ")) {
            let calls = effect.calls.last_mut();
            match (key, calls) {
                ("inspect", _) => value.clone_into(&mut effect.inspect),
                ("refused", _) => effect.refused = Some(value.to_owned()),
                ("calls", _) => effect.calls.push(Calls { words: value.to_owned(), ..Calls::default() }),
                ("code", Some(calls)) => {
                    calls.either = value.contains('|');
                    calls.codes = value.split([' ', '|']).map(|code| code.parse().unwrap()).collect();
                }
                ("flags", Some(calls)) => calls.flags = Some(value.to_owned()),
                ("servers", Some(calls)) => calls.servers = Some(value.parse().unwrap()),
                _ => {}
            }
        }
        // Without a word, calls are answered.
        effect.calls.iter_mut().filter(|calls| calls.codes.is_empty()).for_each(|calls| calls.codes.extend([0]));
        assert!(effect.refused.is_some() || !effect.calls.is_empty());
        Self { yaml, ..effect }
    }
}

/// Who calls: a namespace's client, the pod without a sidecar, or a pod of the effect.
fn caller(lab: &Lab, word: &str) -> Pod {
    match word.strip_prefix("pod:").and_then(|name| name.split_once('/')) {
        Some((namespace, name)) => {
            let pods = lab.pods(namespace, &format!("app={name}"));
            pods.into_iter().next().unwrap_or_else(|| panic!("no pod {word}"))
        }
        None if word == "outside" => lab.pod("legacy", "app=outside"),
        None => lab.client(word),
    }
}

/// Addresses that are known only when the lab runs.
fn resolve(lab: &Lab, word: &str) -> String {
    let ip = |namespace: &str, labels: &str| {
        lab.kubectl(&["get", "pods", "-n", namespace, "-l", labels, "-o", "jsonpath={.items[0].status.podIP}"])
    };
    if let Some(rest) = word.strip_prefix("INGRESS") {
        return ip("web", "istio=ingress") + rest;
    }
    match word.strip_prefix("POD:").and_then(|rest| rest.split_once(':')) {
        Some((app, port)) => format!("{}:{port}", ip("shop", &format!("app={app}"))),
        None => word.to_owned(),
    }
}

fn found(lab: &Lab, wanted: &str, arguments: &[&str]) -> bool {
    let (code, object) = wanted.split_once(' ').unwrap();
    let report = lab.inspect(arguments);
    report["findings"].as_array().unwrap().iter().any(|finding| {
        let part = |name: &str| finding["object"][name].as_str().unwrap().to_owned();
        let title = format!("{} {}/{}", part("kind"), part("namespace"), part("name"));
        let same = object.strip_suffix('*').map_or(title == object, |start| title.starts_with(start));
        finding["code"] == code && same
    })
}

fn check(lab: &Lab, path: &std::path::Path) {
    let effect = Effect::read(path);
    let name = path.file_stem().unwrap().to_string_lossy();
    assert!(effect.inspect.starts_with(&*name), "{name}: names another finding: {}", effect.inspect);
    if let Some(part) = &effect.refused {
        let answer = Scenario::refused(lab, &effect.yaml);
        assert!(answer.contains(part), "{name}: the server says: {answer}");
        assert!(found(lab, &effect.inspect, &["-A", "-f", path.to_str().unwrap()]), "{name}: not found by inspect -f");
        return;
    }
    let _objects = Scenario::apply(lab, &effect.yaml);
    assert!(found(lab, &effect.inspect, &["-A"]), "{name}: {} is not found in the cluster", effect.inspect);
    for calls in &effect.calls {
        check_calls(lab, &name, calls);
    }
}

fn check_calls(lab: &Lab, name: &str, calls: &Calls) {
    let mut words = calls.words.split_whitespace();
    let caller = caller(lab, words.next().unwrap());
    let words: Vec<String> = words.map(|word| resolve(lab, word)).collect();
    let mark = caller.log_mark();
    let seen = caller.call(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let codes: BTreeSet<i32> = seen.iter().map(|one| one.code).collect();
    let fits = if calls.either { codes.is_subset(&calls.codes) && !codes.is_empty() } else { codes == calls.codes };
    assert!(fits, "{name}: not {:?}: the client saw {seen:#?}", calls.codes);
    if let Some(count) = calls.servers {
        let servers: BTreeSet<_> = seen.iter().map(|one| &one.server).collect();
        assert_eq!(servers.len(), count, "{name}: {servers:?}");
    }
    match calls.flags.as_deref() {
        None => {}
        Some("none") => assert!(caller.log_since(mark, 1).is_empty(), "{name}: the proxy saw the calls"),
        Some(flags) => {
            let lines = caller.log_since(mark, seen.len());
            let has =
                |line: &String| line.split(' ').nth(5).is_some_and(|field| field.split(',').any(|flag| flag == flags));
            assert!(lines.len() >= seen.len() && lines.iter().all(has), "{name}: no {flags} in {lines:#?}");
        }
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn every_effect_is_as_its_file_says() {
    let lab = Lab::connect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/effects");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|suffix| suffix == "yaml"));
    files.sort();
    assert!(files.len() >= 45);
    #[expect(clippy::disallowed_methods, reason = "no part of the program")]
    if let Ok(wanted) = std::env::var("EFFECTS") {
        files.retain(|path| wanted.split(',').any(|code| path.file_stem().is_some_and(|stem| stem == code)));
    }
    let mut failed = Vec::new();
    for path in &files {
        let result = std::panic::catch_unwind(|| check(&lab, path));
        if let Err(cause) = result {
            let text = cause.downcast_ref::<String>().cloned().unwrap_or_else(|| format!("{cause:?}"));
            failed.push(format!("{}: {text}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{} of {} differ:\n{}", failed.len(), files.len(), failed.join("\n"));
}
