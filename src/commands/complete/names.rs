//! Names of what there is, quickly or not at all.

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
use crate::cluster::client::ApiServer;
use crate::rules::RULES;
use crate::schema::Kind;
use crate::shift::split::splits;
use crate::snapshot::Snapshot;
use crate::vocabulary::{grpc_status, response_flags};

/// A shell waits for so long, and no longer.
const PATIENCE: Duration = Duration::from_millis(280);
/// For so long a list is as good as new.
const FRESH: Duration = Duration::from_secs(5);
/// Names of a list that are offered.
const MOST: usize = 500;
/// Shares that are offered.
const SHARES: [&str; 7] = ["0", "1", "5", "10", "25", "50", "100"];

/// What names are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    Namespaces,
    Contexts,
    Clusters,
    Users,
    /// Services, and by their kind routes, workloads and pods.
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
    /// Whether several stand in one word, with commas.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Shares | Self::Codes | Self::Flags | Self::Statuses | Self::Explained | Self::Namespaces)
    }
}

/// A name, and what it is.
type Candidate = (String, String);

/// Who knows names.
pub(super) struct NameSource {
    env: Env,
    typed: TypedFlags,
    /// When the shell asked: all questions together have [`PATIENCE`].
    asked: Instant,
}

/// Kinds by the words that stand before a slash.
const KINDS: [(&str, Kind); 7] = [
    ("vs", Kind::VirtualService),
    ("httproute", Kind::HttpRoute),
    ("grpcroute", Kind::GrpcRoute),
    ("pod", Kind::Pod),
    ("deploy", Kind::Deployment),
    ("sts", Kind::StatefulSet),
    ("svc", Kind::Service),
];

impl NameSource {
    pub(super) fn new(env: &Env, words: &[OsString]) -> Self {
        Self { env: env.clone(), typed: TypedFlags::new(words), asked: Instant::now() }
    }

    /// Names of a kind; none when they cannot be had in time.
    pub(super) fn find(&self, what: NameKind, current: &str) -> Vec<Candidate> {
        let plain = |name: &str| (name.to_owned(), String::new());
        match what {
            NameKind::Contexts => {
                self.of_kubeconfig(|config| config.contexts.into_iter().map(|one| one.name).collect())
            }
            NameKind::Clusters => {
                self.of_kubeconfig(|config| config.clusters.into_iter().map(|one| one.name).collect())
            }
            NameKind::Users => self.of_kubeconfig(|config| config.auth_infos.into_iter().map(|one| one.name).collect()),
            NameKind::Codes => RULES.iter().map(|rule| (rule.code.to_owned(), rule.name.to_owned())).collect(),
            NameKind::Flags => {
                response_flags::FLAGS.iter().map(|flag| (flag.code.to_owned(), flag.name.to_owned())).collect()
            }
            NameKind::Statuses => {
                grpc_status::STATUSES.iter().map(|one| (one.name.to_owned(), one.code.to_string())).collect()
            }
            NameKind::Explained => [NameKind::Codes, NameKind::Flags, NameKind::Statuses]
                .into_iter()
                .flat_map(|what| self.find(what, current))
                .collect(),
            NameKind::Namespaces => self.objects(Kind::Namespace).into_iter().map(|one| plain(&one.name)).collect(),
            NameKind::Pods => {
                let pods = self.objects(Kind::Pod).into_iter();
                pods.map(|one| plain(&format!("{}/{}", one.namespace, one.name))).collect()
            }
            NameKind::Targets => self.targets(current),
            NameKind::Shares | NameKind::Rules => self.of_rules(what),
        }
    }

    fn of_kubeconfig(&self, names: impl Fn(Kubeconfig) -> Vec<String>) -> Vec<Candidate> {
        let given: Vec<PathBuf> = self.typed.connection.kubeconfig.clone().into_iter().collect();
        let files = if given.is_empty() { &self.env.kubeconfig_files } else { &given };
        let read = files.iter().filter_map(|path| Kubeconfig::read_from(path).ok());
        let found: BTreeSet<String> = read.flat_map(names).collect();
        found.into_iter().map(|name| (name, String::new())).collect()
    }

    /// `checkout`, or `checkout.shop` where all namespaces are meant; `vs/checkout`.
    fn targets(&self, current: &str) -> Vec<Candidate> {
        let several = self.typed.scope.all_namespaces;
        let shown =
            |one: &NamedObject| if several { format!("{}.{}", one.name, one.namespace) } else { one.name.clone() };
        if let Some((word, _)) = current.split_once('/') {
            let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == word) else { return Vec::new() };
            let objects = self.objects(*kind);
            return objects.iter().map(|one| (format!("{word}/{}", shown(one)), String::new())).collect();
        }
        let mut found: Vec<Candidate> =
            self.objects(Kind::Service).iter().map(|one| (shown(one), "Service".to_owned())).collect();
        for kind in [Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute] {
            let Some((word, _)) =
                KINDS.iter().find(|(_, known)| *known == kind).filter(|(word, _)| word.starts_with(current))
            else {
                continue;
            };
            found.extend(
                self.objects(kind).iter().map(|one| (format!("{word}/{}", shown(one)), kind.name().to_owned())),
            );
        }
        found
    }

    /// What the rules of the target offer: `v2=25`, or numbers and names.
    fn of_rules(&self, what: NameKind) -> Vec<Candidate> {
        let target = self.typed.target.clone().unwrap_or_default();
        let (word, name) = target.split_once('/').unwrap_or(("", &target));
        let (name, _) = name.split_once('.').unwrap_or((name, ""));
        let kinds = KINDS.iter().take(3).filter(|(known, _)| word.is_empty() || *known == word);
        let mut found = Vec::new();
        for (_, kind) in kinds {
            for object in self.objects(*kind) {
                for split in splits(*kind, &object.body) {
                    let is_named = !word.is_empty() && object.name == name;
                    let sends = split.backends.iter().any(|one| one.short().starts_with(name));
                    if !(is_named || (word.is_empty() && sends)) {
                        continue;
                    }
                    if what == NameKind::Rules {
                        found.push((split.rule.to_string(), split.title()));
                        found.extend(split.name.clone().map(|name| (name, split.title())));
                        continue;
                    }
                    for (at, backend) in split.backends.iter().enumerate() {
                        let now = split.acting().get(at).copied().unwrap_or(0);
                        let label = backend.label();
                        found.extend(
                            SHARES.iter().map(|share| (format!("{label}={share}"), format!("weight {now} now"))),
                        );
                    }
                }
            }
        }
        found.dedup();
        found
    }

    /// Objects of a kind, of the source that was typed or of the cluster.
    fn objects(&self, kind: Kind) -> Vec<NamedObject> {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
        let found = runtime.block_on(async {
            let work = async {
                if self.typed.from.is_empty() { self.of_cluster(kind).await } else { self.of_source(kind).await }
            };
            tokio::time::timeout(PATIENCE.saturating_sub(self.asked.elapsed()), work).await.ok().flatten()
        });
        runtime.shutdown_background();
        let mut found = found.unwrap_or_default();
        found.truncate(MOST);
        found
    }

    async fn of_source(&self, kind: Kind) -> Option<Vec<NamedObject>> {
        let mut nowhere = std::io::sink();
        let output = OutputArgs { quiet: true, ..OutputArgs::default() };
        let TypedFlags { connection, scope, from, .. } = self.typed.clone();
        let mut context = Context::new(self.env.clone(), connection, scope, &output, &mut nowhere);
        let source = SourceArgs { from, ..SourceArgs::default() };
        let snapshot: Snapshot = source.read(&mut context).await.ok()?.snapshot;
        let wanted = self.typed.scope.namespace.clone();
        let objects = snapshot.of_kind(kind).filter(|one| {
            kind == Kind::Namespace || wanted.as_deref().is_none_or(|wanted| *one.key.namespace == *wanted)
        });
        let made = objects.filter_map(|one| {
            Some(NamedObject {
                namespace: one.key.namespace.to_string(),
                name: one.key.name.to_string(),
                body: serde_json::from_str(one.body.get()).ok()?,
            })
        });
        Some(made.collect())
    }

    async fn of_cluster(&self, kind: Kind) -> Option<Vec<NamedObject>> {
        let server = self.typed.connection.connection(&self.env).connect().await.ok()?;
        let info = kind.info();
        let scope = &self.typed.scope;
        let namespace = scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
        let namespace = namespace.rsplit(',').next().unwrap_or_default();
        // A caller may be anywhere.
        let place = if scope.all_namespaces || !info.namespaced || kind == Kind::Pod {
            String::new()
        } else {
            format!("namespaces/{namespace}/")
        };
        let version = kind.api_version();
        let root = if info.group.is_empty() { "/api" } else { "/apis" };
        let path = format!("{root}/{version}/{place}{}?limit={MOST}", info.plural);
        let text = self.cached(&server, &path).await?;
        let list: Value = serde_json::from_str(&text).ok()?;
        let items = list["items"].as_array()?.iter().filter_map(|one| {
            let meta = &one["metadata"];
            let namespace = meta["namespace"].as_str().unwrap_or_default().to_owned();
            Some(NamedObject { namespace, name: meta["name"].as_str()?.to_owned(), body: one.clone() })
        });
        Some(items.collect())
    }

    /// A list, as it was moments ago or as it is. Only metadata and rules of routes are kept.
    async fn cached(&self, server: &ApiServer, path: &str) -> Option<String> {
        let file = self.file(server, path);
        if let Some(file) = &file {
            let age = std::fs::metadata(file).ok().and_then(|meta| meta.modified().ok()?.elapsed().ok());
            if age.is_some_and(|age| age < FRESH)
                && let Ok(text) = std::fs::read_to_string(file)
            {
                return Some(text);
            }
        }
        let text = server.get(path, PATIENCE).await.ok()?;
        let text = reduced(&text)?;
        if let Some(file) = file {
            // A cache that cannot be written is none.
            let _ = keep(&file, &text);
        }
        Some(text)
    }

    fn file(&self, server: &ApiServer, path: &str) -> Option<PathBuf> {
        let own = self.typed.connection.cache_dir.clone();
        let folder = own.or_else(|| Some(self.env.home.as_ref()?.join(".kube").join("cache")))?;
        let user = format!("{:?}", (&self.typed.connection.impersonate, &self.typed.connection.context));
        let mut sum = flate2::Crc::new();
        sum.update(format!("{} {user} {path}", server.server).as_bytes());
        let kind: String = path.chars().filter(char::is_ascii_alphanumeric).take(80).collect();
        Some(folder.join("grpcmesh").join(format!("{kind}-{:08x}.json", sum.sum())))
    }
}

/// An object with its name.
struct NamedObject {
    namespace: String,
    name: String,
    body: Value,
}

/// What completion needs of a list: names, and of routes the rules.
fn reduced(text: &str) -> Option<String> {
    let mut list: Value = serde_json::from_str(text).ok()?;
    for one in list["items"].as_array_mut()? {
        let names = serde_json::json!({"name": one["metadata"]["name"], "namespace": one["metadata"]["namespace"]});
        let mut rules = serde_json::Map::new();
        for field in ["http", "rules"] {
            if one["spec"][field].is_array() {
                rules.insert(field.to_owned(), one["spec"][field].take());
            }
        }
        *one = serde_json::json!({"metadata": names, "spec": rules});
    }
    Some(list.to_string())
}

/// Writes a file that only its owner reads.
fn keep(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    std::io::Write::write_all(&mut options.open(file)?, text.as_bytes())
}
