//! Reads a cluster into a snapshot: paged lists of several kinds at a time, and gaps for lists that fail.
//!
//! Lists are requested as text and decoded item by item. A page is in memory at most twice, and a malformed object does not
//! affect the others. Secrets are never requested. Of ConfigMaps, only the mesh configuration is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::ApiServer;
use super::discovery::ServedResources;
use super::error::{ClusterError, ClusterErrorKind};
use super::request::percent_encode;
use crate::schema::kind::{KINDS, Kind, KindInfo};
use crate::schema::mesh_config::MeshConfig;
use crate::snapshot::{Gap, GapKind, Object, Snapshot, SourceKind};

/// The namespaces and the mesh configuration to read.
#[derive(Debug, Clone, Default)]
pub struct CollectScope {
    /// Namespaces to list when cluster-wide lists are forbidden; empty means all namespaces.
    pub namespaces: Vec<String>,
    /// istiod's namespace.
    pub istio_namespace: String,
    /// Revision whose mesh configuration is read besides the default and those that namespaces select.
    pub revision: Option<String>,
    /// Kinds to read; empty means all, and the version of Kubernetes.
    pub kinds: Vec<Kind>,
}

impl CollectScope {
    /// Whether a kind is listed. The mesh configuration is read by name.
    fn includes(&self, kind: Kind) -> bool {
        kind != Kind::ConfigMap && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}

/// Kinds that are listed in parallel. Each needs one connection, and one page of memory at most.
pub(super) const LISTS_IN_FLIGHT: usize = 6;
/// Objects per page.
const PAGE_SIZE: usize = 500;
/// Namespaces that are listed one by one for users without cluster-wide permissions.
const MAX_FALLBACK_NAMESPACES: usize = 200;
/// Lists that may time out before the whole collection fails.
const MAX_TIMEOUTS: u32 = 2;
/// Limit of a page after the first request, without `--request-timeout`.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages of one list: 200,000 objects, more than a cluster of the largest supported size has of a kind.
pub(super) const MAX_PAGES: usize = 400;
/// Limit of all pages of a list. Each page takes well below a second, so only a server that stalls needs longer.
const LIST_TIMEOUT: Duration = Duration::from_mins(5);

/// Reads a cluster. `progress` receives the number of finished kinds and the total.
///
/// # Errors
/// The server cannot be reached, rejects the credentials, or forbids every list.
pub async fn collect(
    server: &ApiServer,
    scope: &CollectScope,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Snapshot, ClusterError> {
    let mut reader = Collector { server, scope, fallback: BTreeSet::new(), timeouts: AtomicU32::new(0) };
    let mut snapshot = Snapshot::new(SourceKind::Cluster);
    if scope.kinds.is_empty() {
        snapshot.kubernetes_version = reader.server.server_version().await?;
    }
    let served = reader.server.served_resources().await?;
    reader.fallback.extend(scope.namespaces.iter().cloned());
    reader.fallback.insert(scope.istio_namespace.clone());
    let (first, others): (Vec<&KindInfo>, Vec<&KindInfo>) =
        KINDS.iter().filter(|info| scope.includes(info.kind)).partition(|info| info.kind == Kind::Namespace);
    let total = first.len() + others.len() + 1;
    let mut has_read_any = false;
    let mut done = 0;
    let mut gaps: BTreeMap<Kind, Vec<Gap>> = BTreeMap::new();
    // Namespaces come first: when cluster-wide lists are forbidden, every other kind is listed in each of them.
    for kinds in [first, others] {
        let lists = futures::stream::iter(kinds.into_iter().map(|info| reader.read_kind(info, &served)));
        let mut lists = lists.buffer_unordered(LISTS_IN_FLIGHT);
        while let Some((kind, result)) = lists.next().await {
            let ListResult { objects, gaps: list_gaps, succeeded } = result?;
            has_read_any |= succeeded && kind != Kind::Namespace;
            for object in objects {
                snapshot.insert(object);
            }
            gaps.entry(kind).or_default().extend(list_gaps);
            done += 1;
            progress(done, total);
        }
        drop(lists);
        if scope.namespaces.is_empty() {
            let names = snapshot.of_kind(Kind::Namespace).map(|object| object.key.name.to_string());
            reader.fallback.extend(names.take(MAX_FALLBACK_NAMESPACES));
        }
    }
    snapshot.gaps.extend(gaps.into_values().flatten());
    if !has_read_any {
        if let Some(failed) = snapshot.gaps.iter().find(|gap| gap.reason == GapKind::Failed) {
            return Err(ClusterError::new(ClusterErrorKind::Server, failed.why.clone()));
        }
        let namespaces: Vec<&str> = reader.fallback.iter().map(String::as_str).collect();
        let message = format!(
            "cannot list any object on {}: forbidden in the whole cluster and in namespaces {}",
            server.server,
            namespaces.join(", ")
        );
        return Err(ClusterError::new(ClusterErrorKind::Forbidden, message)
            .hint("pass a namespace that you can read with -n; check with: kubectl auth can-i --list -n NAMESPACE"));
    }
    reader.mesh_config(&mut snapshot).await?;
    progress(total, total);
    Ok(snapshot)
}

impl ApiServer {
    /// Lists the objects of a kind in a namespace that a label selector accepts. Objects that cannot be decoded are skipped.
    ///
    /// # Errors
    /// The request fails.
    pub async fn list_selected(
        &self,
        kind: Kind,
        api_version: &str,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<Object>, ClusterError> {
        let info = kind.info();
        let root = if api_version.contains('/') { "/apis" } else { "/api" };
        let selector = percent_encode(selector);
        let path = format!("{root}/{api_version}/namespaces/{namespace}/{}?labelSelector={selector}", info.plural);
        let text = self.get(&path, self.timeout).await?;
        let page: Page<'_> = serde_json::from_str(&text).map_err(|error| {
            ClusterError::new(ClusterErrorKind::Server, format!("cannot decode the list of {}: {error}", info.plural))
        })?;
        let items = page.items.unwrap_or_default();
        Ok(items.into_iter().filter_map(|item| decode_item(info, api_version, item).ok()).collect())
    }
}

struct Collector<'a> {
    server: &'a ApiServer,
    scope: &'a CollectScope,
    /// Namespaces that are listed one by one when a cluster-wide list is forbidden.
    fallback: BTreeSet<String>,
    /// Lists that timed out so far.
    timeouts: AtomicU32,
}

#[derive(Default)]
struct ListResult {
    objects: Vec<Object>,
    gaps: Vec<Gap>,
    /// Whether any list succeeded, even an empty one.
    succeeded: bool,
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
    async fn read_kind(
        &self,
        info: &'static KindInfo,
        served: &ServedResources,
    ) -> (Kind, Result<ListResult, ClusterError>) {
        (info.kind, self.list_kind(info, served).await)
    }

    /// Lists one kind in the whole cluster if that is allowed, else in the fallback namespaces.
    async fn list_kind(&self, info: &'static KindInfo, served: &ServedResources) -> Result<ListResult, ClusterError> {
        let resource =
            if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) };
        let version = match served.get(info.group) {
            None => info.versions.first().copied().unwrap_or_default(),
            Some(versions) => {
                let preferred = info
                    .versions
                    .iter()
                    .find(|version| versions.get(**version).is_some_and(|names| names.contains(info.plural)));
                match preferred {
                    Some(version) => version,
                    None => return Ok(not_installed(info, &resource)),
                }
            }
        };
        let root =
            if info.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{}/{version}", info.group) };
        let api_version = if info.group.is_empty() { version.to_owned() } else { format!("{}/{version}", info.group) };
        let mut listed = ListResult::default();
        let error = match self.list_pages(info, &api_version, &format!("{root}/{}", info.plural), &mut listed).await {
            Ok(()) => {
                listed.succeeded = true;
                return Ok(listed);
            }
            Err(error) => error,
        };
        match error.kind {
            ClusterErrorKind::NotFound => Ok(not_installed(info, &resource)),
            ClusterErrorKind::Forbidden if info.namespaced => {
                self.list_in_namespaces(info, &api_version, &root, &resource).await
            }
            // All other lists wait for the Namespaces, so a server that does not answer fails here, once.
            ClusterErrorKind::Timeout if info.kind == Kind::Namespace => Err(error),
            kind if self.is_gap(kind) || (kind == ClusterErrorKind::Unreachable && listed.succeeded) => {
                listed.gaps.push(self.gap(info, &resource, None, &error));
                Ok(listed)
            }
            _ => Err(error),
        }
    }

    /// Lists one kind in the fallback namespaces.
    async fn list_in_namespaces(
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
            match self.list_pages(info, api_version, &path, &mut listed).await {
                Ok(()) => read_in.push(name.to_owned()),
                Err(error) if self.is_gap(error.kind) => {
                    listed.gaps.push(self.gap(info, resource, Some(name), &error));
                }
                Err(error) if error.kind == ClusterErrorKind::NotFound => return Ok(not_installed(info, resource)),
                Err(error) => return Err(error),
            }
        }
        listed.succeeded = !read_in.is_empty();
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
                format!("forbidden; check with: kubectl auth can-i list {resource} -A"),
                GapKind::Forbidden,
            )
        });
        Ok(listed)
    }

    /// Reports whether a failed list is a gap, or fails the whole collection. A single slow list is a gap, but a server that
    /// no longer answers would cost one timeout per kind.
    fn is_gap(&self, kind: ClusterErrorKind) -> bool {
        match kind {
            ClusterErrorKind::Forbidden | ClusterErrorKind::Server | ClusterErrorKind::Expired => true,
            ClusterErrorKind::Timeout => self.timeouts.fetch_add(1, Ordering::Relaxed) < MAX_TIMEOUTS,
            ClusterErrorKind::Config
            | ClusterErrorKind::Unreachable
            | ClusterErrorKind::Certificate
            | ClusterErrorKind::Unauthorized
            | ClusterErrorKind::NotFound => false,
        }
    }

    fn gap(&self, info: &KindInfo, resource: &str, namespace: Option<&str>, error: &ClusterError) -> Gap {
        let scope = namespace.map(|name| format!(" in namespace {name}")).unwrap_or_default();
        let flag = namespace.map_or("-A".to_owned(), |name| format!("-n {name}"));
        let (reason, why) = match error.kind {
            ClusterErrorKind::Forbidden => {
                (GapKind::Forbidden, format!("forbidden; check with: kubectl auth can-i list {resource} {flag}"))
            }
            _ => (GapKind::Failed, error.message.clone()),
        };
        Gap {
            namespace: namespace.map(str::to_owned),
            ..Gap::of_kind(info.kind, format!("{resource}{scope}"), why, reason)
        }
    }

    /// Reads all pages of one list, or none of them: a partial list would hide which objects are missing.
    async fn list_pages(
        &self,
        info: &'static KindInfo,
        api_version: &str,
        path: &str,
        listed: &mut ListResult,
    ) -> Result<(), ClusterError> {
        let before = (listed.objects.len(), listed.gaps.len());
        let pages = self.try_list_pages(info, api_version, path, listed);
        let result = tokio::time::timeout(LIST_TIMEOUT, pages).await.unwrap_or_else(|_| {
            let message =
                format!("cannot list {}: the pages took longer than {} s", info.plural, LIST_TIMEOUT.as_secs());
            Err(ClusterError::new(ClusterErrorKind::Server, message))
        });
        if result.is_err() {
            listed.objects.truncate(before.0);
            listed.gaps.truncate(before.1);
        }
        result
    }

    /// Adds the pages of one list. When a continue token expires, the list restarts: once in pages, then as a whole.
    async fn try_list_pages(
        &self,
        info: &'static KindInfo,
        api_version: &str,
        path: &str,
        listed: &mut ListResult,
    ) -> Result<(), ClusterError> {
        let before = (listed.objects.len(), listed.gaps.len());
        let mut restarts = 0;
        let mut limit = PAGE_SIZE;
        let mut next: Option<String> = None;
        let mut pages = PageCount::default();
        loop {
            let token = next.as_deref().map(|token| format!("&continue={}", percent_encode(token))).unwrap_or_default();
            let url = if limit == 0 { path.to_owned() } else { format!("{path}?limit={limit}{token}") };
            // Namespaces are few, and all other lists wait for them.
            let default = if info.kind == Kind::Namespace { self.server.timeout } else { PAGE_TIMEOUT };
            let response = if limit == 0 {
                self.server.get_list(&url, default).await
            } else {
                self.server.get(&url, default).await
            };
            let text = match response {
                Ok(text) => text,
                Err(error) if error.kind == ClusterErrorKind::Expired && restarts < 2 => {
                    restarts += 1;
                    if restarts == 2 {
                        limit = 0;
                    }
                    listed.objects.truncate(before.0);
                    listed.gaps.truncate(before.1);
                    next = None;
                    pages = PageCount::default();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let page: Page<'_> = serde_json::from_str(&text).map_err(|error| {
                ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("cannot decode the list of {} from {}: {error}", info.plural, self.server.server),
                )
            })?;
            listed.succeeded = true;
            for item in page.items.unwrap_or_default() {
                match decode_item(info, api_version, item) {
                    Ok(object) => listed.objects.push(object),
                    Err(gap) => listed.gaps.push(gap),
                }
            }
            next = page.metadata.next.filter(|token| !token.is_empty());
            match &next {
                None => return Ok(()),
                Some(token) => pages.follow(token, info.plural)?,
            }
        }
    }

    /// Reads the mesh configuration of the default revision, the revisions that namespaces select, and `scope.revision`.
    async fn mesh_config(&self, snapshot: &mut Snapshot) -> Result<(), ClusterError> {
        let mut names: BTreeSet<String> = BTreeSet::from([MeshConfig::config_map_name(None)]);
        let labels = snapshot.of_kind(Kind::Namespace).filter_map(|object| {
            let namespace: crate::schema::core::NamespaceObject = serde_json::from_str(object.body.get()).ok()?;
            namespace.metadata.labels.get("istio.io/rev").cloned()
        });
        let revisions = labels.chain(self.scope.revision.clone());
        names.extend(revisions.map(|revision| MeshConfig::config_map_name(Some(&revision))));
        let namespace = &self.scope.istio_namespace;
        let mut is_accounted_for = false;
        for name in names {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
            match self.server.get(&path, PAGE_TIMEOUT).await {
                Ok(text) => {
                    let body: Result<&RawValue, _> = serde_json::from_str(&text);
                    if let Ok(object) = body.and_then(|body| Object::new(Kind::ConfigMap, "v1", namespace, &name, body))
                    {
                        snapshot.insert(object);
                        is_accounted_for = true;
                    }
                }
                Err(error) if error.kind == ClusterErrorKind::NotFound => {}
                Err(error) if matches!(error.kind, ClusterErrorKind::Forbidden | ClusterErrorKind::Server) => {
                    let why = format!(
                        "{}; check with: kubectl auth can-i get configmaps/{name} -n {namespace}",
                        error.message
                    );
                    let reason =
                        if error.kind == ClusterErrorKind::Forbidden { GapKind::Forbidden } else { GapKind::Failed };
                    let what = format!("mesh configuration {namespace}/{name}");
                    snapshot.gaps.push(Gap::of_kind(Kind::ConfigMap, what, why, reason));
                    is_accounted_for = true;
                }
                Err(error) => return Err(error),
            }
        }
        if !is_accounted_for {
            let what = format!("mesh configuration (ConfigMap istio in {namespace})");
            let why =
                "not found; assuming Istio's defaults. If istiod runs in another namespace, pass --istio-namespace";
            snapshot.gaps.push(Gap::of_kind(Kind::ConfigMap, what, why, GapKind::NotInstalled));
        }
        Ok(())
    }
}

/// The pages of one list so far. A faulty server can send pages forever.
#[derive(Debug, Default)]
pub(super) struct PageCount {
    tokens: HashSet<String>,
}

impl PageCount {
    /// Notes a token that leads to a further page.
    ///
    /// # Errors
    /// The list had the token before, or too many pages.
    pub(super) fn follow(&mut self, token: &str, plural: &str) -> Result<(), ClusterError> {
        let cause = if !self.tokens.insert(token.to_owned()) {
            "the server repeats a continue token, so the list has no end".to_owned()
        } else if self.tokens.len() >= MAX_PAGES {
            format!("it has more than {MAX_PAGES} pages")
        } else {
            return Ok(());
        };
        Err(ClusterError::new(ClusterErrorKind::Server, format!("cannot list {plural}: {cause}"))
            .hint("check the API server and the proxies in front of it"))
    }
}

/// Decodes one item of a list. A malformed item becomes a gap.
#[expect(clippy::result_large_err, reason = "gaps are stored values, not rare errors")]
fn decode_item(info: &'static KindInfo, api_version: &str, item: &RawValue) -> Result<Object, Gap> {
    let malformed = |what: String, error: &serde_json::Error| Gap::new(what, error.to_string(), GapKind::Malformed);
    let header: Header<'_> = serde_json::from_str(item.get())
        .map_err(|error| malformed(format!("an unnamed object in the list of {}", info.plural), &error))?;
    let namespace = header.metadata.namespace.as_deref().unwrap_or_default();
    let name = header.metadata.name.as_ref();
    Object::new(info.kind, api_version, namespace, name, item)
        .map_err(|error| malformed(format!("{} {namespace}/{name}", info.name), &error))
}

fn not_installed(info: &KindInfo, resource: &str) -> ListResult {
    let reason = format!("the cluster does not serve {resource}");
    let gap = Gap::of_kind(info.kind, resource, reason, GapKind::NotInstalled);
    ListResult { objects: Vec::new(), gaps: vec![gap], succeeded: false }
}
