//! Removes what may be secret from objects before they become part of a snapshot.
//!
//! The mesh configuration and ProxyConfigs can hold tokens in many fields, so of the mesh configuration only the fields that
//! this program reads are kept. In other objects, fields whose names say that they hold a secret lose their text. Names of
//! Secrets stay, because routing depends on them.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::yaml;

/// Fields of the mesh configuration that this program reads; see [`crate::schema::mesh_config::MeshConfig`]. Redaction keeps
/// the same fields.
pub(super) const MESH_CONFIG: &[&str] = &[
    "rootNamespace",
    "trustDomain",
    "trustDomainAliases",
    "enableAutoMtls",
    "h2UpgradePolicy",
    "defaultHttpRetryPolicy",
    "connectTimeout",
    "defaultVirtualServiceExportTo",
    "defaultDestinationRuleExportTo",
    "defaultServiceExportTo",
    "defaultTrafficPolicy",
    "outboundTrafficPolicy",
    "accessLogFile",
    "accessLogFormat",
    "accessLogEncoding",
    "defaultProviders",
    "extensionProviders",
];

/// Annotations whose value is a configuration of the proxy, or part of a container.
const CONFIGURATION_ANNOTATIONS: &[&str] = &[
    "proxy.istio.io/config",
    "proxy.istio.io/overrides",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
];

/// Maps whose keys are names that users choose, and that selectors compare.
const LABEL_MAPS: &[&str] = &["labels", "selector", "matchLabels", "sourceLabels", "match", "matches"];

/// Whether the value of an annotation may be kept.
pub(super) fn keeps_annotation(key: &str) -> bool {
    !CONFIGURATION_ANNOTATIONS.contains(&key) && !names_secret(key)
}

/// Returns the mesh configuration as JSON, with only the fields that matter. Invalid YAML stays invalid.
pub(super) fn reduce_mesh_config(text: &str) -> String {
    let Ok(converted) = yaml::to_json(text) else { return "[".to_owned() };
    let Some(json) = converted.json else { return String::new() };
    match serde_json::from_str(json.get()) {
        Ok(Value::Object(mut fields)) => {
            fields.retain(|key, _| MESH_CONFIG.contains(&key.as_str()));
            if let Some(providers) = fields.get_mut("extensionProviders").and_then(Value::as_array_mut) {
                providers.iter_mut().filter_map(Value::as_object_mut).for_each(reduce_provider);
            }
            Value::Object(fields).to_string()
        }
        Ok(_) | Err(_) => "[".to_owned(),
    }
}

/// Keeps the name of a provider, its settings of file access logs, and which other kind it is.
fn reduce_provider(fields: &mut Map<String, Value>) {
    for (key, value) in fields.iter_mut() {
        match key.as_str() {
            "name" => {}
            "envoyFileAccessLog" => {
                if let Some(log) = value.as_object_mut() {
                    log.retain(|key, _| matches!(key.as_str(), "path" | "logFormat"));
                }
            }
            _ => *value = Value::Object(Map::new()),
        }
    }
}

/// Whether a text can hold a field that [`clear`] changes. It avoids parsing the objects that cannot.
pub(super) fn may_hold_secrets(body: &str) -> bool {
    static WORDS: LazyLock<Option<regex::Regex>> = LazyLock::new(|| {
        let words = "token|passw|secret|api.?key|private.?key|access.?key|authorization|cookie|environmentVariables";
        regex::Regex::new(&format!("(?i){words}|proxy[.]istio[.]io/|userVolume")).ok()
    });
    WORDS.as_ref().is_none_or(|words| words.is_match(body))
}

/// Clears the texts of fields, annotations, variables and headers whose names say that they hold a secret.
pub(super) fn clear(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match value {
                    _ if LABEL_MAPS.contains(&key.as_str()) => {}
                    Value::Object(variables) if key == "environmentVariables" => {
                        variables.values_mut().for_each(|value| *value = "".into());
                    }
                    Value::Object(annotations) if key == "annotations" => {
                        annotations.iter_mut().filter(|(key, _)| !keeps_annotation(key)).for_each(|(_, value)| {
                            *value = "".into();
                        });
                    }
                    Value::String(text) if names_secret(key) => text.clear(),
                    Value::Array(items) if matches!(key.as_str(), "set" | "add") => {
                        items.iter_mut().for_each(clear_named_value);
                    }
                    other => clear(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clear),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Clears a header of a Gateway API filter: `{name, value}`.
fn clear_named_value(item: &mut Value) {
    let is_secret = item.get("name").and_then(Value::as_str).is_some_and(names_secret);
    if let Some(value) = item.get_mut("value").filter(|_| is_secret) {
        *value = "".into();
    }
}

/// Whether the name of a field, header or variable says that its value is a secret. `credentialName` and `secretName` name
/// Secrets.
fn names_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let words = ["password", "passwd", "passphrase", "apikey", "privatekey", "accesskey", "secretkey", "clientsecret"];
    words.iter().any(|word| name.contains(word))
        || ["token", "secret", "authorization", "cookie", "credentials"].iter().any(|word| name.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clears_fields_that_name_a_secret() {
        let mut object = serde_json::json!({
        "metadata": {"labels": {"token": "label"}, "annotations": {
            "proxy.istio.io/config": "CANARY", "example.com/api-token": "CANARY", "note": "kept"}},
        "spec": {
            "environmentVariables": {"ANY": "CANARY"},
            "tracing": {"lightstep": {"accessToken": "CANARY", "address": "kept"}},
            "selector": {"secret": "label"},
            "tls": {"credentialName": "kept", "mode": "SIMPLE"},
            "headers": {"request": {"set": {"Authorization": "CANARY", "x-api-key": "CANARY", "x-shop": "kept"}}},
            "filters": [{"requestHeaderModifier": {"add": [{"name": "cookie", "value": "CANARY"}, {"name": "x", "value": "kept"}]}}],
            "http": [{"match": [{"headers": {"authorization": {"exact": "kept"}}}]}],
        }});
        assert!(may_hold_secrets(&object.to_string()));
        clear(&mut object);
        let text = object.to_string();
        assert!(!text.contains("CANARY"), "{text}");
        assert_eq!((text.matches("kept").count(), text.matches("label\"").count()), (6, 2), "{text}");
    }

    #[test]
    fn keeps_only_the_fields_of_the_mesh_configuration_that_are_read() {
        let text = "rootNamespace: istio-system\naccessLogFormat: '%FLAGS%'\ncaCertificates: [{pem: CANARY}]\n\
                    defaultConfig: {tracing: {lightstep: {accessToken: CANARY}}, proxyMetadata: {A: CANARY}}\n\
                    extensionProviders:\n- name: file\n  envoyFileAccessLog: {path: /dev/stdout, other: CANARY}\n\
                    - {name: otel, opentelemetry: {service: CANARY, http: {headers: [{name: a, value: CANARY}]}}}\n";
        let reduced = reduce_mesh_config(text);
        assert!(!reduced.contains("CANARY"), "{reduced}");
        for kept in ["istio-system", "%FLAGS%", "/dev/stdout", "otel"] {
            assert!(reduced.contains(kept), "{kept}: {reduced}");
        }
        assert_eq!((reduce_mesh_config("a: ["), reduce_mesh_config("CANARY")), ("[".to_owned(), "[".to_owned()));
    }

    #[test]
    fn every_field_that_the_mesh_configuration_type_reads_is_kept() {
        let text = include_str!("../schema/mesh_config.rs");
        let body = text.split("pub struct MeshConfig {").nth(1).unwrap().split("\n}").next().unwrap();
        let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
        for field in fields {
            let mut words = field.split('_');
            let camel: String = words.next().unwrap().to_owned()
                + &words.map(|word| word[..1].to_uppercase() + &word[1..]).collect::<String>();
            assert!(MESH_CONFIG.contains(&camel.as_str()), "{camel}");
        }
    }
}
