//! Redacts a snapshot for sharing: names become pseudonyms, and the rules report the same findings as before.
//!
//! Redaction is default-deny: every word of every string is replaced unless it belongs to the vocabulary of Kubernetes, Istio
//! or gRPC. A word gets the same pseudonym everywhere, in any case, so that references still resolve: `checkout` and
//! `checkout.shop.svc.cluster.local` become `r1` and `r1.r2.svc.cluster.local`.
//!
//! Numbers, durations, times, versions, the names of fields that an API defines, and well-known field managers are kept. Texts
//! of gaps keep the words of this program's own messages.
//!
//! Limits:
//! - Addresses are mapped into `10.0.0.0/8` and `fd00::/8`. A range still contains the same addresses when its prefix length is
//!   a multiple of 8 from /16 on (IPv6: of 16 from /32 on). Other lengths, and more than 255 networks of /16, are
//!   approximations.
//! - Relations inside a word are lost: `*pay.example` no longer covers `r1.r2`, and the prefix `/pa` no longer covers `/pay`.
//! - Words that differ only in the case of inner letters share a pseudonym. Pseudonyms also sort differently, so that a finding
//!   that breaks a tie by name may be about another object.
//! - Findings about duplicate keys are lost, and so is the content of EnvoyFilter patches and plugin settings.
//! - Namespaces, domains and revisions in options have to be given as pseudonyms.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::{Gap, Object, ObjectKey, Snapshot, secrets, yaml};
use crate::schema::kind::{KINDS, Kind};

/// Words that identify no user or organization, in lower case. They are kept in any case.
const VOCABULARY: &str = "\
 ns sa spiffe istio io k8s kubernetes networking security telemetry extensions gateway gateways apps argoproj batch discovery core \
 sidecar svc cluster local default system kube mesh ingress ingressgateway egressgateway istiod proxy proxyv2 pilot \
 router waypoint ztunnel ambient controller class dataplane mode rev injection inject templates template enabled \
 disabled true false none redirection managed remote use grpcmesh ignore rollouts pod hash service name version app \
 api topology canonical revision traffic excludeinboundports excludeoutboundports includeinboundports \
 includeoutboundports excludeoutboundipranges includeoutboundipranges excludeinterfaces exportto domain all \
 grpc grpcs http http2 http3 https tcp tls udp sctp web ws wss h2 h2c mongo redis mysql auto mtls sds agent \
 content type application json proto method scheme authority path host status get head post put delete connect \
 options trace patch request response add set remove header headers \
 5xx error reset before failure envoy ratelimited retriable 4xx refused stream codes post cancelled deadline exceeded \
 internal resource exhausted unavailable ok unknown invalid argument not found already exists permission denied \
 failed precondition aborted out of range unimplemented data loss unauthenticated canceled \
 externalname clusterip nodeport loadbalancer ipv4 ipv6 fqdn running pending succeeded ready always matchlabels \
 matchexpressions accepted programmed resolvedrefs";

/// Map fields whose keys are chosen by users.
const FREE_MAPS: &[&str] = &[
    "labels",
    "annotations",
    "selector",
    "matchLabels",
    "sourceLabels",
    "headers",
    "withoutHeaders",
    "queryParams",
    "add",
    "set",
    "to",
    "ports",
    "options",
    "environmentVariables",
    "customTags",
    "tagOverrides",
    "metadataMatch",
];

/// Kinds of providers that rules and policies depend on.
const PROVIDER_KINDS: &[&str] = &["envoyFileAccessLog", "envoyExtAuthzHttp", "envoyExtAuthzGrpc"];

/// Replaces the names in a snapshot by pseudonyms. The observed configuration of Envoys is dropped, because it contains names
/// inside other strings.
///
/// `finding_names` are the codes and names of all findings, which the annotation that ignores them may contain.
pub fn redact(snapshot: Snapshot, finding_names: &[&str]) -> Snapshot {
    let Snapshot { source, taken_at, kubernetes_version, objects, unserved, gaps, live: _ } = snapshot;
    let taken_at = taken_at.filter(|time| is_time(time));
    let kubernetes_version = kubernetes_version.map(|version| release_of(&version));
    let mut redactor = Redactor { finding_names, ..Redactor::default() };
    let objects = objects.into_values().map(|object| redactor.redact_object(object));
    let objects = objects.map(|object| (object.key.clone(), object)).collect();
    let unserved = unserved.into_iter().map(|object| redactor.redact_object(object)).collect();
    let gaps = gaps.into_iter().map(|gap| redactor.redact_gap(gap)).collect();
    Snapshot { source, taken_at, kubernetes_version, objects, unserved, gaps, live: None }
}

/// The pseudonyms assigned so far.
#[derive(Default)]
struct Redactor<'a> {
    finding_names: &'a [&'a str],
    /// Number of each word, by its lower-case form.
    words: HashMap<String, usize>,
    /// Replacement of an address part, by the original parts up to and including it. The flag marks IPv6.
    parts: HashMap<(bool, Vec<u16>), u16>,
    /// Number of distinct parts that follow the same original parts.
    counts: HashMap<(bool, Vec<u16>), u16>,
}

impl Redactor<'_> {
    /// Redacts an object. Its position and duplicate keys are dropped, because they hold text of the user.
    fn redact_object(&mut self, object: Object) -> Object {
        let Object { key: ObjectKey { kind, namespace, name }, api_version, body, position: _, duplicate_keys: _ } =
            object;
        let key =
            ObjectKey { kind, namespace: self.redact_text(&namespace).into(), name: self.redact_text(&name).into() };
        let body = match serde_json::from_str::<Map<String, Value>>(body.get()) {
            Ok(fields) => self.redact_body(kind, fields),
            // A body that cannot be parsed, such as one nested too deeply, is reduced to its identity.
            Err(_) => Value::Object(Map::from_iter([(
                "metadata".to_owned(),
                serde_json::json!({"name": &*key.name, "namespace": &*key.namespace}),
            )])),
        };
        // Serializing a JSON value cannot fail.
        let body = to_raw_value(&body).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Object { key, api_version, body, position: None, duplicate_keys: Vec::new() }
    }

    fn redact_body(&mut self, kind: Kind, mut fields: Map<String, Value>) -> Value {
        // `apiVersion` and `kind` decide how the object is read. Users do not choose them.
        let header: Vec<_> = ["apiVersion", "kind"].into_iter().filter_map(|key| fields.remove_entry(key)).collect();
        let mesh = (kind == Kind::ConfigMap).then(|| fields.remove("data")).flatten();
        let mut redacted = self.redact_fields(fields, false);
        redacted.extend(header);
        if let Some(Value::String(text)) = mesh.as_ref().and_then(|data| data.get("mesh")) {
            let text = self.redact_mesh_config(text);
            redacted.insert("data".to_owned(), serde_json::json!({ "mesh": text }));
        }
        Value::Object(redacted)
    }

    /// Redacts the mesh configuration and returns it as JSON. Invalid YAML stays invalid.
    fn redact_mesh_config(&mut self, text: &str) -> String {
        let Ok(converted) = yaml::to_json(text) else { return "[".to_owned() };
        let Some(json) = converted.json else { return String::new() };
        match serde_json::from_str(json.get()) {
            Ok(Value::Object(fields)) => Value::Object(self.redact_mesh_fields(fields)).to_string(),
            Ok(other) => self.redact_value("", other).to_string(),
            Err(_) => "[".to_owned(),
        }
    }

    /// Redacts the fields that this program reads. Formats of access logs are dropped, because they may hold any text.
    fn redact_mesh_fields(&mut self, fields: Map<String, Value>) -> Map<String, Value> {
        let kept = fields
            .into_iter()
            .filter(|(key, _)| secrets::MESH_CONFIG.contains(&key.as_str()) && key != "accessLogFormat");
        kept.map(|(key, value)| {
            let value = match value {
                Value::Array(providers) if key == "extensionProviders" => {
                    providers.into_iter().map(|provider| self.redact_provider(provider)).collect()
                }
                value => self.redact_value(&key, value),
            };
            (key, value)
        })
        .collect()
    }

    /// Reduces a provider to its pseudonym and its kind.
    fn redact_provider(&mut self, provider: Value) -> Value {
        let Value::Object(fields) = provider else { return Value::Null };
        let kept = fields.into_iter().filter_map(|(key, value)| match key.as_str() {
            "name" => Some((key, self.redact_value("name", value))),
            kind => PROVIDER_KINDS.contains(&kind).then(|| (key, Value::Object(Map::new()))),
        });
        Value::Object(kept.collect())
    }

    /// Redacts the fields of a JSON object, and its keys when users choose them.
    fn redact_fields(&mut self, fields: Map<String, Value>, has_free_keys: bool) -> Map<String, Value> {
        let mut redacted = Map::new();
        for (key, value) in fields {
            let value = match key.as_str() {
                "sidecar.istio.io/status" => continue,
                "grpcmesh.io/ignore" => self.redact_ignored(value),
                key => self.redact_value(key, value),
            };
            let is_kept_key = if has_free_keys { key == "grpcmesh.io/ignore" } else { is_field_name(&key) };
            let key = if is_kept_key { key } else { self.redact_text(&key) };
            redacted.insert(key, value);
        }
        redacted
    }

    /// Redacts the list of ignored findings: everything but the codes and names of findings.
    fn redact_ignored(&mut self, value: Value) -> Value {
        let Value::String(text) = value else { return self.redact_value("", value) };
        let items: Vec<String> = text
            .split(',')
            .map(|item| {
                let name = item.trim();
                let is_code = name.strip_prefix("GM").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
                let is_finding = is_code || self.finding_names.iter().any(|known| known.eq_ignore_ascii_case(name));
                if is_finding { name.to_owned() } else { self.redact_text(item) }
            })
            .collect();
        Value::String(items.join(","))
    }

    /// Redacts the value of `key`.
    fn redact_value(&mut self, key: &str, value: Value) -> Value {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
            Value::String(text) => Value::String(match key {
                "manager" => self.redact_words(&text, |word| MANAGERS.contains(&word) || is_kept(word)),
                "uid" => self.pseudonym_for(&text),
                "regex" => self.redact_regex(&text),
                _ => self.redact_text(&text),
            }),
            Value::Array(items) => {
                // Objects in a list have schema-defined keys, even when a map of the same name has free keys, as for `ports`.
                let redact = |item| match item {
                    Value::Object(fields) => Value::Object(self.redact_fields(fields, false)),
                    item => self.redact_value(key, item),
                };
                items.into_iter().map(redact).collect()
            }
            // Settings of Envoy and of plugins have unknown keys.
            Value::Object(_) if matches!(key, "value" | "pluginConfig") => Value::Object(Map::new()),
            Value::Object(fields) => Value::Object(self.redact_fields(fields, FREE_MAPS.contains(&key))),
        }
    }

    /// Redacts a regular expression. A valid one stays valid, an invalid one invalid.
    fn redact_regex(&mut self, text: &str) -> String {
        let redacted = self.redact_text(text);
        let is_valid = |text: &str| crate::schema::re2::compile(text).is_ok();
        match (is_valid(text), is_valid(&redacted)) {
            (true, false) => ".*".to_owned(),
            (false, true) => "(".to_owned(),
            (true, true) | (false, false) => redacted,
        }
    }

    /// Redacts the words and IP addresses of a text.
    fn redact_text(&mut self, text: &str) -> String {
        self.redact_words(text, is_kept)
    }

    /// Redacts the words and IP addresses of a text, except the words that `keeps` accepts.
    fn redact_words(&mut self, text: &str, keeps: fn(&str) -> bool) -> String {
        if is_time(text) {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        // Names of hosts contain addresses with dashes: `ip-203-0-113-79`.
        while let Some((start, end, address)) = find_embedded_address(rest, '-') {
            let (before, after) = (rest.get(..start).unwrap_or_default(), rest.get(end..).unwrap_or_default());
            self.redact_runs(before, keeps, &mut out);
            out.push_str(&self.redact_address(IpAddr::V4(address)).to_string().replace('.', "-"));
            rest = after;
        }
        self.redact_runs(rest, keeps, &mut out);
        out
    }

    /// Appends a text, redacted. Addresses come first, because their colons and dots also separate words.
    fn redact_runs(&mut self, text: &str, keeps: fn(&str) -> bool, out: &mut String) {
        let is_address_char = |c: char| is_word_char(c) || matches!(c, '.' | ':');
        for run in runs(text, is_address_char) {
            self.redact_run(run, keeps, out);
        }
    }

    fn redact_run(&mut self, run: &str, keeps: fn(&str) -> bool, out: &mut String) {
        if let Ok(address) = run.parse() {
            out.push_str(&self.redact_address(address).to_string());
        } else if let Ok(SocketAddr::V4(socket)) = run.parse() {
            out.push_str(&format!("{}:{}", self.redact_address(IpAddr::V4(*socket.ip())), socket.port()));
        } else if let Some((start, end, address)) = find_embedded_address(run, '.') {
            // `203.0.113.77.nip.io`, `tcp:203.0.113.77:80`
            self.redact_run(run.get(..start).unwrap_or_default(), keeps, out);
            out.push_str(&self.redact_address(IpAddr::V4(address)).to_string());
            self.redact_run(run.get(end..).unwrap_or_default(), keeps, out);
        } else if let Some((prefix, address)) = split_v6_suffix(run) {
            self.redact_run(prefix, keeps, out);
            out.push_str(&self.redact_address(IpAddr::V6(address)).to_string());
        } else {
            for word in runs(run, is_word_char) {
                let is_grpc_web = out.eq_ignore_ascii_case("grpc-") && starts_with_web(word);
                if is_grpc_web && !keeps(word) {
                    // Istio reads every port name that starts with `grpc-web` as gRPC-Web.
                    out.push_str("web");
                }
                if !word.starts_with(is_word_char) || keeps(word) {
                    out.push_str(word);
                } else {
                    out.push_str(&self.pseudonym_for(word));
                }
            }
        }
    }

    /// Returns the pseudonym of a word. It preserves what rules depend on: the case of the first letter, invalidity as a DNS
    /// label, and the substrings `grpc` and `gateway`.
    fn pseudonym_for(&mut self, word: &str) -> String {
        let lower = word.to_lowercase();
        let next = self.words.len() + 1;
        let number = *self.words.entry(lower.clone()).or_insert(next);
        let is_upper = |c: char| c.is_uppercase();
        let first = if word.starts_with(is_upper) { 'R' } else { 'r' };
        // An upper-case letter makes a DNS label invalid.
        let invalid = if !word.is_ascii() || (first == 'r' && word.contains(is_upper)) { "X" } else { "" };
        let grpc = if lower.contains("grpc") { "grpc" } else { "" };
        let gateway = if lower.ends_with("gateway") { "gateway" } else { "" };
        format!("{first}{number}{invalid}{grpc}{gateway}")
    }

    /// Maps an address into `10.0.0.0/8` or `fd00::/8`. Loopback and unspecified addresses stay.
    fn redact_address(&mut self, address: IpAddr) -> IpAddr {
        if address.is_loopback() || address.is_unspecified() {
            return address;
        }
        match address {
            IpAddr::V4(v4) => {
                let parts = self.address_parts(false, v4.octets().map(u16::from).as_slice());
                let byte = |index: usize| parts.get(index).map_or(0, |part| part.to_be_bytes()[1]);
                IpAddr::V4(Ipv4Addr::new(10, byte(0), byte(1), byte(2)))
            }
            IpAddr::V6(v6) => {
                let parts = self.address_parts(true, &v6.segments());
                let mut segments = [0; 8];
                segments[0] = 0xfd00;
                segments[1..].iter_mut().zip(parts).for_each(|(segment, part)| *segment = part);
                IpAddr::V6(Ipv6Addr::from(segments))
            }
        }
    }

    /// Numbers all parts but the first among those that follow the same original parts. Zeros stay.
    fn address_parts(&mut self, is_v6: bool, parts: &[u16]) -> Vec<u16> {
        let mut out = Vec::with_capacity(parts.len());
        let prefixes = (2..=parts.len()).filter_map(|end| parts.get(..end));
        for prefix in prefixes {
            let Some((last, before)) = prefix.split_last() else { continue };
            if prefix.len() > 2 && *last == 0 {
                out.push(0);
                continue;
            }
            let before = if prefix.len() == 2 { Vec::new() } else { before.to_vec() };
            let prefix = (is_v6, prefix.to_vec());
            let count = self.counts.entry((is_v6, before)).or_insert(0);
            let number = *self.parts.entry(prefix).or_insert_with(|| {
                *count = count.wrapping_add(1);
                *count
            });
            out.push(number);
        }
        out
    }

    /// Redacts the texts of a gap, which quote names, values, paths, addresses and messages of the API server.
    fn redact_gap(&mut self, gap: Gap) -> Gap {
        let Gap { what, why, reason, kind, namespace, read_in } = gap;
        Gap {
            what: self.redact_words(&what, is_kept_in_gaps),
            why: self.redact_words(&why, is_kept_in_gaps),
            reason,
            kind: kind.filter(|kind| KINDS.iter().any(|info| info.name == kind)),
            namespace: namespace.map(|name| self.redact_text(&name)),
            read_in: read_in.iter().map(|name| self.redact_text(name)).collect(),
        }
    }
}

/// Words of this program's messages about gaps, and of the JSON decoder, in lower case.
const GAP_WORDS: &str = "\
 a access administrator after all allowed an and answer are assuming another as at auth because but by can cannot check \
 code column configuration configured contain contains could data decode decoder defaults deadline depend do does document \
 elsewhere endpoints envoys error exceeded expected expires failed field fields file files findings for forbidden found from get \
 has i if in inspect is it its items json key kind kubectl line list lists long mapping merge merged missing more name \
 namespaces no not number object objects of on or other pass permission permissions pods pages proxies read reported \
 reporting responded response revision rules running runs sequence server serve serves services since so string such \
 than that the them they this to token too took type unnamed until use used user value values version was which with \
 within without workloads wrong wrote yaml configmap configmaps delegates matches merging gives root fewer";

/// Reports whether a word is kept in the text of a gap.
fn is_kept_in_gaps(word: &str) -> bool {
    static WORDS: OnceLock<HashSet<&str>> = OnceLock::new();
    let words =
        WORDS.get_or_init(|| GAP_WORDS.split_whitespace().chain(KINDS.iter().map(|info| info.plural)).collect());
    let singular = word.strip_suffix("ies").map(|stem| format!("{stem}y"));
    let singular = singular.as_deref().or(word.strip_suffix('s')).unwrap_or(word);
    let is_kind = |info: &crate::schema::kind::KindInfo| info.name == word || info.name == singular;
    is_kept(word) || words.contains(word.to_ascii_lowercase().as_str()) || KINDS.iter().any(is_kind)
}

/// Field managers that say which program owns a field. Others may be named after people.
const MANAGERS: &[&str] =
    &["kubectl", "client", "side", "apply", "edit", "helm", "argocd", "argo", "flux", "flagger", "kustomize", "update"];

/// Reports whether the API of some kind defines a field of this name.
fn is_field_name(name: &str) -> bool {
    static NAMES: OnceLock<HashSet<&str>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let listed = include_str!("../schema/fields.txt").lines().filter_map(|line| line.split_whitespace().next());
        listed.chain(CORE_FIELDS.split_whitespace()).collect()
    });
    names.contains(name)
}

/// Fields of objects that `schema/fields.txt` does not list: metadata, core kinds, and the status of routes.
const CORE_FIELDS: &str = "\
 apiVersion kind metadata spec status name generateName namespace uid resourceVersion generation creationTimestamp \
 deletionTimestamp deletionGracePeriodSeconds labels annotations ownerReferences finalizers managedFields manager operation time \
 subresource fieldsType fieldsV1 controller blockOwnerDeletion selfLink \
 clusterIP clusterIPs type ports port protocol targetPort nodePort appProtocol selector externalName externalIPs \
 externalTrafficPolicy internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancer loadBalancerIP loadBalancerClass \
 loadBalancerSourceRanges sessionAffinity sessionAffinityConfig publishNotReadyAddresses healthCheckNodePort \
 allocateLoadBalancerNodePorts trafficDistribution ingress ip hostname ipMode clientIP timeoutSeconds \
 containers initContainers container image args containerPort hostNetwork restartPolicy readinessProbe livenessProbe startupProbe grpc \
 service phase podIP podIPs conditions reason message lastTransitionTime lastProbeTime observedGeneration containerStatuses \
 initContainerStatuses restartCount ready state started serviceAccountName nodeName \
 addressType endpoints addresses serving terminating targetRef zone nodeName hints deprecatedTopology \
 replicas template matchLabels matchExpressions key operator values jobTemplate workloadRef strategy \
 data mesh parents parentRef controllerName attachedRoutes listeners supportedKinds group sectionName validationMessages";

/// Reports whether a text is a time without a name of a zone.
fn is_time(text: &str) -> bool {
    text.len() <= 40 && !text.contains('[') && text.parse::<jiff::Timestamp>().is_ok()
}

/// The release of a Kubernetes version, without what a vendor adds: `v1.36.3` of `v1.36.3-gke.1001`.
fn release_of(version: &str) -> String {
    version.chars().take_while(|c| matches!(c, 'v' | '.') || c.is_ascii_digit()).collect()
}

/// Finds an IPv4 address inside a text whose parts are separated by `separator`: start, end and the address.
fn find_embedded_address(text: &str, separator: char) -> Option<(usize, usize, Ipv4Addr)> {
    let is_part = |c: char| c.is_ascii_digit() || c == separator;
    let mut start = 0;
    for run in runs(text, is_part) {
        if run.starts_with(is_part) {
            // Bytes and characters agree: the run is ASCII.
            let trimmed = run.trim_start_matches(separator);
            let offset = start + run.len() - trimmed.len();
            let mut ends = trimmed.match_indices(separator).map(|(index, _)| index).chain([trimmed.len()]);
            if let Some(end) = ends.nth(3)
                && let Ok(address) = trimmed.get(..end).unwrap_or_default().replace(separator, ".").parse()
            {
                return Some((offset, offset + end, address));
            }
        }
        start += run.len();
    }
    None
}

/// Splits `tcp:2001:db8::7` at the IPv6 address that ends it.
fn split_v6_suffix(run: &str) -> Option<(&str, Ipv6Addr)> {
    let mut starts = run.match_indices(':').map(|(index, _)| index + 1);
    starts.find_map(|start| Some((run.get(..start)?, run.get(start..)?.parse().ok()?)))
}

/// Reports whether a character belongs to a word. Letters of every script do, so that no name stays readable.
fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || !c.is_ascii()
}

/// Splits a text into alternating runs of characters inside and outside a class.
fn runs(text: &str, class: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_in = class(rest.chars().next()?);
        let (run, after) = rest.split_at(rest.find(|c| class(c) != is_in).unwrap_or(rest.len()));
        rest = after;
        Some(run)
    })
}

/// Reports whether a word starts with `web`, in any case.
fn starts_with_web(word: &str) -> bool {
    word.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("web"))
}

/// Reports whether a word is kept: a number, a version, a duration, or vocabulary.
fn is_kept(word: &str) -> bool {
    static KEPT_WORDS: OnceLock<(HashSet<&str>, HashSet<&str>)> = OnceLock::new();
    let (any_case, exact) = KEPT_WORDS.get_or_init(|| {
        let fields = include_str!("../schema/fields.txt").lines();
        let enums = fields.filter_map(|line| line.split_once("s=")).flat_map(|(_, words)| words.split(['|', '_']));
        let enums = enums.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
        (VOCABULARY.split_whitespace().collect(), KINDS.iter().map(|info| info.name).chain(enums).collect())
    });
    (word.len() <= 5 && word.bytes().all(|b| b.is_ascii_digit()))
        || is_version(word)
        || is_duration(word)
        || exact.contains(word)
        || any_case.contains(word.to_ascii_lowercase().as_str())
}

/// `v1`, `v1beta1`, `v1alpha3`.
fn is_version(word: &str) -> bool {
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some(rest) = word.strip_prefix('v') else { return false };
    match rest.split_once("alpha").or_else(|| rest.split_once("beta")) {
        Some((major, minor)) => all_digits(major) && all_digits(minor),
        None => all_digits(rest),
    }
}

/// `2s`, `100ms`, `1h30m`.
fn is_duration(word: &str) -> bool {
    let mut parts = runs(word, |c| c.is_ascii_digit());
    let is_unit = |unit: &str| matches!(unit, "h" | "m" | "s" | "ms" | "us" | "µs" | "μs" | "ns");
    word.starts_with(|c: char| c.is_ascii_digit())
        && std::iter::from_fn(|| parts.next().map(|_| parts.next())).all(|unit| unit.is_some_and(is_unit))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::manifest::{OnMalformed, read};
    use crate::snapshot::{SourceKind, SourceText, codec};

    const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: checkout, namespace: shop, uid: 3f-ab, labels: {acme.example/team: payers}}, spec: {clusterIP: 172.20.7.9, selector: {app: checkout}, ports: [{name: tcp-grpc, port: 50051}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: checkout-v1-x7k, namespace: shop, labels: {app: checkout, version: v1}, annotations: {traffic.sidecar.istio.io/excludeOutboundIPRanges: '172.20.7.0/24'}}, spec: {containers: [{name: server, image: 'acme/app:1', ports: [{name: payport, containerPort: 50051}]}, {name: istio-proxy, image: 'acme/proxyv2:1.31.0', args: [proxy, sidecar]}]}, status: {phase: Running, podIP: 172.20.9.4, conditions: [{type: Ready, status: 'True'}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: paths, namespace: shop}, spec: {hosts: [checkout, api.acme.example], gateways: [mesh, edge-gw], http: [{match: [{uri: {prefix: /secret.Acme/Pay}, headers: {x-tenant: {regex: '(?i)[a-zA-Z]+goldies'}}}], route: [{destination: {host: checkout.shop.svc.cluster.local, subset: canary}}], retries: {attempts: 2, retryOn: 'unavailable,aborted'}}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: checkout-dr, namespace: shop}, spec: {host: checkout, subsets: [{name: v1, labels: {version: v1}}], trafficPolicy: {tls: {mode: Simple}}}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge-gw, namespace: shop}, spec: {selector: {istio: ingressgateway}, servers: [{hosts: [api.acme.example], port: {number: 443, name: https, protocol: HTTPS}}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'accessLogFile: /dev/acmelog
  
  extensionProviders: [{name: acmeauth}]'}}
";

    fn mesh() -> Snapshot {
        let mut snapshot = Snapshot::new(SourceKind::Demo);
        let text = Arc::new(SourceText { path: "case.yaml".to_owned(), text: MESH.to_owned() });
        read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
        snapshot
    }

    fn encoded(snapshot: &Snapshot) -> String {
        let mut out = Vec::new();
        codec::encode(snapshot, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn codes(snapshot: &Snapshot) -> BTreeMap<&'static str, usize> {
        let mesh = crate::mesh::resolve(snapshot, &crate::mesh::ResolveOptions::default());
        let mut codes = BTreeMap::new();
        for finding in crate::rules::run(&mesh, &crate::rules::select::FindingSelection::default()).findings {
            *codes.entry(finding.code).or_default() += 1;
        }
        codes
    }

    #[test]
    fn removes_every_name() {
        let text = encoded(&redact(mesh(), &[])).to_lowercase();
        for word in [
            "checkout", "shop", "secret", "acme", "pay", "example", "team", "goldies", "tenant", "x7k", "edge",
            "canary", "172.20", "3f-",
        ] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn replaces_names_consistently() {
        let mut redactor = Redactor::default();
        assert_eq!(redactor.redact_text("checkout"), "r1");
        assert_eq!(
            redactor.redact_text("checkout-v1.shop.svc.cluster.local:50051"),
            "r1-v1.r2.svc.cluster.local:50051"
        );
        assert_eq!(redactor.redact_text("/shop.Checkout/payNow"), "/r2.R1/r3X");
        assert_eq!(redactor.redact_text("grpc-website mygrpc"), "grpc-webr4 r5grpc");
        assert_eq!(redactor.redact_text("1h30m,2s,5x"), "1h30m,2s,r6");
        assert_eq!(redactor.redact_text("172.20.7.9:80,172.20.7.0/24"), "10.1.1.1:80,10.1.1.0/24");
        assert_eq!(redactor.redact_text("2001:db8::7"), "fd00:1::1");
        assert_eq!(redactor.redact_text("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn keeps_the_findings() {
        let before = mesh();
        let expected = codes(&before);
        assert!(expected.len() >= 4, "{expected:?}");
        let after = redact(before, &[]);
        assert_eq!(codes(&after), expected);
        assert_eq!(codes(&codec::decode(&encoded(&after)).unwrap()), expected);
    }

    #[test]
    fn keeps_the_findings_of_the_demo() {
        let mut before = Snapshot::new(SourceKind::Cluster);
        let text = include_str!("../demo/shop.yaml").to_owned();
        let text = std::sync::Arc::new(crate::snapshot::SourceText { path: "shop.yaml".to_owned(), text });
        crate::snapshot::manifest::read(&mut before, text, "shop", crate::snapshot::manifest::OnMalformed::Stop)
            .unwrap();
        let expected = codes(&before);
        assert!(expected.len() > 10, "{expected:?}");
        assert_eq!(codes(&redact(before, &[])), expected);
    }

    #[test]
    fn redacting_twice_keeps_the_findings() {
        let once = redact(mesh(), &[]);
        let (count, expected) = (once.objects.len(), codes(&once));
        let twice = redact(once, &[]);
        assert_eq!((twice.objects.len(), codes(&twice)), (count, expected));
    }

    #[test]
    fn redacts_gaps() {
        let mut snapshot = mesh();
        let mut gap = Gap::new("Pods in shop", "forbidden", crate::snapshot::GapKind::Forbidden);
        gap.read_in = vec!["shop".to_owned()];
        snapshot.gaps.push(gap);
        let redacted = redact(snapshot, &[]);
        let service = redacted.of_kind(Kind::Service).next().unwrap();
        assert_eq!(redacted.gaps[0].read_in, [service.key.namespace.to_string()]);
        assert!(redacted.gaps[0].what.starts_with("Pods in r"));
    }

    /// An object with a canary in every string field that an API defines, from the table of fields.
    fn object_of_fields<'a>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>, depth: usize) -> Value {
        let mut fields = Map::new();
        while let Some(line) = lines.next_if(|line| line.len() - line.trim_start().len() == depth) {
            let (name, kind) = line.trim_start().split_once(' ').unwrap();
            let (is_list, kind) = kind.strip_prefix("[]").map_or((false, kind), |kind| (true, kind));
            let nested = object_of_fields(lines, depth + 1);
            let value = match kind.split('=').next().unwrap() {
                "o" | "m" => nested,
                "b" => Value::Bool(true),
                "i" | "n" => Value::from(1),
                _ => Value::from("zqcanary"),
            };
            let name = if name == "*" { "zqkey" } else { name };
            fields.insert(name.to_owned(), if is_list { Value::Array(vec![value]) } else { value });
        }
        Value::Object(fields)
    }

    fn canary_metadata() -> Value {
        serde_json::json!({
            "name": "zqname", "namespace": "zqns", "generateName": "zqgen", "uid": "zquid", "resourceVersion": "zqversion",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"zqlabel": "zqvalue", "app": "zqapp"},
            "annotations": {"zq.example/key": "zq value zq@zqcorp.example, 203.0.113.77", "grpcmesh.io/ignore": "GM203 as zqalice@zqcorp.com decided,GM2=VirtualService/zqns/zqname",
                            "proxy.istio.io/config": "{zqconfig: zq}", "sidecar.istio.io/inject": "zqinject"},
            "ownerReferences": [{"kind": "zqkind", "name": "zqowner", "apiVersion": "zq/v1"}],
            "managedFields": [{"manager": "zqmanager", "operation": "Apply", "time": "zqtime"}],
            "finalizers": ["zq/finalizer"], "zqunknown": "zqvalue"})
    }

    #[test]
    fn no_canary_in_any_field_of_any_kind_comes_out() {
        let table = include_str!("../schema/fields.txt");
        let mut lines = table.lines().filter(|line| !line.starts_with('#')).peekable();
        let mut snapshot = Snapshot::new(SourceKind::Cluster);
        let mut kinds = std::collections::BTreeSet::new();
        let mut add = |group_version: &str, kind: &str, mut body: Value| {
            let fields = body.as_object_mut().unwrap();
            fields.insert("metadata".to_owned(), canary_metadata());
            fields.insert("zqunknown".to_owned(), serde_json::json!({"zqfield": ["zqvalue"]}));
            let crate::schema::kind::RecognizedKind::Served(kind) = Kind::recognize(group_version, kind) else {
                return;
            };
            let body = to_raw_value(&body).unwrap();
            if let Ok(object) = Object::new(kind, group_version, "zqns", &format!("zqname{}", kinds.len()), &body) {
                kinds.insert(kind);
                snapshot.objects.insert(object.key.clone(), object);
            }
        };
        let core = CORE_FIELDS.split_whitespace().filter(|field| !["apiVersion", "kind", "metadata"].contains(field));
        let core: Map<String, Value> = core.map(|field| (field.to_owned(), Value::from("zqcanary"))).collect();
        for info in KINDS {
            let body =
                serde_json::json!({"spec": core, "status": core, "data": core, "endpoints": [core], "template": core});
            let separator = if info.group.is_empty() { "" } else { "/" };
            add(&format!("{}{separator}{}", info.group, info.versions[0]), info.name, body);
        }
        while let Some(header) = lines.next() {
            let (group, kind) = header.split_once('/').unwrap();
            let body = object_of_fields(&mut lines, 1);
            for info in KINDS.iter().filter(|info| info.group == group && info.name == kind) {
                add(&format!("{group}/{}", info.versions[0]), kind, body.clone());
            }
        }
        let port = serde_json::json!({"name": "zqport", "port": 1, "targetPort": "zqtarget", "protocol": "zq", "appProtocol": "zq"});
        let container = serde_json::json!({"name": "zqcontainer", "image": "zq/zq:zq", "args": ["zq"], "ports": [{"name": "zq", "containerPort": 1}]});
        let spec = serde_json::json!({"containers": [container], "initContainers": [container], "zq": "zq"});
        let template = serde_json::json!({"metadata": {"labels": {"zq": "zq"}}, "spec": spec});
        for info in KINDS {
            let separator = if info.group.is_empty() { "" } else { "/" };
            let body = serde_json::json!({"spec": {"template": template, "zq": "zq"}, "status": {"zq": "zq"}});
            add(&format!("{}{separator}{}", info.group, info.versions[0]), info.name, body);
        }
        add(
            "v1",
            "Service",
            serde_json::json!({"spec": {"ports": [port], "selector": {"zq": "zq"}, "externalName": "ip-203-0-113-79.zq.nip.io",
            "clusterIP": "203.0.113.77", "type": "zq", "externalIPs": ["203.0.113.77"], "zq": "zq"}, "status": {"loadBalancer": {"ingress": [{"hostname": "zq"}]}}}),
        );
        add(
            "v1",
            "Pod",
            serde_json::json!({"spec": spec, "status": {"phase": "zq", "podIP": "203.0.113.77", "conditions": [{"type": "zq", "status": "zq", "message": "zq"}]}}),
        );
        add(
            "apps/v1",
            "Deployment",
            serde_json::json!({"spec": {"template": {"metadata": {"labels": {"zq": "zq"}}, "spec": spec}}}),
        );
        add(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            serde_json::json!({"addressType": "zq", "endpoints": [{"addresses": ["203.0.113.77"], "zone": "zq", "targetRef": {"kind": "zq", "name": "zq"}}], "ports": [{"name": "zq", "port": 1}]}),
        );
        add(
            "v1",
            "ConfigMap",
            serde_json::json!({"data": {"mesh": "rootNamespace: zqroot\ntrustDomain: zqdomain\ntrustDomainAliases: [zqalias]\naccessLogFile: zq\nzq: zq\naccessLogFormat: zq\ndefaultProviders: {accessLogging: [zq]}\nextensionProviders: [{name: zq, zipkin: {service: zq}}, {name: zq, envoyExtAuthzHttp: {service: zq}}]\ndefaultTrafficPolicy: {tls: {caCertificates: zq}}"}}),
        );
        let missing: Vec<&str> =
            KINDS.iter().filter(|info| !kinds.contains(&info.kind)).map(|info| info.name).collect();
        assert!(missing.is_empty(), "{missing:?}");
        snapshot.taken_at = Some("zqtime".to_owned());
        snapshot.kubernetes_version = Some("v1.36.3-zqvendor".to_owned());
        for what in ["Pod zqns/zqmalformed", "zqfile.yaml:3:1", "tcp:203.0.113.77:80", "https://zqserver.example:6443"]
        {
            let why = "invalid type: string \"zqvalue\", expected a sequence; User \"zq@zqcorp.example\" cannot list pods at ip-203-0-113-77";
            let mut gap = Gap::new(what, why, crate::snapshot::GapKind::Failed);
            gap.kind = Some("zqkind".to_owned());
            gap.namespace = Some("zqns".to_owned());
            snapshot.gaps.push(gap);
        }
        let structure = |text: &str| text.matches(['{', '[']).count();
        let (before, findings) = (encoded(&snapshot), codes(&snapshot));
        let redacted = redact(snapshot, &["GM203"]);
        assert_eq!(codes(&redacted), findings);
        let text = encoded(&redacted);
        let position =
            text.to_lowercase().find("zq").or_else(|| text.find("203.0.113")).or_else(|| text.find("203-0-113"));
        let excerpt = position.map(|start| text.get(start.saturating_sub(200)..text.len().min(start + 60)));
        assert_eq!(excerpt, None);
        // Settings of Envoy and of plugins are dropped; everything else keeps its structure.
        assert!(structure(&text).abs_diff(structure(&before)) < 20, "{} {}", structure(&text), structure(&before));
    }

    #[test]
    fn identities_in_policies_still_belong_to_the_trust_domain() {
        let mut snapshot = Snapshot::new(SourceKind::Cluster);
        let mut add = |kind, api_version: &str, name: &str, body: Value| {
            let object = Object::new(kind, api_version, "istio-system", name, &to_raw_value(&body).unwrap()).unwrap();
            snapshot.objects.insert(object.key.clone(), object);
        };
        let mesh = "trustDomain: corp.example\ntrustDomainAliases: [old.corp.example]\naccessLogFormat: secret\n\
                    extensionProviders: [{name: bouncer, envoyExtAuthzGrpc: {service: hidden.corp.example, port: 1}}]";
        add(
            Kind::ConfigMap,
            "v1",
            "istio",
            serde_json::json!({"metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh}}),
        );
        let principals =
            ["corp.example/ns/shop/sa/checkout", "old.corp.example/ns/shop/sa/checkout", "*/ns/shop/sa/checkout"];
        let policy = serde_json::json!({"metadata": {"name": "p", "namespace": "istio-system"}, "spec": {"action": "CUSTOM",
            "provider": {"name": "bouncer"}, "rules": [{"from": [{"source": {"principals": principals}}]}]}});
        add(Kind::AuthorizationPolicy, "security.istio.io/v1", "p", policy);
        let redacted = redact(snapshot, &[]);
        let body = |kind| -> Value {
            serde_json::from_str(redacted.objects.values().find(|object| object.key.kind == kind).unwrap().body.get())
                .unwrap()
        };
        let mesh: Value = serde_json::from_str(body(Kind::ConfigMap)["data"]["mesh"].as_str().unwrap()).unwrap();
        let spec = &body(Kind::AuthorizationPolicy)["spec"];
        let principals = &spec["rules"][0]["from"][0]["source"]["principals"];
        let (domain, alias) = (mesh["trustDomain"].as_str().unwrap(), mesh["trustDomainAliases"][0].as_str().unwrap());
        let (identity, name) = principals[2].as_str().unwrap().split_at(1);
        assert_eq!(identity, "*");
        assert!(name.starts_with("/ns/r") && name.contains("/sa/r"), "{name}");
        assert_eq!(principals[0], format!("{domain}{name}"));
        assert_eq!(principals[1], format!("{alias}{name}"));
        assert_eq!(
            mesh["extensionProviders"],
            serde_json::json!([{"name": spec["provider"]["name"], "envoyExtAuthzGrpc": {}}])
        );
        let text = mesh.to_string();
        assert!(!["corp", "secret", "bouncer", "hidden"].iter().any(|word| text.contains(word)), "{text}");
    }

    #[test]
    fn addresses_inside_of_names_are_redacted() {
        let mut redactor = Redactor::default();
        let mut check = |text: &str, expected: &str| assert_eq!(redactor.redact_text(text), expected, "{text}");
        check("203.0.113.77.nip.io", "10.1.1.1.r1.io");
        check("ip-203-0-113-77", "r2-10-1-1-1");
        check("tcp:203.0.113.77:80", "tcp:10.1.1.1:80");
        check("tcp:2001:db8::7", "tcp:fd00:1::1");
        check("a203.0.113.77b", "r3.10.1.1.1.r4".replace("r3.", "r3").replace(".r4", "r4").as_str());
        check("1.36.3", "1.36.3");
        check("v1-2-3", "v1-2-3");
    }
}
