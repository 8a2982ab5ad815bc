//! The decoder against lines of a real Envoy, with what really happened.
//!
//! `fixtures/accesslog` holds the output of Envoy 1.39.3 with Istio's configuration: every line as it was written, and
//! for each what the same Envoy said of the request in a second, unambiguous log.

use grpcmesh::accesslog::format::LogFormat;
use grpcmesh::accesslog::{AccessEntry, Direction, LogLine, LogReader, OtherLine};
use serde_json::Value;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/accesslog/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n')
}

/// The fields in the form of the expected file. Text that is not UTF-8 cannot be written in it: it is left out.
fn fields(access: &AccessEntry<'_>) -> Vec<(&'static str, Option<String>)> {
    let text = |value: &grpcmesh::accesslog::FieldBytes<'_>| {
        value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    vec![
        ("method", text(&access.method)),
        ("path", text(&access.path)),
        ("protocol", text(&access.protocol)),
        ("response_code", access.code.map(|code| code.to_string())),
        ("response_code_details", text(&access.details)),
        ("connection_termination_details", text(&access.termination)),
        ("upstream_transport_failure_reason", text(&access.transport_failure)),
        ("bytes_received", number(access.bytes_received)),
        ("bytes_sent", number(access.bytes_sent)),
        ("duration", number(access.duration)),
        ("upstream_service_time", number(access.upstream_time)),
        ("x_forwarded_for", text(&access.forwarded_for)),
        ("user_agent", text(&access.user_agent)),
        ("request_id", text(&access.request_id)),
        ("authority", text(&access.authority)),
        ("upstream_host", text(&access.upstream_host)),
        ("upstream_cluster", text(&access.cluster)),
        ("upstream_local_address", text(&access.upstream_local)),
        ("downstream_local_address", text(&access.downstream_local)),
        ("downstream_remote_address", text(&access.downstream_remote)),
        ("requested_server_name", text(&access.sni)),
        ("route_name", text(&access.route)),
    ]
}

/// Compares one log with its truth; gives the lines that differ with the fields.
fn differences(name: &str) -> Vec<String> {
    let log = fixture(&format!("{name}.log"));
    let truth: Vec<Value> = serde_json::from_slice(&fixture(&format!("{name}.expected.json"))).unwrap();
    let mut reader = LogReader::default();
    let mut found = Vec::new();
    assert_eq!(lines(&log).count(), truth.len());
    for (line, truth) in lines(&log).zip(&truth) {
        let place = format!("{name}:{} {}", truth["line"], truth["scenario"].as_str().unwrap_or_default());
        let expected = truth["kind"].as_str().unwrap();
        match reader.read(line) {
            LogLine::Access(access) if expected == "access" => {
                let flags: Vec<_> = access.flags.iter().collect();
                let wanted: Vec<_> =
                    truth["flags"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
                if flags != wanted {
                    found.push(format!("{place}: flags {flags:?}, not {wanted:?}"));
                }
                let direction = truth["direction"].as_str();
                let ours = access.direction().map(|one| if one == Direction::Inbound { "inbound" } else { "outbound" });
                if direction.is_some() && ours != direction {
                    found.push(format!("{place}: direction {ours:?}, not {direction:?}"));
                }
                for (field, ours) in fields(&access) {
                    let value = &truth["fields"][field];
                    let wanted = match value {
                        Value::Null => None,
                        Value::String(text) if text.is_empty() || text == "-" => None,
                        Value::String(text) => Some(text.clone()),
                        other => Some(other.to_string()),
                    };
                    if ours != wanted {
                        let mark = if access.ambiguous { " (marked ambiguous)" } else { "" };
                        found.push(format!("{place}: {field} {ours:?}, not {wanted:?}{mark}"));
                    }
                }
            }
            LogLine::Other(kind) => {
                let ours = if kind == OtherLine::Continuation { "envoy-log-continuation" } else { kind.as_str() };
                if ours != expected {
                    found.push(format!("{place}: {ours}, not {expected}"));
                }
            }
            LogLine::Access(_) => found.push(format!("{place}: access, not {expected}")),
        }
    }
    found
}

#[test]
fn text_lines_are_read_as_they_were_meant() {
    // One user agent is not UTF-8 and has no place in the truth's JSON; one client forged x-forwarded-for.
    let found = differences("istio-text");
    let lines: std::collections::BTreeSet<_> = found.iter().map(|one| one.split(": ").next().unwrap()).collect();
    assert!(lines.len() <= 2, "{found:#?}");
    assert!(found.iter().all(|one| one.contains("odd-ua-latin1") || one.contains("ambiguous")), "{found:#?}");
}

#[test]
fn a_path_that_looks_like_the_rest_of_a_line_is_told() {
    let whole = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 503 UF x - \"-\" 1 0 3 - \"-\" \"agent\" \"id\" \"a.b\" \"10.0.0.1:80\" outbound|80||a.b - 10.0.0.3:80 10.0.0.4:5 - default";
    let forged = "/x HTTP/2\" 200 - via_upstream - \"-\" 1 9 3 1 \"-\" \"agent";
    for (line, wanted) in [(whole.to_owned(), false), (whole.replace("/a.B/C", forged), true)] {
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(access.ambiguous, wanted, "{line}");
        // What the proxy writes at the end is not reached by it.
        assert_eq!(access.cluster, Some(&b"outbound|80||a.b"[..]));
    }
}

#[test]
fn a_semicolon_after_the_cluster_is_none_of_its_name() {
    let line = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 200 - via_upstream - \"-\" 1 5 3 1 \"-\" \"agent\" \"id\" \"a.b\" \"10.0.0.1:80\" outbound|80||a.b; - 10.0.0.3:80 10.0.0.4:5 - default";
    let mut reader = LogReader::default();
    let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
    assert_eq!(access.destination(), Some((80, "", "a.b")));
}

/// Found by fuzzing.
#[test]
fn separators_may_share_a_quote() {
    let line = "[2026-11-21T09:00:00.123Z] \"- - HTTP/1.1\" 426 DPE x - \"-\" 0 16 0 - \"-\"\" \" \"-\" \"a\" \"b\" - - 10.0.0.3:80 10.0.0.4:5 - -";
    let mut reader = LogReader::default();
    let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
    assert!(access.ambiguous);
    assert_eq!(access.downstream_local, Some(&b"10.0.0.3:80"[..]));
}

#[test]
fn json_lines_are_read_as_they_were_meant() {
    assert_eq!(differences("istio-json"), Vec::<String>::new());
}

#[test]
fn every_line_of_every_log_is_classified() {
    for name in ["envoy-startup-text", "envoy-startup-json", "two-hop-text", "custom-text-omit-empty"] {
        let log = fixture(&format!("{name}.log"));
        let mut reader = LogReader::default();
        let unknown = lines(&log)
            .filter(|line| matches!(reader.read(line), LogLine::Other(OtherLine::Unknown | OtherLine::UnknownJson)));
        assert_eq!(unknown.map(String::from_utf8_lossy).collect::<Vec<_>>(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_custom_json_format_is_read_by_its_format_string() {
    let format = r#"{"grpc_status": "%GRPC_STATUS%", "grpc_status_number": "%GRPC_STATUS_NUMBER%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "flags": "%RESPONSE_FLAGS%", "mixed": "%DURATION%ms", "nested": {"code": "%RESPONSE_CODE%", "proto": "%UPSTREAM_PROTOCOL%"}, "ua": "%REQ(USER-AGENT)%", "lit": "literal"}"#;
    let log = fixture("custom-labels-json.log");
    let lines: Vec<_> = lines(&log).filter(|line| line.starts_with(b"{\"attempts\"")).collect();
    let mut readers = vec![LogReader::with_formats([LogFormat::compile(format).unwrap()].into()); lines.len()];
    let read = readers.iter_mut().zip(lines).map(|(reader, line)| match reader.read(line) {
        LogLine::Access(access) => access,
        LogLine::Other(kind) => panic!("{kind:?}"),
    });
    let access: Vec<_> = read.collect();
    assert!(access.len() > 100, "{}", access.len());
    assert!(access.iter().all(|one| one.duration.is_some() && one.code.is_some()));
    for status in [0, 5, 14] {
        assert!(access.iter().any(|one| one.grpc_status == Some(status)), "{status}");
    }
    assert!(access.iter().any(|one| one.attempts == Some(3) && one.flags.has("URX")));
    // Where Envoy leaves out what is absent, few keys are left, and they are the format's.
    let few = br#"{"flags":"UF","nested":{"code":503},"ua":"grpc-go/1"}"#;
    let format = LogFormat::compile(format).unwrap();
    let mut reader = LogReader::with_formats([format].into());
    assert!(matches!(reader.read(few), LogLine::Access(access) if access.flags.has("UF") && access.code == Some(503)));
    let agent = br#"{"level":"info","time":"2026-11-21T09:00:00.000Z","scope":"ads","msg":"x","flags":"1"}"#;
    assert!(matches!(reader.read(agent), LogLine::Other(OtherLine::Agent)));
}

/// Istio's own format as somebody gives it to Envoy word for word.
const ISTIO: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;

fn read_by(format: &str, line: &[u8]) -> Option<String> {
    let mut reader = LogReader::with_formats([LogFormat::compile(format).unwrap()].into());
    match reader.read(line) {
        LogLine::Access(access) => Some(format!("{access:?}")),
        LogLine::Other(_) => None,
    }
}

/// With its own format given as a custom one, each real line is read as without, clients' quotes and all.
#[test]
fn a_custom_text_format_is_read_from_both_ends() {
    let log = fixture("istio-text.log");
    let (mut count, mut odd) = (0, 0);
    for line in lines(&log) {
        let shown = String::from_utf8_lossy(line);
        let mut reader = LogReader::default();
        let LogLine::Access(wanted) = reader.read(line) else { continue };
        let mut reader = LogReader::with_formats([LogFormat::compile(ISTIO).unwrap()].into());
        let LogLine::Access(read) = reader.read(line) else { panic!("{shown}") };
        // The usual reading only asks whether there may be another way; this one looks for it.
        assert!(wanted.ambiguous || !read.ambiguous, "{shown}");
        assert_eq!(AccessEntry { ambiguous: wanted.ambiguous, ..read }, wanted, "{shown}");
        count += 1;
        odd += usize::from(read.ambiguous);
        // What is logged at the end is read, whatever the route is called.
        let told = [line, b" a b 14"].concat();
        let read = read_by(&format!("{ISTIO} %GRPC_STATUS_NUMBER%"), &told);
        assert!(read.is_some_and(|read| read.contains("grpc_status: Some(14)")), "{shown}");
    }
    assert!(count > 200 && odd > 0, "{count} {odd}");
}

/// A client's text can make a line fit in several ways. Which one is shown then, the proxy's own words are right.
#[test]
fn a_client_forges_nothing_through_a_custom_format() {
    let agent = "evil\" \"rid-forged\" \"auth-forged\" \"1.2.3.4:1\" x";
    let line = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 200 UH no_healthy_upstream - \"-\" 1 9 3 1 \"-\" \"AGENT\" \"real\" \"echo:50051\" \"10.0.0.1:80\" outbound|80||x - 10.0.0.3:80 10.0.0.4:5 - my canary route";
    let format = LogFormat::compile(ISTIO).unwrap();
    let mut reader = LogReader::with_formats([format].into());
    for (agent, is_ambiguous) in [(agent, true), ("a \"quoted\" agent", false)] {
        let line = line.replace("AGENT", agent);
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        let told = [access.user_agent, access.request_id, access.authority, access.upstream_host, access.route];
        let wanted = [agent, "real", "echo:50051", "10.0.0.1:80", "my canary route"];
        assert_eq!(told, wanted.map(|text| Some(text.as_bytes())), "{line}");
        assert_eq!(access.ambiguous, is_ambiguous, "{line}");
    }
    // However much a client sends, and however long the format is, the search ends.
    let parts = |count| "%PROTOCOL% ".repeat(count);
    assert!(LogFormat::compile(&parts(501)).is_err());
    assert!(read_by(&parts(499), &b"HTTP/2 ".repeat(499)).is_some());
    let long = line.replace("AGENT", &"\" \"".repeat(100_000)).replace("/a.B/C", &"/ HTTP/2\" 200 - ".repeat(1_000));
    if let LogLine::Access(access) = reader.read(long.as_bytes()) {
        assert!(access.ambiguous);
    }
    // A million ways, of which none tells anything else: what was not tried might have.
    let headers = LogFormat::compile("%REQ(A)% %REQ(B)% %REQ(C)% %RESPONSE_CODE%").unwrap();
    let mut reader = LogReader::with_formats([headers].into());
    for (count, is_ambiguous) in [(3, false), (10, false), (200, true)] {
        let line = format!("{}200", "x ".repeat(count));
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        assert_eq!((access.code, access.ambiguous), (Some(200), is_ambiguous), "{line}");
    }
}

/// Times in a form of their own are not read, and nothing else is lost for it.
#[test]
fn a_time_in_another_form_shifts_nothing() {
    let format = "[%START_TIME(%Y-%m-%d %H:%M:%S.%3f)%] %RESPONSE_CODE% %RESPONSE_FLAGS% \"%REQ(USER-AGENT)%\"";
    let read = read_by(format, b"[2026-11-21 09:00:00.123] 503 UH \"agent\"").unwrap();
    assert!(read.contains("start: None") && read.contains("Some(503)") && read.contains("\"UH\""), "{read}");
}

/// Statuses that we infer against those that Envoy had in its other log.
#[test]
fn inferred_statuses_are_true() {
    use grpcmesh::diagnosis::{StatusSource, diagnose};
    use grpcmesh::vocabulary::grpc_status;
    let log = fixture("istio-text.log");
    let truth: Vec<Value> = serde_json::from_slice(&fixture("istio-text.expected.json")).unwrap();
    let mut reader = LogReader::default();
    let (mut exact, mut unknown, mut wrong, mut total) = (0, 0, Vec::new(), 0);
    for (line, truth) in lines(&log).zip(&truth) {
        let LogLine::Access(access) = reader.read(line) else { continue };
        let verdict = diagnose(&access);
        let Some(wanted) = truth["grpc_status"].as_str() else { continue };
        total += 1;
        let status = verdict.status.unwrap_or_else(|| panic!("a gRPC call: {}", truth["scenario"]));
        match status.code {
            Some(code) if grpc_status::name(code) == wanted => exact += 1,
            Some(code) => wrong.push(format!("{}: {} is {wanted}", truth["scenario"], grpc_status::name(code))),
            None => unknown += 1,
        }
        assert_eq!(status.known == StatusSource::Unknown, status.code.is_none());
    }
    // Errors in the trailers of a stream that had begun, and a guard that changes what a timeout means, leave no trace.
    assert!(wrong.len() <= 6 && exact >= 78, "{exact} exact, {unknown} unknown of {total}; wrong: {wrong:#?}");
}

/// A slow, obvious reading of a line whose client texts have no quotes: split at quotes and spaces.
fn obvious(line: &str) -> Option<Vec<String>> {
    let rest = line.strip_prefix('[')?;
    let (start, rest) = rest.split_once("] \"")?;
    let parts: Vec<&str> = rest.split('"').collect();
    let [request, middle, failure, sizes, forwarded, _, agent, _, id, _, authority, _, host, tail] = parts[..] else {
        return None;
    };
    let mut words = vec![start.to_owned()];
    words.extend(request.splitn(3, ' ').map(str::to_owned));
    words.extend(middle.trim().split(' ').map(str::to_owned));
    words.push(failure.to_owned());
    words.extend(sizes.trim().split(' ').map(str::to_owned));
    words.extend([forwarded, agent, id, authority, host].map(str::to_owned));
    words.extend(tail.trim_start().splitn(6, ' ').map(str::to_owned));
    Some(words)
}

proptest::proptest! {
    #[test]
    fn lines_are_read_as_the_obvious_way_reads_them(
        method in "[A-Z]{3,6}", path in "/[a-z.]{1,12}/[A-Za-z]{1,9}", code in 0_u16..600, flags in "-|U[HFCR]|URX,U[FT]",
        details in "[a-z_]{1,12}(\\{[a-z_|:]{1,9}\\})?", sizes in proptest::array::uniform4(0_u64..9_999_999),
        agent in "[a-zA-Z0-9 /().;-]{1,30}", id in "[0-9a-f-]{8,36}", authority in "[a-z.:0-9]{1,20}", route in "[a-z ]{1,12}",
    ) {
        let [received, sent, duration, upstream] = sizes;
        let route = format!("r{}", route.trim_end());
        let line = format!(
            "[2026-11-21T09:00:00.123Z] \"{method} {path} HTTP/2\" {code} {flags} {details} - \"-\" {received} {sent} {duration} {upstream} \"-\" \"{agent}\" \"{id}\" \"{authority}\" \"10.0.0.1:80\" outbound|80||a.b 10.0.0.2:1 10.0.0.3:80 10.0.0.4:5 - {route}"
        );
        let words = obvious(&line).unwrap();
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(line.as_bytes()) else { panic!("{line}") };
        let shown: Vec<String> = fields(&access).into_iter().map(|(_, value)| value.unwrap_or_else(|| "-".to_owned())).collect();
        // The start and the flags are no plain fields; everything else stands in the same order.
        let mut wanted: Vec<String> = words[1..].to_vec();
        let printed = wanted.remove(4);
        proptest::prop_assert_eq!(access.flags.iter().collect::<Vec<_>>().join(","), printed.trim_matches('-'));
        proptest::prop_assert_eq!(shown, wanted);
        proptest::prop_assert_eq!(access.start, Some(1_795_251_600_123));
    }

    #[test]
    fn no_bytes_are_too_odd(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        cut in 0_usize..900,
        pick in 0_usize..100_000,
    ) {
        let mut reader = LogReader::default();
        let _ = reader.read(&bytes);
        // A real line, cut off or with bytes in the middle of it.
        let log = [fixture("two-hop-text.log"), fixture("istio-text.log"), fixture("istio-json.log")].concat();
        let all: Vec<_> = lines(&log).collect();
        let line = all[pick % all.len()];
        let at = cut.min(line.len());
        for hostile in [line[..at].to_vec(), [&line[..at], &bytes, &line[at..]].concat()] {
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

/// A host without the cluster's domain stands for it in every domain, and for nothing that only begins alike.
#[test]
fn a_call_goes_to_its_host_in_any_domain() {
    let line = "[2026-11-21T09:00:00.123Z] \"POST /a.B/C HTTP/2\" 200 - via_upstream - \"-\" 1 9 3 1 \"-\" \"agent\" \"id\" \"AUTHORITY\" \"10.0.0.1:80\" CLUSTER - 10.0.0.3:80 10.0.0.4:5 - default";
    for (authority, cluster, goes) in [
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
        assert_eq!(access.goes_to("checkout.shop.svc"), goes, "{authority} {cluster}");
    }
}
