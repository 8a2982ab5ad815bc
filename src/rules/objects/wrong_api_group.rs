//! GM001: a kind with an `apiVersion` that does not serve it.

use crate::mesh::Mesh;
use crate::mesh::ids::{Interner, ObjectRef};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM001",
    name: "wrong-api-group",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "An Istio or Gateway API kind with an apiVersion that does not serve it",
    docs: "\
## What it looks for
An object whose kind belongs to Istio or Gateway API, with an `apiVersion` that never served this kind, such as
`networking.io/v1`.

## Why it matters for gRPC
The API server rejects the object (`no matches for kind`). If a pipeline ignores that error, the mesh runs without the
object: its subsets, routes and limits do not exist.

## Example
```yaml
apiVersion: networking.io/v1        # unknown API group
kind: DestinationRule
```

## Fix
```yaml
apiVersion: networking.istio.io/v1
kind: DestinationRule
```

## References
- Verified on a real mesh: `tests/lab/effects/GM001.yaml`.
- Istio source: `manifests/charts/base/files/crd-all.gen.yaml`; `v1` is served since Istio 1.22.
- Gateway API: `config/crd` in kubernetes-sigs/gateway-api.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut names = Interner::default();
    for object in &mesh.snapshot.unserved {
        let reference = ObjectRef::new(&object.key, &mut names);
        let kind = object.key.kind;
        let served: Vec<_> =
            kind.info().versions.iter().map(|version| format!("{}/{version}", kind.info().group)).collect();
        let finding = Finding::new(&RULE, &reference, "apiVersion")
            .message(format!(
                "{} has apiVersion \"{}\", which does not serve that kind",
                kind.name(),
                object.api_version
            ))
            .impact("the API server rejects the object, so it has no effect on calls")
            .evidence([format!("{} is served as {}", kind.name(), served.join(", "))])
            .fix(format!("apiVersion: {}", kind.api_version()));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, istio};

    #[test]
    fn reports_unknown_groups_and_unknown_versions() {
        let group = istio("DestinationRule", "a", "{host: a}").replace("networking.istio.io/v1", "networking.io/v1");
        assert_findings(&RULE, &group, &["error DestinationRule shop/a apiVersion"]);
        let version = istio("VirtualService", "a", "{}").replace("istio.io/v1", "istio.io/v2");
        assert_findings(&RULE, &version, &["error VirtualService shop/a apiVersion"]);
    }

    #[test]
    fn is_silent_on_former_versions_and_on_kinds_of_other_projects() {
        assert_findings(&RULE, &istio("DestinationRule", "a", "{host: a}").replace("io/v1", "io/v1alpha3"), &[]);
        assert_findings(&RULE, &istio("Gateway", "a", "{}").replace("networking.istio.io", "gateway.solo.io"), &[]);
    }
}
