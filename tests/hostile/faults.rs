//! One test for each kind of fault that attacks on the program found.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use super::contract::{assert_contract, run, steers, wait};
use super::support::TestEnv;

/// Runs the program on a file, and returns stdout and stderr together.
#[track_caller]
fn examine(before: &[&str], content: impl AsRef<[u8]>, after: &[&str]) -> String {
    let env = TestEnv::new();
    let file = env.write("input.yaml", content);
    let ended = run(&mut env.command(&[before, &[&file], after].concat()));
    assert_contract(&ended, false, &before.join(" "));
    String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap()
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: s0, namespace: n0}\nspec: {ports: [{name: grpc, port: 50051}]}\n---\n";

#[test]
fn keys_that_are_not_ascii_do_not_panic() {
    for key in ["ключ", "名", "é", "\u{1f980}", "\u{10ffff}"] {
        let text = format!(
            "{SERVICE}apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: n0}}\nspec:\n  {key}: 1\n  hosts: [s0]\n  http:\n  - {key}: 1\n    route:\n    - {key}: 1\n      destination:\n        {key}: 2\n        host: missing\n"
        );
        assert!(examine(&["inspect", "--from"], &text, &[]).contains("missing"));
        examine(&["shift", "vs/v.n0", "--to", "missing=100", "--edit"], &text, &[]);
        examine(&["inspect", "-o", "json", "--from"], format!("{key}: 1\n"), &["--keep-going"]);
    }
}

#[test]
fn a_backend_that_is_no_mapping_does_not_panic() {
    for backend in ["text", "[a]", "3", "null", "~", "{}"] {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: n0}}\nspec: {{hosts: [s0], http: [{{route: [{{destination: {{host: s0}}, weight: 100}}, {backend}]}}]}}\n"
        );
        examine(&["shift", "vs/v.n0", "--to", "s0=50", "--edit"], &text, &[]);
        examine(&["shift", "vs/v.n0", "--to", "s0=0", "--edit"], &text, &[]);
    }
}

#[test]
fn deep_nesting_is_an_error() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("{\"a\":", "}"), ("&a [", "]")] {
        for depth in [200, 100_000] {
            let text = format!(
                "{SERVICE}apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {}1{}\n",
                open.repeat(depth),
                close.repeat(depth)
            );
            examine(&["inspect", "--from"], &text, &[]);
            let json = format!(
                "{{\"kind\":\"Snapshot\",\"version\":1,\"source\":\"cluster\",\"objects\":[{}1{}]}}",
                "[".repeat(depth),
                "]".repeat(depth)
            );
            examine(&["inspect", "--from"], &json, &[]);
        }
    }
    let text = TestEnv::new();
    let log = text.write("x.log", "x\n");
    for expression in [vec!["true"; 8_000].join(" && "), "(".repeat(10_000), "!".repeat(10_000), "a.".repeat(10_000)] {
        let ended = run(&mut text.command(&["tail", "--logs", &log, "--where", &expression]));
        assert_eq!(ended.code, Some(2));
        assert_contract(&ended, false, "--where");
    }
}

#[test]
fn compressed_bombs_name_the_flag_that_raises_the_limit() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..600 {
        encoder.write_all(&vec![b'\n'; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let text = examine(&["inspect", "--from"], &bomb, &[]);
    assert!(text.contains("larger than 512 MiB") && text.contains("--max-source-size"), "{text}");
    assert!(examine(&["inspect", "--from"], &bomb, &["--max-source-size", "1Mi"]).contains("larger than 1 MiB"));
}

#[test]
fn nothing_steers_a_terminal() {
    for c in ['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}', '\u{2066}', '\u{61c}', '\u{85}'] {
        let name = format!("a{c}b").escape_unicode().to_string().replace("\\u{", "\\U").replace('}', "");
        // YAML writes a character as \U and eight digits.
        let name: String =
            name.split("\\U").filter(|part| !part.is_empty()).map(|digits| format!("\\U{digits:0>8}")).collect();
        let text = format!(
            "{SERVICE}apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: \"{name}\", namespace: n0}}\nspec: {{hosts: [s0], \"{name}\": \"{name}\", http: [{{name: \"{name}\", route: [{{destination: {{host: \"{name}\"}}}}]}}]}}\n"
        );
        for output in ["text", "json", "yaml", "table", "wide"] {
            examine(&["inspect", "-o", output, "--from"], &text, &[]);
        }
        for arguments in [
            &["snapshot", "-o", "-", "--from"][..],
            &["route", "s0.n0:50051", "/a", "-o", "yaml", "--from"],
            &["diff", "-o", "yaml", "--from", "demo", "-f"],
        ] {
            examine(arguments, &text, &[]);
        }
        // Messages of the argument parser quote what was typed.
        let (raw, env) = (format!("x{c}y"), TestEnv::new());
        for arguments in [
            &["inspect", &raw][..],
            &[&raw],
            &["inspect", "-o", &raw],
            &[&format!("--{raw}")],
            &["tail", "--since", &raw],
            &["explain", &raw],
        ] {
            let ended = run(&mut env.command(arguments));
            assert_contract(&ended, false, &format!("{arguments:?}"));
        }
        let candidates = run(&mut env.command(&["__complete", "inspect", "--from", &raw]));
        assert!(!String::from_utf8_lossy(&candidates.stdout).contains(steers));
    }
}

#[test]
fn snapshots_hold_no_tokens() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    defaultConfig: {tracing: {lightstep: {accessToken: CANARY}}, proxyMetadata: {A: CANARY}}\n    extensionProviders: [{name: x, zipkin: {service: CANARY}}]\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: d, annotations: {proxy.istio.io/config: '{tracing: {lightstep: {accessToken: CANARY}}}', proxy.istio.io/overrides: CANARY}}\nspec: {containers: [{name: a, env: [{name: A, value: CANARY}], args: [CANARY]}]}\n---\n\
        apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: p, namespace: d}\nspec: {template: {metadata: {annotations: {proxy.istio.io/config: CANARY}}, spec: {containers: [{name: a, env: [{name: A, value: CANARY}]}]}}}\n---\n\
        apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: c, namespace: d, annotations: {api-token: CANARY}}\nspec: {environmentVariables: {ANY: CANARY}}\n---\n\
        apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: d}\nspec: {hosts: [a], http: [{headers: {request: {set: {authorization: Bearer CANARY}}}, route: [{destination: {host: a}}]}]}\n";
    let written = examine(&["snapshot", "-o", "-", "--from"], text, &[]);
    assert!(written.contains("ProxyConfig") && !written.contains("CANARY"), "{written}");
}

#[test]
fn redaction_covers_gaps_annotations_and_addresses() {
    let text = format!(
        "{}apiVersion: v1\nkind: Pod\nmetadata: {{name: zqpod, namespace: zqns}}\nspec: {{containers: zqvalue}}\n---\nkind: zqkind\n---\nzqtext\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: zqname, namespace: zqns, annotations: {grpcmesh.io/ignore: 'GM203 as zqalice@zqcorp.com decided', a: 203.0.113.77.nip.io}}\nspec: {externalName: ip-203-0-113-79.zq.example, ports: [{port: 80}]}\n---\n"
    );
    let env = TestEnv::new();
    let (file, out) = (env.write("zqfile.yaml", text), env.path("redacted.json"));
    let ended = run(&mut env.command(&["snapshot", "--keep-going", "--redact", "--from", &file, "-o", &out]));
    assert_contract(&ended, false, "--redact");
    let written = std::fs::read_to_string(out).unwrap();
    assert!(!written.contains("zq") && !written.contains("203"), "{written}");
    assert!(written.contains("\"gaps\":[{"), "{written}");
}

#[test]
fn files_are_replaced_as_a_whole() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    let env = TestEnv::new();
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: n0}\nspec: {hosts: [s0], http: [{route: [{destination: {host: s0, subset: v1}, weight: 90}, {destination: {host: s0, subset: v2}, weight: 10}]}]}\n";
    let (file, link) = (env.write("file.yaml", text), env.path("link.yaml"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).unwrap();
    symlink("file.yaml", &link).unwrap();
    let ended = run(&mut env.command(&["shift", "vs/v.n0", "--to", "v2=50", "--edit", &link]));
    assert_eq!(ended.code, Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(std::fs::read_to_string(&file).unwrap().contains("weight: 50"));
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o646);
    assert!(std::path::Path::new(&link).is_symlink());
    let dangling = env.path("dangling.json");
    symlink("target.json", &dangling).unwrap();
    let ended = run(&mut env.command(&["snapshot", "--from", "demo", "-o", &dangling]));
    assert_eq!(ended.code, Some(0));
    assert!(std::path::Path::new(&dangling).is_symlink());
    assert_eq!(std::fs::metadata(env.path("target.json")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_interrupt_ends_waiting_and_computing() {
    let env = TestEnv::new();
    let large = env.write(
        "large.yaml",
        super::shapes::SHAPES
            .iter()
            .find(|shape| shape.name == "EnvoyFilters")
            .map(|shape| (shape.generate)(20_000))
            .unwrap(),
    );
    for arguments in [
        &["inspect", "--from", "-"][..],
        &["route", "a", "/b", "--from", "-"],
        &["tail", "--logs", "-"],
        &["inspect", "--from", &large],
    ] {
        let mut child =
            env.command(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(signal.success(), "{arguments:?} ended before the interrupt");
        assert_eq!(wait(&mut child, Duration::from_secs(10)), Some(130), "{arguments:?}");
    }
}
