//! Reading a cluster, against an API server that lives in the test.

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
/// A continue token with characters that mean something in a query, and the same encoded.
const TOKEN: (&str, &str) = ("a+b/c=&d %é", "a%2Bb%2Fc%3D%26d%20%25%C3%A9");

enum Answer {
    Json(u16, Value),
    /// Something in front of the server speaks.
    Page(u16, &'static str),
    Hang,
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    path: String,
    /// As sent, not decoded; empty if there is none.
    query: String,
}

type Route = Box<dyn Fn(&Call) -> Answer + Send + Sync>;

/// An API server that serves every kind and holds nothing, but for its routes.
#[derive(Default)]
struct Fake {
    /// By path; one that ends in `/` stands for everything below it. The longest wins.
    routes: BTreeMap<String, Route>,
    delay: Duration,
    calls: Mutex<Vec<Call>>,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

impl Fake {
    fn on(mut self, path: &str, route: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        self.routes.insert(path.to_owned(), Box::new(route));
        self
    }

    fn holding(self, path: &str, items: &[Value]) -> Self {
        let items = items.to_vec();
        self.on(path, move |_| list(&items, None))
    }

    async fn read(self) -> (Result<Snapshot, ClusterError>, Arc<Self>) {
        self.read_in(&[]).await
    }

    async fn read_in(self, namespaces: &[&str]) -> (Result<Snapshot, ClusterError>, Arc<Self>) {
        let fake = Arc::new(self);
        let service = tower::service_fn({
            let fake = Arc::clone(&fake);
            move |request: http::Request<Body>| Arc::clone(&fake).serve(request.uri().clone())
        });
        let server = ApiServer {
            client: kube::Client::new(service, "default"),
            server: "https://fake.example".to_owned(),
            namespace: "default".to_owned(),
            timeout: Duration::from_secs(10),
            watch: None,
        };
        let scope = CollectScope {
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
            istio_namespace: "istio-system".to_owned(),
            revision: Some("canary".to_owned()),
        };
        (collect(&server, &scope, &|_, _| ()).await, fake)
    }

    async fn serve(self: Arc<Self>, uri: http::Uri) -> io::Result<http::Response<Full<Bytes>>> {
        let call = Call { path: uri.path().to_owned(), query: uri.query().unwrap_or_default().to_owned() };
        self.calls.lock().unwrap().push(call.clone());
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let fits = |route: &str| route == call.path || route.ends_with('/') && call.path.starts_with(route);
        let route = self.routes.iter().filter(|(route, _)| fits(route)).max_by_key(|(route, _)| route.len());
        let (status, body) = match route.map_or_else(|| empty_cluster(&call.path), |(_, route)| route(&call)) {
            Answer::Json(status, body) => (status, body),
            Answer::Page(status, body) => {
                let body = Full::from(body);
                return Ok(http::Response::builder().status(status).body(body).unwrap());
            }
            Answer::Hang => std::future::pending().await,
            Answer::Close => return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")),
        };
        Ok(http::Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
    }

    /// Queries sent to a path, in order.
    fn queries(&self, path: &str) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.path == path).map(|call| call.query.clone()).collect()
    }
}

fn empty_cluster(path: &str) -> Answer {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["version"] => Answer::Json(200, json!({"gitVersion": "v1.36.3"})),
        ["apis"] => groups(|_, _| true),
        ["apis", group, _] => {
            let kinds = KINDS.iter().filter(|info| info.group == group);
            let names: Vec<Value> = kinds.map(|info| json!({"name": info.plural})).collect();
            Answer::Json(200, json!({"resources": names}))
        }
        ["api", _, "namespaces", _, "configmaps", _] => failure(404, "configmap not found"),
        _ => list(&[], None),
    }
}

/// The answer to `/apis`, of the groups and versions that we know and `served` takes.
fn groups(served: impl Fn(&str, &str) -> bool) -> Answer {
    let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for info in KINDS.iter().filter(|info| !info.group.is_empty()) {
        for version in info.versions.iter().filter(|version| served(info.group, version)) {
            groups.entry(info.group).or_default().push(json!({"version": version}));
        }
    }
    let groups: Vec<Value> =
        groups.into_iter().map(|(name, versions)| json!({"name": name, "versions": versions})).collect();
    Answer::Json(200, json!({"groups": groups}))
}

fn list(items: &[Value], next: Option<&str>) -> Answer {
    Answer::Json(200, json!({"metadata": {"continue": next.unwrap_or_default()}, "items": items}))
}

fn failure(code: u16, message: &str) -> Answer {
    Answer::Json(code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message}))
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

/// The gaps of one kind; only that of Istio's Gateway is not told from Gateway API's.
fn gaps(snapshot: &Snapshot, kind: Kind) -> Vec<&Gap> {
    snapshot.gaps.iter().filter(|gap| gap.kind.as_deref() == Some(kind.name())).collect()
}

#[track_caller]
fn the_gap(snapshot: &Snapshot, kind: Kind) -> &Gap {
    let gaps = gaps(snapshot, kind);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    gaps[0]
}

#[tokio::test]
async fn a_list_in_pages_is_read_whole_and_each_page_is_asked_for_once() {
    let fake = Fake::default().on(SERVICES, |call| match call.query.strip_prefix("limit=500") {
        Some("") => list(&objects(0..500), Some(TOKEN.0)),
        Some("&continue=2") => list(&objects(1000..1200), None),
        Some(rest) if rest.strip_prefix("&continue=") == Some(TOKEN.1) => list(&objects(500..1000), Some("2")),
        _ => failure(400, "what page?"),
    });
    let (snapshot, fake) = fake.read().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service).len(), 1200);
    assert_eq!(snapshot.kubernetes_version.as_deref(), Some("v1.36.3"));
    let second = format!("limit=500&continue={}", TOKEN.1);
    assert_eq!(fake.queries(SERVICES), ["limit=500", &second, "limit=500&continue=2"]);
}

#[tokio::test]
async fn a_forbidden_list_is_read_in_the_named_namespaces_and_leaves_a_gap() {
    let (snapshot, fake) = Fake::default()
        .on(SERVICES, |_| failure(403, "services is forbidden"))
        .on("/api/v1/namespaces/closed/services", |_| failure(403, "services is forbidden"))
        .holding("/api/v1/namespaces/shop/services", &[object("a")])
        .read_in(&["shop", "closed"])
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    assert_eq!(fake.queries("/api/v1/namespaces/istio-system/services"), ["limit=500"]);
    let gaps = gaps(&snapshot, Kind::Service);
    let everywhere = gaps.iter().find(|gap| gap.namespace.is_none()).unwrap();
    assert_eq!(everywhere.reason, GapKind::Forbidden);
    assert_eq!(everywhere.read_in, ["istio-system", "shop"]);
    assert_eq!(everywhere.why, "forbidden; kubectl auth can-i list services -A");
    let closed = gaps.iter().find(|gap| gap.namespace.as_deref() == Some("closed")).unwrap();
    assert_eq!(closed.why, "forbidden; kubectl auth can-i list services -n closed");
    assert!(gaps.len() == 2 && gaps.iter().all(|gap| gap.touches_answers()), "{gaps:?}");
}

#[tokio::test]
async fn where_all_namespaces_are_meant_each_that_is_known_is_tried() {
    let namespaces = ["shop", "web"].map(|name| json!({"metadata": {"name": name}}));
    let mut fake = Fake::default().holding("/api/v1/namespaces", &namespaces);
    for kind in ["services", "pods"] {
        fake = fake.on(&format!("/api/v1/{kind}"), |_| failure(403, "no"));
    }
    let (snapshot, _) = fake
        .holding("/api/v1/namespaces/shop/services", &[object("a")])
        .on("/api/v1/namespaces/web/services", |_| failure(403, "no"))
        .read()
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    let gap = gaps(&snapshot, Kind::Service).into_iter().find(|gap| gap.namespace.is_none()).unwrap();
    assert!(gap.read_in.contains(&"shop".to_owned()) && !gap.read_in.contains(&"web".to_owned()), "{gap:?}");
}

#[tokio::test]
async fn a_user_who_may_read_nothing_is_told_so() {
    let (result, _) = Fake::default().on("/", |_| failure(403, "no")).read_in(&["shop"]).await;
    let error = result.unwrap_err();
    assert_eq!(error.trouble, ClusterErrorKind::Forbidden);
    assert!(error.hint.unwrap().contains("kubectl auth can-i --list"));
}

#[tokio::test]
async fn a_group_that_is_not_served_is_not_installed_and_touches_no_answer() {
    let fake = Fake::default().on("/apis", |_| groups(|group, _| group != "networking.istio.io"));
    let (snapshot, fake) = fake.read().await;
    let snapshot = snapshot.unwrap();
    let gap = the_gap(&snapshot, Kind::VirtualService);
    assert_eq!(gap.reason, GapKind::NotInstalled);
    assert!(!gap.touches_answers());
    assert!(gaps(&snapshot, Kind::HttpRoute).is_empty());
    let calls = fake.calls.lock().unwrap();
    assert!(!calls.iter().any(|call| call.path.contains("networking.istio.io")));
}

#[tokio::test]
async fn the_best_version_that_is_served_is_read() {
    let (snapshot, _) = Fake::default()
        .on("/apis", |_| groups(|group, version| group != "networking.istio.io" || version == "v1beta1"))
        .on("/apis/networking.istio.io/v1/virtualservices", |_| failure(404, "no such version"))
        .holding("/apis/networking.istio.io/v1beta1/virtualservices", &[object("old")])
        .read()
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::VirtualService), ["old"]);
    let object = snapshot.of_kind(Kind::VirtualService).next().unwrap();
    assert_eq!(&*object.api_version, "networking.istio.io/v1beta1");
}

#[tokio::test]
async fn a_list_that_is_not_found_is_not_installed() {
    let path = "/apis/networking.istio.io/v1/destinationrules";
    let (snapshot, _) = Fake::default().on(path, |_| failure(404, "page not found")).read().await;
    assert_eq!(the_gap(&snapshot.unwrap(), Kind::DestinationRule).reason, GapKind::NotInstalled);
}

#[tokio::test]
async fn a_malformed_object_loses_only_itself() {
    let bad = json!({"metadata": {"namespace": "shop", "name": "bad"}, "spec": "text"});
    let nameless = json!({"metadata": {}});
    let pods = [object("a"), bad, nameless, object("b")];
    let (snapshot, _) = Fake::default().holding("/api/v1/pods", &pods).read().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Pod), ["a", "b"]);
    let malformed = snapshot.gaps.iter().filter(|gap| gap.reason == GapKind::Malformed);
    let what: Vec<&str> = malformed.map(|gap| gap.what.as_str()).collect();
    assert_eq!(what, ["Pod shop/bad", "an object among the pods"]);
}

#[tokio::test]
async fn an_expired_token_starts_the_list_again() {
    let expired = AtomicUsize::new(0);
    let fake = Fake::default().on(SERVICES, move |call| {
        if call.query == "limit=500" {
            return list(&[object("a"), json!({"metadata": {}})], Some("t"));
        }
        let first = expired.fetch_add(1, Ordering::SeqCst) == 0;
        if first { failure(410, "too old") } else { list(&[object("b")], None) }
    });
    let (snapshot, fake) = fake.read().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a", "b"]);
    assert_eq!(snapshot.gaps.iter().filter(|gap| gap.reason == GapKind::Malformed).count(), 1);
    assert_eq!(fake.queries(SERVICES).len(), 4);
}

#[tokio::test]
async fn tokens_that_keep_expiring_end_with_a_list_in_one_piece() {
    let fake = Fake::default().on(SERVICES, |call| match call.query.as_str() {
        "" => list(&objects(0..3), None),
        "limit=500" => list(&objects(0..2), Some("t")),
        _ => failure(410, "too old"),
    });
    let (snapshot, fake) = fake.read().await;
    assert_eq!(names(&snapshot.unwrap(), Kind::Service).len(), 3);
    let page = "limit=500";
    assert_eq!(fake.queries(SERVICES), [page, "limit=500&continue=t", page, "limit=500&continue=t", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let fake = Fake::default().on(SERVICES, move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => failure(503, "busy"),
        _ => list(&[object("a")], None),
    });
    let (snapshot, _) = fake.read().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    assert!(gaps(&snapshot, Kind::Service).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_busy_is_given_up_within_seconds() {
    let began = Instant::now();
    let (snapshot, fake) = Fake::default().on(SERVICES, |_| failure(503, "busy")).read().await;
    let snapshot = snapshot.unwrap();
    let gap = the_gap(&snapshot, Kind::Service);
    assert_eq!((gap.reason, gap.why.as_str()), (GapKind::Failed, "https://fake.example answered 503: busy"));
    assert_eq!(fake.queries(SERVICES).len(), 3);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_halfway_is_not_kept_by_half() {
    let halfway = |call: &Call| match call.query.as_str() {
        "limit=500" => list(&objects(0..2), Some("t")),
        _ => failure(503, "busy"),
    };
    let (snapshot, _) = Fake::default()
        .on(SERVICES, halfway)
        .on("/api/v1/pods", |_| failure(403, "no"))
        .on("/api/v1/namespaces/shop/pods", halfway)
        .read_in(&["shop"])
        .await;
    let snapshot = snapshot.unwrap();
    assert_eq!(the_gap(&snapshot, Kind::Service).reason, GapKind::Failed);
    assert_eq!(names(&snapshot, Kind::Service), [""; 0]);
    assert_eq!(names(&snapshot, Kind::Pod), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_every_list_is_not_taken_for_forbidden() {
    let fake = Fake::default().on("/api/", |_| failure(500, "etcd is down"));
    let (result, _) = fake.on("/apis/", |_| failure(500, "etcd is down")).read().await;
    let error = result.unwrap_err();
    assert_eq!(error.trouble, ClusterErrorKind::Server, "{error}");
    assert!(error.message.contains("etcd is down"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_unreachable_within_the_limit() {
    let began = Instant::now();
    let (result, fake) = Fake::default().on("/", |_| Answer::Hang).read().await;
    let error = result.unwrap_err();
    assert_eq!(error.trouble, ClusterErrorKind::Silent);
    assert_eq!(error.message, "https://fake.example did not answer within 10 s");
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!(fake.calls.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_kind_that_is_not_answered_is_a_gap() {
    let (snapshot, _) =
        Fake::default().on("/api/v1/pods", |_| Answer::Hang).holding(SERVICES, &[object("a")]).read().await;
    let snapshot = snapshot.unwrap();
    assert_eq!(names(&snapshot, Kind::Service), ["a"]);
    let gap = the_gap(&snapshot, Kind::Pod);
    assert_eq!((gap.reason, gap.why.as_str()), (GapKind::Failed, "https://fake.example did not answer within 30 s"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_silent_is_given_up() {
    let began = Instant::now();
    let (result, _) = Fake::default().on("/api/", |_| Answer::Hang).on("/apis/apps/v1/", |_| Answer::Hang).read().await;
    assert_eq!(result.unwrap_err().trouble, ClusterErrorKind::Silent);
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_front_of_the_server_is_judged_by_its_status() {
    let (result, _) = Fake::default().on("/", |_| Answer::Page(401, "<html>log in</html>")).read().await;
    assert_eq!(result.unwrap_err().trouble, ClusterErrorKind::Unauthorized);
    let (result, _) = Fake::default().on("/", |_| Answer::Page(502, "{\"error\": \"bad gateway\"}")).read().await;
    assert_eq!(result.unwrap_err().message, "https://fake.example answered 502: Bad Gateway");
}

#[tokio::test]
async fn a_connection_that_closes_is_unreachable_with_its_cause() {
    let (result, _) = Fake::default().on("/", |_| Answer::Close).read().await;
    let error = result.unwrap_err();
    assert_eq!(error.trouble, ClusterErrorKind::Unreachable);
    assert_eq!(error.message, "cannot reach https://fake.example: connection reset by peer");
    assert!(error.hint.unwrap().contains("kubectl config get-contexts"));
}

#[tokio::test]
async fn refused_credentials_come_with_a_hint() {
    let (result, _) = Fake::default().on("/", |_| failure(401, "Unauthorized")).read().await;
    let error = result.unwrap_err();
    assert_eq!(error.trouble, ClusterErrorKind::Unauthorized);
    assert!(error.hint.unwrap().contains("kubectl auth whoami"));
}

#[tokio::test]
async fn secrets_are_never_requested_and_of_config_maps_only_the_meshs() {
    let namespace = json!({"metadata": {"name": "shop", "labels": {"istio.io/rev": "1-30"}}});
    let mesh = |_: &Call| Answer::Json(200, json!({"metadata": {"name": "istio"}, "data": {"mesh": "{}"}}));
    let (snapshot, fake) = Fake::default()
        .holding("/api/v1/namespaces", &[namespace])
        .on("/api/v1/namespaces/istio-system/configmaps/istio", mesh)
        .on("/api/v1/pods", |_| failure(403, "no"))
        .read_in(&["shop"])
        .await;
    assert_eq!(names(&snapshot.unwrap(), Kind::ConfigMap), ["istio"]);
    let calls = fake.calls.lock().unwrap();
    assert!(!calls.iter().any(|call| call.path.contains("secret")));
    let maps: Vec<&str> =
        calls.iter().map(|call| call.path.as_str()).filter(|path| path.contains("configmap")).collect();
    let expected = ["istio", "istio-1-30", "istio-canary"];
    assert_eq!(maps, expected.map(|name| format!("/api/v1/namespaces/istio-system/configmaps/{name}")));
}

#[tokio::test]
async fn the_fields_of_managers_do_not_reach_the_snapshot() {
    let managed = json!([{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]);
    let mut service = object("a");
    service["metadata"]["managedFields"] = managed;
    let (snapshot, _) =
        Fake::default().holding(SERVICES, &[service.clone()]).holding("/api/v1/pods", &[service]).read().await;
    let snapshot = snapshot.unwrap();
    assert_eq!((names(&snapshot, Kind::Service), names(&snapshot, Kind::Pod)), (vec!["a"], vec!["a"]));
    assert!(!snapshot.objects.values().any(|object| object.body.get().contains("f:spec")));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_six_lists_are_in_flight() {
    let fake = Fake { delay: Duration::from_millis(20), ..Fake::default() };
    let (snapshot, fake) = fake.read().await;
    snapshot.unwrap();
    assert_eq!(fake.peak.load(Ordering::SeqCst), 6);
}
