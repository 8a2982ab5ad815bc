//! The API to a snapshot: lists in pages, several kinds at once, and gaps for what may not be read.
//!
//! Lists are requested as text and taken apart item by item, so a page lives twice at most and an object that is not of
//! its kind's shape loses only itself. Secrets are never asked for; of ConfigMaps only the mesh's own are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::ApiServer;
use super::discovery::ServedResources;
use super::error::{ClusterError, ClusterErrorKind};
use super::request::encode;
use crate::schema::kind::{KINDS, Kind, KindInfo};
use crate::schema::mesh_config::MeshConfig;
use crate::snapshot::{Gap, GapKind, Object, Snapshot, SourceKind};

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct CollectScope {
    /// Namespaces to fall back to when lists over the whole cluster are forbidden; empty means all that there are.
    pub namespaces: Vec<String>,
    /// Namespace of istiod.
    pub istio_namespace: String,
    /// Revision whose mesh configuration is wanted.
    pub revision: Option<String>,
}

/// Kinds that are listed at the same time. Each is one connection and at most one page in memory.
pub(super) const LISTS_IN_FLIGHT: usize = 6;
/// Objects a page.
const PAGE: usize = 500;
/// Namespaces that are tried one by one, for users without rights over the whole cluster.
const NAMESPACES_TRIED: usize = 200;
/// Lists that may go unanswered before the server is given up.
const SILENT_LISTS: u32 = 2;
/// Limit for a page after the first contact, unless a longer one was asked for.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a cluster. `progress` is told how many of how many kinds are done.
///
/// # Errors
/// When the server cannot be reached, does not accept the user, or nothing at all may be read.
pub async fn collect(
    server: &ApiServer,
    scope: &CollectScope,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Snapshot, ClusterError> {
    let mut reader = Collector { server, scope, fallback: BTreeSet::new(), silent: AtomicU32::new(0) };
    let mut snapshot = Snapshot::new(SourceKind::Cluster);
    snapshot.kubernetes_version = reader.server.version().await?;
    let served = reader.server.served().await?;
    reader.fallback.extend(scope.namespaces.iter().cloned());
    reader.fallback.insert(scope.istio_namespace.clone());
    let (first, others): (Vec<&KindInfo>, Vec<&KindInfo>) =
        KINDS.iter().filter(|info| info.kind != Kind::ConfigMap).partition(|info| info.kind == Kind::Namespace);
    let total = first.len() + others.len() + 1;
    let mut read_anything = false;
    let mut done = 0;
    let mut gaps: BTreeMap<Kind, Vec<Gap>> = BTreeMap::new();
    // Namespaces come first: where all of them are meant and lists over the cluster are forbidden, they are tried in turn.
    for kinds in [first, others] {
        let lists = futures::stream::iter(kinds.into_iter().map(|info| reader.kind(info, &served)));
        let mut lists = lists.buffer_unordered(LISTS_IN_FLIGHT);
        while let Some((kind, result)) = lists.next().await {
            let ListResult { objects, gaps: new, answered } = result?;
            read_anything |= answered && kind != Kind::Namespace;
            for object in objects {
                snapshot.insert(object);
            }
            gaps.entry(kind).or_default().extend(new);
            done += 1;
            progress(done, total);
        }
        drop(lists);
        if scope.namespaces.is_empty() {
            let names = snapshot.of_kind(Kind::Namespace).map(|object| object.key.name.to_string());
            reader.fallback.extend(names.take(NAMESPACES_TRIED));
        }
    }
    snapshot.gaps.extend(gaps.into_values().flatten());
    if !read_anything {
        if let Some(failed) = snapshot.gaps.iter().find(|gap| gap.reason == GapKind::Failed) {
            return Err(ClusterError::new(ClusterErrorKind::Server, failed.why.clone()));
        }
        let places: Vec<&str> = reader.fallback.iter().map(String::as_str).collect();
        let who = format!("nothing may be listed over the whole cluster or in {}", places.join(", "));
        return Err(ClusterError::new(ClusterErrorKind::Forbidden, format!("{who} on {}", server.server)).hint(
            "name a namespace that you may read: -n NAMESPACE; kubectl auth can-i --list -n NAMESPACE shows what you may",
        ));
    }
    reader.mesh_config(&mut snapshot).await?;
    progress(total, total);
    Ok(snapshot)
}

struct Collector<'a> {
    server: &'a ApiServer,
    scope: &'a CollectScope,
    /// Namespaces that are tried one by one where a list over the whole cluster is forbidden.
    fallback: BTreeSet<String>,
    /// Lists that were not answered in time.
    silent: AtomicU32,
}

#[derive(Default)]
struct ListResult {
    objects: Vec<Object>,
    gaps: Vec<Gap>,
    /// Whether any list was answered, if only by nothing.
    answered: bool,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    metadata: HeaderMeta<'a>,
}

#[derive(Deserialize)]
struct HeaderMeta<'a> {
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Option<std::borrow::Cow<'a, str>>,
}

impl Collector<'_> {
    /// Lists one kind, over the whole cluster if allowed, else in the namespaces of the scope.
    async fn kind(
        &self,
        info: &'static KindInfo,
        served: &ServedResources,
    ) -> (Kind, Result<ListResult, ClusterError>) {
        (info.kind, self.list_kind(info, served).await)
    }

    async fn list_kind(&self, info: &'static KindInfo, served: &ServedResources) -> Result<ListResult, ClusterError> {
        let resource =
            if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) };
        let version = match served.get(info.group) {
            None => info.versions[0],
            Some(versions) => {
                let best = info
                    .versions
                    .iter()
                    .find(|version| versions.get(**version).is_some_and(|names| names.contains(info.plural)));
                match best {
                    Some(version) => version,
                    None => return Ok(not_installed(info, &resource)),
                }
            }
        };
        let root =
            if info.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{}/{version}", info.group) };
        let api_version = if info.group.is_empty() { version.to_owned() } else { format!("{}/{version}", info.group) };
        let mut listed = ListResult::default();
        let error = match self.pages(info, &api_version, &format!("{root}/{}", info.plural), &mut listed).await {
            Ok(()) => {
                listed.answered = true;
                return Ok(listed);
            }
            Err(error) => error,
        };
        match error.trouble {
            ClusterErrorKind::NotFound => Ok(not_installed(info, &resource)),
            ClusterErrorKind::Forbidden if info.namespaced => {
                self.namespaces(info, &api_version, &root, &resource).await
            }
            trouble if self.is_gap(trouble) || (trouble == ClusterErrorKind::Unreachable && listed.answered) => {
                listed.gaps.push(self.gap(info, &resource, None, &error));
                Ok(listed)
            }
            _ => Err(error),
        }
    }

    /// The fall-back when a list over the whole cluster is forbidden: the named namespaces and istiod's.
    async fn namespaces(
        &self,
        info: &'static KindInfo,
        api_version: &str,
        root: &str,
        resource: &str,
    ) -> Result<ListResult, ClusterError> {
        let mut listed = ListResult::default();
        let mut read_in = Vec::new();
        for name in &self.fallback {
            let path = format!("{root}/namespaces/{name}/{}", info.plural);
            match self.pages(info, api_version, &path, &mut listed).await {
                Ok(()) => read_in.push(name.to_owned()),
                Err(error) if self.is_gap(error.trouble) => {
                    listed.gaps.push(self.gap(info, resource, Some(name), &error));
                }
                Err(error) if error.trouble == ClusterErrorKind::NotFound => return Ok(not_installed(info, resource)),
                Err(error) => return Err(error),
            }
        }
        listed.answered = !read_in.is_empty();
        let elsewhere = if read_in.is_empty() {
            "in all namespaces".to_owned()
        } else {
            format!("in all namespaces but {}", read_in.join(", "))
        };
        listed.gaps.retain(|_| !read_in.is_empty());
        listed.gaps.push(Gap {
            read_in,
            ..Gap::of_kind(
                info.kind,
                format!("{resource} {elsewhere}"),
                format!("forbidden; kubectl auth can-i list {resource} -A"),
                GapKind::Forbidden,
            )
        });
        Ok(listed)
    }

    /// Whether one list may fail so while the others go on. A kind that is slow to list is a gap; a server that has gone
    /// silent is not waited for kind by kind.
    fn is_gap(&self, trouble: ClusterErrorKind) -> bool {
        match trouble {
            ClusterErrorKind::Forbidden | ClusterErrorKind::Server | ClusterErrorKind::Expired => true,
            ClusterErrorKind::Silent => self.silent.fetch_add(1, Ordering::Relaxed) < SILENT_LISTS,
            ClusterErrorKind::Config
            | ClusterErrorKind::Unreachable
            | ClusterErrorKind::Certificate
            | ClusterErrorKind::Unauthorized
            | ClusterErrorKind::NotFound => false,
        }
    }

    fn gap(&self, info: &KindInfo, resource: &str, namespace: Option<&str>, error: &ClusterError) -> Gap {
        let place = namespace.map(|name| format!(" in namespace {name}")).unwrap_or_default();
        let flag = namespace.map_or("-A".to_owned(), |name| format!("-n {name}"));
        let (reason, why) = match error.trouble {
            ClusterErrorKind::Forbidden => {
                (GapKind::Forbidden, format!("forbidden; kubectl auth can-i list {resource} {flag}"))
            }
            _ => (GapKind::Failed, error.message.clone()),
        };
        Gap {
            namespace: namespace.map(str::to_owned),
            ..Gap::of_kind(info.kind, format!("{resource}{place}"), why, reason)
        }
    }

    /// Reads all pages of one list, or none: of half a list, what is missing cannot be told.
    async fn pages(
        &self,
        info: &'static KindInfo,
        api_version: &str,
        path: &str,
        listed: &mut ListResult,
    ) -> Result<(), ClusterError> {
        let kept = (listed.objects.len(), listed.gaps.len());
        let result = self.try_pages(info, api_version, path, listed).await;
        if result.is_err() {
            listed.objects.truncate(kept.0);
            listed.gaps.truncate(kept.1);
        }
        result
    }

    /// Adds the pages of one list as they come. A continue token that has expired starts the list again, once in pages,
    /// then whole.
    async fn try_pages(
        &self,
        info: &'static KindInfo,
        api_version: &str,
        path: &str,
        listed: &mut ListResult,
    ) -> Result<(), ClusterError> {
        let kept = (listed.objects.len(), listed.gaps.len());
        let mut restarts = 0;
        let mut limit = PAGE;
        let mut next: Option<String> = None;
        loop {
            let token = next.as_deref().map(|token| format!("&continue={}", encode(token))).unwrap_or_default();
            let url = if limit == 0 { path.to_owned() } else { format!("{path}?limit={limit}{token}") };
            // Namespaces are few, and everything else waits for them.
            let usual = if info.kind == Kind::Namespace { self.server.timeout } else { PAGE_TIMEOUT };
            let timeout = usual.max(self.server.timeout);
            let text = match self.server.get(&url, timeout).await {
                Ok(text) => text,
                Err(error) if error.trouble == ClusterErrorKind::Expired && restarts < 2 => {
                    restarts += 1;
                    if restarts == 2 {
                        limit = 0;
                    }
                    listed.objects.truncate(kept.0);
                    listed.gaps.truncate(kept.1);
                    next = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let page: Page<'_> = serde_json::from_str(&text).map_err(|error| {
                ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("{} answered something that is not a list: {error}", self.server.server),
                )
            })?;
            listed.answered = true;
            for item in page.items.unwrap_or_default() {
                match take(info, api_version, item) {
                    Ok(object) => listed.objects.push(object),
                    Err(gap) => listed.gaps.push(gap),
                }
            }
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// The mesh configuration of the default revision and of those that namespaces name.
    async fn mesh_config(&self, snapshot: &mut Snapshot) -> Result<(), ClusterError> {
        let mut names: BTreeSet<String> = BTreeSet::from([MeshConfig::config_map_name(None)]);
        let labels = snapshot.of_kind(Kind::Namespace).filter_map(|object| {
            let namespace: crate::schema::core::NamespaceObject = serde_json::from_str(object.body.get()).ok()?;
            namespace.metadata.labels.get("istio.io/rev").cloned()
        });
        let revisions = labels.chain(self.scope.revision.clone());
        names.extend(revisions.map(|revision| MeshConfig::config_map_name(Some(&revision))));
        let namespace = &self.scope.istio_namespace;
        let mut found = false;
        for name in names {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
            match self.server.get(&path, PAGE_TIMEOUT).await {
                Ok(text) => {
                    let body: Result<&RawValue, _> = serde_json::from_str(&text);
                    if let Ok(object) = body.and_then(|body| Object::new(Kind::ConfigMap, "v1", namespace, &name, body))
                    {
                        snapshot.insert(object);
                        found = true;
                    }
                }
                Err(error) if error.trouble == ClusterErrorKind::NotFound => {}
                Err(error) if matches!(error.trouble, ClusterErrorKind::Forbidden | ClusterErrorKind::Server) => {
                    let why = format!("{}; kubectl auth can-i get configmaps/{name} -n {namespace}", error.message);
                    let reason =
                        if error.trouble == ClusterErrorKind::Forbidden { GapKind::Forbidden } else { GapKind::Failed };
                    let what = format!("mesh configuration {namespace}/{name}");
                    snapshot.gaps.push(Gap::of_kind(Kind::ConfigMap, what, why, reason));
                    found = true;
                }
                Err(error) => return Err(error),
            }
        }
        if !found {
            let what = format!("mesh configuration (ConfigMap istio in {namespace})");
            let why = "there is none; Istio's defaults are assumed. Is istiod in another namespace? --istio-namespace";
            snapshot.gaps.push(Gap::of_kind(Kind::ConfigMap, what, why, GapKind::NotInstalled));
        }
        Ok(())
    }
}

#[expect(clippy::result_large_err, reason = "a gap is a value that is kept, not a rare error")]
/// Takes one item of a list; one that is not of its kind's shape becomes a gap.
fn take(info: &'static KindInfo, api_version: &str, item: &RawValue) -> Result<Object, Gap> {
    let malformed = |what: String, error: &serde_json::Error| Gap::new(what, error.to_string(), GapKind::Malformed);
    let header: Header<'_> = serde_json::from_str(item.get())
        .map_err(|error| malformed(format!("an object among the {}", info.plural), &error))?;
    let namespace = header.metadata.namespace.as_deref().unwrap_or_default();
    let name = header.metadata.name.as_ref();
    Object::new(info.kind, api_version, namespace, name, item)
        .map_err(|error| malformed(format!("{} {namespace}/{name}", info.name), &error))
}

fn not_installed(info: &KindInfo, resource: &str) -> ListResult {
    let why = format!("the cluster does not serve {resource}");
    let gap = Gap::of_kind(info.kind, resource, why, GapKind::NotInstalled);
    ListResult { objects: Vec::new(), gaps: vec![gap], answered: false }
}
