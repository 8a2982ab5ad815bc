//! Each finding whose effect a client can see, seen: `effects/CODE.yaml` holds the objects and what happens.
//!
//! Comments at the head of a file say it: `inspect:` the finding, `calls:` who calls what, then `code:` the gRPC status
//! of every call, `flags:` what the caller's access log shows (`none`: no line at all), `servers:` how many pods answered;
//! or `refused:` a part of what the API server says when it is asked to store the objects.

use crate::support::{Lab, Pod, Scenario};

struct Effect {
    yaml: String,
    lines: Vec<(String, String)>,
}

impl Effect {
    fn read(path: &std::path::Path) -> Self {
        let yaml = std::fs::read_to_string(path).unwrap();
        let comments = yaml.lines().map_while(|line| line.strip_prefix("# "));
        let lines = comments.filter_map(|line| line.split_once(": "));
        let known = ["inspect", "calls", "code", "flags", "servers", "refused"];
        let lines = lines.filter(|(key, _)| known.contains(key)).map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self { lines: lines.collect(), yaml }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
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
        finding["code"] == code && format!("{} {}/{}", part("kind"), part("namespace"), part("name")) == object
    })
}

fn check(lab: &Lab, path: &std::path::Path) {
    let effect = Effect::read(path);
    let name = path.file_stem().unwrap().to_string_lossy();
    let wanted = effect.get("inspect").unwrap();
    assert!(wanted.starts_with(&*name), "{name}: names another finding: {wanted}");
    if let Some(part) = effect.get("refused") {
        let answer = Scenario::refused(lab, &effect.yaml);
        assert!(answer.contains(part), "{name}: the server says: {answer}");
        assert!(found(lab, wanted, &["-A", "-f", path.to_str().unwrap()]), "{name}: not found by inspect -f");
        return;
    }
    let _objects = Scenario::apply(lab, &effect.yaml);
    assert!(found(lab, wanted, &["-A"]), "{name}: {wanted} is not found in the cluster");
    let mut words = effect.get("calls").unwrap().split_whitespace();
    let caller = caller(lab, words.next().unwrap());
    let words: Vec<String> = words.map(|word| resolve(lab, word)).collect();
    let mark = caller.log_mark();
    let seen = caller.call(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let code: i32 = effect.get("code").map_or(0, |code| code.parse().unwrap());
    assert!(!seen.is_empty() && seen.iter().all(|one| one.code == code), "{name}: the client saw {seen:?}");
    if let Some(count) = effect.get("servers") {
        let mut servers: Vec<_> = seen.iter().map(|one| &one.server).collect();
        servers.sort();
        servers.dedup();
        assert_eq!(servers.len().to_string(), count, "{name}: {servers:?}");
    }
    match effect.get("flags") {
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
    assert!(files.len() >= 15);
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
