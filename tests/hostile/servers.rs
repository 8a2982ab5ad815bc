//! API servers that stall, lie, redirect, send bombs or cut their answers, and credential plugins that fail.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::contract::{Ended, assert_contract, run};
use super::support::TestEnv;

/// Starts a server that answers each request on a connection of its own. Returns its URL.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), answer) = (stream, std::sync::Arc::clone(&answer)) else { continue };
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(length) => request.extend_from_slice(&buffer[..length]),
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                answer(&path, &mut stream);
            });
        }
    });
    url
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn stall() {
    std::thread::sleep(Duration::from_mins(2));
}

/// The commands that read a cluster.
const COMMANDS: [&[&str]; 7] = [
    &["inspect", "-o", "json"],
    &["doctor", "-o", "json"],
    &["tail", "checkout"],
    &["snapshot", "-o", "-"],
    &["version", "-o", "json"],
    &["route", "checkout:50051", "/a.B/C"],
    &["balance", "checkout", "--for", "1s"],
];

fn run_on(url: &str, arguments: &[&str]) -> Ended {
    let ended = run(&mut TestEnv::new().command(&[arguments, &["--server", url, "--request-timeout", "1s"]].concat()));
    let is_json = arguments.contains(&"json") || arguments.contains(&"-");
    assert_contract(&ended, is_json, &format!("{arguments:?} on {url}"));
    assert_ne!(ended.code, Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stdout));
    ended
}

/// Longest time of a command for which every request may take a second, on a busy machine.
const FEW_TIMEOUTS: Duration = Duration::from_secs(8);

#[test]
fn a_server_that_never_answers_costs_one_timeout() {
    let url = serve(|_, _| stall());
    for arguments in COMMANDS {
        let ended = run_on(&url, arguments);
        assert!(ended.time < Duration::from_secs(5), "{arguments:?}: {:?}", ended.time);
    }
}

#[test]
fn a_server_that_stops_answering_costs_few_timeouts() {
    let url = serve(|path, stream| match path {
        "/version" => respond(stream, "200 OK", "", br#"{"gitVersion": "v1.36.0"}"#),
        "/apis" => respond(stream, "200 OK", "", br#"{"groups": []}"#),
        _ => stall(),
    });
    for arguments in COMMANDS {
        let ended = run_on(&url, arguments);
        assert!(ended.time < FEW_TIMEOUTS, "{arguments:?}: {:?}", ended.time);
    }
}

#[test]
fn answers_of_any_form_are_errors() {
    let answers: [(&str, &str, &[u8]); 9] = [
        ("200 OK", "", b"[]"),
        ("200 OK", "", b"{\"gitVersion\": 3}"),
        ("200 OK", "", b"\x1b]0;title\x07\xff"),
        ("200 OK", "", "{\"gitVersion\": \"\u{202e}v\u{9b}1\", \"groups\": [], \"items\": [[]]}".as_bytes()),
        ("403 Forbidden", "", "{\"message\": \"\u{1b}[2J no \u{202e}\", \"reason\": \"Forbidden\"}".as_bytes()),
        ("301 Moved", "Location: http://127.0.0.1:1/\r\n", b""),
        ("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b\x08broken"),
        ("500 Oops", "", b"<html>\x1b[31m"),
        ("418 \u{9b}", "", b"{}"),
    ];
    for (status, headers, body) in answers {
        let url = serve(move |_, stream| respond(stream, status, headers, body));
        for arguments in &COMMANDS[..4] {
            run_on(&url, arguments);
        }
    }
}

#[test]
fn answers_that_are_cut_or_endless_are_errors() {
    let cut = serve(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"git");
    });
    let endless = serve(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..600 {
        encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let body = encoder.finish().unwrap();
    let bomb = serve(move |_, stream| respond(stream, "200 OK", "Content-Encoding: gzip\r\n", &body));
    for url in [cut, endless, bomb] {
        for arguments in &COMMANDS[..2] {
            let ended = run_on(&url, arguments);
            assert!(ended.time < Duration::from_secs(30), "{arguments:?}: {:?}", ended.time);
        }
    }
}

/// A server with `/version`, no API groups and empty lists.
fn respond_empty(path: &str, stream: &mut TcpStream) {
    match path {
        "/version" => respond(stream, "200 OK", "", br#"{"gitVersion": "v1.36.0"}"#),
        "/apis" => respond(stream, "200 OK", "", br#"{"groups": []}"#),
        _ => respond(stream, "200 OK", "", br#"{"items": []}"#),
    }
}

#[test]
fn a_dry_run_without_answer_costs_the_request_timeout() {
    let stored = br#"{"items": [{"metadata": {"name": "b", "namespace": "default"}, "spec": {}}]}"#;
    let url = serve(|path, stream| match path {
        path if path.contains("dryRun=All") => stall(),
        path if path.starts_with("/api/v1/services") => respond(stream, "200 OK", "", stored),
        path => respond_empty(path, stream),
    });
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\nspec: {ports: [{port: 1}]}\n";
    let env = TestEnv::new();
    let file = env.write("a.yaml", service);
    let ended = run(&mut env.command(&["diff", "-f", &file, "--server", &url, "--request-timeout", "1s"]));
    assert_contract(&ended, false, "diff");
    let printed = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(printed.contains("within 1 s"), "{printed}");
    assert!(ended.time < FEW_TIMEOUTS, "{:?}", ended.time);
}

#[test]
fn snapshot_and_version_accept_an_empty_namespace_of_the_context() {
    let url = serve(respond_empty);
    for arguments in [&["snapshot", "-o", "-"][..], &["version"]] {
        let ended = run(&mut TestEnv::new().command(&[arguments, &["--server", &url]].concat()));
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        let named = run(&mut TestEnv::new().command(&[arguments, &["--server", &url, "-n", "missing"]].concat()));
        assert_eq!(named.code, Some(3), "{arguments:?}");
    }
}

#[test]
fn a_list_without_end_is_a_gap() {
    let url = serve(|path, stream| match path {
        "/version" => respond(stream, "200 OK", "", br#"{"gitVersion": "v1.36.0"}"#),
        "/apis" => respond(stream, "200 OK", "", br#"{"groups": []}"#),
        path if path.starts_with("/api/v1/services") => {
            respond(stream, "200 OK", "", br#"{"metadata": {"continue": "again"}, "items": []}"#);
        }
        _ => respond(stream, "200 OK", "", br#"{"items": []}"#),
    });
    let ended = run_on(&url, &["snapshot", "-A", "-o", "-"]);
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.code, Some(4));
    assert!(text.contains("the server repeats a continue token"), "{text}");
}

#[test]
fn credentials_never_reach_a_message() {
    let env = TestEnv::new();
    let plugin = |script: &str, timeout: &str| {
        let script = env.write("plugin.sh", format!("#!/bin/sh\n{script}\n"));
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             clusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:1'}}}}]\n\
             users: [{{name: a, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: ['{script}', CANARY-ARGUMENT], \
             env: [{{name: SECRET, value: CANARY-VALUE}}], interactiveMode: IfAvailable}}}}}}]\n"
        );
        let config = env.write("config", config);
        let arguments = ["inspect", "--kubeconfig", &config, "--request-timeout", timeout];
        let ended = run(&mut env.command(&arguments));
        assert_contract(&ended, false, script.as_str());
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert!(!stderr.contains("CANARY"), "{stderr}");
        assert!(ended.time < FEW_TIMEOUTS, "{:?}", ended.time);
        stderr
    };
    assert!(
        plugin("echo CANARY-OUTPUT; echo CANARY-ERROR >&2; exit 1", "10s").contains("it failed with exit status: 1")
    );
    assert!(plugin("printf '%s' '{\"status\": {\"token\": \"CANARY\\nCANARY\"}}'", "10s").contains("line break"));
    assert!(plugin("echo CANARY-OUTPUT", "10s").contains("not an ExecCredential"));
    assert!(plugin("sleep 20", "1s").contains("it did not end within 1 s"));
    let token = run(&mut env.command(&["inspect", "--server", "http://127.0.0.1:1", "--token", "CANARY\nCANARY"]));
    let stderr = String::from_utf8_lossy(&token.stderr).into_owned();
    assert!(stderr.contains("cannot use the token") && !stderr.contains("CANARY"), "{stderr}");
    let server = run(&mut env.command(&["inspect", "--server", "http://user:CANARY@127.0.0.1:1"]));
    assert!(!String::from_utf8_lossy(&server.stderr).contains("CANARY"));
}
