//! What a user may do, against the roles in `docs/rbac/`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{CheckState, DoctorCheck};
use crate::schema::kind::KINDS;
use crate::schema::string_list::few;
use crate::snapshot::yaml;

/// A rule of a role, and of what the API server says that a user may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RbacRule {
    /// API groups; `*` is all.
    pub api_groups: Vec<String>,
    /// Resources, with a subresource after a slash; `*` is all.
    pub resources: Vec<String>,
    /// Verbs; `*` is all.
    pub verbs: Vec<String>,
    /// Only objects of these names; empty is all.
    pub resource_names: Vec<String>,
}

/// One thing that one may do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequiredRight {
    /// API group; empty for the core group.
    pub group: String,
    /// Resource, with a subresource after a slash.
    pub resource: String,
    /// Verb.
    pub verb: String,
}

/// The documented roles.
const READER: &str = include_str!("../../docs/rbac/reader.yaml");
const LIVE_READER: &str = include_str!("../../docs/rbac/live-reader.yaml");
const SHIFTER: &str = include_str!("../../docs/rbac/shifter.yaml");

/// Roles, each on top of those before, with the commands that need it.
const ROLES: [(&str, &str, &str); 3] = [
    ("reader", "inspect, route and snapshot", READER),
    ("live-reader", "tail, diff, balance and what is --live", LIVE_READER),
    ("shifter", "shift", SHIFTER),
];

/// Rights without which nothing works at all: they are asked about one by one, over the whole cluster.
pub fn decisive() -> Vec<RequiredRight> {
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

/// The rights that a role's text gives; `*` of Istio's groups are the resources that are read here.
fn needed(role: &str) -> Vec<RequiredRight> {
    #[derive(Deserialize)]
    struct Role {
        rules: Vec<RbacRule>,
    }
    let json = yaml::to_json(role).ok().and_then(|converted| converted.json);
    let rules = json.and_then(|json| serde_json::from_str::<Role>(json.get()).ok()).map(|role| role.rules);
    let mut rights = Vec::new();
    for rule in rules.unwrap_or_default() {
        for group in &rule.api_groups {
            let known = KINDS.iter().filter(|info| info.group == group).map(|info| info.plural.to_owned());
            let every = rule.resources.iter().any(|resource| resource == "*");
            let resources: Vec<String> = if every { known.collect() } else { rule.resources.clone() };
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
    /// Whether it gives a right, for objects of any name.
    fn gives(&self, right: &RequiredRight) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|one| one == "*" || one == word);
        let by_subresource = || {
            let (_, sub) = right.resource.split_once('/')?;
            Some(self.resources.iter().any(|one| one.strip_prefix("*/") == Some(sub)))
        };
        self.resource_names.is_empty()
            && has(&self.api_groups, &right.group)
            && has(&self.verbs, &right.verb)
            && (has(&self.resources, &right.resource) || by_subresource() == Some(true))
    }
}

/// What the commands may do in a namespace, a check for each role. `everywhere` holds the decisive rights, with whether
/// they are given over the whole cluster.
pub fn checks(namespace: &str, granted: &[RbacRule], everywhere: &[(RequiredRight, bool)]) -> Vec<DoctorCheck> {
    let of_role = |(name, commands, text): (&str, &str, &str)| {
        let needed = needed(text);
        let id = format!("rights/{name}");
        let missing: Vec<RequiredRight> =
            needed.iter().filter(|right| !granted.iter().any(|rule| rule.gives(right))).cloned().collect();
        if missing.is_empty() {
            let is_narrow = everywhere.iter().any(|(right, is_given)| !is_given && needed.contains(right));
            return if is_narrow {
                let why = format!("all that {commands} need in {namespace}, and not in every namespace");
                DoctorCheck::new(id, CheckState::Warning, format!("{why}: callers elsewhere stay unseen"))
                    .fix(format!("bind ClusterRole grpcmesh-{name} (docs/rbac/{name}.yaml) with a ClusterRoleBinding"))
            } else {
                DoctorCheck::new(id, CheckState::Ok, format!("all that {commands} need, in every namespace"))
            };
        }
        let is_decisive = decisive().iter().any(|right| missing.contains(right));
        let state = if is_decisive { CheckState::Failed } else { CheckState::Warning };
        DoctorCheck::new(id, state, format!("{namespace} lacks for {commands}: {}", few(missing.iter().map(show), 3)))
            .fix(role(namespace, name, &missing))
    };
    ROLES.into_iter().map(of_role).collect()
}

/// `list pods`, `patch virtualservices.networking.istio.io`.
fn show(right: &RequiredRight) -> String {
    let dot = if right.group.is_empty() { "" } else { "." };
    format!("{} {}{dot}{}", right.verb, right.resource, right.group)
}

/// What stands in no namespace: a Role cannot give it.
const OF_CLUSTER: [&str; 2] = ["namespaces", "gatewayclasses"];

/// Roles with what is missing, ready to apply, and how to bind them.
fn role(namespace: &str, name: &str, missing: &[RequiredRight]) -> String {
    let (of_cluster, inside): (Vec<&RequiredRight>, Vec<&RequiredRight>) =
        missing.iter().partition(|right| OF_CLUSTER.contains(&right.resource.as_str()));
    let name = format!("grpcmesh-{name}");
    let mut texts = Vec::new();
    if !inside.is_empty() {
        texts.push(format!(
            "# kubectl create rolebinding {name} -n {namespace} --role={name} --user=USER\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}, namespace: {namespace}}}\n{}",
            rules(&inside)
        ));
    }
    if !of_cluster.is_empty() {
        texts.push(format!(
            "# kubectl create clusterrolebinding {name} --clusterrole={name} --user=USER\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {name}}}\n{}",
            rules(&of_cluster)
        ));
    }
    texts.join("---\n")
}

/// The rules of a role, rights with the same verbs together.
fn rules(rights: &[&RequiredRight]) -> String {
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

    fn given(role: &str) -> Vec<RbacRule> {
        needed(role)
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
    fn roles_give_their_commands() {
        assert!(needed(READER).len() > 40 && needed(SHIFTER).len() == 6);
        let reader = checks("shop", &given(READER), &[]);
        assert_eq!(state(&reader, "rights/reader"), CheckState::Ok);
        assert_eq!(state(&reader, "rights/live-reader"), CheckState::Failed);
        let fix = reader.iter().find(|check| check.id == "rights/shifter").unwrap().fix.clone().unwrap();
        assert!(fix.contains("resources: [virtualservices], verbs: [patch]"), "only what is missing: {fix}");
        // What is missing, applied, is enough.
        let fixed = [given(READER), given(&fix)].concat();
        assert_eq!(state(&checks("shop", &fixed, &[]), "rights/shifter"), CheckState::Ok);
        let all = [given(READER), given(LIVE_READER), given(SHIFTER)].concat();
        assert!(checks("shop", &all, &[]).iter().all(|check| check.state == CheckState::Ok));
        let narrow = checks("shop", &all, &[(decisive().remove(0), false)]);
        assert_eq!(state(&narrow, "rights/reader"), CheckState::Warning);
    }

    #[test]
    fn stars_give_all_and_names_do_not() {
        let all = RbacRule {
            api_groups: vec!["*".into()],
            resources: vec!["*".into()],
            verbs: vec!["*".into()],
            ..RbacRule::default()
        };
        assert!(checks("shop", std::slice::from_ref(&all), &[]).iter().all(|check| check.state == CheckState::Ok));
        let named = RbacRule { resource_names: vec!["one".into()], ..all };
        assert_eq!(state(&checks("shop", &[named], &[]), "rights/reader"), CheckState::Failed);
        let none = checks("shop", &[], &[]);
        assert!(none.iter().all(|check| check.state == CheckState::Failed && check.fix.is_some()));
        let fix = none[0].fix.clone().unwrap();
        let (inside, of_cluster) = fix.split_once("---\n").unwrap();
        assert!(!inside.contains("namespaces]") && of_cluster.contains("resources: [namespaces]"), "{fix}");
    }
}
