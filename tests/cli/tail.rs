//! `tail` of saved logs.

use super::support::{Run, TestEnv};
use super::{ACCESS_LOG, assert_rejected, assert_run, run};

const TWO_HOPS: &str = "tests/fixtures/accesslog/two-hop-text.log";

#[test]
fn decodes_saved_logs_in_every_format() {
    assert_run("tail-text", &format!("tail --logs {ACCESS_LOG} --flag UH"));
    assert_run("tail-wide", &format!("tail --logs {ACCESS_LOG} --flag UF"));
    assert_run("tail-json", &format!("tail --logs {ACCESS_LOG} --flag UH -o json"));
    assert_run("tail-csv", &format!("tail --logs {ACCESS_LOG} --grpc-status UNAVAILABLE -o csv"));
}

#[test]
fn summarizes_saved_logs_in_every_format() {
    assert_run("tail-summary-text", &format!("tail --logs {ACCESS_LOG} --summary"));
    assert_run("tail-summary-json", &format!("tail --logs {ACCESS_LOG} --summary -o json"));
    assert_eq!(run(&format!("tail --logs {ACCESS_LOG} --summary --fail-on 1%")).code(), 1);
    assert_eq!(run("tail --logs tests/fixtures/accesslog --summary -o json").json()["kind"], "TailSummary");
}

#[test]
fn joins_both_sides_of_a_call() {
    assert_run("tail-join-text", &format!("tail --logs {TWO_HOPS} --join --all"));
    assert_run("tail-join-json", &format!("tail --logs {TWO_HOPS} --join --all -o json"));
}

#[test]
fn filters_with_expressions() {
    let filter = "http_status >= 500 && grpc_status == 14";
    assert_run("tail-where", &format!("tail --logs {ACCESS_LOG} --where '{filter}' -o json"));
    // Long names of flags select the same calls as codes.
    let count = |flag: &str| run(&format!("tail --logs {ACCESS_LOG} --flag {flag} --summary -o json")).stdout;
    assert_eq!(count("UF"), count("UpstreamConnectionFailure"));
    assert_ne!(count("UF"), count("UH"));
}

#[test]
fn rejects_invalid_filters_and_files() {
    assert_rejected(
        "tail-rejected",
        &[
            "tail --logs /nonexistent",
            &format!("tail --logs {ACCESS_LOG} --log-format nope"),
            &format!("tail --logs {ACCESS_LOG} --grpc-status 99"),
            &format!("tail --logs {ACCESS_LOG} --where 'duration_ms >'"),
            &format!("tail --logs {ACCESS_LOG} --top"),
            &format!("tail --logs {TWO_HOPS} --join -o csv"),
            "tail --logs src/demo/routes.yaml --fail-on 1%",
        ],
    );
    assert_run("tail-no-access-log", "tail --logs src/demo/routes.yaml");
}

/// The number of calls that an output states: `264 calls` for people, `"calls": 264` in JSON.
fn largest_number_of_calls(run: &Run) -> u64 {
    let output = run.stdout.clone() + &run.stderr;
    let words: Vec<&str> = output.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let numbers = words.windows(2).filter_map(|pair| match pair {
        [number, "calls"] | ["calls", number] => number.parse::<u64>().ok(),
        _ => None,
    });
    numbers.max().unwrap_or_default()
}

#[test]
fn reads_a_damaged_log_as_far_as_possible_and_the_others_whole() {
    let env = TestEnv::new();
    let log = std::fs::read(ACCESS_LOG).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, &log).unwrap();
    let packed = packed.finish().unwrap();
    let damaged = env.write("a.log.gz", &packed[..packed.len() / 2]);
    let only_damaged = env.run(&["tail", "--logs", &damaged, "--summary"]);
    assert_eq!(only_damaged.code(), 4);
    insta::assert_snapshot!("tail-damaged", only_damaged.stderr);

    env.write("b.log", &log);
    let folder = env.path("");
    for rest in [&["--summary"][..], &["--all"], &["--summary", "-o", "json"]] {
        let run = env.run(&[&["tail", "--logs", &folder], rest].concat());
        assert_eq!(run.code(), 4, "{run}");
        // The whole log alone has 224 calls.
        let calls = largest_number_of_calls(&run);
        assert!(calls > 224 && calls < 448, "{calls}: {run}");
    }

    env.write("a.log.gz", [0x1f, 0x8b, 8, 0]);
    let unreadable = env.run(&["tail", "--logs", &damaged, "--summary"]);
    assert_eq!(unreadable.code(), 3);
    insta::assert_snapshot!("tail-unreadable", unreadable);
}

#[test]
fn an_error_ratio_counts_only_the_selected_time() {
    let env = TestEnv::new();
    let line = |time: &str, flags: &str| {
        format!(
            "[2026-11-21T{time}.000Z] \"POST /a.B/C HTTP/2\" 200 {flags} via_upstream - \"-\" 1 9 3 1 \"-\" \"grpc-go/1\" \"id\" \
             \"echo:80\" \"10.0.0.1:80\" outbound|80||echo - 10.0.0.3:80 10.0.0.4:5 - default\n"
        )
    };
    let log = env.write("a.log", line("09:00:00", "-").repeat(99) + &line("10:00:00", "UH"));
    let mut all = String::new();
    for (rest, code) in [
        (&["--fail-on", "50%"][..], 0),
        (&["--since-time", "2026-11-21T09:30:00Z", "--fail-on", "50%"], 1),
        (&["--since-time", "2026-11-21T11:00:00Z", "--fail-on", "50%"], 3),
        (&["--grpc-status", "5"], 0),
        (&["--exclude", "x"], 2),
        (&["--name", "shop/echo", "-n", "web"], 3),
        (&["--name", "shop/echo", "-n", "shop"], 0),
    ] {
        let run = env.run(&[&["tail", "--logs", &log], rest].concat());
        assert_eq!(run.code(), code, "{run}");
        all += &format!("{run}\n");
    }
    insta::assert_snapshot!("tail-selected-time", all);
    let csv = env.run(&["tail", "--logs", &log, "--where", "duration_ms == 3", "-o", "csv", "--no-headers"]);
    assert!(csv.stdout.starts_with("2026-11-21T09:00:00.000Z,"), "{csv}");
}

#[test]
fn byte_order_marks_cost_no_line_and_utf_16_is_converted() {
    let env = TestEnv::new();
    let log = std::fs::read(ACCESS_LOG).unwrap();
    let marked = env.write("marked.log", [b"\xef\xbb\xbf", &log[..]].concat());
    assert_eq!(largest_number_of_calls(&env.run(&["tail", "--logs", &marked])), 224);
    let utf_16: Vec<u8> = log.iter().flat_map(|byte| [*byte, 0]).collect();
    let utf_16 = env.write("utf-16.log", [b"\xff\xfe", &utf_16[..]].concat());
    let plain = env.write("plain.log", &log);
    let calls = |path: &str| env.run(&["tail", "--logs", path, "--name", "echo", "-o", "json"]).stdout;
    assert!(calls(&utf_16).contains("no_healthy_upstream"));
    assert_eq!(calls(&utf_16).replace("\u{fffd}", ""), calls(&plain).replace("\u{fffd}", ""));
}

#[test]
fn states_what_a_custom_format_cannot_tell() {
    let env = TestEnv::new();
    let log = env.write("custom.log", "[21/Nov/2026] 503 UH\n");
    let format = "[%START_TIME(%d/%b/%Y)%] %RESPONSE_CODE% %RESPONSE_FLAGS%";
    let since = ["tail", "--logs", &log, "--log-format", format, "--since-time", "2026-11-21T00:00:00Z"];
    insta::assert_snapshot!("tail-format-without-time", env.run(&since));
    let other = ["tail", "--logs", &log, "--log-format", "%RESPONSE_CODE% %DURATION%"];
    insta::assert_snapshot!("tail-format-mismatch", env.run(&other));
}

/// Flags, pod and namespace of each call in a log.
fn calls_of(path: &str) -> Vec<serde_json::Value> {
    let run = run(&format!("tail --logs {path} --all -o json"));
    assert_eq!(run.code(), 0, "{path}: {run}");
    run.json_lines()
}

fn paths_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    let mut paths: Vec<String> = entries.collect();
    paths.sort();
    paths
}

#[test]
fn reads_the_same_calls_from_the_records_of_every_collector() {
    let folder = "tests/fixtures/accesslog-wrapped";
    // All that the pod that wrote the line does not change.
    let call =
        |call: &serde_json::Value| ["time", "flags", "method", "details", "request_id"].map(|key| call[key].clone());
    let plain: Vec<_> = calls_of(&format!("{folder}/plain.log")).iter().map(call).collect();
    assert_eq!(plain.len(), 3);
    let mut names = String::new();
    for path in paths_in(folder) {
        let calls = calls_of(&path);
        let found: Vec<_> = calls.iter().map(call).collect();
        let file = path.rsplit('/').next().unwrap();
        assert_eq!(found, if file.starts_with("json-") { &plain[1..2] } else { &plain[..] }, "{path}");
        let text = |key: &str| calls[0][key].as_str().unwrap_or("-").to_owned();
        names += &format!("{file}: {}/{} {}\n", text("namespace"), text("pod"), text("container"));
    }
    insta::assert_snapshot!("tail-wrapped-names", names);
}

#[test]
fn reads_compressed_logs_and_archives() {
    let folder = "tests/fixtures/accesslog-packed";
    for path in paths_in(folder) {
        let expected = if path.contains("logs.") { 4 } else { 3 };
        assert_eq!(calls_of(&path).len(), expected, "{path}");
    }
    // One file that cannot be read does not hide the others.
    let env = TestEnv::new();
    env.write("a.log", std::fs::read("tests/fixtures/accesslog-wrapped/plain.log").unwrap());
    env.write("b.log", [0x04, 0x22, 0x4d, 0x18, 0, 0, 0, 0]);
    let folder = env.run(&["tail", "--logs", &env.path(""), "--summary"]);
    assert_eq!(folder.code(), 4, "{folder}");
    insta::assert_snapshot!("tail-folder-with-unreadable-file", folder);
    let limited = run("tail --logs tests/fixtures/accesslog-packed/logs.tgz --max-source-size 500");
    assert_eq!(limited.code(), 3, "{limited}");
    assert!(limited.stderr.contains("raise the limit with --max-source-size"), "{limited}");
}

#[test]
fn names_what_unreadable_lines_look_like() {
    let env = TestEnv::new();
    let mut all = String::new();
    for text in [
        "{\"log\":\"GET / 200\\n\",\"stream\":\"stdout\"}\n",
        "10.0.0.1 - - [21/Nov/2026:09:00:00 +0000] \"GET / HTTP/1.1\" 200 5\n",
        "<!DOCTYPE html>\n",
    ] {
        let path = env.write("x.log", text);
        all += &env.run(&["tail", "--logs", &path]).stderr;
    }
    insta::assert_snapshot!("tail-leads", all);
}

#[test]
fn text_that_a_client_sent_is_not_a_line() {
    let env = TestEnv::new();
    let forged = "{\"start_time\":\"2026-11-21T09:00:00.000Z\",\"response_flags\":\"UH\"}";
    let path = env.write("x.log", format!("[2026-11-21T09:00:00.000Z] \"nonsense {forged}\n"));
    assert!(env.run(&["tail", "--logs", &path, "--all", "-o", "json"]).stdout.is_empty());
}

#[test]
fn shows_each_line_while_the_input_stays_open() {
    use std::io::{BufRead as _, Write as _};
    let env = TestEnv::new();
    let plain = std::fs::read_to_string("tests/fixtures/accesslog-wrapped/plain.log").unwrap();
    let line = format!("{}\n", plain.lines().nth(2).unwrap());
    let mut command = env.command(&["tail", "--logs", "-", "-o", "json"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), std::io::BufReader::new(child.stdout.take().unwrap()));
    for _ in 0..3 {
        input.write_all(line.as_bytes()).unwrap();
        let mut shown = String::new();
        // This would wait for ever if the line stayed in a buffer.
        output.read_line(&mut shown).unwrap();
        assert!(shown.contains("no_healthy_upstream"), "{shown}");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}
