//! The program as a user meets it: output, messages and exit codes.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-grpcmesh"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

#[track_caller]
fn check(arguments: &[&str], code: i32, stdout: &str, stderr: &str) {
    let output = run(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    assert!(out.contains(stdout), "{arguments:?}: stdout lacks {stdout:?}:\n{out}");
    assert!(err.contains(stderr), "{arguments:?}: stderr lacks {stderr:?}:\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    if code == 2 || code == 3 {
        assert!(out.is_empty(), "{arguments:?}: nothing belongs on stdout:\n{out}");
    }
}

#[test]
fn the_demo_shows_its_faults_and_exits_1() {
    check(&["inspect", "--from", "demo"], 1, "GM203", "");
    check(&["inspect", "--from", "demo", "checkout"], 1, "Routes, in the order Envoy tries them", "");
    check(&["inspect", "--from", "demo", "--exit-zero", "-o", "json"], 0, "\"kind\": \"Inspect\"", "");
    check(&["inspect", "--from", "demo", "-o", "name"], 1, "service/shop/checkout", "");
    check(&["inspect", "--from", "demo", "-o", "yaml"], 1, "kind: Inspect", "");
    check(&["inspect", "--from", "demo", "-o", "wide"], 1, "EVIDENCE", "");
}

#[test]
fn selections_decide_what_counts() {
    check(&["inspect", "--from", "demo", "--only", "GM111"], 0, "GM111", "");
    check(&["inspect", "--from", "demo", "--only", "GM111", "--fail-on", "info"], 1, "GM111", "");
    check(&["inspect", "--from", "src/demo/healthy.yaml"], 0, "no findings", "");
}

#[test]
fn findings_from_files_point_at_their_lines() {
    check(&["inspect", "--from", "src/demo/shop.yaml", "--only", "GM203"], 1, "--> src/demo/shop.yaml:", "");
}

#[test]
fn other_commands_work() {
    check(&["explain", "GM203"], 0, "subset-undefined", "");
    check(&["explain", "--list"], 0, "GM718", "");
    check(&["version", "--client"], 0, env!("CARGO_PKG_VERSION"), "");
    check(&["completion", "bash"], 0, "kubectl-grpcmesh", "");
}

#[test]
fn saved_logs_are_decoded() {
    let log = "tests/fixtures/accesslog/istio-text.log";
    check(&["tail", "--logs", log], 0, "nothing listens on that port", "224 calls");
    check(&["tail", "--logs", log, "--flag", "UH", "-o", "json"], 0, "\"kind\":\"TailLine\"", "");
    check(&["tail", "--logs", log, "--grpc-status", "UNAVAILABLE", "-o", "csv"], 0, "time,pod,namespace", "");
    check(&["tail", "--logs", log, "--summary"], 0, "other lines: continuation 44", "");
    check(&["tail", "--logs", log, "--summary", "--fail-on", "1%"], 1, "", "");
    check(&["tail", "--logs", "tests/fixtures/accesslog", "--summary", "-o", "json"], 0, "\"TailSummary\"", "");
    check(&["tail", "--logs", "README.md"], 0, "", "no access line was found");
    check(&["tail", "--logs", "/nonexistent"], 3, "", "cannot read /nonexistent");
    check(&["tail", "--logs", log, "--log-format", "nope"], 2, "", "no operator");
    check(&["tail", "--logs", log, "--grpc-status", "99"], 2, "", "UNAVAILABLE");
    let slow = "http_status >= 500 && grpc_status == 14";
    check(&["tail", "--logs", log, "--where", slow, "-o", "json"], 0, "TailLine", "");
    check(&["tail", "--logs", log, "--where", "duration_ms >"], 2, "", "--where");
    check(&["tail", "--logs", log, "--top"], 2, "", "terminal");
    let two_hops = "tests/fixtures/accesslog/two-hop-text.log";
    check(&["tail", "--logs", two_hops, "--join", "--all"], 0, "", "calls");
    check(&["tail", "--logs", two_hops, "--join", "--all", "-o", "json"], 0, "\"kind\":\"TailCall\"", "");
    check(&["tail", "--logs", two_hops, "--join", "-o", "csv"], 2, "", "--join");
    check(&["explain", "UF,URX"], 0, "on every try", "");
    check(&["explain", "14", "ABC"], 0, "unknown flag", "");
}

#[test]
fn calls_are_followed() {
    let demo = |rest: &[&'static str], code, stdout, stderr| {
        let mut arguments = vec!["route", "--from", "demo"];
        arguments.extend(rest);
        check(&arguments, code, stdout, stderr);
    };
    let checkout = "checkout.shop:50051";
    demo(&[checkout, "/shop.checkout.v1.Checkout/Place", "--caller", "shop"], 0, "90% outbound|50051|v1|", "");
    demo(&[checkout, "--caller", "web/deploy/frontend-v1"], 1, "UNAVAILABLE (HTTP/1.1 clients: 503), flag NC", "");
    demo(&[checkout, "-o", "json", "--caller", "shop"], 0, "\"kind\":\"Route\"", "");
    demo(&["chekout"], 0, "did you mean checkout.shop:50051?", "");
    demo(&["checkout.shop"], 1, "checkout.shop:50051 /", "");
    demo(&[checkout, "--caller", "shop/catalog-v1-57fb8d6c9c-tk7wl"], 0, "the caller has no proxy", "");
    demo(&[checkout, "--caller", "web/nobody"], 3, "", "there is no pod nobody in namespace web");
    demo(&[checkout, "--caller", "web/thing/x"], 2, "", "no kind of workload");
    demo(&[checkout, "-H", "nonsense"], 2, "", "as in -H x-canary:true");
    demo(&[":80"], 2, "", "is no host");
    demo(&[], 2, "", "HOST[:PORT]");
    demo(&[checkout, "-o", "junit"], 2, "", "--test FILE");
    demo(&["checkout.shop:99999"], 2, "", "99999 is no port");
    demo(&[checkout, "shop.Cart/Pay"], 2, "", "as in /shop.v1.Checkout/Pay");
    demo(&[checkout, "-H", "x y:1"], 2, "", "no name of a header");
    demo(&["shipping.shop", "/s.S/M", "--caller", "web"], 1, "flag UPE", "");
    demo(&["--calls", "tests/fixtures/routes/broken.jsonl", "-o", "json"], 4, "\"id\":\"good\"", "broken.jsonl:2: ");
    demo(&["--test", "tests/fixtures/routes/mistaken.yaml"], 2, "", "status BANANA is no gRPC status");
    demo(&["--calls", "/nonexistent"], 3, "", "cannot read /nonexistent");
    demo(&["--calls", "Cargo.toml"], 2, "", "Cargo.toml:1:");
    demo(&["--test", "Cargo.toml"], 2, "", "Cargo.toml:");
    demo(&["--test", "src/demo/shop.yaml"], 2, "", "src/demo/shop.yaml");
}

#[test]
fn routes_are_tested() {
    let tests = "src/demo/routes.yaml";
    check(&["route", "--from", "src/demo/healthy.yaml", "--test", tests], 0, "4 tests", "");
    check(&["route", "--from", "demo", "--test", tests], 1, "4 tests, 2 failed", "");
    check(&["route", "--from", "demo", "--test", tests, "-o", "json"], 1, "\"kind\": \"RouteTests\"", "");
    check(&["route", "--from", "demo", "--test", tests, "-o", "junit"], 1, "<testsuite name=\"routes\"", "");
}

#[test]
fn snapshots_come_back() {
    let folder = std::env::temp_dir().join(format!("grpcmesh-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, redact) in [("a.json", false), ("b.json.gz", true)] {
        let path = folder.join(name);
        let path = path.to_str().unwrap();
        let mut arguments = vec!["snapshot", "--from", "demo", "-o", path];
        if redact {
            arguments.push("--redact");
        }
        check(&arguments, 0, "", "objects");
        check(&["inspect", "--from", path], 1, "GM203", "");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn wrong_use_and_bad_input_say_what_to_do() {
    check(&["inspect", "--from", "/nonexistent.yaml"], 3, "", "cannot read /nonexistent.yaml");
    check(&["inspect", "--from", "Cargo.toml"], 3, "", "Cargo.toml:2:1: not YAML or JSON");
    check(&["inspect", "--from", "demo", "chekout"], 3, "", "did you mean checkout.shop");
    check(&["inspect", "--from", "demo", "-n", "shp"], 3, "", "shop");
    check(&["inspect", "--from", "demo", "--only", "GM999"], 2, "", "explain --list");
    check(&["inspect"], 3, "", "there is no kubeconfig");
    check(&["inspect", "--kubeconfig", "/nonexistent"], 3, "", "there is no kubeconfig /nonexistent");
    check(&["explain", "subset-undefind"], 2, "", "did you mean subset-undefined?");
    check(&["nope"], 2, "", "unrecognized subcommand");
}

#[test]
fn the_readmes_commands_are_real() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let lines = readme.lines().filter_map(|line| line.strip_prefix("kubectl grpcmesh "));
    let mut ran = 0;
    for line in lines {
        let words: Vec<_> = line.split('#').next().unwrap().split_whitespace().collect();
        if words.contains(&"demo") || words[0] == "explain" || words[0] == "version" {
            assert!(matches!(run(&words).status.code(), Some(0 | 1)), "{line}");
            ran += 1;
        }
    }
    assert!(ran >= 3);
}

#[test]
fn weights_are_edited_in_a_manifest_and_nothing_else_is() {
    let path = std::env::temp_dir().join(format!("grpcmesh-edit-{}.yaml", std::process::id()));
    let text = "# ours
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pay, namespace: shop}
spec:
  hosts: [pay]
  http:
  - route:
    - {destination: {host: pay, subset: v1}, weight: 90}   # stable
    - {destination: {host: pay, subset: v2}, weight: 10}
";
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    check(&["shift", "pay.shop", "--to", "v2=25", "--edit", file, "--dry-run"], 0, "+    - {destination", "a dry run");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    check(&["shift", "vs/pay.shop", "--to", "v2=25", "--edit", file, "-o", "json"], 0, "\"v2\":25", "");
    let wanted = text.replace("weight: 90", "weight: 75").replace("weight: 10", "weight: 25");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), wanted);
    check(&["shift", "pay.shop", "--to", "v3=25", "--edit", file], 2, "", "no backend of the rule is called v3");
    check(&["shift", "pay.shop", "--edit", file], 2, "", "--to");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_shift_says_what_it_lacks() {
    check(&["shift"], 2, "", "what is to be shifted is not said");
    check(&["shift", "pay"], 2, "", "the shares are not said");
    check(&["shift", "pay", "--to", "v2=100", "--steps", "5,x"], 2, "", "is no share");
    check(&["shift", "pay", "--to", "v2=1", "--prometheus", "nowhere"], 2, "", "NAMESPACE/SERVICE");
    let output = run(&["shift", "pay", "--to", "v2=1", "--prometheus", "https://ci:hunter2@prom"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && err.contains("password") && !err.contains("hunter2"), "{err}");
    check(&["shift", "pay", "--to", "v2=1", "--error-status", "17"], 2, "", "is no gRPC status");
}

/// Examples that work on the built-in demo, with the exit code that they must have.
const RUN: [(&str, i32); 5] = [
    ("inspect --from demo", 1),
    ("version --client", 0),
    ("version --from demo", 0),
    ("explain GM203", 0),
    ("explain UF,URX", 0),
];

/// The words of a command that a page shows, which the program must take; `None` for a line without one.
fn parsed(line: &str) -> Option<Result<String, String>> {
    let at = line.find("grpcmesh ")?;
    // What follows two spaces says what it does; after a pipe or an arrow it is the shell's.
    let words = line[at + "grpcmesh ".len()..].split("  ").next().unwrap_or_default();
    let words = words.split(" # ").next().unwrap_or_default().trim_end();
    let Some(mut split) = shlex::split(words) else { return Some(Err(line.to_owned())) };
    let end = split.iter().position(|word| ["|", ">", "<", ";", "&&", "||"].contains(&word.as_str()));
    split.truncate(end.unwrap_or(split.len()));
    split.insert(0, "kubectl-grpcmesh".to_owned());
    let taken = grpcmesh::commands::definition().try_get_matches_from(&split);
    Some(taken.map(|_| words.to_owned()).map_err(|error| format!("{line}\n{error}")))
}

/// Commands in blocks and in code of the pages, those that need a cluster too.
#[test]
fn commands_of_the_pages_are_taken() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("SECURITY.md")];
    for folder in ["docs", "docs/commands", "docs/findings"] {
        let files = std::fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|end| end == "md")));
    }
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap().replace("\\\n", " ");
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches("$ ");
            // What stands within a sentence may be a pattern.
            let within = line.split('`').skip(1).step_by(2);
            let commands = within.filter(|code| !code.contains(['…', '[']) && !code.contains("COMMAND"));
            for command in commands.chain([line]).filter(|command| command.starts_with("kubectl grpcmesh ")) {
                seen += 1;
                wrong.extend(parsed(command).and_then(Result::err).map(|why| format!("{}: {why}", page.display())));
            }
        }
    }
    assert!(seen > 60 && wrong.is_empty(), "{seen}\n{}", wrong.join("\n"));
}

#[test]
fn examples_of_the_help_are_right() {
    let definition = grpcmesh::commands::definition();
    let mut seen = Vec::new();
    for command in definition.get_subcommands().filter(|command| command.get_name() != "help") {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:"), "the help of {} ends in examples", command.get_name());
        for line in help.lines().skip(1) {
            seen.extend(parsed(line).map(Result::unwrap));
        }
    }
    assert!(seen.len() > 40, "{seen:#?}");
    for (words, code) in RUN {
        assert!(seen.iter().any(|one| one == words), "{words} is no example any more");
        check(&words.split(' ').collect::<Vec<_>>(), code, "", "");
    }
}

#[test]
fn what_would_be_passed_over_in_silence_is_said() {
    let root = std::env::temp_dir().join(format!("grpcmesh-said-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let healthy = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/healthy.yaml");

    // Tests beside the manifests that they are about are no manifests.
    std::fs::copy(healthy, root.join("mesh.yaml")).unwrap();
    std::fs::write(root.join("tests.yaml"), "- {caller: web, host: 'checkout.shop:50051', expect: {status: OK}}\n")
        .unwrap();
    check(&["route", "--from", root.to_str().unwrap(), "--test", &at("tests.yaml")], 0, "1 ", "");
    // A host that the mesh does not know is no success.
    std::fs::write(root.join("typo.yaml"), "- {caller: web, host: 'chekout.shop:50051', expect: {status: OK}}\n")
        .unwrap();
    check(&["route", "--from", "demo", "--test", &at("typo.yaml")], 1, "does not know the host", "");

    check(
        &["route", "--from", "demo", "checkout.shop:50051", "/a.B/C", "--caller", "nosuch"],
        3,
        "",
        "no namespace nosuch",
    );
    let pod = ["route", "--from", "demo", "checkout.shop:50051", "/a.B/C", "--caller", "frontend-v1-5d8c7f9b64-4kq9d"];
    check(&pod, 3, "", "--caller web/frontend-v1-5d8c7f9b64-4kq9d");
    check(&["tail", "--logs", "README.md", "--fail-on", "1%"], 3, "", "nothing to judge");
    check(&["diff", "--from", "demo", "--against", healthy, "checkout.shop"], 2, "", "compared whole");
    check(&["snapshot", "--from", "demo", "-n", "shop", "-o", &at("x.json")], 2, "", "kept whole");
    // Long names of flags are as good as codes.
    let log = "tests/fixtures/accesslog/istio-text.log";
    let count = |flag: &str| run(&["tail", "--logs", log, "--flag", flag, "--summary", "-o", "json"]).stdout;
    assert_eq!(count("UF"), count("UpstreamConnectionFailure"));
    assert_ne!(count("UF"), count("UH"));
    std::fs::remove_dir_all(root).unwrap();
}

#[cfg(unix)]
#[test]
fn a_snapshot_follows_links_and_leaves_pipes() {
    use std::os::unix::fs::FileTypeExt as _;
    let root = std::env::temp_dir().join(format!("grpcmesh-kept-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let (target, link, pipe) = (root.join("target.json"), root.join("link.json"), root.join("pipe"));
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    check(&["snapshot", "--from", "demo", "-o", link.to_str().unwrap()], 0, "", "objects");
    assert!(link.is_symlink() && std::fs::metadata(&target).unwrap().len() > 1_000);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let read = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap().len()
    });
    check(&["snapshot", "--from", "demo", "-o", pipe.to_str().unwrap()], 0, "", "objects");
    assert!(read.join().unwrap() > 1_000);
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    std::fs::remove_dir_all(root).unwrap();
}

/// Each fence of a report for a pull request stands on a line of its own.
#[test]
fn markdown_blocks_end() {
    let healthy = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/healthy.yaml");
    let out = run(&["diff", "--from", "demo", "--against", healthy, "-o", "markdown"]).stdout;
    let text = String::from_utf8(out).unwrap();
    let fences = text.lines().filter(|line| line.contains("```")).collect::<Vec<_>>();
    assert!(fences.len() >= 4 && fences.iter().all(|line| line.starts_with("```")), "{fences:?}");
    assert!(fences.iter().skip(1).step_by(2).all(|line| *line == "```"), "{fences:?}");
}

/// What can be read of a damaged log counts, and the others are read too.
#[test]
fn a_damaged_log_does_not_end_the_run() {
    let folder = std::env::temp_dir().join(format!("grpcmesh-damaged-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let log = std::fs::read("tests/fixtures/accesslog/istio-text.log").unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, &log).unwrap();
    let packed = packed.finish().unwrap();
    std::fs::write(folder.join("a.log.gz"), &packed[..packed.len() / 2]).unwrap();
    let only = folder.join("a.log.gz").display().to_string();
    let note = "cannot read the log of a to its end";
    check(&["tail", "--logs", &only, "--summary"], 4, "calls", note);
    std::fs::write(folder.join("b.log"), &log).unwrap();
    let both = folder.display().to_string();
    for more in [&["--summary"][..], &["--all"], &["--summary", "-o", "json"]] {
        let arguments = [&["tail", "--logs", &both], more].concat();
        check(&arguments, 4, "", note);
        let output = run(&arguments);
        let out = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let words: Vec<&str> = out.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        // `264 calls` for people, `"calls": 264` in JSON, where those of the groups are fewer.
        let numbers = words.windows(2).filter_map(|pair| match pair {
            [number, "calls"] | ["calls", number] => number.parse::<u64>().ok(),
            _ => None,
        });
        // The whole one alone has 224.
        let calls = numbers.max().unwrap_or_default();
        assert!(calls > 224 && calls < 448, "{calls}: {out}");
    }
    std::fs::write(folder.join("a.log.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
    check(&["tail", "--logs", &only, "--summary"], 3, "", note);
    let said = run(&["tail", "--logs", &only, "--summary"]).stderr;
    assert_eq!(String::from_utf8_lossy(&said).matches(note).count(), 1, "it is said once");
    std::fs::remove_dir_all(folder).unwrap();
}

/// A share is of the calls in the time that was asked for, and nothing is judged by none.
#[test]
fn a_share_of_faults_is_of_the_time_that_was_asked_for() {
    let path = std::env::temp_dir().join(format!("grpcmesh-share-{}.log", std::process::id()));
    let line = |time: &str, flags: &str| {
        format!(
            "[2026-11-21T{time}.000Z] \"POST /a.B/C HTTP/2\" 200 {flags} via_upstream - \"-\" 1 9 3 1 \"-\" \"grpc-go/1\" \"id\" \
             \"echo:80\" \"10.0.0.1:80\" outbound|80||echo - 10.0.0.3:80 10.0.0.4:5 - default\n"
        )
    };
    std::fs::write(&path, line("09:00:00", "-").repeat(99) + &line("10:00:00", "UH")).unwrap();
    let log = path.display().to_string();
    check(&["tail", "--logs", &log, "--fail-on", "50%"], 0, "", "100 calls, 1 faults");
    let since = ["tail", "--logs", &log, "--since-time", "2026-11-21T09:30:00Z", "--fail-on", "50%"];
    check(&since, 1, "", "1 calls, 1 faults");
    check(&[&since[..4], &["2026-11-21T11:00:00Z", "--fail-on", "50%"]].concat(), 3, "", "in that time");
    check(
        &["tail", "--logs", &log, "--where", "duration_ms == 3", "-o", "csv", "--no-headers"],
        0,
        "2026-11-21T09:00:00.000Z,",
        "",
    );
    check(&["tail", "--logs", &log, "--grpc-status", "5"], 0, "", "does not have the gRPC status of 100 of 100 calls");
    check(&["tail", "--logs", &log, "--exclude", "x"], 2, "", "--exclude");
    check(&["tail", "--logs", &log, "--name", "shop/echo", "-n", "web"], 3, "", "namespace web");
    check(&["tail", "--logs", &log, "--name", "shop/echo", "-n", "shop"], 0, "", "100 calls");
    std::fs::remove_file(path).unwrap();
}

/// Logs as other systems save them.
#[test]
fn marks_of_encodings_cost_no_line() {
    let path = std::env::temp_dir().join(format!("grpcmesh-mark-{}.log", std::process::id()));
    let log = path.display().to_string();
    let whole = std::fs::read("tests/fixtures/accesslog/istio-text.log").unwrap();
    std::fs::write(&path, [b"\xef\xbb\xbf", &whole[..]].concat()).unwrap();
    check(&["tail", "--logs", &log], 0, "", "224 calls");
    let wide: Vec<u8> = whole.iter().flat_map(|byte| [*byte, 0]).collect();
    std::fs::write(&path, [b"\xff\xfe", &wide[..]].concat()).unwrap();
    check(&["tail", "--logs", &log], 3, "", "UTF-16");
    std::fs::write(&path, "[21/Nov/2026] 503 UH\n").unwrap();
    let format = "[%START_TIME(%d/%b/%Y)%] %RESPONSE_CODE% %RESPONSE_FLAGS%";
    let since = ["tail", "--logs", &log, "--log-format", format, "--since-time", "2026-11-21T00:00:00Z"];
    check(&since, 0, "", "1 of them have no start time");
    check(&["tail", "--logs", &log, "--log-format", "%RESPONSE_CODE% %DURATION%"], 0, "", "--log-format does not fit");
    std::fs::remove_file(path).unwrap();
}
