//! Finds names for completion. Offers none if they are not available within the time limit.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube::config::Kubeconfig;
use serde_json::Value;

use super::TypedFlags;
use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::global::{OutputArgs, SourceArgs};
use crate::cli::target::{ROUTE_KINDS, Target};
use crate::cluster::client::ApiServer;
use crate::rules::RULES;
use crate::schema::Kind;
use crate::shift::split::{RuleSplit, SplitBackend, rule_splits};
use crate::snapshot::Snapshot;
use crate::vocabulary::{grpc_status, response_flags};

/// Time limit for all requests of one completion.
const TIME_LIMIT: Duration = Duration::from_millis(280);
/// Lifetime of a cached list.
const CACHE_LIFETIME: Duration = Duration::from_secs(5);
/// Maximum number of names to offer.
const MAX_NAMES: usize = 500;
/// Shares to offer, in percent.
const SHARES: [&str; 7] = ["0", "1", "5", "10", "25", "50", "100"];

/// A kind of name to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    Namespaces,
    Contexts,
    Clusters,
    Users,
    /// Services, route objects, and after `KIND/` also workloads and pods.
    Targets,
    Pods,
    /// Backends of the target's rules, with shares.
    Shares,
    /// The target's rules.
    Rules,
    Codes,
    Flags,
    Statuses,
    Explained,
}

impl NameKind {
    /// Whether the argument may be a comma-separated list.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Shares | Self::Codes | Self::Flags | Self::Statuses | Self::Explained | Self::Namespaces)
    }
}

/// A name and its description.
type Candidate = (String, String);

/// Finds names in the kubeconfig, the cluster or the typed source.
pub(super) struct NameSource {
    env: Env,
    typed: TypedFlags,
    started: Instant,
}

/// Other kinds that a target may name, as in `deploy/web`.
const TARGET_KINDS: [Kind; 4] = [Kind::Pod, Kind::Deployment, Kind::StatefulSet, Kind::Service];

impl NameSource {
    pub(super) fn new(env: &Env, arguments: &[OsString]) -> Self {
        Self { env: env.clone(), typed: TypedFlags::new(arguments), started: Instant::now() }
    }

    /// All names of a kind. `current` is the typed part of the name.
    pub(super) fn candidates(&self, kind: NameKind, current: &str) -> Vec<Candidate> {
        let without_description = |name: &str| (name.to_owned(), String::new());
        match kind {
            NameKind::Contexts => {
                self.kubeconfig_names(|config| config.contexts.into_iter().map(|entry| entry.name).collect())
            }
            NameKind::Clusters => {
                self.kubeconfig_names(|config| config.clusters.into_iter().map(|entry| entry.name).collect())
            }
            NameKind::Users => {
                self.kubeconfig_names(|config| config.auth_infos.into_iter().map(|entry| entry.name).collect())
            }
            NameKind::Codes => RULES.iter().map(|rule| (rule.code.to_owned(), rule.name.to_owned())).collect(),
            NameKind::Flags => {
                response_flags::FLAGS.iter().map(|flag| (flag.code.to_owned(), flag.name.to_owned())).collect()
            }
            NameKind::Statuses => {
                grpc_status::STATUSES.iter().map(|status| (status.name.to_owned(), status.code.to_string())).collect()
            }
            NameKind::Explained => [NameKind::Codes, NameKind::Flags, NameKind::Statuses]
                .into_iter()
                .flat_map(|kind| self.candidates(kind, current))
                .collect(),
            NameKind::Namespaces => {
                self.objects(Kind::Namespace).into_iter().map(|object| without_description(&object.name)).collect()
            }
            NameKind::Pods => {
                let pods = self.objects(Kind::Pod).into_iter();
                pods.map(|pod| without_description(&format!("{}/{}", pod.namespace, pod.name))).collect()
            }
            NameKind::Targets => self.targets(current),
            NameKind::Shares | NameKind::Rules => self.rule_names(kind),
        }
    }

    fn kubeconfig_names(&self, names: impl Fn(Kubeconfig) -> Vec<String>) -> Vec<Candidate> {
        let files = match &self.typed.connection.kubeconfig {
            Some(file) => std::slice::from_ref(file),
            None => &self.env.kubeconfig_files,
        };
        let configs = files.iter().filter_map(|path| Kubeconfig::read_from(path).ok());
        let names: BTreeSet<String> = configs.flat_map(names).collect();
        names.into_iter().map(|name| (name, String::new())).collect()
    }

    /// Targets such as `checkout` and `vs/checkout`, with `-A` also with their namespace.
    fn targets(&self, current: &str) -> Vec<Candidate> {
        let name = |object: &NamedObject| {
            if self.typed.scope.all_namespaces {
                format!("{}.{}", object.name, object.namespace)
            } else {
                object.name.clone()
            }
        };
        let Ok(typed) = Target::parse(current) else { return Vec::new() };
        if let Some(kind) = typed.kind {
            if !ROUTE_KINDS.contains(&kind) && !TARGET_KINDS.contains(&kind) {
                return Vec::new();
            }
            let prefix = current.strip_suffix(&*typed.full_name).unwrap_or_default();
            let objects = self.objects(kind);
            return objects.iter().map(|object| (format!("{prefix}{}", name(object)), String::new())).collect();
        }
        let services = self.objects(Kind::Service);
        let mut candidates: Vec<Candidate> =
            services.iter().map(|service| (name(service), "Service".to_owned())).collect();
        for kind in ROUTE_KINDS {
            let kind_name = kind.short_name();
            if !kind_name.starts_with(current) {
                continue;
            }
            let objects = self.objects(kind);
            candidates
                .extend(objects.iter().map(|object| (format!("{kind_name}/{}", name(object)), kind.name().to_owned())));
        }
        candidates
    }

    /// Shares such as `v2=25`, or the numbers and names of the rules of the typed target.
    fn rule_names(&self, kind: NameKind) -> Vec<Candidate> {
        let Ok(target) = Target::parse(self.typed.target.as_deref().unwrap_or_default()) else { return Vec::new() };
        let names_service = target.kind.is_none_or(|kind| kind == Kind::Service);
        let mut candidates = Vec::new();
        for route_kind in ROUTE_KINDS.into_iter().filter(|kind| names_service || target.kind == Some(*kind)) {
            for object in self.objects(route_kind) {
                let is_named = target.interpretations().any(|(name, _)| object.name == name);
                for split in rule_splits(route_kind, &object.body) {
                    let mut hosts = split.backends.iter().map(SplitBackend::short_host);
                    let is_match =
                        if names_service { hosts.any(|host| host.starts_with(&target.name)) } else { is_named };
                    if is_match {
                        candidates.extend(rule_candidates(kind, &split));
                    }
                }
            }
        }
        candidates.dedup();
        candidates
    }

    /// The objects of a kind in the typed source or the cluster.
    fn objects(&self, kind: Kind) -> Vec<NamedObject> {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
        let objects = runtime.block_on(async {
            let objects = async {
                if self.typed.from.is_empty() {
                    self.cluster_objects(kind).await
                } else {
                    self.source_objects(kind).await
                }
            };
            tokio::time::timeout(TIME_LIMIT.saturating_sub(self.started.elapsed()), objects).await.ok().flatten()
        });
        runtime.shutdown_background();
        let mut objects = objects.unwrap_or_default();
        objects.truncate(MAX_NAMES);
        objects
    }

    async fn source_objects(&self, kind: Kind) -> Option<Vec<NamedObject>> {
        let mut sink = std::io::sink();
        let output = OutputArgs { quiet: true, ..OutputArgs::default() };
        let TypedFlags { connection, scope, from, .. } = self.typed.clone();
        let mut context = Context::new(self.env.clone(), connection, scope, &output, &mut sink);
        let source = SourceArgs { from, ..SourceArgs::default() };
        let snapshot: Snapshot = source.read(&mut context).await.ok()?.snapshot;
        let namespace = self.typed.scope.namespace.clone();
        let objects = snapshot.of_kind(kind).filter(|object| {
            kind == Kind::Namespace || namespace.as_deref().is_none_or(|namespace| *object.key.namespace == *namespace)
        });
        let named_objects = objects.filter_map(|object| {
            Some(NamedObject {
                namespace: object.key.namespace.to_string(),
                name: object.key.name.to_string(),
                body: serde_json::from_str(object.body.get()).ok()?,
            })
        });
        Some(named_objects.collect())
    }

    async fn cluster_objects(&self, kind: Kind) -> Option<Vec<NamedObject>> {
        let server = self.typed.connection.connection(&self.env).connect().await.ok()?;
        let info = kind.info();
        let scope = &self.typed.scope;
        let namespace = scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
        let namespace = namespace.rsplit(',').next().unwrap_or_default();
        // Pods complete --caller, and a caller may be in any namespace.
        let namespace_path = if scope.all_namespaces || !info.namespaced || kind == Kind::Pod {
            String::new()
        } else {
            format!("namespaces/{namespace}/")
        };
        let version = kind.api_version();
        let root = if info.group.is_empty() { "/api" } else { "/apis" };
        let path = format!("{root}/{version}/{namespace_path}{}?limit={MAX_NAMES}", info.plural);
        let text = self.cached_list(&server, &path).await?;
        let list: Value = serde_json::from_str(&text).ok()?;
        let items = list.get("items")?.as_array()?.iter().filter_map(|item| {
            let text = |field: &str| item.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
            let namespace = text("namespace").unwrap_or_default().to_owned();
            Some(NamedObject { namespace, name: text("name")?.to_owned(), body: item.clone() })
        });
        Some(items.collect())
    }

    /// A list from the cache or the cluster, reduced to names and route rules.
    async fn cached_list(&self, server: &ApiServer, path: &str) -> Option<String> {
        let file = self.cache_file(server, path);
        if let Some(file) = &file {
            let age = std::fs::metadata(file).ok().and_then(|meta| meta.modified().ok()?.elapsed().ok());
            if age.is_some_and(|age| age < CACHE_LIFETIME)
                && let Ok(text) = std::fs::read_to_string(file)
            {
                return Some(text);
            }
        }
        let text = server.get(path, TIME_LIMIT).await.ok()?;
        let text = reduce_list(&text)?;
        if let Some(file) = file {
            // Completion works without the cache.
            let _ = write_private(&file, &text);
        }
        Some(text)
    }

    fn cache_file(&self, server: &ApiServer, path: &str) -> Option<PathBuf> {
        let cache_dir = self.typed.connection.cache_dir.clone();
        let folder = cache_dir.or_else(|| Some(self.env.home.as_ref()?.join(".kube").join("cache")))?;
        let user = format!("{:?}", (&self.typed.connection.impersonate, &self.typed.connection.context));
        let mut checksum = flate2::Crc::new();
        checksum.update(format!("{} {user} {path}", server.server).as_bytes());
        let kind: String = path.chars().filter(char::is_ascii_alphanumeric).take(80).collect();
        Some(folder.join("grpcmesh").join(format!("{kind}-{:08x}.json", checksum.sum())))
    }
}

/// The candidates that a rule adds: its index and name, or shares for its backends.
fn rule_candidates(kind: NameKind, split: &RuleSplit) -> Vec<Candidate> {
    if kind == NameKind::Rules {
        let names = [Some(split.rule.to_string()), split.name.clone()];
        return names.into_iter().flatten().map(|name| (name, split.title())).collect();
    }
    let shares_of = |(backend, weight): (&SplitBackend, u64)| {
        let label = backend.label();
        SHARES.map(|share| (format!("{label}={share}"), format!("current weight {weight}")))
    };
    split.backends.iter().zip(split.effective_weights()).flat_map(shares_of).collect()
}

struct NamedObject {
    namespace: String,
    name: String,
    body: Value,
}

/// Reduces a list to what completion needs: names, and the rules of route objects.
fn reduce_list(text: &str) -> Option<String> {
    let mut list: Value = serde_json::from_str(text).ok()?;
    for item in list.get_mut("items")?.as_array_mut()? {
        let (name, namespace) = (item.pointer("/metadata/name"), item.pointer("/metadata/namespace"));
        let names = serde_json::json!({"name": name, "namespace": namespace});
        let mut rules = serde_json::Map::new();
        for field in ["http", "rules"] {
            let written = item.get_mut("spec").and_then(|spec| spec.get_mut(field));
            if let Some(written) = written.filter(|written| written.is_array()) {
                rules.insert(field.to_owned(), written.take());
            }
        }
        *item = serde_json::json!({"metadata": names, "spec": rules});
    }
    Some(list.to_string())
}

/// Writes a file that only its owner can read.
fn write_private(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    std::io::Write::write_all(&mut options.open(file)?, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_another_form_complete_nothing() {
        for text in ["[1]", "\"x\"", "{}", "{\"items\": {}}", "not JSON"] {
            assert_eq!(reduce_list(text), None, "{text}");
        }
        let list = r#"{"items": [1, {"metadata": [], "spec": "x"}, {"metadata": {"name": "a"}, "spec": {"http": [2], "other": 3}}]}"#;
        let reduced: Value = serde_json::from_str(&reduce_list(list).unwrap()).unwrap();
        let names: Vec<&Value> =
            reduced["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
        assert_eq!(names, [&Value::Null, &Value::Null, &Value::from("a")]);
        assert_eq!(reduced["items"][2]["spec"], serde_json::json!({"http": [2]}));
    }
}
