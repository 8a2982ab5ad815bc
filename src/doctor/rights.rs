//! Compares a user's permissions with the roles in `docs/rbac/`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{CheckState, DoctorCheck};
use crate::schema::kind::KINDS;
use crate::snapshot::yaml;
use crate::vocabulary::name_list::abbreviate;

/// A rule of a role, or of the permissions that the API server reports for a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RbacRule {
    /// `*` means all groups.
    pub api_groups: Vec<String>,
    /// With a subresource after a slash; `*` means all resources.
    pub resources: Vec<String>,
    /// `*` means all verbs.
    pub verbs: Vec<String>,
    /// Limits the rule to objects with these names; empty means all objects.
    pub resource_names: Vec<String>,
}

/// A permission: one verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequiredRight {
    /// Empty for the core group.
    pub group: String,
    /// With a subresource after a slash.
    pub resource: String,
    pub verb: String,
}

const READER: &str = include_str!("../../docs/rbac/reader.yaml");
const LIVE_READER: &str = include_str!("../../docs/rbac/live-reader.yaml");
const SHIFTER: &str = include_str!("../../docs/rbac/shifter.yaml");

/// Role names, the commands that require them, and their manifests. Each role adds to the ones before it.
const ROLES: [(&str, &str, &str); 3] = [
    ("reader", "inspect, route and snapshot", READER),
    ("live-reader", "tail, diff, balance and --live", LIVE_READER),
    ("shifter", "shift", SHIFTER),
];

/// Permissions without which a command does not work at all. They are checked one by one, for the whole cluster.
pub fn essential_rights() -> Vec<RequiredRight> {
    let right = |group: &str, resource: &str, verb: &str| RequiredRight {
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: verb.to_owned(),
    };
    vec![
        right("", "services", "list"),
        right("", "pods", "list"),
        right("networking.istio.io", "virtualservices", "list"),
        right("", "pods/portforward", "create"),
        right("", "pods/log", "get"),
        right("networking.istio.io", "virtualservices", "patch"),
    ]
}

/// Lists the permissions of a role's manifest. `*` of an Istio group stands for the resources that the program reads.
fn required_rights(role_yaml: &str) -> Vec<RequiredRight> {
    #[derive(Deserialize)]
    struct Role {
        rules: Vec<RbacRule>,
    }
    let json = yaml::to_json(role_yaml).ok().and_then(|converted| converted.json);
    let rules = json.and_then(|json| serde_json::from_str::<Role>(json.get()).ok()).map(|role| role.rules);
    let mut rights = Vec::new();
    for rule in rules.unwrap_or_default() {
        for group in &rule.api_groups {
            let read_resources = KINDS.iter().filter(|info| info.group == group).map(|info| info.plural.to_owned());
            let is_wildcard = rule.resources.iter().any(|resource| resource == "*");
            let resources: Vec<String> = if is_wildcard { read_resources.collect() } else { rule.resources.clone() };
            for resource in resources {
                for verb in &rule.verbs {
                    rights.push(RequiredRight { group: group.clone(), resource: resource.clone(), verb: verb.clone() });
                }
            }
        }
    }
    rights.sort();
    rights.dedup();
    rights
}

impl RbacRule {
    /// Reports whether the rule grants a permission on objects of any name.
    fn grants(&self, right: &RequiredRight) -> bool {
        let contains = |list: &[String], value: &str| list.iter().any(|item| item == "*" || item == value);
        let matches_subresource = || {
            let (_, subresource) = right.resource.split_once('/')?;
            Some(self.resources.iter().any(|resource| resource.strip_prefix("*/") == Some(subresource)))
        };
        self.resource_names.is_empty()
            && contains(&self.api_groups, &right.group)
            && contains(&self.verbs, &right.verb)
            && (contains(&self.resources, &right.resource) || matches_subresource() == Some(true))
    }
}

/// Checks each role in a namespace. `granted` are the user's permissions there. `cluster_wide` holds each of
/// [`essential_rights`] with whether it is granted in the whole cluster.
pub fn checks(namespace: &str, granted: &[RbacRule], cluster_wide: &[(RequiredRight, bool)]) -> Vec<DoctorCheck> {
    let of_role = |(name, commands, text): (&str, &str, &str)| {
        let required = required_rights(text);
        let id = format!("rights/{name}");
        let missing: Vec<RequiredRight> =
            required.iter().filter(|right| !granted.iter().any(|rule| rule.grants(right))).cloned().collect();
        if missing.is_empty() {
            let is_namespaced = cluster_wide.iter().any(|(right, is_granted)| !is_granted && required.contains(right));
            return if is_namespaced {
                let reason = format!(
                    "all permissions for {commands} are granted in {namespace}, but not in the whole cluster: callers in other \
                     namespaces are not visible"
                );
                DoctorCheck::new(id, CheckState::Warning, reason).with_fix(format!(
                    "bind ClusterRole grpcmesh-{name} (docs/rbac/{name}.yaml) with a ClusterRoleBinding"
                ))
            } else {
                DoctorCheck::new(id, CheckState::Ok, format!("all permissions for {commands} are granted"))
            };
        }
        let is_essential = essential_rights().iter().any(|right| missing.contains(right));
        let state = if is_essential { CheckState::Failed } else { CheckState::Warning };
        DoctorCheck::new(
            id,
            state,
            format!(
                "permissions for {commands} are missing in {namespace}: {}",
                abbreviate(missing.iter().map(permission_title), 3)
            ),
        )
        .with_fix(role_manifest(namespace, name, &missing))
    };
    ROLES.into_iter().map(of_role).collect()
}

/// `list pods`, `patch virtualservices.networking.istio.io`.
fn permission_title(right: &RequiredRight) -> String {
    let dot = if right.group.is_empty() { "" } else { "." };
    format!("{} {}{dot}{}", right.verb, right.resource, right.group)
}

/// Cluster-scoped resources: only a ClusterRole can grant them.
const CLUSTER_SCOPED: [&str; 2] = ["namespaces", "gatewayclasses"];

/// Renders roles with the missing permissions, ready to apply, and the commands that bind them.
fn role_manifest(namespace: &str, name: &str, missing: &[RequiredRight]) -> String {
    let (cluster_scoped, namespaced): (Vec<&RequiredRight>, Vec<&RequiredRight>) =
        missing.iter().partition(|right| CLUSTER_SCOPED.contains(&right.resource.as_str()));
    let name = format!("grpcmesh-{name}");
    let mut manifests = Vec::new();
    if !namespaced.is_empty() {
        manifests.push(format!(
            "# kubectl create rolebinding {name} -n {namespace} --role={name} --user=USER\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}, namespace: {namespace}}}\n{}",
            rules_manifest(&namespaced)
        ));
    }
    if !cluster_scoped.is_empty() {
        manifests.push(format!(
            "# kubectl create clusterrolebinding {name} --clusterrole={name} --user=USER\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {name}}}\n{}",
            rules_manifest(&cluster_scoped)
        ));
    }
    manifests.join("---\n")
}

/// Renders the rules of a role. Resources with the same group and verbs share a rule.
fn rules_manifest(rights: &[&RequiredRight]) -> String {
    let mut verbs: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for right in rights {
        verbs.entry((&right.group, &right.resource)).or_default().push(&right.verb);
    }
    let mut rules: BTreeMap<(&str, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for ((group, resource), verbs) in verbs {
        rules.entry((group, verbs)).or_default().push(resource);
    }
    let mut text = "rules:\n".to_owned();
    for ((group, verbs), resources) in rules {
        text.push_str(&format!(
            "- {{apiGroups: [\"{group}\"], resources: [{}], verbs: [{}]}}\n",
            resources.join(", "),
            verbs.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(role: &str) -> Vec<RbacRule> {
        required_rights(role)
            .into_iter()
            .map(|right| RbacRule {
                api_groups: vec![right.group],
                resources: vec![right.resource],
                verbs: vec![right.verb],
                resource_names: Vec::new(),
            })
            .collect()
    }

    fn state(checks: &[DoctorCheck], id: &str) -> CheckState {
        checks.iter().find(|check| check.id == id).unwrap().state
    }

    #[test]
    fn each_role_is_sufficient_for_its_commands() {
        assert!(required_rights(READER).len() > 40 && required_rights(SHIFTER).len() == 6);
        let reader = checks("shop", &granted(READER), &[]);
        assert_eq!(state(&reader, "rights/reader"), CheckState::Ok);
        assert_eq!(state(&reader, "rights/live-reader"), CheckState::Failed);
        let fix = reader.iter().find(|check| check.id == "rights/shifter").unwrap().fix.clone().unwrap();
        assert!(fix.contains("resources: [virtualservices], verbs: [patch]"), "only what is missing: {fix}");
        // Applying the printed role is sufficient.
        let fixed = [granted(READER), granted(&fix)].concat();
        assert_eq!(state(&checks("shop", &fixed, &[]), "rights/shifter"), CheckState::Ok);
        let all = [granted(READER), granted(LIVE_READER), granted(SHIFTER)].concat();
        assert!(checks("shop", &all, &[]).iter().all(|check| check.state == CheckState::Ok));
        let namespaced = checks("shop", &all, &[(essential_rights().remove(0), false)]);
        assert_eq!(state(&namespaced, "rights/reader"), CheckState::Warning);
    }

    #[test]
    fn wildcards_grant_everything_and_resource_names_do_not() {
        let all = RbacRule {
            api_groups: vec!["*".into()],
            resources: vec!["*".into()],
            verbs: vec!["*".into()],
            ..RbacRule::default()
        };
        assert!(checks("shop", std::slice::from_ref(&all), &[]).iter().all(|check| check.state == CheckState::Ok));
        let named = RbacRule { resource_names: vec!["a".into()], ..all };
        assert_eq!(state(&checks("shop", &[named], &[]), "rights/reader"), CheckState::Failed);
        let none = checks("shop", &[], &[]);
        assert!(none.iter().all(|check| check.state == CheckState::Failed && check.fix.is_some()));
        let fix = none[0].fix.clone().unwrap();
        let (namespaced, cluster_scoped) = fix.split_once("---\n").unwrap();
        assert!(!namespaced.contains("namespaces]") && cluster_scoped.contains("resources: [namespaces]"), "{fix}");
    }
}
