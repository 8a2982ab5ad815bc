//! A cluster in memory: an API server that stores the objects of a fixture, and Envoys that run what these objects say.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::client::ApiServer;
use crate::schema::kind::{KINDS, Kind, KindInfo};

const MESH: &str = include_str!("../../../../tests/fixtures/shift/mesh.yaml");
const VIRTUAL_SERVICE: &str = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/checkout";

/// What happens to a request instead of the normal answer.
#[derive(Debug, Clone)]
pub(super) enum RequestFault {
    /// An HTTP status with a message; nothing is applied.
    Status(u16, &'static str),
    /// 429 with `Retry-After` in seconds.
    Busy(u64),
    /// The patch is applied, and the answer is lost.
    AnswerLost,
    /// The connection closes before anything is applied.
    Closed,
    /// The patch is applied, and no answer ever arrives.
    Stalled,
}

/// A request that a rule is about: the method, a part of the path, and which of those that match, from 1; 0 means all.
#[derive(Debug, Clone)]
pub(super) struct Matching {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) number: usize,
}

type Action = Box<dyn FnOnce(&mut Cluster) + Send>;

/// How the callers' Envoys behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Envoys {
    /// They follow after this time.
    Follow(Duration),
    /// They keep the configuration that they run.
    Frozen,
    /// They reject every change.
    Reject,
    /// They cannot be reached.
    Unreachable,
}

/// The calls of `web`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    pub(super) per_second: f64,
    pub(super) canary_error_ratio: f64,
    pub(super) baseline_error_ratio: f64,
}

/// The state of the cluster.
pub(super) struct Cluster {
    pub(super) objects: Vec<Value>,
    resource_version: u64,
    faults: Vec<(Matching, RequestFault)>,
    actions: Vec<(Matching, Option<Action>)>,
    seen: Vec<(String, String)>,
    pub(super) requests: Vec<String>,
    pub(super) envoys: Envoys,
    /// Versions of the VirtualService since the start, with the time of each.
    history: Vec<(Instant, Value)>,
    pub(super) calls: Calls,
    counted: (Instant, [f64; 4]),
    signals: watch::Sender<u32>,
    /// Whether istiod does not answer.
    pub(super) istiod_stopped: bool,
    pub(super) start: Instant,
    /// Sessions so far.
    pub(super) sessions: u32,
}

/// The cluster, shared by its server, its Envoys and the test.
#[derive(Clone)]
pub(super) struct FakeCluster(Arc<Mutex<Cluster>>);

impl FakeCluster {
    pub(super) fn new(signals: watch::Sender<u32>) -> Self {
        let mut objects: Vec<Value> = Vec::new();
        for document in crate::snapshot::manifest::documents(MESH) {
            let json = crate::snapshot::yaml::to_json(&MESH[document]).unwrap().json.unwrap();
            objects.push(serde_json::from_str(json.get()).unwrap());
        }
        let start = Instant::now();
        let mut cluster = Cluster {
            objects,
            resource_version: 100,
            faults: Vec::new(),
            actions: Vec::new(),
            seen: Vec::new(),
            requests: Vec::new(),
            envoys: Envoys::Follow(Duration::from_millis(300)),
            history: Vec::new(),
            calls: Calls { per_second: 0.0, canary_error_ratio: 0.0, baseline_error_ratio: 0.0 },
            counted: (start, [0.0; 4]),
            signals,
            istiod_stopped: false,
            start,
            sessions: 0,
        };
        let now = cluster.virtual_service().cloned().unwrap();
        cluster.history.push((start - Duration::from_hours(1), now));
        Self(Arc::new(Mutex::new(cluster)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.0.lock().unwrap()
    }

    /// A client of the API server.
    pub(super) fn server(&self) -> ApiServer {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| cluster.clone().serve(request));
        ApiServer {
            client: kube::Client::new(service, "shop"),
            server: "https://fake.example".to_owned(),
            namespace: "shop".to_owned(),
            timeout: Duration::from_secs(10),
            observer: None,
            request_timeout: None,
            health: Arc::default(),
        }
    }

    async fn serve(self, request: http::Request<Body>) -> io::Result<http::Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let (method, path) = (head.method.as_str().to_owned(), head.uri.path().to_owned());
        let query = head.uri.query().unwrap_or_default().to_owned();
        // The order of parallel requests must not depend on the scheduler.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (fault, (status, response)) = {
            let mut cluster = self.lock();
            cluster.record(&method, &path, &query);
            let fault = cluster.fault(&method, &path, &query);
            let answer = match &fault {
                Some(RequestFault::Status(code, message)) => failure(*code, message),
                Some(RequestFault::Busy(_)) => failure(429, "too many requests"),
                Some(RequestFault::Closed) => (0, Value::Null),
                Some(RequestFault::AnswerLost | RequestFault::Stalled) | None => {
                    cluster.answer(&method, &path, &query, &body)
                }
            };
            cluster.act(&method, &path, &query);
            (fault, answer)
        };
        let builder = http::Response::builder().status(if status == 0 { 200 } else { status });
        let text = match response {
            Value::String(text) => text,
            response => response.to_string(),
        };
        match fault {
            Some(RequestFault::AnswerLost | RequestFault::Closed) => {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer"))
            }
            Some(RequestFault::Stalled) => std::future::pending().await,
            Some(RequestFault::Busy(seconds)) => {
                Ok(builder.header("retry-after", seconds.to_string()).body(Full::from(text)).unwrap())
            }
            Some(RequestFault::Status(..)) | None => Ok(builder.body(Full::from(text)).unwrap()),
        }
    }
}

/// The name under which requests are matched and listed; dry runs have their own.
fn shown_method(method: &str, query: &str) -> String {
    if query.contains("dryRun=All") { format!("{method} (dry run)") } else { method.to_owned() }
}

impl Cluster {
    fn record(&mut self, method: &str, path: &str, query: &str) {
        let method = shown_method(method, query);
        let is_list = method == "GET" && KINDS.iter().any(|info| path.ends_with(&format!("/{}", info.plural)));
        let is_cluster_wide = is_list && !path.contains("/namespaces/");
        let is_setup = path == "/apis" || path.contains("/configmaps/") || path == "/version";
        let is_discovery = path.starts_with("/apis/") && path.matches('/').count() == 3;
        let text = if is_cluster_wide || is_setup || is_discovery {
            "GET the mesh".to_owned()
        } else {
            let short = path.split("/namespaces/").last().unwrap_or(path);
            format!("{method} {short}")
        };
        self.seen.push((method, path.to_owned()));
        self.requests.push(text);
    }

    /// How many requests matched so far.
    fn count(&self, matching: &Matching) -> usize {
        self.seen.iter().filter(|(method, path)| method == matching.method && path.contains(matching.path)).count()
    }

    fn matches(&self, matching: &Matching, method: &str, path: &str) -> bool {
        let is_same = method == matching.method && path.contains(matching.path);
        is_same && (matching.number == 0 || self.count(matching) == matching.number)
    }

    fn fault(&self, method: &str, path: &str, query: &str) -> Option<RequestFault> {
        let method = shown_method(method, query);
        let fault = self.faults.iter().find(|(matching, _)| self.matches(matching, &method, path));
        fault.map(|(_, fault)| fault.clone())
    }

    fn act(&mut self, method: &str, path: &str, query: &str) {
        let method = shown_method(method, query);
        for index in 0..self.actions.len() {
            let is_due = self.matches(&self.actions[index].0, &method, path);
            let action = if is_due { self.actions[index].1.take() } else { None };
            if let Some(action) = action {
                action(self);
            }
        }
    }

    pub(super) fn add_fault(&mut self, matching: Matching, fault: RequestFault) {
        self.faults.push((matching, fault));
    }

    pub(super) fn remove_faults(&mut self) {
        self.faults.clear();
    }

    pub(super) fn add_action(&mut self, matching: Matching, action: impl FnOnce(&mut Self) + Send + 'static) {
        self.actions.push((matching, Some(Box::new(action))));
    }

    pub(super) fn signal(&mut self) {
        self.signals.send_modify(|count| *count += 1);
    }

    fn answer(&mut self, method: &str, path: &str, query: &str, body: &Value) -> (u16, Value) {
        match method {
            "POST" => (201, json!({"status": {"userInfo": {"username": "alice"}}})),
            "PATCH" => self.patch(path, query, body),
            _ => self.get(path, query),
        }
    }

    fn get(&self, path: &str, query: &str) -> (u16, Value) {
        if path == "/apis" {
            return (200, discovery());
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (api_version, rest) = match parts[..] {
            ["api", version, ..] => (version.to_owned(), &parts[2..]),
            ["apis", group, version, ..] => (format!("{group}/{version}"), &parts[3..]),
            _ => return failure(404, "not found"),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let Some(info) = KINDS.iter().find(|info| Some(&info.plural) == rest.first()) else {
            return (200, json!({"items": []}));
        };
        let is_match = |object: &&Value| {
            object["kind"] == info.name
                && object["apiVersion"] == *api_version
                && namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
        };
        let objects = self.objects.iter().filter(is_match);
        if rest.last() == Some(&"log") {
            return (200, Value::from(self.log()));
        }
        match rest.get(1) {
            Some(name) => match objects.into_iter().find(|object| object["metadata"]["name"] == **name) {
                Some(object) => (200, object.clone()),
                None => failure(404, &format!("{} \"{name}\" not found", info.plural)),
            },
            None => {
                let is_selected = |object: &&Value| is_selected(query, &object["metadata"]["labels"]);
                (200, json!({"metadata": {}, "items": objects.filter(is_selected).collect::<Vec<_>>()}))
            }
        }
    }

    /// A minute of the access log of `web`, with the weights as they are.
    fn log(&self) -> String {
        let [_, v2] = self.weights();
        let lines = (0..1000_u64).map(|number| {
            let is_canary = number % 100 < v2;
            let version = if is_canary { "v2" } else { "v1" };
            let fails = is_canary && (number % 10) as f64 / 10.0 < self.calls.canary_error_ratio;
            let status = if fails { 14 } else { 0 };
            format!(
                "2026-11-30T12:00:30.000000000Z [2026-11-30T12:00:30.000Z] \"POST /shop.Checkout/Pay HTTP/2\" 200 {status} - - 3 \
                 \"checkout.shop:50051\" outbound|50051|{version}|checkout.shop.svc.cluster.local\n"
            )
        });
        lines.collect()
    }

    /// Makes the Envoys log the gRPC status of calls.
    pub(super) fn log_grpc_status(&mut self) {
        let format = "[%START_TIME%] \\\"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\\\" %RESPONSE_CODE% %GRPC_STATUS(NUMBER)% \
                      %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DURATION% \\\"%REQ(:AUTHORITY)%\\\" \
                      %UPSTREAM_CLUSTER_RAW%\\n";
        let mesh = format!("accessLogFile: /dev/stdout\naccessLogFormat: \"{format}\"\n");
        self.objects.push(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": "istio-system", "uid": "c1"}, "data": {"mesh": mesh}}));
    }

    fn patch(&mut self, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let Some(index) = self.index_of_virtual_service().filter(|_| path == VIRTUAL_SERVICE) else {
            return failure(404, "not found");
        };
        let patch: json_patch::Patch = serde_json::from_value(body.clone()).unwrap();
        let mut changed = self.objects[index].clone();
        if json_patch::patch(&mut changed, &patch).is_err() {
            return failure(422, "the server rejected our request due to an error in our request");
        }
        if !query.contains("dryRun=All") {
            self.store(index, changed.clone(), "kubectl-grpcmesh");
            changed = self.objects[index].clone();
        }
        (200, changed)
    }

    fn store(&mut self, index: usize, mut object: Value, manager: &str) {
        self.resource_version += 1;
        object["metadata"]["resourceVersion"] = json!(self.resource_version.to_string());
        let time = "2026-11-30T12:00:00Z";
        object["metadata"]["managedFields"] = json!([{"manager": manager, "operation": "Update", "time": time}]);
        self.history.push((Instant::now(), object.clone()));
        self.objects[index] = object;
    }

    fn index_of_virtual_service(&self) -> Option<usize> {
        self.objects.iter().position(|object| object["kind"] == "VirtualService")
    }

    pub(super) fn virtual_service(&self) -> Option<&Value> {
        self.index_of_virtual_service().map(|index| &self.objects[index])
    }

    /// Changes the VirtualService as another client.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let index = self.index_of_virtual_service().unwrap();
        let mut object = self.objects[index].clone();
        change(&mut object);
        self.store(index, object, "kubectl-edit");
    }

    /// Sets the weights as another client.
    pub(super) fn set_weights(&mut self, v1: u64, v2: u64) {
        self.change(|object| {
            object["spec"]["http"][0]["route"][0]["weight"] = json!(v1);
            object["spec"]["http"][0]["route"][1]["weight"] = json!(v2);
        });
    }

    pub(super) fn delete(&mut self) {
        let index = self.index_of_virtual_service().unwrap();
        self.objects.remove(index);
    }

    /// Deletes the VirtualService and creates it again with the same content.
    pub(super) fn recreate(&mut self) {
        self.change(|object| object["metadata"]["uid"] = json!("v2"));
    }

    /// Puts a rule without a split in front of the others, as another client.
    pub(super) fn insert_rule(&mut self) {
        let rule = json!({"match": [{"headers": {"x-test": {"exact": "1"}}}],
            "route": [{"destination": {"host": "checkout", "subset": "v1"}}]});
        self.change(|object| object["spec"]["http"].as_array_mut().unwrap().insert(0, rule));
    }

    /// Changes something that says nothing about the weights.
    pub(super) fn touch(&mut self) {
        self.change(|object| object["metadata"]["annotations"]["example.com/touched"] = json!("yes"));
    }

    /// Removes a pod.
    pub(super) fn lose_pod(&mut self, pod: &str) {
        self.objects.retain(|object| object["metadata"]["name"] != pod);
        let slice = self.objects.iter_mut().find(|object| object["kind"] == "EndpointSlice").unwrap();
        let endpoints = slice["endpoints"].as_array_mut().unwrap();
        endpoints.retain(|endpoint| endpoint["targetRef"]["name"] != pod);
    }

    /// Removes a subset from the DestinationRule.
    pub(super) fn remove_subset(&mut self, name: &str) {
        let rule = self.objects.iter_mut().find(|object| object["kind"] == "DestinationRule").unwrap();
        rule["spec"]["subsets"].as_array_mut().unwrap().retain(|subset| subset["name"] != name);
    }

    /// The weights of the first rule that has two backends.
    pub(super) fn weights(&self) -> [u64; 2] {
        let Some(object) = self.virtual_service() else { return [0, 0] };
        let rules = object["spec"]["http"].as_array().unwrap();
        let rule = rules.iter().find(|rule| rule["route"].as_array().is_some_and(|route| route.len() == 2)).unwrap();
        [0, 1].map(|index| rule["route"][index]["weight"].as_u64().unwrap_or(0))
    }

    /// The objects as the Envoys run them.
    pub(super) fn objects_of_envoys(&self) -> Vec<Value> {
        let since = match self.envoys {
            Envoys::Follow(delay) => Instant::now() - delay,
            Envoys::Frozen | Envoys::Reject | Envoys::Unreachable => self.history[0].0,
        };
        let running = self.history.iter().rev().find(|(time, _)| *time <= since).unwrap_or(&self.history[0]);
        let mut objects: Vec<Value> =
            self.objects.iter().filter(|object| object["kind"] != "VirtualService").cloned().collect();
        objects.push(running.1.clone());
        objects
    }

    /// Calls and errors of v1 and v2 since the start.
    pub(super) fn count_calls(&mut self) -> [f64; 4] {
        let now = Instant::now();
        let seconds = (now - self.counted.0).as_secs_f64();
        let [v1, v2] = self.weights().map(|weight| weight as f64);
        let calls = seconds * self.calls.per_second;
        let (to_v1, to_v2) = (calls * v1 / (v1 + v2).max(1.0), calls * v2 / (v1 + v2).max(1.0));
        let counts = &mut self.counted.1;
        counts[0] += to_v1;
        counts[1] += to_v1 * self.calls.baseline_error_ratio;
        counts[2] += to_v2;
        counts[3] += to_v2 * self.calls.canary_error_ratio;
        self.counted.0 = now;
        self.counted.1
    }
}

/// Whether labels match the label selector of a query.
fn is_selected(query: &str, labels: &Value) -> bool {
    let Some((_, selector)) = query.split_once("labelSelector=") else { return true };
    let selector = selector.replace("%3D", "=").replace("%2F", "/").replace("%20", " ").replace("%28", "(");
    selector.split("%2C").all(|term| match term.split_once(" in (") {
        Some((key, services)) => labels[key].as_str().is_some_and(|service| services.contains(service)),
        None => term.split_once('=').is_some_and(|(key, value)| labels[key] == value),
    })
}

fn discovery() -> Value {
    let mut groups: std::collections::BTreeMap<&str, std::collections::BTreeSet<&str>> =
        std::collections::BTreeMap::new();
    // Like most clusters, this one has an older Gateway API.
    let is_served = |info: &&KindInfo| !matches!(info.kind, Kind::ListenerSet | Kind::BackendTlsPolicy);
    for info in KINDS.iter().filter(|info| !info.group.is_empty()).filter(is_served) {
        groups.entry(info.group).or_default().extend(info.versions.first());
    }
    let items = groups.into_iter().map(|(group, versions)| {
        let versions: Vec<Value> = versions
            .into_iter()
            .map(|version| {
                let kinds = KINDS.iter().filter(is_served);
                let kinds = kinds.filter(|info| info.group == group && info.versions.first() == Some(&version));
                let resources: Vec<Value> = kinds.map(|info| json!({"resource": info.plural})).collect();
                json!({"version": version, "resources": resources})
            })
            .collect();
        json!({"metadata": {"name": group}, "versions": versions})
    });
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items.collect::<Vec<_>>()})
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message}))
}
