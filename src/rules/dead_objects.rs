//! Keeps one cause to one finding: what rests on rules that do not act is left out.

use std::collections::BTreeSet;

use super::Finding;
use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;

/// Codes of findings that say that an object has no effect.
const NO_EFFECT: [&str; 5] = ["GM208", "GM217", "GM218", "GM507", "GM508"];

/// Codes of findings about what the rules of a VirtualService do to calls.
const ABOUT_CALLS: [&str; 17] = [
    "GM201", "GM203", "GM204", "GM205", "GM206", "GM207", "GM209", "GM212", "GM213", "GM215", "GM216", "GM220",
    "GM226", "GM302", "GM304", "GM305", "GM515",
];

/// Codes that do not matter where a headless Service makes the client choose the pod: GM220.
const ABOUT_SHARES: [&str; 2] = ["GM205", "GM212"];

/// Removes findings that another one makes void: about the calls of a rule that gets none or whose object has no effect,
/// and about the shares of a rule for a headless Service. The finding about the cause remains.
pub(super) fn remove_consequences(mesh: &Mesh<'_>, findings: &mut Vec<Finding>) {
    let reported_dead: BTreeSet<ObjectRef> = findings
        .iter()
        .filter(|finding| NO_EFFECT.contains(&finding.code))
        .map(|finding| finding.object.clone())
        .filter(|object| mesh.objects_without_effect().contains(object))
        .collect();
    let rules_with = |code: &str| -> BTreeSet<(ObjectRef, String)> {
        let found = findings.iter().filter(|finding| finding.code == code);
        found.map(|finding| (finding.object.clone(), rule_of(&finding.field).to_owned())).collect()
    };
    let (headless, unreachable) = (rules_with("GM220"), rules_with("GM206"));
    findings.retain(|finding| {
        let rule = (finding.object.clone(), rule_of(&finding.field).to_owned());
        let is_about_calls = ABOUT_CALLS.contains(&finding.code);
        let is_void = is_about_calls && reported_dead.contains(&finding.object);
        let gets_no_calls = is_about_calls && finding.code != "GM206" && unreachable.contains(&rule);
        let has_no_shares = ABOUT_SHARES.contains(&finding.code) && headless.contains(&rule);
        !(is_void || gets_no_calls || has_no_shares)
    });
}

/// The rule that a field belongs to: `spec.http[0]` of `spec.http[0].route[1].weight`.
fn rule_of(field: &str) -> &str {
    field.find(']').and_then(|end| field.get(..=end)).unwrap_or(field)
}

#[cfg(test)]
mod tests {
    use super::super::select::FindingSelection;
    use super::super::testing::{istio, pod, service, snapshot};
    use crate::mesh::{ResolveOptions, resolve};

    fn codes(yaml: &str) -> Vec<&'static str> {
        let snapshot = snapshot(yaml);
        let mesh = resolve(&snapshot, &ResolveOptions::default());
        super::super::run(&mesh, &FindingSelection::default()).findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn reports_only_the_cause_for_an_object_that_another_one_shadows() {
        let rules = |name: &str, destination: &str| {
            istio(
                "VirtualService",
                name,
                &format!("{{hosts: [a], http: [{{route: [{{destination: {destination}}}]}}]}}"),
            )
        };
        let own = service("a", "{name: grpc, port: 50051}") + &pod("a", "v1");
        let dead = rules("b", "{host: a, subset: v9}");
        assert_eq!(codes(&(own.clone() + &dead)), ["GM203"]);
        assert_eq!(codes(&(own + &rules("a", "{host: a}") + &dead)), ["GM208"]);
    }

    #[test]
    fn reports_no_shares_for_a_headless_service() {
        let headless = service("a", "{name: grpc, port: 50051}").replace("clusterIP: 10.96.0.9", "clusterIP: None");
        let yaml = headless
            + &pod("a", "v1")
            + &istio(
                "DestinationRule",
                "a",
                "{host: a, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
            )
            + &istio(
                "VirtualService",
                "a",
                "{hosts: [a], http: [{route: [{destination: {host: a, subset: v1}, weight: 9}, {destination: {host: a, subset: v2}, weight: 2}]}]}",
            );
        let codes = codes(&yaml);
        assert!(codes.contains(&"GM220"), "{codes:?}");
        assert!(!codes.contains(&"GM205") && !codes.contains(&"GM212"), "{codes:?}");
    }
}
