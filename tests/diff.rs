//! `diff`: reports every difference and nothing else. The tests compare it with istiod's own output.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use grpcmesh::dataplane::Difference;
use grpcmesh::dataplane::proxy::{ProxyState, compare_proxy};
use grpcmesh::envoy::config_dump::RunningConfig;
use grpcmesh::envoy::sync::{XdsConnection, XdsSyncState};
use grpcmesh::mesh::xds::{Caller, CallerKind};
use grpcmesh::mesh::{Mesh, ResolveOptions, resolve};
use grpcmesh::snapshot::codec;
use grpcmesh::snapshot::live::{LiveProxy, LiveState, ProxyResponse};
use grpcmesh::snapshot::manifest::{self, OnMalformed};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};
use serde_json::{Value, json};
use support::{Run, TestEnv};

fn fixture_lines(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/routes").join(name);
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn snapshot(yaml: &str) -> Snapshot {
    let mut snapshot = Snapshot::new(SourceKind::Manifests);
    let text = Arc::new(SourceText { path: "mesh.yaml".to_owned(), text: yaml.to_owned() });
    manifest::read(&mut snapshot, text, "default", OnMalformed::Stop).unwrap();
    snapshot
}

fn running_config(line: &Value) -> RunningConfig {
    let answers = ["routes", "clusters"].map(|part| Some(json!({"configs": line[part]}).to_string().into_bytes()));
    RunningConfig::parse(&answers).unwrap()
}

/// The caller of a proxy ID such as `sidecar/namespace/pod`.
fn caller(mesh: &Mesh<'_>, proxy: &str) -> Caller {
    let [kind, namespace, pod] = proxy.split('/').collect::<Vec<_>>()[..] else { panic!("{proxy}") };
    let is_pod = |id: &grpcmesh::mesh::ids::WorkloadId| {
        let workload = mesh.workload(*id);
        workload.namespace().as_str() == namespace && &*workload.object.name == pod
    };
    let caller = Caller::of_workload(mesh, mesh.workload_ids().find(is_pod).unwrap());
    let kind = if kind == "gateway" { CallerKind::Gateway } else { CallerKind::Sidecar };
    Caller { kind, ..caller }
}

fn connected() -> XdsSyncState {
    XdsSyncState::Connected(XdsConnection::default())
}

#[test]
fn istiods_own_output_is_synced() {
    let meshes: HashMap<String, String> = fixture_lines("cases.jsonl.gz")
        .into_iter()
        .map(|case| (case["id"].as_str().unwrap().to_owned(), case["mesh"].as_str().unwrap().to_owned()))
        .collect();
    let mut by_mesh: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in fixture_lines("envoy.jsonl.gz") {
        by_mesh.entry(line["mesh"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    let mut unexpected = Vec::new();
    let mut count = 0;
    for (id, proxies) in by_mesh {
        let snapshot = snapshot(&meshes[&id]);
        let mesh = resolve(&snapshot, &ResolveOptions::default());
        for line in proxies {
            let proxy = line["proxy"].as_str().unwrap();
            let compared = compare_proxy(&mesh, &caller(&mesh, proxy), &running_config(&line), &connected(), None, &[]);
            count += 1;
            for difference in compared.all_differences() {
                let Difference { what, desired, live, .. } = difference;
                unexpected.push(format!("{id} {proxy}: {what}: desired {desired}, istiod {live}"));
            }
        }
    }
    assert!(count > 300, "{count} proxies");
    assert!(unexpected.is_empty(), "{} differences:\n{}", unexpected.len(), unexpected.join("\n"));
}

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: a}, ports: [{name: grpc, port: 50051}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.5], conditions: {ready: true}}, {addresses: [10.1.0.6], conditions: {ready: true}}]
ports: [{name: grpc, port: 9000}]
---
apiVersion: v1
kind: Pod
metadata: {name: c, namespace: shop, labels: {app: c}}
spec: {containers: [{name: app}, {name: istio-proxy, args: [proxy, sidecar]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: a
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 100}}, outlierDetection: {interval: 5s}}
  subsets: [{name: v1, labels: {v: '1'}}, {name: v2, labels: {v: '2'}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [a]
  http:
  - match: [{headers: {x-canary: {exact: 'yes'}}}]
    timeout: 2s
    route: [{destination: {host: a, subset: v2}}]
  - retries: {attempts: 3, retryOn: unavailable}
    route: [{destination: {host: a, subset: v1}, weight: 90}, {destination: {host: a, subset: v2}, weight: 10}]
";

/// The configuration that istiod sends to the Envoy of pod `c` in `MESH`.
fn healthy() -> Value {
    let host = "a.shop.svc.cluster.local";
    let cluster = |subset: &str| {
        json!({"cluster": {"name": format!("outbound|50051|{subset}|{host}"), "type": "EDS", "connect_timeout": "10s",
            "lb_policy": "LEAST_REQUEST",
            "circuit_breakers": {"thresholds": [{"max_connections": 4_294_967_295_u32, "max_pending_requests": 4_294_967_295_u32,
                "max_requests": 100, "max_retries": 4_294_967_295_u32}]},
            "outlier_detection": {"interval": "5s", "enforcing_consecutive_5xx": 100, "enforcing_success_rate": 0},
            "transport_socket_matches": [{"name": "tlsMode-istio"}, {"name": "tlsMode-disabled"}],
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
                {"explicit_http_config": {"http2_protocol_options": {}}}}}})
    };
    let default = json!({"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "num_retries": 2});
    let v2 = format!("outbound|50051|v2|{host}");
    let v1 = format!("outbound|50051|v1|{host}");
    let endpoint = |address: &str| json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": 9000}}}, "health_status": "HEALTHY"});
    json!({
        "routes": [{"route_config": {"name": "50051", "virtual_hosts": [
            {"name": format!("{host}:50051"), "domains": [host, format!("{host}."), "a", "a.shop.svc", "a.shop", "10.96.0.9"], "routes": [
                {"match": {"prefix": "/", "case_sensitive": true, "headers": [{"name": "x-canary", "string_match": {"exact": "yes"}}]},
                 "route": {"cluster": v2, "timeout": "2s", "max_grpc_timeout": "2s", "retry_policy": default}},
                {"match": {"prefix": "/"}, "route": {"timeout": "0s", "max_grpc_timeout": "0s",
                 "retry_policy": {"retry_on": "unavailable", "num_retries": 3},
                 "weighted_clusters": {"clusters": [{"name": v1, "weight": 90}, {"name": v2, "weight": 10}]}}}]},
            {"name": "allow_any", "domains": ["*"], "routes": [
                {"name": "allow_any", "match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"}}]}]}}],
        "clusters": [cluster(""), cluster("v1"), cluster("v2")],
        "endpoints": [{"endpoint_config": {"cluster_name": format!("outbound|50051||{host}"),
            "endpoints": [{"lb_endpoints": [endpoint("10.1.0.5"), endpoint("10.1.0.6")]}]}}],
    })
}

fn differences(live: &Value, sync: &XdsSyncState) -> (ProxyState, Vec<(String, String, String)>) {
    let snapshot = snapshot(MESH);
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    let parts = ["routes", "clusters", "endpoints"];
    let answers = parts.map(|part| Some(json!({"configs": live[part]}).to_string().into_bytes()));
    let slices = grpcmesh::dataplane::endpoints::SliceEndpoints::new(&mesh);
    let caller = caller(&mesh, "sidecar/shop/c");
    let compared = compare_proxy(&mesh, &caller, &RunningConfig::parse(&answers).unwrap(), sync, slices.as_ref(), &[]);
    let shorten = |text: &str| text.replace(".shop.svc.cluster.local", "").replace("outbound|50051|", "");
    let differences = compared
        .all_differences()
        .map(|difference| (shorten(&difference.what), shorten(&difference.desired), shorten(&difference.live)));
    (compared.state, differences.collect())
}

#[test]
fn a_proxy_without_differences_is_synced() {
    assert_eq!(differences(&healthy(), &connected()), (ProxyState::Synced, Vec::new()));
}

/// The state and number of differences of a proxy after its response was saved to a snapshot file.
fn saved_state(response: impl FnOnce(&mut LiveState) -> ProxyResponse) -> (ProxyState, usize) {
    let mut snapshot = snapshot(MESH);
    let mut live = LiveState::new("2026-11-21T09:00:00Z".to_owned());
    let response = response(&mut live);
    live.insert(
        "shop".to_owned(),
        "c".to_owned(),
        LiveProxy { sync: connected(), response, counters: <_>::default(), transient: Vec::new() },
    );
    snapshot.live = Some(live);
    let mut bytes = Vec::new();
    codec::encode(&snapshot, &mut bytes).unwrap();
    let decoded = codec::decode(std::str::from_utf8(&bytes).unwrap()).unwrap();
    assert_eq!(decoded.live, snapshot.live);
    let reports = grpcmesh::report::diff::proxy_reports(&resolve(&decoded, &ResolveOptions::default()), &[]);
    assert_eq!(reports.len(), 1, "{reports:#?}");
    (reports[0].state, reports[0].differences.len())
}

#[test]
fn a_snapshot_file_preserves_the_state_of_proxies() {
    let config = |live: &Value| {
        let part = |part: &str| Some(json!({"configs": live[part]}).to_string().into_bytes());
        RunningConfig::parse(&["routes", "clusters", "endpoints"].map(part)).unwrap()
    };
    assert_eq!(saved_state(|live| live.record_config(config(&healthy()))), (ProxyState::Synced, 0));
    let mut changed = healthy();
    changed["clusters"].as_array_mut().unwrap().pop();
    assert_eq!(saved_state(|live| live.record_config(config(&changed))), (ProxyState::Different, 1));
    assert_eq!(
        saved_state(|_| ProxyResponse::Unreachable("no answer in 10 s".to_owned())),
        (ProxyState::Unreachable, 0)
    );
    assert_eq!(saved_state(|_| ProxyResponse::NotQueried("--proxies 3".to_owned())), (ProxyState::NotCompared, 0));
}

#[test]
fn reports_every_changed_field_with_both_values() {
    let host = "/routes/0/route_config/virtual_hosts/0";
    let cases: [(String, Value, (&str, &str, &str)); 17] = [
        (
            format!("{host}/routes/1/route/weighted_clusters/clusters/1/weight"),
            json!(50),
            ("backends of a:50051, route 2 (path prefix /)", "v1|a 90, v2|a 10", "v1|a 90, v2|a 50"),
        ),
        (
            format!("{host}/routes/0/route/timeout"),
            json!("5s"),
            ("timeout of a:50051, route 1 (path prefix /, x-canary exact \"yes\")", "2s", "5s"),
        ),
        (
            format!("{host}/routes/0/route/max_grpc_timeout"),
            json!("0s"),
            ("max gRPC deadline of a:50051, route 1 (path prefix /, x-canary exact \"yes\")", "2s", "none"),
        ),
        (
            format!("{host}/routes/1/route/retry_policy/num_retries"),
            json!(4),
            ("retries of a:50051, route 2 (path prefix /)", "3 on unavailable", "4 on unavailable"),
        ),
        (
            format!("{host}/routes/1/name"),
            json!("other"),
            ("route name of a:50051, route 2 (path prefix /)", "", "other"),
        ),
        (
            format!("{host}/routes/0/match/headers/0/string_match/exact"),
            json!("no"),
            ("routes of a:50051", "path prefix /, x-canary exact \"yes\"", "path prefix /, x-canary exact \"no\""),
        ),
        (format!("{host}/domains"), json!(["a"]), ("domains of a:50051", "10.96.0.9, a.shop, a.shop.svc, a, a.", "")),
        (
            format!("{host}/name"),
            json!("b:50051"),
            ("virtual host a:50051", "a, a., a, a.shop.svc, a.shop, 10.96.0.9", ""),
        ),
        (
            "/clusters/1/cluster/circuit_breakers/thresholds/0/max_requests".to_owned(),
            json!(7),
            ("max requests of v1|a", "100", "7"),
        ),
        ("/clusters/1/cluster/connect_timeout".to_owned(), json!("1s"), ("connect timeout of v1|a", "10s", "1s")),
        (
            "/clusters/1/cluster/lb_policy".to_owned(),
            json!("RANDOM"),
            ("load balancing of v1|a", "LEAST_REQUEST", "RANDOM"),
        ),
        (
            "/clusters/1/cluster/transport_socket_matches".to_owned(),
            json!([]),
            ("TLS of v1|a", "per endpoint", "plaintext"),
        ),
        (
            "/clusters/1/cluster/typed_extension_protocol_options".to_owned(),
            json!({}),
            ("upstream protocol of v1|a", "HTTP/2", "HTTP/1.1"),
        ),
        (
            "/clusters/1/cluster/outlier_detection/interval".to_owned(),
            json!("6s"),
            (
                "outlier detection of v1|a",
                "consecutive5xxErrors 5, consecutiveGatewayErrors never, interval 5s, baseEjectionTime 30s, maxEjectionPercent 10",
                "consecutive5xxErrors 5, consecutiveGatewayErrors never, interval 6s, baseEjectionTime 30s, maxEjectionPercent 10",
            ),
        ),
        (
            "/clusters/1/cluster/type".to_owned(),
            json!("STRICT_DNS"),
            ("endpoint discovery of v1|a", "EDS", "STRICT_DNS"),
        ),
        ("/clusters/2/cluster/name".to_owned(), json!("inbound|1||"), ("cluster v2|a", "present", "")),
        (
            "/endpoints/0/endpoint_config/endpoints/0/lb_endpoints/1/endpoint/address/socket_address/address"
                .to_owned(),
            json!("10.1.0.7"),
            ("endpoints of |a", "10.1.0.6:9000", "10.1.0.7:9000"),
        ),
    ];
    for (path, value, (what, desired, live)) in cases {
        let mut changed = healthy();
        if let Some(field) = changed.pointer_mut(&path) {
            *field = value;
        } else {
            let (parent, key) = path.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[key] = value;
        }
        let (state, differences) = differences(&changed, &connected());
        assert_eq!(state, ProxyState::Different, "{path}");
        assert_eq!(differences.first(), Some(&(what.to_owned(), desired.to_owned(), live.to_owned())), "{path}");
    }
}

#[test]
fn the_sync_state_of_istiod_explains_differences() {
    let mut changed = healthy();
    changed["routes"][0]["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = json!("5s");
    let unacknowledged = XdsConnection { unacknowledged: vec![("route".to_owned(), None)], rejection: None };
    let rejected = XdsConnection { unacknowledged: Vec::new(), rejection: Some("no such filter".to_owned()) };
    for (sync, state) in [
        (XdsSyncState::Connected(unacknowledged), ProxyState::Stale),
        (XdsSyncState::Connected(rejected), ProxyState::Rejected),
        (XdsSyncState::NotConnected, ProxyState::NotSent),
        (XdsSyncState::IstiodUnreachable("down".to_owned()), ProxyState::NotSent),
        (XdsSyncState::Unknown("forbidden".to_owned()), ProxyState::Different),
    ] {
        assert_eq!(differences(&changed, &sync).0, state, "{sync:?}");
    }
    // A proxy without differences is synced even if istiod does not respond.
    assert_eq!(differences(&healthy(), &XdsSyncState::IstiodUnreachable("down".to_owned())).0, ProxyState::Synced);
    changed["routes"][0]["error_state"] = json!({"details": "bad regex"});
    assert_eq!(differences(&changed, &connected()).0, ProxyState::Rejected);
}

#[test]
fn rejects_invalid_responses_and_ignores_unknown_fields() {
    assert!(RunningConfig::parse(&[Some(b"upstream gone".to_vec())]).is_err());
    assert_eq!(RunningConfig::parse(&[None, None, None]).unwrap(), RunningConfig::default());
    let unknown = br#"{"configs": [{"route_config": {"virtual_hosts": [{"routes": [{"match": {}}]}]}}, {"x": 1}]}"#;
    assert_eq!(RunningConfig::parse(&[Some(unknown.to_vec())]).unwrap().routes.len(), 1);
}

fn diff(env: &TestEnv, arguments: &[&str]) -> Run {
    env.run(&[&["diff"], arguments].concat())
}

#[test]
fn compares_two_sources() {
    let env = TestEnv::new();
    let same = diff(&env, &["--from", "demo", "--against", "demo"]);
    assert_eq!(same.code(), 0, "{same}");
    let healthy = ["--from", "demo", "--against", "src/demo/healthy.yaml"];
    let with = |flags: &[&str]| diff(&env, &[&healthy, flags].concat());
    let summary = with(&["--summary"]);
    assert_eq!(summary.code(), 1);
    let rename = "Service payments/payment  differs\n  spec.ports[0].name: tcp-grpc → grpc";
    assert!(summary.stdout.contains(rename), "{summary}");
    let json = with(&["-o", "json"]);
    assert_eq!((json.code(), &json.json()["kind"], &json.json()["version"]), (1, &json!("Diff"), &json!(1)));
    assert_eq!(with(&["--exit-zero"]).code(), 0);
}

#[test]
fn compares_files_with_a_saved_source() {
    let env = TestEnv::new();
    let mesh = env.write("mesh.yaml", MESH);
    let desired =
        MESH.split("---").last().unwrap().replace("weight: 90", "weight: 75").replace("weight: 10", "weight: 25");
    let file = env.write("new.yaml", desired.replace("    timeout: 2s\n", "    timeout: 3s\n"));
    for (format, expected) in [
        ("text", "spec.http[1].route: v1 90% → 75%, v2 10% → 25%"),
        ("yaml", "spec.http[1].route: v1 90% → 75%, v2 10% → 25%"),
        ("markdown", "- spec.http[0].timeout: 2s → 3s"),
        ("github", "::notice title=VirtualService shop/a::differs: spec.http[0].timeout: 2s → 3s"),
    ] {
        let run = diff(&env, &["--from", &mesh, "-f", &file, "-o", format]);
        assert_eq!(run.code(), 1, "{run}");
        assert!(run.stdout.contains(expected), "{run}");
    }
}

#[test]
fn reports_partly_read_objects_without_their_content() {
    let env = TestEnv::new();
    let mesh = env.write("mesh.yaml", MESH);
    let plugin = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p, namespace: shop}\nspec: {url: 'oci://x', pluginConfig: {password: hunter2}}\n";
    let file = env.write("plugin.yaml", plugin);
    let run = diff(&env, &["--from", &mesh, "-f", &file]);
    assert!(
        run.code() == 4 && run.stdout.contains("WasmPlugin shop/p") && run.stdout.contains("kubectl diff"),
        "{run}"
    );
    assert!(!run.to_string().contains("hunter2"));
}

#[test]
fn a_route_table_that_envoy_rejects_is_not_compared() {
    let weights = "weight: 90}, {destination: {host: a, subset: v2}, weight: 10}";
    assert!(MESH.contains(weights));
    let snapshot = snapshot(&MESH.replace(weights, "weight: 0}, {destination: {host: a, subset: v2}, weight: 0}"));
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    let caller = caller(&mesh, "sidecar/shop/c");
    let compared = compare_proxy(&mesh, &caller, &running_config(&healthy()), &connected(), None, &[]);
    assert!(compared.not_compared[0].contains("50051") && compared.not_compared[0].contains("weight"), "{compared:?}");
}

#[test]
fn rejects_invalid_arguments() {
    let env = TestEnv::new();
    let run = diff(&env, &["--from", "demo"]);
    assert!(run.code() == 2 && run.stderr.contains("--against"), "{run}");
    assert_eq!(diff(&env, &["--from", "demo", "--against", "demo", "--wait"]).code(), 2);
    assert_eq!(diff(&env, &["--from", "demo", "--against", "/nonexistent"]).code(), 3);
    assert_eq!(diff(&env, &["--summary", "--full"]).code(), 2);
}

#[test]
fn a_host_filter_selects_its_routes_and_clusters() {
    let snapshot = snapshot(MESH);
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    let mut changed = healthy();
    changed["routes"][0]["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = json!("5s");
    changed["clusters"][0]["cluster"]["connect_timeout"] = json!("3s");
    let parts = ["routes", "clusters"];
    let answers = parts.map(|part| Some(json!({"configs": changed[part]}).to_string().into_bytes()));
    let running = RunningConfig::parse(&answers).unwrap();
    let caller = caller(&mesh, "sidecar/shop/c");
    let count =
        |host: &str| compare_proxy(&mesh, &caller, &running, &connected(), None, &[host.to_owned()]).differences.len();
    assert_eq!(count("a.shop.svc.cluster.local"), 2);
    // Names with the same suffix or prefix select nothing.
    assert_eq!((count("shop.svc.cluster.local"), count("a.shop.svc.cluster.local.au")), (0, 0));
}
