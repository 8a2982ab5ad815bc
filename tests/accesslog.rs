//! Checks the access log reader against the output of a real Envoy.
//!
//! `fixtures/accesslog` contains the output of Envoy 1.39.3 with Istio's configuration, and for each line the fields that
//! the same Envoy wrote for the request to a second, unambiguous log.

use std::collections::BTreeSet;

use grpcmesh::accesslog::format::LogFormat;
use grpcmesh::accesslog::{AccessEntry, Direction, LogLine, LogReader, OtherLine};
use serde_json::Value;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/accesslog/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n')
}

/// The fields by their names in the expected file, which cannot represent text that is not UTF-8.
fn fields(access: &AccessEntry<'_>) -> Vec<(&'static str, Option<String>)> {
    let text = |value: &grpcmesh::accesslog::FieldBytes<'_>| {
        value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    vec![
        ("method", text(&access.method)),
        ("path", text(&access.path)),
        ("protocol", text(&access.protocol)),
        ("response_code", access.http_status.map(|code| code.to_string())),
        ("response_code_details", text(&access.details)),
        ("connection_termination_details", text(&access.termination)),
        ("upstream_transport_failure_reason", text(&access.transport_failure)),
        ("bytes_received", number(access.bytes_received)),
        ("bytes_sent", number(access.bytes_sent)),
        ("duration", number(access.duration_ms)),
        ("upstream_service_time", number(access.upstream_time_ms)),
        ("x_forwarded_for", text(&access.forwarded_for)),
        ("user_agent", text(&access.user_agent)),
        ("request_id", text(&access.request_id)),
        ("authority", text(&access.authority)),
        ("upstream_host", text(&access.upstream_host)),
        ("upstream_cluster", text(&access.upstream_cluster)),
        ("upstream_local_address", text(&access.upstream_local_address)),
        ("downstream_local_address", text(&access.downstream_local_address)),
        ("downstream_remote_address", text(&access.downstream_remote_address)),
        ("requested_server_name", text(&access.sni)),
        ("route_name", text(&access.route)),
    ]
}

/// Compares a log with its expected file, and describes each difference.
fn differences(name: &str) -> Vec<String> {
    let log = fixture(&format!("{name}.log"));
    let expected_lines: Vec<Value> = serde_json::from_slice(&fixture(&format!("{name}.expected.json"))).unwrap();
    let mut reader = LogReader::default();
    let mut differences = Vec::new();
    assert_eq!(lines(&log).count(), expected_lines.len());
    for (line, expected) in lines(&log).zip(&expected_lines) {
        let position = format!("{name}:{} {}", expected["line"], expected["scenario"].as_str().unwrap_or_default());
        let expected_kind = expected["kind"].as_str().unwrap();
        match reader.read(line) {
            LogLine::Access(access) if expected_kind == "access" => {
                let flags: Vec<_> = access.flags.iter().collect();
                let expected_flags: Vec<_> =
                    expected["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect();
                if flags != expected_flags {
                    differences.push(format!("{position}: flags {flags:?}, not {expected_flags:?}"));
                }
                let expected_direction = expected["direction"].as_str();
                let direction = access.direction().map(|direction| match direction {
                    Direction::Inbound => "inbound",
                    Direction::Outbound => "outbound",
                });
                if expected_direction.is_some() && direction != expected_direction {
                    differences.push(format!("{position}: direction {direction:?}, not {expected_direction:?}"));
                }
                for (field, value) in fields(&access) {
                    let expected_value = match &expected["fields"][field] {
                        Value::Null => None,
                        Value::String(text) if text.is_empty() || text == "-" => None,
                        Value::String(text) => Some(text.clone()),
                        other => Some(other.to_string()),
                    };
                    if value != expected_value {
                        let mark = if access.ambiguous { " (marked ambiguous)" } else { "" };
                        differences.push(format!("{position}: {field} {value:?}, not {expected_value:?}{mark}"));
                    }
                }
            }
            LogLine::Other(kind) => {
                let kind = if kind == OtherLine::Continuation { "envoy-log-continuation" } else { kind.as_str() };
                if kind != expected_kind {
                    differences.push(format!("{position}: {kind}, not {expected_kind}"));
                }
            }
            LogLine::Access(_) => differences.push(format!("{position}: access, not {expected_kind}")),
        }
    }
    differences
}

#[test]
fn parses_istio_text_lines_of_a_real_envoy() {
    // One user agent is not UTF-8, which the expected JSON cannot represent; one client forged x-forwarded-for.
    let differences = differences("istio-text");
    let lines: BTreeSet<_> = differences.iter().map(|text| text.split(": ").next().unwrap()).collect();
    assert!(lines.len() <= 2, "{differences:#?}");
    let is_accepted = |text: &String| text.contains("odd-ua-latin1") || text.contains("ambiguous");
    assert!(differences.iter().all(is_accepted), "{differences:#?}");
}

#[test]
fn marks_a_line_ambiguous_when_its_path_looks_like_the_rest_of_a_line() {
    let whole = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 503 UF x - \"-\" 1 0 3 - \"-\" \"agent\" \"id\" \"a.b\" \"10.0.0.1:80\" outbound|80||a.b - 10.0.0.3:80 10.0.0.4:5 - default";
    let forged = "/x HTTP/2\" 200 - via_upstream - \"-\" 1 9 3 1 \"-\" \"agent";
    for (line, is_ambiguous) in [(whole.to_owned(), false), (whole.replace("/a.B/C", forged), true)] {
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(access.ambiguous, is_ambiguous, "{line}");
        // The fields that the proxy writes at the end are not affected.
        assert_eq!(access.upstream_cluster, Some(&b"outbound|80||a.b"[..]));
    }
}

#[test]
fn strips_the_semicolon_after_the_cluster_name() {
    let line = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 200 - via_upstream - \"-\" 1 5 3 1 \"-\" \"agent\" \"id\" \"a.b\" \"10.0.0.1:80\" outbound|80||a.b; - 10.0.0.3:80 10.0.0.4:5 - default";
    let mut reader = LogReader::default();
    let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
    assert_eq!(access.destination(), Some((80, "", "a.b")));
}

/// The layouts of Istio 1.0 (without SNI) and 1.1.
#[test]
fn parses_the_layouts_of_istio_1_0_and_1_1() {
    let start = "[2018-09-27T13:34:19.148Z] \"POST /a.B/C HTTP/2\" 200 - 1 5 3 1 \"-\" \"grpc-go/1.15\" \"id\" \"a.b:80\" \"10.0.0.1:80\"";
    for (end, sni) in [("", None), (" -", None), (" outbound_.80_._.a.b", Some("outbound_.80_._.a.b"))] {
        let line = format!("{start} outbound|80||a.b - 10.0.0.3:80 10.0.0.4:5{end}");
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(access.destination(), Some((80, "", "a.b")));
        assert_eq!(access.downstream_remote_address, Some(&b"10.0.0.4:5"[..]));
        assert_eq!(access.sni, sni.map(str::as_bytes));
        assert_eq!((access.http_status, access.duration_ms), (Some(200), Some(3)));
    }
    // Envoy's default format ends with the host.
    let mut reader = LogReader::default();
    let LogLine::Access(access) = reader.read(start.as_bytes()) else { panic!("{start}") };
    assert_eq!(access.upstream_host, Some(&b"10.0.0.1:80"[..]));
}

#[test]
fn inbound_passthrough_is_the_server_side() {
    for cluster in ["InboundPassthroughCluster", "InboundPassthroughClusterIpv4", "InboundPassthroughClusterIpv6"] {
        let line = format!(
            "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 200 - via_upstream - \"-\" 1 5 3 1 \"-\" \"agent\" \"id\" \"a.b\" \"10.0.0.1:80\" {cluster} 10.0.0.6:5 10.0.0.3:80 10.0.0.4:5 - default"
        );
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(access.direction(), Some(grpcmesh::accesslog::Direction::Inbound), "{cluster}");
    }
}

/// What to do about DPE depends on who sent what.
#[test]
fn the_next_step_of_dpe_names_who_sent_the_request() {
    let next = |request: &str, agent: &str, cluster: &str, sni: &str| {
        let line = format!(
            "[2026-11-21T09:00:00.123Z] \"{request}\" 0 DPE http2.violation.of.messaging.rule - \"-\" 0 0 1 - \"-\" \"{agent}\" \"-\" \"-\" \"-\" {cluster} - 10.0.0.3:80 10.0.0.4:5 {sni} -"
        );
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        grpcmesh::diagnosis::diagnose(&access).next.into_owned()
    };
    assert!(next("- - HTTP/1.1", "-", "-", "-").contains("scanner"));
    assert!(next("- - HTTP/2", "-", "-", "-").contains("downstream address"));
    assert!(next("POST /a.B/C HTTP/2", "grpc-node-js/1.9.14", "outbound|80||a.b", "-").contains("grpc-js"));
    assert!(next("POST /a.B/C HTTP/2", "grpc-go/1.60", "outbound|80||a.b", "-").contains("calling application"));
    let peer = next("POST /a.B/C HTTP/2", "grpc-go/1.60", "inbound|80||", "outbound_.80_._.a.b");
    assert!(peer.contains("caller's proxy"), "{peer}");
}

/// Found by fuzzing.
#[test]
fn parses_a_line_whose_separators_share_a_quote() {
    let line = "[2026-11-21T09:00:00.123Z] \"- - HTTP/1.1\" 426 DPE x - \"-\" 0 16 0 - \"-\"\" \" \"-\" \"a\" \"b\" - - 10.0.0.3:80 10.0.0.4:5 - -";
    let mut reader = LogReader::default();
    let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
    assert!(access.ambiguous);
    assert_eq!(access.downstream_local_address, Some(&b"10.0.0.3:80"[..]));
}

#[test]
fn parses_istio_json_lines_of_a_real_envoy() {
    assert_eq!(differences("istio-json"), Vec::<String>::new());
}

#[test]
fn classifies_every_line_of_a_real_envoy() {
    for name in ["envoy-startup-text", "envoy-startup-json", "two-hop-text", "custom-text-omit-empty"] {
        let log = fixture(&format!("{name}.log"));
        let mut reader = LogReader::default();
        let unknown = lines(&log)
            .filter(|line| matches!(reader.read(line), LogLine::Other(OtherLine::Unknown | OtherLine::UnknownJson)));
        assert_eq!(unknown.map(String::from_utf8_lossy).collect::<Vec<_>>(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn parses_a_custom_json_format() {
    let format = r#"{"grpc_status": "%GRPC_STATUS%", "grpc_status_number": "%GRPC_STATUS_NUMBER%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "flags": "%RESPONSE_FLAGS%", "mixed": "%DURATION%ms", "nested": {"code": "%RESPONSE_CODE%", "proto": "%UPSTREAM_PROTOCOL%"}, "ua": "%REQ(USER-AGENT)%", "lit": "literal"}"#;
    let log = fixture("custom-labels-json.log");
    let lines: Vec<_> = lines(&log).filter(|line| line.starts_with(b"{\"attempts\"")).collect();
    let mut readers = vec![LogReader::with_formats([LogFormat::compile(format).unwrap()].into()); lines.len()];
    let parsed = readers.iter_mut().zip(lines).map(|(reader, line)| match reader.read(line) {
        LogLine::Access(access) => access,
        LogLine::Other(kind) => panic!("{kind:?}"),
    });
    let entries: Vec<_> = parsed.collect();
    assert!(entries.len() > 100, "{}", entries.len());
    assert!(entries.iter().all(|entry| entry.duration_ms.is_some() && entry.http_status.is_some()));
    for status in [0, 5, 14] {
        assert!(entries.iter().any(|entry| entry.grpc_status == Some(status)), "{status}");
    }
    assert!(entries.iter().any(|entry| entry.attempts == Some(3) && entry.flags.contains("URX")));
    // With omit_empty_values a line has few keys, all of them of the format.
    let few_keys = br#"{"flags":"UF","nested":{"code":503},"ua":"grpc-go/1"}"#;
    let format = LogFormat::compile(format).unwrap();
    let mut reader = LogReader::with_formats([format].into());
    assert!(
        matches!(reader.read(few_keys), LogLine::Access(access) if access.flags.contains("UF") && access.http_status == Some(503))
    );
    let agent = br#"{"level":"info","time":"2026-11-21T09:00:00.000Z","scope":"ads","msg":"x","flags":"1"}"#;
    assert!(matches!(reader.read(agent), LogLine::Other(OtherLine::AgentLog)));
}

/// Istio's default format, as a user may configure it explicitly.
const ISTIO_FORMAT: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;

fn read_with_format(format: &str, line: &[u8]) -> Option<String> {
    let mut reader = LogReader::with_formats([LogFormat::compile(format).unwrap()].into());
    match reader.read(line) {
        LogLine::Access(access) => Some(format!("{access:?}")),
        LogLine::Other(_) => None,
    }
}

/// Istio's format as a custom one gives the same result as the built-in parser, also for clients that send quotes.
#[test]
fn a_custom_format_gives_the_same_result_as_the_built_in_one() {
    let log = fixture("istio-text.log");
    let (mut count, mut ambiguous) = (0, 0);
    for line in lines(&log) {
        let shown = String::from_utf8_lossy(line);
        let mut reader = LogReader::default();
        let LogLine::Access(built_in) = reader.read(line) else { continue };
        let mut reader = LogReader::with_formats([LogFormat::compile(ISTIO_FORMAT).unwrap()].into());
        let LogLine::Access(custom) = reader.read(line) else { panic!("{shown}") };
        // The built-in parser marks lines that may have another reading; the custom one searches for it.
        assert!(built_in.ambiguous || !custom.ambiguous, "{shown}");
        assert_eq!(AccessEntry { ambiguous: built_in.ambiguous, ..custom }, built_in, "{shown}");
        count += 1;
        ambiguous += usize::from(custom.ambiguous);
        // A field after the route is parsed, whatever the name of the route.
        let with_status = [line, b" a b 14"].concat();
        let read = read_with_format(&format!("{ISTIO_FORMAT} %GRPC_STATUS_NUMBER%"), &with_status);
        assert!(read.is_some_and(|entry| entry.contains("grpc_status: Some(14)")), "{shown}");
    }
    assert!(count > 200 && ambiguous > 0, "{count} {ambiguous}");
}

/// Text that a client sends can make a line ambiguous. The fields that the proxy writes itself are right all the same.
#[test]
fn a_client_cannot_forge_fields_of_a_custom_format() {
    let agent = "evil\" \"rid-forged\" \"auth-forged\" \"1.2.3.4:1\" x";
    let line = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 200 UH no_healthy_upstream - \"-\" 1 9 3 1 \"-\" \"AGENT\" \"real\" \"echo:50051\" \"10.0.0.1:80\" outbound|80||x - 10.0.0.3:80 10.0.0.4:5 - my canary route";
    let format = LogFormat::compile(ISTIO_FORMAT).unwrap();
    let mut reader = LogReader::with_formats([format].into());
    for (agent, is_ambiguous) in [(agent, true), ("a \"quoted\" agent", false)] {
        let line = line.replace("AGENT", agent);
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        let values = [access.user_agent, access.request_id, access.authority, access.upstream_host, access.route];
        let expected = [agent, "real", "echo:50051", "10.0.0.1:80", "my canary route"];
        assert_eq!(values, expected.map(|text| Some(text.as_bytes())), "{line}");
        assert_eq!(access.ambiguous, is_ambiguous, "{line}");
    }
    // The search ends for any amount of client text and any length of the format.
    let parts = |count| "%PROTOCOL% ".repeat(count);
    assert!(LogFormat::compile(&parts(501)).is_err());
    assert!(read_with_format(&parts(499), &b"HTTP/2 ".repeat(499)).is_some());
    let long = line.replace("AGENT", &"\" \"".repeat(100_000)).replace("/a.B/C", &"/ HTTP/2\" 200 - ".repeat(1_000));
    if let LogLine::Access(access) = reader.read(long.as_bytes()) {
        assert!(access.ambiguous);
    }
    // More than a million readings: the search stops early, so that another reading may exist.
    let headers = LogFormat::compile("%REQ(A)% %REQ(B)% %REQ(C)% %RESPONSE_CODE%").unwrap();
    let mut reader = LogReader::with_formats([headers].into());
    for (count, is_ambiguous) in [(3, false), (10, false), (200, true)] {
        let line = format!("{}200", "x ".repeat(count));
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        assert_eq!((access.http_status, access.ambiguous), (Some(200), is_ambiguous), "{line}");
    }
}

/// A start time in a custom format is not parsed, and the other fields are.
#[test]
fn parses_the_other_fields_of_a_line_with_a_custom_start_time() {
    let format = "[%START_TIME(%Y-%m-%d %H:%M:%S.%3f)%] %RESPONSE_CODE% %RESPONSE_FLAGS% \"%REQ(USER-AGENT)%\"";
    let read = read_with_format(format, b"[2026-11-21 09:00:00.123] 503 UH \"agent\"").unwrap();
    assert!(read.contains("start_ms: None") && read.contains("Some(503)") && read.contains("\"UH\""), "{read}");
}

/// Compares inferred statuses with those that Envoy logged in its second log.
#[test]
fn inferred_statuses_match_the_logged_ones() {
    use grpcmesh::diagnosis::diagnose;
    use grpcmesh::vocabulary::grpc_status;
    let log = fixture("istio-text.log");
    let expected_lines: Vec<Value> = serde_json::from_slice(&fixture("istio-text.expected.json")).unwrap();
    let mut reader = LogReader::default();
    let (mut exact, mut unknown, mut mismatches, mut total) = (0, 0, Vec::new(), 0);
    for (line, expected) in lines(&log).zip(&expected_lines) {
        let LogLine::Access(access) = reader.read(line) else { continue };
        let diagnosis = diagnose(&access);
        let Some(logged) = expected["grpc_status"].as_str() else { continue };
        total += 1;
        let scenario = &expected["scenario"];
        let status = diagnosis.status.unwrap_or_else(|| panic!("not recognized as a gRPC call: {scenario}"));
        match status.code {
            Some(code) if grpc_status::name(code) == logged => exact += 1,
            Some(code) => mismatches.push(format!("{scenario}: {}, not {logged}", grpc_status::name(code))),
            None => unknown += 1,
        }
        assert_eq!(status.source.is_none(), status.code.is_none());
    }
    // The log does not show errors in the trailers of a stream, nor a filter that changes the status of a timeout.
    assert!(mismatches.len() <= 6 && exact >= 78, "{exact} exact, {unknown} unknown of {total}: {mismatches:#?}");
}

/// A simple parser for lines without quotes in client text: splits at quotes and spaces.
fn split_simple_line(line: &str) -> Option<Vec<String>> {
    let rest = line.strip_prefix('[')?;
    let (start, rest) = rest.split_once("] \"")?;
    let parts: Vec<&str> = rest.split('"').collect();
    let [request, middle, failure, sizes, forwarded, _, agent, _, id, _, authority, _, host, tail] = parts[..] else {
        return None;
    };
    let mut fields = vec![start.to_owned()];
    fields.extend(request.splitn(3, ' ').map(str::to_owned));
    fields.extend(middle.trim().split(' ').map(str::to_owned));
    fields.push(failure.to_owned());
    fields.extend(sizes.trim().split(' ').map(str::to_owned));
    fields.extend([forwarded, agent, id, authority, host].map(str::to_owned));
    fields.extend(tail.trim_start().splitn(6, ' ').map(str::to_owned));
    Some(fields)
}

proptest::proptest! {
    #[test]
    fn agrees_with_a_simple_parser(
        method in "[A-Z]{3,6}", path in "/[a-z.]{1,12}/[A-Za-z]{1,9}", code in 0_u16..600, flags in "-|U[HFCR]|URX,U[FT]",
        details in "[a-z_]{1,12}(\\{[a-z_|:]{1,9}\\})?", sizes in proptest::array::uniform4(0_u64..9_999_999),
        agent in "[a-zA-Z0-9 /().;-]{1,30}", id in "[0-9a-f-]{8,36}", authority in "[a-z.:0-9]{1,20}", route in "[a-z ]{1,12}",
    ) {
        let [received, sent, duration, upstream] = sizes;
        let route = format!("r{}", route.trim_end());
        let line = format!(
            "[2026-11-21T09:00:00.123Z] \"{method} {path} HTTP/2\" {code} {flags} {details} - \"-\" {received} {sent} {duration} {upstream} \"-\" \"{agent}\" \"{id}\" \"{authority}\" \"10.0.0.1:80\" outbound|80||a.b 10.0.0.2:1 10.0.0.3:80 10.0.0.4:5 - {route}"
        );
        let expected_fields = split_simple_line(&line).unwrap();
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        let values: Vec<String> = fields(&access).into_iter().map(|(_, value)| value.unwrap_or_else(|| "-".to_owned())).collect();
        // Start time and flags are compared separately; the other fields have the same order.
        let mut expected: Vec<String> = expected_fields[1..].to_vec();
        let expected_flags = expected.remove(4);
        proptest::prop_assert_eq!(access.flags.iter().collect::<Vec<_>>().join(","), expected_flags.trim_matches('-'));
        proptest::prop_assert_eq!(values, expected);
        proptest::prop_assert_eq!(access.start_ms, Some(1_795_251_600_123));
    }

    #[test]
    fn never_panics_on_any_bytes(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        cut in 0_usize..900,
        pick in 0_usize..100_000,
    ) {
        let mut reader = LogReader::default();
        let _ = reader.read(&bytes);
        // A real line, truncated or with bytes inserted.
        let log = [fixture("two-hop-text.log"), fixture("istio-text.log"), fixture("istio-json.log")].concat();
        let all: Vec<_> = lines(&log).collect();
        let line = all[pick % all.len()];
        let position = cut.min(line.len());
        for hostile in [line[..position].to_vec(), [&line[..position], &bytes, &line[position..]].concat()] {
            if let LogLine::Access(access) = reader.read(&hostile) {
                let _ = grpcmesh::diagnosis::diagnose(&access);
            }
        }
        let _ = grpcmesh::accesslog::prefix::strip(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(format) = LogFormat::compile(&text) {
            let _ = LogReader::with_formats([format].into()).read(line);
        }
    }
}

/// A host without the cluster domain matches in every domain, and does not match hosts that only share a prefix.
#[test]
fn matches_a_host_in_any_cluster_domain() {
    let line = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 200 - via_upstream - \"-\" 1 9 3 1 \"-\" \"agent\" \"id\" \"AUTHORITY\" \"10.0.0.1:80\" CLUSTER - 10.0.0.3:80 10.0.0.4:5 - default";
    for (authority, cluster, is_match) in [
        ("x", "outbound|80|v1|checkout.shop.svc.cluster.local", true),
        ("x", "outbound|80|v1|checkout.shop.svc.corp.example", true),
        ("checkout.shop.svc", "outbound|80||checkout.shop.svcs.example", false),
        ("x", "outbound|80||checkout.shopping.svc.cluster.local", false),
        ("checkout.shop:80", "-", true),
        ("checkout:80", "-", true),
        ("checkout.shop.svc.corp.example", "-", true),
        ("checkout.web", "-", false),
    ] {
        let line = line.replace("AUTHORITY", authority).replace("CLUSTER", cluster);
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(access.is_for_host("checkout.shop.svc"), is_match, "{authority} {cluster}");
    }
}
