//! GM001: a kind under a group or version that nobody serves.

use crate::mesh::Mesh;
use crate::mesh::ids::{Interner, ObjectRef};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM001",
    name: "wrong-api-group",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "A kind of Istio or Gateway API under a group or version that nobody serves",
    docs: "\
## What it looks for
An object whose kind Istio or Gateway API defines, with an `apiVersion` that neither ever served, such as
`networking.io/v1`.

## Why it matters for gRPC
The API server refuses the object (`no matches for kind`), or, where a tool swallowed that error, the mesh behaves as
if the object did not exist: no subsets, no routes, no limits.

## Example
```yaml
apiVersion: networking.io/v1        # no such group
kind: DestinationRule
```

## Repair
```yaml
apiVersion: networking.istio.io/v1
kind: DestinationRule
```

## References
- Seen on a real mesh: `tests/lab/effects/GM001.yaml`.
- Istio's API versions: `manifests/charts/base/files/crd-all.gen.yaml`; `v1` is served since Istio 1.22.
- Gateway API: `config/crd` of kubernetes-sigs/gateway-api.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut names = Interner::default();
    for object in &mesh.snapshot.misplaced {
        let reference = ObjectRef::new(&object.key, &mut names);
        let kind = object.key.kind;
        let served: Vec<_> =
            kind.info().versions.iter().map(|version| format!("{}/{version}", kind.info().group)).collect();
        let finding = Finding::new(&RULE, &reference, "apiVersion")
            .message(format!("apiVersion \"{}\" does not serve {}", object.api_version, kind.name()))
            .impact("the API server refuses the object: for the mesh it does not exist")
            .evidence([format!("{} is served as {}", kind.name(), served.join(", "))])
            .fix(format!("apiVersion: {}", kind.api_version()));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, istio};

    #[test]
    fn a_group_that_nobody_serves_is_reported() {
        let wrong = istio("DestinationRule", "a", "{host: a}").replace("networking.istio.io/v1", "networking.io/v1");
        check(&RULE, &wrong, &["error DestinationRule shop/a apiVersion"]);
        let version = istio("VirtualService", "a", "{}").replace("istio.io/v1", "istio.io/v2");
        check(&RULE, &version, &["error VirtualService shop/a apiVersion"]);
    }

    #[test]
    fn old_versions_and_other_projects_kinds_are_silent() {
        check(&RULE, &istio("DestinationRule", "a", "{host: a}").replace("io/v1", "io/v1alpha3"), &[]);
        check(&RULE, &istio("Gateway", "a", "{}").replace("networking.istio.io", "gateway.solo.io"), &[]);
    }
}
