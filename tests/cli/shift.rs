//! `shift` without a cluster: arguments, and weights in manifests. The lab tests shifts of real objects.

use super::support::TestEnv;
use super::{assert_rejected, run};

const MANIFEST: &str = "# ours
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

#[test]
fn rejects_incomplete_and_invalid_arguments() {
    assert_rejected(
        "shift-rejected",
        &[
            "shift",
            "shift pay",
            "shift pay --to v2=100 --steps 5,x",
            "shift pay --to v2",
            "shift pay --to v2=1 --prometheus nowhere",
            "shift pay --to v2=1 --error-status 17",
        ],
    );
}

#[test]
fn a_password_in_an_address_is_not_repeated() {
    let run = run("shift pay --to v2=1 --prometheus https://ci:hunter2@prom");
    assert_eq!(run.code(), 2);
    assert!(run.stderr.contains("credentials") && !run.stderr.contains("hunter2"), "{run}");
}

#[test]
fn edits_only_the_weights_of_a_manifest() {
    let env = TestEnv::new();
    let file = env.write("pay.yaml", MANIFEST);
    let shift = |rest: &[&str]| env.run(&[&["shift"], rest, &["--edit", &file]].concat());
    let content = || std::fs::read_to_string(&file).unwrap();

    insta::assert_snapshot!("shift-edit-dry-run", shift(&["pay.shop", "--to", "v2=25", "--dry-run"]));
    assert_eq!(content(), MANIFEST);
    insta::assert_snapshot!("shift-edit-json", shift(&["vs/pay.shop", "--to", "v2=25", "-o", "json"]));
    assert_eq!(content(), MANIFEST.replace("weight: 90", "weight: 75").replace("weight: 10", "weight: 25"));
    insta::assert_snapshot!("shift-edit-text", shift(&["pay.shop", "--to", "v2=50"]));
    insta::assert_snapshot!("shift-edit-same", shift(&["pay.shop", "--to", "v2=50"]));
    insta::assert_snapshot!("shift-edit-unknown-backend", shift(&["pay.shop", "--to", "v3=25"]));
    insta::assert_snapshot!("shift-edit-without-weights", shift(&["pay.shop"]));
}
