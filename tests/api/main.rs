//! Collecting a snapshot from a fake API server.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use grpcmesh::cluster::client::ApiServer;
use grpcmesh::cluster::collect::{CollectScope, collect};
use grpcmesh::cluster::{ClusterError, ClusterErrorKind};
use grpcmesh::schema::Kind;
use grpcmesh::schema::kind::KINDS;
use grpcmesh::snapshot::{Gap, GapKind, Snapshot};
use http_body_util::Full;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

const SERVICES: &str = "/api/v1/services";
/// A continue token with characters that are special in a query, raw and percent-encoded.
const TOKEN: (&str, &str) = ("a+b/c=&d %é", "a%2Bb%2Fc%3D%26d%20%25%C3%A9");

enum FakeResponse {
    Json(u16, Value),
    /// A response of a proxy in front of the server.
    Page(u16, &'static str),
    Hang,
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RecordedRequest {
    path: String,
    /// Percent-encoded; empty without a query.
    query: String,
}

type Handler = Box<dyn Fn(&RecordedRequest) -> FakeResponse + Send + Sync>;

/// An API server that serves every kind, without objects except those of its handlers.
#[derive(Default)]
struct FakeServer {
    /// By path. A path that ends in `/` covers everything below it; the longest path wins.
    handlers: BTreeMap<String, Handler>,
    delay: Duration,
    /// `--request-timeout`
    request_timeout: Option<Duration>,
    requests: Mutex<Vec<RecordedRequest>>,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

impl FakeServer {
    fn on(mut self, path: &str, handler: impl Fn(&RecordedRequest) -> FakeResponse + Send + Sync + 'static) -> Self {
        self.handlers.insert(path.to_owned(), Box::new(handler));
        self
    }

    fn with_objects(self, path: &str, items: &[Value]) -> Self {
        let items = items.to_vec();
        self.on(path, move |_| list(&items, None))
    }

    async fn collect(self) -> (Result<Snapshot, ClusterError>, Arc<Self>) {
        self.collect_in(&[]).await
    }

    async fn collect_in(self, namespaces: &[&str]) -> (Result<Snapshot, ClusterError>, Arc<Self>) {
        let server = Arc::new(self);
        let service = tower::service_fn({
            let server = Arc::clone(&server);
            move |request: http::Request<Body>| Arc::clone(&server).serve(request.uri().clone())
        });
        let api_server = ApiServer {
            client: kube::Client::new(service, "default"),
            server: "https://fake.example".to_owned(),
            namespace: "default".to_owned(),
            timeout: Duration::from_secs(10),
            request_timeout: server.request_timeout,
            health: Arc::default(),
            observer: None,
        };
        let scope = CollectScope {
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
            istio_namespace: "istio-system".to_owned(),
            revision: Some("canary".to_owned()),
            kinds: Vec::new(),
        };
        (collect(&api_server, &scope, &|_, _| ()).await, server)
    }

    async fn serve(self: Arc<Self>, uri: http::Uri) -> io::Result<http::Response<Full<Bytes>>> {
        let request =
            RecordedRequest { path: uri.path().to_owned(), query: uri.query().unwrap_or_default().to_owned() };
        self.requests.lock().unwrap().push(request.clone());
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(in_flight, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let covers = |path: &str| path == request.path || path.ends_with('/') && request.path.starts_with(path);
        let handler = self.handlers.iter().filter(|(path, _)| covers(path)).max_by_key(|(path, _)| path.len());
        let response = handler.map_or_else(|| empty_cluster(&request.path), |(_, handler)| handler(&request));
        let (status, body) = match response {
            FakeResponse::Json(status, body) => (status, body),
            FakeResponse::Page(status, body) => {
                let body = Full::from(body);
                return Ok(http::Response::builder().status(status).body(body).unwrap());
            }
            FakeResponse::Hang => std::future::pending().await,
            FakeResponse::Close => {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer"));
            }
        };
        Ok(http::Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
    }

    /// Queries sent to a path, in order.
    fn queries(&self, path: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.path == path).map(|request| request.query.clone()).collect()
    }
}

fn empty_cluster(path: &str) -> FakeResponse {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["version"] => FakeResponse::Json(200, json!({"gitVersion": "v1.36.3"})),
        ["apis"] => groups(|_, _| true),
        ["apis", group, _] => {
            let kinds = KINDS.iter().filter(|info| info.group == group);
            let names: Vec<Value> = kinds.map(|info| json!({"name": info.plural})).collect();
            FakeResponse::Json(200, json!({"resources": names}))
        }
        ["api", _, "namespaces", _, "configmaps", _] => failure(404, "configmap not found"),
        _ => list(&[], None),
    }
}

/// The response to `/apis`, with the groups and versions of our kinds that `is_served` accepts.
fn groups(is_served: impl Fn(&str, &str) -> bool) -> FakeResponse {
    let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for info in KINDS.iter().filter(|info| !info.group.is_empty()) {
        for version in info.versions.iter().filter(|version| is_served(info.group, version)) {
            groups.entry(info.group).or_default().push(json!({"version": version}));
        }
    }
    let groups: Vec<Value> =
        groups.into_iter().map(|(name, versions)| json!({"name": name, "versions": versions})).collect();
    FakeResponse::Json(200, json!({"groups": groups}))
}

fn list(items: &[Value], next: Option<&str>) -> FakeResponse {
    FakeResponse::Json(200, json!({"metadata": {"continue": next.unwrap_or_default()}, "items": items}))
}

fn failure(code: u16, message: &str) -> FakeResponse {
    FakeResponse::Json(code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message}))
}

fn object(name: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name}, "spec": {}})
}

fn objects(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| object(&format!("s{number:04}"))).collect()
}

fn names(snapshot: &Snapshot, kind: Kind) -> Vec<&str> {
    snapshot.of_kind(kind).map(|object| &*object.key.name).collect()
}

/// The gaps of one kind. The two kinds of Gateway share a name.
fn gaps(snapshot: &Snapshot, kind: Kind) -> Vec<&Gap> {
    snapshot.gaps.iter().filter(|gap| gap.kind.as_deref() == Some(kind.name())).collect()
}

#[track_caller]
fn only_gap(snapshot: &Snapshot, kind: Kind) -> &Gap {
    let gaps = gaps(snapshot, kind);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    gaps[0]
}

#[tokio::test]
async fn requests_each_page_of_a_list_once() {
    let server = FakeServer::default().on(SERVICES, |request| match request.query.strip_prefix("limit=500") {
        Some("") => list(&objects(0..500), Some(TOKEN.0)),
        Some("&continue=2") => list(&objects(1000..1200), None),
        Some(rest) if rest.strip_prefix("&continue=") == Some(TOKEN.1) => list(&objects(500..1000), Some("2")),
        _ => failure(400, "unexpected page"),
    });
    let (snapshot, server) = server.collect().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service).len(), 1200);
    assert_eq!(snapshot.kubernetes_version.as_deref(), Some("v1.36.3"));
    let second = format!("limit=500&continue={}", TOKEN.1);
    assert_eq!(server.queries(SERVICES), ["limit=500", &second, "limit=500&continue=2"]);
}

#[tokio::test]
async fn a_forbidden_list_falls_back_to_the_given_namespaces_and_adds_a_gap() {
    let (snapshot, server) = FakeServer::default()
        .on(SERVICES, |_| failure(403, "services is forbidden"))
        .on("/api/v1/namespaces/closed/services", |_| failure(403, "services is forbidden"))
        .with_objects("/api/v1/namespaces/shop/services", &[object("a")])
        .collect_in(&["shop", "closed"])
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    assert_eq!(server.queries("/api/v1/namespaces/istio-system/services"), ["limit=500"]);
    let gaps = gaps(&snapshot, Kind::Service);
    let cluster_wide = gaps.iter().find(|gap| gap.namespace.is_none()).unwrap();
    assert_eq!(cluster_wide.reason, GapKind::Forbidden);
    assert_eq!(cluster_wide.read_in, ["istio-system", "shop"]);
    assert_eq!(cluster_wide.why, "forbidden; check with: kubectl auth can-i list services -A");
    let closed = gaps.iter().find(|gap| gap.namespace.as_deref() == Some("closed")).unwrap();
    assert_eq!(closed.why, "forbidden; check with: kubectl auth can-i list services -n closed");
    assert!(gaps.len() == 2 && gaps.iter().all(|gap| gap.affects_answers()), "{gaps:?}");
}

#[tokio::test]
async fn a_forbidden_list_falls_back_to_all_namespaces_of_the_cluster() {
    let namespaces = ["shop", "web"].map(|name| json!({"metadata": {"name": name}}));
    let mut server = FakeServer::default().with_objects("/api/v1/namespaces", &namespaces);
    for kind in ["services", "pods"] {
        server = server.on(&format!("/api/v1/{kind}"), |_| failure(403, "no"));
    }
    let (snapshot, _) = server
        .with_objects("/api/v1/namespaces/shop/services", &[object("a")])
        .on("/api/v1/namespaces/web/services", |_| failure(403, "no"))
        .collect()
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    let gap = gaps(&snapshot, Kind::Service).into_iter().find(|gap| gap.namespace.is_none()).unwrap();
    assert!(gap.read_in.contains(&"shop".to_owned()) && !gap.read_in.contains(&"web".to_owned()), "{gap:?}");
}

#[tokio::test]
async fn fails_when_every_list_is_forbidden() {
    let (result, _) = FakeServer::default().on("/", |_| failure(403, "no")).collect_in(&["shop"]).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, ClusterErrorKind::Forbidden);
    assert!(error.hint.unwrap().contains("kubectl auth can-i --list"));
}

#[tokio::test]
async fn an_unserved_group_is_a_gap_that_affects_no_answer() {
    let server = FakeServer::default().on("/apis", |_| groups(|group, _| group != "networking.istio.io"));
    let (snapshot, server) = server.collect().await;
    let snapshot = snapshot.unwrap();
    let gap = only_gap(&snapshot, Kind::VirtualService);
    assert_eq!(gap.reason, GapKind::NotInstalled);
    assert!(!gap.affects_answers());
    assert!(gaps(&snapshot, Kind::HttpRoute).is_empty());
    let requests = server.requests.lock().unwrap();
    assert!(!requests.iter().any(|request| request.path.contains("networking.istio.io")));
}

#[tokio::test]
async fn aggregated_discovery_replaces_a_request_for_each_group() {
    let group = |name: &str, resources: &[&str], freshness: &str| {
        let resources: Vec<Value> = resources.iter().map(|name| json!({"resource": name})).collect();
        json!({"metadata": {"name": name}, "versions": [{"version": "v1", "freshness": freshness, "resources": resources}]})
    };
    let items = [
        group("networking.istio.io", &["virtualservices"], "Current"),
        // The server behind this group does not answer: its kinds are listed all the same.
        group("security.istio.io", &[], "Stale"),
    ];
    let discovery = json!({"kind": "APIGroupDiscoveryList", "items": items});
    let server = FakeServer::default().on("/apis", move |_| FakeResponse::Json(200, discovery.clone()));
    let (snapshot, server) = server.collect().await;
    let snapshot = snapshot.unwrap();
    assert!(gaps(&snapshot, Kind::VirtualService).is_empty());
    assert_eq!(only_gap(&snapshot, Kind::DestinationRule).reason, GapKind::NotInstalled);
    assert!(gaps(&snapshot, Kind::PeerAuthentication).is_empty());
    assert_eq!(server.queries("/apis/networking.istio.io/v1"), [""; 0]);
    assert_eq!(server.queries("/apis/networking.istio.io/v1/virtualservices"), ["limit=500"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_off_is_tried_once_more() {
    let attempts = AtomicUsize::new(0);
    let server = FakeServer::default().on(SERVICES, move |_| match attempts.fetch_add(1, Ordering::SeqCst) {
        0 => FakeResponse::Close,
        _ => list(&[object("a")], None),
    });
    let (snapshot, server) = server.collect().await;
    assert_eq!(names(&snapshot.unwrap(), Kind::Service), ["a"]);
    assert_eq!(server.queries(SERVICES).len(), 2);
}

#[tokio::test]
async fn reads_the_preferred_served_version() {
    let (snapshot, _) = FakeServer::default()
        .on("/apis", |_| groups(|group, version| group != "networking.istio.io" || version == "v1beta1"))
        .on("/apis/networking.istio.io/v1/virtualservices", |_| failure(404, "no such version"))
        .with_objects("/apis/networking.istio.io/v1beta1/virtualservices", &[object("old")])
        .collect()
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::VirtualService), ["old"]);
    let object = snapshot.of_kind(Kind::VirtualService).next().unwrap();
    assert_eq!(&*object.api_version, "networking.istio.io/v1beta1");
}

#[tokio::test]
async fn a_list_that_is_not_found_counts_as_not_installed() {
    let path = "/apis/networking.istio.io/v1/destinationrules";
    let (snapshot, _) = FakeServer::default().on(path, |_| failure(404, "page not found")).collect().await;
    assert_eq!(only_gap(&snapshot.unwrap(), Kind::DestinationRule).reason, GapKind::NotInstalled);
}

#[tokio::test]
async fn a_malformed_object_does_not_affect_others() {
    let bad = json!({"metadata": {"namespace": "shop", "name": "bad"}, "spec": "text"});
    let nameless = json!({"metadata": {}});
    let pods = [object("a"), bad, nameless, object("b")];
    let (snapshot, _) = FakeServer::default().with_objects("/api/v1/pods", &pods).collect().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Pod), ["a", "b"]);
    let malformed = snapshot.gaps.iter().filter(|gap| gap.reason == GapKind::Malformed);
    let titles: Vec<&str> = malformed.map(|gap| gap.what.as_str()).collect();
    assert_eq!(titles, ["Pod shop/bad", "an unnamed object in the list of pods"]);
}

#[tokio::test]
async fn an_expired_token_restarts_the_list() {
    let expired = AtomicUsize::new(0);
    let server = FakeServer::default().on(SERVICES, move |request| {
        if request.query == "limit=500" {
            return list(&[object("a"), json!({"metadata": {}})], Some("t"));
        }
        let is_first = expired.fetch_add(1, Ordering::SeqCst) == 0;
        if is_first { failure(410, "too old") } else { list(&[object("b")], None) }
    });
    let (snapshot, server) = server.collect().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a", "b"]);
    assert_eq!(snapshot.gaps.iter().filter(|gap| gap.reason == GapKind::Malformed).count(), 1);
    assert_eq!(server.queries(SERVICES).len(), 4);
}

#[tokio::test]
async fn repeatedly_expiring_tokens_lead_to_one_list_without_pages() {
    let server = FakeServer::default().on(SERVICES, |request| match request.query.as_str() {
        "" => list(&objects(0..3), None),
        "limit=500" => list(&objects(0..2), Some("t")),
        _ => failure(410, "too old"),
    });
    let (snapshot, server) = server.collect().await;
    assert_eq!(names(&snapshot.unwrap(), Kind::Service).len(), 3);
    let page = "limit=500";
    assert_eq!(server.queries(SERVICES), [page, "limit=500&continue=t", page, "limit=500&continue=t", ""]);
}

#[tokio::test(start_paused = true)]
async fn retries_while_the_server_is_busy() {
    let attempts = AtomicUsize::new(0);
    let server = FakeServer::default().on(SERVICES, move |_| match attempts.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => failure(503, "busy"),
        _ => list(&[object("a")], None),
    });
    let (snapshot, _) = server.collect().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    assert!(gaps(&snapshot, Kind::Service).is_empty());
}

#[tokio::test(start_paused = true)]
async fn stops_retrying_a_busy_server_within_seconds() {
    let start = Instant::now();
    let (snapshot, server) = FakeServer::default().on(SERVICES, |_| failure(503, "busy")).collect().await;
    let snapshot = snapshot.unwrap();
    let gap = only_gap(&snapshot, Kind::Service);
    assert_eq!(
        (gap.reason, gap.why.as_str()),
        (GapKind::Failed, "cannot read from https://fake.example: it responded with 503 busy")
    );
    assert_eq!(server.queries(SERVICES).len(), 3);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_halfway_adds_no_objects() {
    let fails_halfway = |request: &RecordedRequest| match request.query.as_str() {
        "limit=500" => list(&objects(0..2), Some("t")),
        _ => failure(503, "busy"),
    };
    let (snapshot, _) = FakeServer::default()
        .on(SERVICES, fails_halfway)
        .on("/api/v1/pods", |_| failure(403, "no"))
        .on("/api/v1/namespaces/shop/pods", fails_halfway)
        .collect_in(&["shop"])
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(only_gap(&snapshot, Kind::Service).reason, GapKind::Failed);
    assert_eq!(names(&snapshot, Kind::Service), [""; 0]);
    assert_eq!(names(&snapshot, Kind::Pod), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn server_failures_are_not_reported_as_forbidden() {
    let server = FakeServer::default().on("/api/", |_| failure(500, "etcd is down"));
    let (result, _) = server.on("/apis/", |_| failure(500, "etcd is down")).collect().await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, ClusterErrorKind::Server, "{error}");
    assert!(error.message.contains("etcd is down"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_times_out() {
    let start = Instant::now();
    let (result, server) = FakeServer::default().on("/", |_| FakeResponse::Hang).collect().await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, ClusterErrorKind::Timeout);
    assert_eq!(error.message, "cannot reach https://fake.example: it did not answer within 10 s");
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_single_list_that_times_out_is_a_gap() {
    let (snapshot, _) = FakeServer::default()
        .on("/api/v1/pods", |_| FakeResponse::Hang)
        .with_objects(SERVICES, &[object("a")])
        .collect()
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    let gap = only_gap(&snapshot, Kind::Pod);
    assert_eq!(
        (gap.reason, gap.why.as_str()),
        (GapKind::Failed, "cannot reach https://fake.example: it did not answer within 30 s")
    );
}

#[tokio::test(start_paused = true)]
async fn the_request_timeout_limits_every_list() {
    let start = Instant::now();
    let server = FakeServer { request_timeout: Some(Duration::from_secs(2)), ..FakeServer::default() };
    let (snapshot, _) =
        server.on("/api/v1/pods", |_| FakeResponse::Hang).with_objects(SERVICES, &[object("a")]).collect().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(only_gap(&snapshot, Kind::Pod).why, "cannot reach https://fake.example: it did not answer within 2 s");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_continue_token_that_comes_back_ends_the_list_as_a_gap() {
    for tokens in [&["t"][..], &["t", "u"]] {
        let count = AtomicUsize::new(0);
        let server = FakeServer::default().on(SERVICES, move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            list(&objects(number..number + 1), Some(tokens[number % tokens.len()]))
        });
        let (snapshot, server) = server.collect().await;
        let snapshot = snapshot.unwrap();
        let gap = only_gap(&snapshot, Kind::Service);
        assert!(gap.why.contains("repeats a continue token") && gap.affects_answers(), "{gap:?}");
        assert_eq!((names(&snapshot, Kind::Service).len(), server.queries(SERVICES).len()), (0, tokens.len() + 1));
    }
}

#[tokio::test]
async fn a_list_with_ever_new_tokens_ends_after_a_bounded_number_of_pages() {
    let count = AtomicUsize::new(0);
    let server = FakeServer::default()
        .on(SERVICES, move |_| list(&[object("a")], Some(&count.fetch_add(1, Ordering::SeqCst).to_string())));
    let (snapshot, server) = server.collect().await;
    assert!(only_gap(&snapshot.unwrap(), Kind::Service).why.contains("more than 400 pages"));
    assert_eq!(server.queries(SERVICES).len(), 400);
}

#[tokio::test(start_paused = true)]
async fn pages_that_take_too_long_together_are_a_gap() {
    let start = Instant::now();
    let count = AtomicUsize::new(0);
    let server = FakeServer { delay: Duration::from_secs(9), ..FakeServer::default() };
    let server =
        server.on(SERVICES, move |_| list(&[object("a")], Some(&count.fetch_add(1, Ordering::SeqCst).to_string())));
    let (snapshot, _) = server.collect().await;
    assert!(only_gap(&snapshot.unwrap(), Kind::Service).why.contains("took longer than 300 s"));
    assert!(start.elapsed() < Duration::from_secs(500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn several_lists_that_time_out_fail_the_collection() {
    let start = Instant::now();
    let (result, _) = FakeServer::default()
        .on("/api/", |_| FakeResponse::Hang)
        .on("/apis/apps/v1/", |_| FakeResponse::Hang)
        .collect()
        .await;
    assert_eq!(result.unwrap_err().kind, ClusterErrorKind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(45), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn responses_of_a_proxy_in_front_of_the_server_count_by_their_status() {
    let (result, _) = FakeServer::default().on("/", |_| FakeResponse::Page(401, "<html>log in</html>")).collect().await;
    assert_eq!(result.unwrap_err().kind, ClusterErrorKind::Unauthorized);
    let (result, _) =
        FakeServer::default().on("/", |_| FakeResponse::Page(502, "{\"error\": \"bad gateway\"}")).collect().await;
    assert_eq!(result.unwrap_err().message, "cannot read from https://fake.example: it responded with 502 Bad Gateway");
}

#[tokio::test]
async fn a_closed_connection_is_reported_with_its_cause() {
    let (result, _) = FakeServer::default().on("/", |_| FakeResponse::Close).collect().await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, ClusterErrorKind::Unreachable);
    assert_eq!(error.message, "cannot reach https://fake.example: connection reset by peer");
    assert!(error.hint.unwrap().contains("kubectl config get-contexts"));
}

#[tokio::test]
async fn rejected_credentials_are_reported_with_a_hint() {
    let (result, _) = FakeServer::default().on("/", |_| failure(401, "Unauthorized")).collect().await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, ClusterErrorKind::Unauthorized);
    assert!(error.hint.unwrap().contains("kubectl auth whoami"));
}

#[tokio::test]
async fn requests_no_secrets_and_only_config_maps_of_the_mesh() {
    let namespace = json!({"metadata": {"name": "shop", "labels": {"istio.io/rev": "1-30"}}});
    let mesh =
        |_: &RecordedRequest| FakeResponse::Json(200, json!({"metadata": {"name": "istio"}, "data": {"mesh": "{}"}}));
    let (snapshot, server) = FakeServer::default()
        .with_objects("/api/v1/namespaces", &[namespace])
        .on("/api/v1/namespaces/istio-system/configmaps/istio", mesh)
        .on("/api/v1/pods", |_| failure(403, "no"))
        .collect_in(&["shop"])
        .await;
    assert_eq!(names(&snapshot.unwrap(), Kind::ConfigMap), ["istio"]);
    let requests = server.requests.lock().unwrap();
    assert!(!requests.iter().any(|request| request.path.contains("secret")));
    let maps: Vec<&str> =
        requests.iter().map(|request| request.path.as_str()).filter(|path| path.contains("configmap")).collect();
    let expected = ["istio", "istio-1-30", "istio-canary"];
    assert_eq!(maps, expected.map(|name| format!("/api/v1/namespaces/istio-system/configmaps/{name}")));
}

#[tokio::test]
async fn managed_fields_are_not_stored_in_the_snapshot() {
    let managed = json!([{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]);
    let mut service = object("a");
    service["metadata"]["managedFields"] = managed;
    let (snapshot, _) = FakeServer::default()
        .with_objects(SERVICES, &[service.clone()])
        .with_objects("/api/v1/pods", &[service])
        .collect()
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!((names(&snapshot, Kind::Service), names(&snapshot, Kind::Pod)), (vec!["a"], vec!["a"]));
    assert!(!snapshot.objects.values().any(|object| object.body.get().contains("f:spec")));
}

#[tokio::test(start_paused = true)]
async fn at_most_six_lists_are_in_flight() {
    let server = FakeServer { delay: Duration::from_millis(20), ..FakeServer::default() };
    let (snapshot, server) = server.collect().await;
    snapshot.unwrap();
    assert_eq!(server.peak.load(Ordering::SeqCst), 6);
}
