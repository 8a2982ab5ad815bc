//! Pod, namespace and container that a log collector writes next to a line.
//!
//! Sources of the keys: the Kubernetes filter of Fluent Bit and the metadata filter of Fluentd (`kubernetes.pod_name`),
//! Vector's `kubernetes_logs` (`kubernetes.pod_namespace`), Filebeat (`kubernetes.pod.name`), OpenTelemetry
//! (`k8s.pod.name`), Google Cloud Logging (`resource.labels.pod_name`), stern (`podName`), Promtail (`pod`), Datadog
//! (`kube_namespace`) and the labels of Docker (`io.kubernetes.pod.name`).

use serde_json::Value;

use super::super::PodNames;

/// The names that were found next to a line. A name of a higher rank replaces one of a lower rank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::accesslog) struct LineNames {
    pod: Option<(u8, String)>,
    namespace: Option<(u8, String)>,
    container: Option<(u8, String)>,
}

/// The object of Kubernetes that a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameKind {
    Pod,
    Namespace,
    Container,
}

/// Ranks: the name of a log file, a key such as `pod`, and a key such as `pod_name`.
const FROM_PATH: u8 = 1;
const FROM_SHORT_KEY: u8 = 2;
const FROM_FULL_KEY: u8 = 3;

impl LineNames {
    pub(in crate::accesslog) fn as_names(&self) -> PodNames<'_> {
        fn name(ranked: Option<&(u8, String)>) -> Option<&str> {
            ranked.map(|(_, name)| name.as_str())
        }
        PodNames {
            pod: name(self.pod.as_ref()),
            namespace: name(self.namespace.as_ref()),
            container: name(self.container.as_ref()),
        }
    }

    fn set(&mut self, kind: NameKind, rank: u8, name: &str) {
        let slot = match kind {
            NameKind::Pod => &mut self.pod,
            NameKind::Namespace => &mut self.namespace,
            NameKind::Container => &mut self.container,
        };
        if !name.is_empty() && slot.as_ref().is_none_or(|(known, _)| *known < rank) {
            *slot = Some((rank, name.to_owned()));
        }
    }

    fn set_all(&mut self, rank: u8, names: PodNames<'_>) {
        let PodNames { pod, namespace, container } = names;
        for (kind, name) in [(NameKind::Pod, pod), (NameKind::Namespace, namespace), (NameKind::Container, container)] {
            self.set(kind, rank, name.unwrap_or_default());
        }
    }

    /// Takes names from a string in a record, by its key or because it is the path of a container's log.
    fn add_text(&mut self, path: &[&str], text: &str) {
        if let Some((kind, rank)) = kind_of_key(path) {
            match docker_names(text) {
                Some(names) => self.set_all(rank, names),
                None => self.set(kind, rank, text),
            }
        } else if let Some(names) = names_in_path(text).or_else(|| docker_names(text)) {
            self.set_all(FROM_PATH, names);
        }
    }

    /// Takes names from the fields of a record and of the objects in it. Arrays may contain other records: only labels
    /// in the forms `key:value` and `{"key": …, "value": …}` are read there.
    pub(super) fn add_record(&mut self, path: &mut Vec<String>, fields: &serde_json::Map<String, Value>) {
        for (key, value) in fields {
            path.push(key.clone());
            match value {
                Value::String(text) if text.len() < 1_000 => {
                    let keys: Vec<&str> = path.iter().map(String::as_str).collect();
                    self.add_text(&keys, text);
                }
                Value::Object(fields) if path.len() < 8 => self.add_record(path, fields),
                Value::Array(items) => items.iter().for_each(|item| self.add_label(item)),
                _ => {}
            }
            path.pop();
        }
    }

    pub(super) fn add_label(&mut self, item: &Value) {
        match item {
            // Datadog's tags: `pod_name:web-1`.
            Value::String(text) => {
                if let Some((key, value)) = text.split_once(':').filter(|(key, _)| key.len() < 64) {
                    self.add_text(&[key], value);
                }
            }
            // OTLP attributes: `{"key": "k8s.pod.name", "value": {"stringValue": "web-1"}}`. CloudWatch Logs Insights:
            // `{"field": "kubernetes.pod_name", "value": "web-1"}`.
            Value::Object(label) => {
                let key = label.get("key").or_else(|| label.get("field")).and_then(Value::as_str);
                let value = label.get("value").and_then(|value| value.get("stringValue").unwrap_or(value).as_str());
                if let (Some(key), Some(value)) = (key, value) {
                    self.add_text(&[key], value);
                }
            }
            _ => {}
        }
    }

    /// Takes names from the text before a line: labels, the path of a log, or the words of stern, docker compose and kail.
    pub(super) fn add_prefix(&mut self, prefix: &str) {
        self.add_labels(prefix);
        for word in prefix.split_whitespace() {
            let word = word.trim_matches(['[', ']', '(', ')', ',', ':', '"']);
            if let Some(names) = names_in_path(word).or_else(|| docker_names(word)) {
                self.set_all(FROM_PATH, names);
            }
        }
        if self.pod.is_none() {
            self.set_all(FROM_PATH, names_in_words(prefix));
        }
    }

    /// `pod=web-1 namespace="shop"` and `{pod="web-1", namespace="shop"}`, as logfmt and `logcli` print labels.
    fn add_labels(&mut self, prefix: &str) {
        for (position, _) in prefix.match_indices('=') {
            let (before, after) =
                (prefix.get(..position).unwrap_or_default(), prefix.get(position + 1..).unwrap_or_default());
            let key_start = before.rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.' | '-' | '/'));
            let key = before.get(key_start.map_or(0, |start| start + 1)..).unwrap_or_default();
            let value = match after.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => after.split([' ', ',', '}', '\t']).next(),
            };
            self.add_text(&[key], value.unwrap_or_default());
        }
    }
}

/// What a key names, by its last parts. Separators and case differ between collectors.
fn kind_of_key(path: &[&str]) -> Option<(NameKind, u8)> {
    let last = path.last()?;
    let parts: Vec<&str> = path.iter().flat_map(|key| key.split(['.', '_', '-', '/', ' '])).collect();
    let ends_with = |words: &[&str]| {
        parts.len() >= words.len()
            && parts.iter().rev().zip(words.iter().rev()).all(|(part, word)| part.eq_ignore_ascii_case(word))
    };
    let is = |word: &str| last.eq_ignore_ascii_case(word);
    if ends_with(&["pod", "name"]) || is("podname") {
        Some((NameKind::Pod, FROM_FULL_KEY))
    } else if ends_with(&["namespace", "name"])
        || ends_with(&["pod", "namespace"])
        || ends_with(&["kube", "namespace"])
        || is("namespacename")
    {
        Some((NameKind::Namespace, FROM_FULL_KEY))
    } else if ends_with(&["container", "name"]) || is("containername") {
        Some((NameKind::Container, FROM_FULL_KEY))
    } else if is("pod") {
        Some((NameKind::Pod, FROM_SHORT_KEY))
    } else if is("namespace") {
        Some((NameKind::Namespace, FROM_SHORT_KEY))
    } else if is("container") {
        Some((NameKind::Container, FROM_SHORT_KEY))
    } else {
        None
    }
}

/// The names in the path of a container's log, or in a tag that was made from it.
///
/// Sources: kubelet's `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log` and
/// `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`; Fluent Bit's tag
/// `kube.var.log.containers.POD_NAMESPACE_CONTAINER-ID.log`, which is also the name of a stream in CloudWatch.
pub fn names_in_path(path: &str) -> Option<PodNames<'_>> {
    let mut previous = None;
    let are_names = |names: [&str; 3]| names.into_iter().all(is_name);
    for part in path.rsplit('/') {
        let part = part.rsplit_once("containers.").map_or(part, |(_, name)| name);
        let stem = part.split(".log").next().unwrap_or(part);
        let mut words = stem.split('_');
        if let (Some(first), Some(second), Some(third), None) = (words.next(), words.next(), words.next(), words.next())
        {
            if let Some((container, id)) = third.rsplit_once('-')
                && id.len() == 64
                && are_names([first, second, container])
            {
                return Some(PodNames { pod: Some(first), namespace: Some(second), container: Some(container) });
            }
            if third.len() >= 32 && are_names([first, second, third]) {
                return Some(PodNames { pod: Some(second), namespace: Some(first), container: previous });
            }
        }
        previous = Some(part);
    }
    None
}

/// The names in a container name of Docker: `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
fn docker_names(text: &str) -> Option<PodNames<'_>> {
    let mut words = text.trim_start_matches('/').strip_prefix("k8s_")?.split('_');
    let (container, pod, namespace) = (words.next()?, words.next()?, words.next()?);
    let names = PodNames { pod: Some(pod), namespace: Some(namespace), container: Some(container) };
    [container, pod, namespace].into_iter().all(is_name).then_some(names)
}

/// The names in the words before a line:
/// - stern (`stern/config.go`, templates of `cmd/cmd.go`): `POD CONTAINER`, with several namespaces `NAMESPACE POD CONTAINER`
/// - docker compose: `CONTAINER  | `
/// - kail: `NAMESPACE/POD[CONTAINER]: `
fn names_in_words(prefix: &str) -> PodNames<'_> {
    if let Some((container, rest)) = prefix.split_once('|')
        && is_name(container.trim())
        && rest.trim().is_empty()
    {
        return PodNames { pod: Some(container.trim()), ..PodNames::default() };
    }
    if let Some((namespace, rest)) = prefix.trim_end().trim_end_matches(':').split_once('/')
        && let Some((pod, container)) = rest.split_once('[')
        && let Some(container) = container.strip_suffix(']')
        && [namespace, pod, container].into_iter().all(is_name)
    {
        return PodNames { pod: Some(pod), namespace: Some(namespace), container: Some(container) };
    }
    let is_time = |word: &&str| word.len() >= 19 && word.as_bytes().get(10) == Some(&b'T');
    let is_stream = |word: &&str| matches!(*word, "stdout" | "stderr" | "F" | "P");
    let words: Vec<&str> = prefix
        .split_whitespace()
        .map(|word| word.trim_matches(['[', ']']))
        .filter(|word| !is_time(word) && !is_stream(word))
        .collect();
    match words.as_slice() {
        words if !words.iter().all(|word| is_name(word)) => PodNames::default(),
        [pod] if pod.contains('-') => PodNames { pod: Some(pod), ..PodNames::default() },
        [pod, container] => PodNames { pod: Some(pod), namespace: None, container: Some(container) },
        [namespace, pod, container] => {
            PodNames { pod: Some(pod), namespace: Some(namespace), container: Some(container) }
        }
        _ => PodNames::default(),
    }
}

/// Whether the text can be the name of a pod, namespace or container.
fn is_name(text: &str) -> bool {
    let is_alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 253
        && is_alphanumeric(text.chars().next())
        && is_alphanumeric(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_'))
}
