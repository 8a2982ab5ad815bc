//! `route`.

use super::support::TestEnv;
use super::{HEALTHY, assert_rejected, assert_run, run};

#[test]
fn prints_the_decision_for_one_caller_in_every_format() {
    let call = "checkout.shop:50051 /shop.checkout.v1.Checkout/Place --caller shop";
    assert_run("route-text", &format!("route --from demo {call}"));
    assert_run("route-json", &format!("route --from demo {call} -o json"));
    assert_run("route-yaml", &format!("route --from demo {call} -o yaml"));
}

#[test]
fn prints_one_answer_for_each_caller_class() {
    assert_run("route-callers", "route --from demo checkout.shop:50051");
    assert_run("route-default-port", "route --from demo checkout.shop");
}

#[test]
fn states_why_a_call_fails() {
    assert_run("route-no-cluster", "route --from demo checkout.shop:50051 --caller web/deploy/frontend-v1");
    assert_run("route-unknown-host", "route --from demo chekout --allow-unknown-host");
    assert_run("route-protocol-error", "route --from demo shipping.shop /s.S/M --caller web");
    assert_run("route-no-proxy", "route --from demo checkout.shop:50051 --caller shop/catalog-v1-57fb8d6c9c-tk7wl");
}

#[test]
fn rejects_callers_hosts_and_headers_that_do_not_exist() {
    assert_rejected(
        "route-rejected",
        &[
            "route --from demo checkout.shop:50051 --caller web/missing",
            "route --from demo checkout.shop:50051 /a.B/C --caller nosuch",
            "route --from demo checkout.shop:50051 /a.B/C --caller frontend-v1-5d8c7f9b64-4kq9d",
            "route --from demo checkout.shop:50051 --caller web/thing/x",
            "route --from demo checkout.shop:50051 -H nonsense",
            "route --from demo checkout.shop:50051 -H 'x y:1'",
            "route --from demo :80",
            "route --from demo",
            "route --from demo checkout.shop:50051 -o junit",
            "route --from demo checkout.shop:99999",
            "route --from demo checkout.shop:50051 Pay",
            "route --from demo checkout.shop:50051 /a.B/C --caller wbe",
            "route --from demo chekout",
            "route --from demo chekout.shop",
            "route --from demo checkout.shp:50051",
            "route --from demo checkout.shop:abc",
            "route --from demo checkout.shop:9999 /shop.Checkout/Pay",
            "route --from demo svc/checkout",
            "route --from demo checkout.shop/shop.Checkout/Pay",
            "route --from demo checkout.shop:50051/shop.Checkout/Pay",
            "route --from demo grpc://checkout.shop:50051",
            "route --from demo dns:///checkout.shop:50051/shop.Checkout/Pay",
        ],
    );
}

#[test]
fn a_calls_file_gets_one_answer_for_each_valid_line() {
    let run = run("route --from demo --calls tests/fixtures/routes/broken.jsonl -o json");
    assert_eq!(run.code(), 4, "a line that is not a call leaves the answer incomplete");
    insta::assert_snapshot!("route-calls", run);
}

#[test]
fn rejects_files_that_are_not_calls_or_tests() {
    assert_rejected(
        "route-files-rejected",
        &[
            "route --from demo --test tests/fixtures/routes/mistaken.yaml",
            "route --from demo --calls /nonexistent",
            "route --from demo --calls Cargo.toml",
            "route --from demo --test Cargo.toml",
            "route --from demo --test src/demo/shop.yaml",
        ],
    );
}

#[test]
fn route_tests_pass_and_fail_in_every_format() {
    assert_run("route-test-passed", &format!("route --from {HEALTHY} --test src/demo/routes.yaml"));
    assert_run("route-test-failed", "route --from demo --test src/demo/routes.yaml");
    assert_run("route-test-json", "route --from demo --test src/demo/routes.yaml -o json");
    assert_run("route-test-junit", "route --from demo --test src/demo/routes.yaml -o junit");
}

#[test]
fn route_tests_may_lie_beside_the_manifests() {
    let env = TestEnv::new();
    std::fs::copy(HEALTHY, env.path("mesh.yaml")).unwrap();
    let tests = env.write("tests.yaml", "- {caller: web, host: 'checkout.shop:50051', expect: {status: OK}}\n");
    let folder = env.path("");
    insta::assert_snapshot!("route-test-beside-manifests", env.run(&["route", "--from", &folder, "--test", &tests]));
}

#[test]
fn a_route_test_with_an_unknown_host_fails() {
    let env = TestEnv::new();
    let tests = env.write("typo.yaml", "- {caller: web, host: 'chekout.shop:50051', expect: {status: OK}}\n");
    let run = env.run(&["route", "--from", "demo", "--test", &tests]);
    assert_eq!(run.code(), 1);
    insta::assert_snapshot!("route-test-unknown-host", run);
}

/// A mesh with AuthorizationPolicies.
const POLICIES: &str = "tests/fixtures/authorization/shop.yaml";

#[test]
fn authorization_is_decided_for_each_service_account_and_backend() {
    assert_run("route-authorization", &format!("route --from {POLICIES} checkout.shop:50051 /shop.Checkout/Pay"));
    let refund =
        format!("route --from {POLICIES} checkout.shop:50051 /shop.Checkout/Refund --caller web/deploy/frontend");
    assert_run("route-authorization-by-backend", &refund);
    assert_run("route-authorization-json", &format!("{refund} -o json"));
}

#[test]
fn a_denied_undecided_or_aborted_call_is_never_ok() {
    let run = format!("route --from {POLICIES} --test tests/fixtures/authorization/calls.yaml");
    assert_run("route-test-authorization", &run);
}

#[test]
fn answers_for_all_classes_list_the_first_rules_that_do_not_match() {
    let env = TestEnv::new();
    let rules: String = (0..30)
        .map(|number| {
            format!("  - {{match: [{{sourceLabels: {{app: a{number}}}}}], route: [{{destination: {{host: s}}}}]}}\n")
        })
        .collect();
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: a29}}\n\
               spec: {containers: [{name: app}, {name: istio-proxy, image: 'proxyv2:1.31.0'}]}\n";
    let manifest = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: shop}}\nspec: {{ports: [{{name: grpc, port: 1}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\n\
         spec:\n  hosts: [s]\n  http:\n{rules}{pod}"
    );
    let file = env.write("many.yaml", manifest);
    let tried = |caller: &[&str]| {
        let run = env.run(&[&["route", "--from", &file, "s.shop:1", "/a.B/C", "-o", "json"], caller].concat());
        let report: serde_json::Value = serde_json::from_str(run.stdout.trim()).unwrap_or_else(|_| panic!("{run}"));
        (report["tried"].as_array().unwrap().len(), report["tried_omitted"].as_u64().unwrap_or(0))
    };
    assert_eq!(tried(&[]), (20, 9));
    assert_eq!(tried(&["--caller", "shop/p"]), (29, 0));
    let text = env.run(&["route", "--from", &file, "s.shop:1", "/a.B/C"]);
    assert!(text.stdout.contains("9 more rules do not match"), "{text}");
}
