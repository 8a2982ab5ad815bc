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
fn byte_order_marks_cost_no_line_and_utf_16_is_named() {
    let env = TestEnv::new();
    let log = std::fs::read(ACCESS_LOG).unwrap();
    let marked = env.write("marked.log", [b"\xef\xbb\xbf", &log[..]].concat());
    assert_eq!(largest_number_of_calls(&env.run(&["tail", "--logs", &marked])), 224);
    let utf_16: Vec<u8> = log.iter().flat_map(|byte| [*byte, 0]).collect();
    let utf_16 = env.write("utf-16.log", [b"\xff\xfe", &utf_16[..]].concat());
    insta::assert_snapshot!("tail-utf-16", env.run(&["tail", "--logs", &utf_16]));
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
