//! The *observed* stage: what an Envoy runs according to its admin port, and what istiod reports about its proxies.
//!
//! CORE. Types named `Envoy…` follow Envoy's own form. Responses come in as bytes; unknown filters and fields are
//! ignored.
//! Source: `envoy/admin/v3` of envoyproxy/envoy 1.39.

pub(crate) mod cluster;
pub mod config_dump;
pub mod counters;
pub(crate) mod endpoint;
pub(crate) mod route;
pub mod sync;
mod tolerant;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::accesslog::format::{FormatError, LogFormat};

/// The admin port of Istio's Envoys.
pub const ADMIN_PORT: u16 = 15000;

/// Admin path of the listeners that configure the access log: the inbound one of a sidecar, and those of a gateway.
pub const ACCESS_LOG_LISTENERS_PATH: &str =
    "/config_dump?resource=dynamic_listeners&name_regex=virtualInbound%7C0%5C.0%5C.0%5C.0_.*";

/// Returns the distinct formats of all access logs that a listener dump sends to standard output or standard error.
///
/// A format that cannot be compiled is in the second list instead of the first.
///
/// # Errors
/// When the dump is not JSON.
pub fn access_log_formats(dump: &[u8]) -> Result<(Vec<LogFormat>, Vec<FormatError>), serde_json::Error> {
    let dump: Value = serde_json::from_slice(dump)?;
    let mut texts = Vec::new();
    collect_formats(&dump, &mut texts);
    texts.sort();
    texts.dedup();
    let (mut formats, mut errors) = (Vec::new(), Vec::new());
    for text in texts {
        match LogFormat::compile(&text) {
            Ok(format) => formats.push(format),
            Err(error) => errors.push(error),
        }
    }
    Ok((formats, errors))
}

#[derive(Deserialize)]
struct Dump<T> {
    #[serde(default = "Vec::new")]
    configs: Vec<T>,
}

fn elements<T: DeserializeOwned>(dump: &[u8]) -> Result<Vec<T>, serde_json::Error> {
    serde_json::from_slice::<Dump<T>>(dump).map(|dump| dump.configs)
}

/// Connection managers, TCP proxies and listeners have access logs, at different depths.
fn collect_formats(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "access_log" {
                    texts.extend(value.as_array().into_iter().flatten().filter_map(stdout_format));
                } else {
                    collect_formats(value, texts);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_formats(item, texts)),
        _ => {}
    }
}

fn stdout_format(log: &Value) -> Option<String> {
    let text_at = |pointer: &str| log.pointer(pointer).and_then(Value::as_str);
    let kind = text_at("/typed_config/@type").unwrap_or_default();
    let is_stdout = text_at("/typed_config/path") == Some("/dev/stdout")
        || kind.ends_with(".StdoutAccessLog")
        || kind.ends_with(".StderrAccessLog");
    let text = text_at("/typed_config/log_format/text_format_source/inline_string")
        .or_else(|| text_at("/typed_config/log_format/text_format"));
    let json = log
        .pointer("/typed_config/log_format/json_format")
        .and_then(Value::as_object)
        .filter(|labels| !labels.is_empty());
    let text = text.map(str::to_owned).or_else(|| json.map(|labels| Value::Object(labels.clone()).to_string()))?;
    is_stdout.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_json_formats_of_standard_output_only() {
        let log = |format: &str| {
            format!(
                r#"{{"typed_config": {{"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/stdout", "log_format": {format}}}}}"#
            )
        };
        let dump = format!(
            r#"{{"configs": [{{"active_state": {{"listener": {{"filter_chains": [{{"filters": [{{"typed_config": {{"access_log": [{}, {}]}}}}]}}], "access_log": [{}]}}}}}}]}}"#,
            log(r#"{"json_format": {"flags": "%RESPONSE_FLAGS%"}}"#),
            log(r#"{"text_format_source": {"inline_string": "%START_TIME% %RESPONSE_FLAGS%\n"}}"#),
            log(r#"{"text_format_source": {"inline_string": "no operator"}}"#),
        );
        let (formats, errors) = access_log_formats(dump.as_bytes()).unwrap();
        assert_eq!((formats.len(), errors.len()), (2, 1));
        let to_file =
            br#"{"access_log": [{"typed_config": {"path": "/tmp/x", "log_format": {"text_format": "%DURATION%"}}}]}"#;
        assert!(access_log_formats(to_file).unwrap().0.is_empty());
        assert!(access_log_formats(b"404").unwrap().0.is_empty() && access_log_formats(b"not found").is_err());
    }
}
