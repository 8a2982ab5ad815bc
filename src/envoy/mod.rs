//! What an Envoy says of itself on its admin port, as typed views.
//!
//! CORE: answers come in as bytes; unknown filters and fields do no harm.
//! Source: `envoy/admin/v3` of envoyproxy/envoy 1.39.

pub(crate) mod cluster;
pub mod config_dump;
pub(crate) mod counters;
pub(crate) mod endpoint;
pub(crate) mod route;
pub mod sync;
mod tolerant;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::accesslog::format::{FormatError, LogFormat};

/// The admin port of Istio's proxies.
pub const ADMIN_PORT: u16 = 15000;

/// Asks for the listeners that name the access log: the one for what comes in, and those of gateways.
pub const LISTENERS_WITH_LOGS: &str =
    "/config_dump?resource=dynamic_listeners&name_regex=virtualInbound%7C0%5C.0%5C.0%5C.0_.*";

/// Formats of the access logs that go to standard output, each once, as they stand in a dump of listeners.
///
/// # Errors
/// When it is no JSON. A format that cannot be compiled is left out of the first list and told in the second.
pub fn log_formats(dump: &[u8]) -> Result<(Vec<LogFormat>, Vec<FormatError>), serde_json::Error> {
    let dump: Value = serde_json::from_slice(dump)?;
    let mut texts = Vec::new();
    collect(&dump, &mut texts);
    texts.sort();
    texts.dedup();
    let (mut formats, mut refused) = (Vec::new(), Vec::new());
    for text in texts {
        match LogFormat::compile(&text) {
            Ok(format) => formats.push(format),
            Err(error) => refused.push(error),
        }
    }
    Ok((formats, refused))
}

#[derive(Deserialize)]
struct Dump<T> {
    #[serde(default = "Vec::new")]
    configs: Vec<T>,
}

fn elements<T: DeserializeOwned>(dump: &[u8]) -> Result<Vec<T>, serde_json::Error> {
    serde_json::from_slice::<Dump<T>>(dump).map(|dump| dump.configs)
}

/// Access logs stand in connection managers, in TCP proxies and in listeners.
fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "access_log" {
                    texts.extend(value.as_array().into_iter().flatten().filter_map(format_of));
                } else {
                    collect(value, texts);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        _ => {}
    }
}

fn format_of(log: &Value) -> Option<String> {
    let config = &log["typed_config"];
    let kind = config["@type"].as_str().unwrap_or_default();
    let to_output =
        config["path"] == "/dev/stdout" || kind.ends_with(".StdoutAccessLog") || kind.ends_with(".StderrAccessLog");
    let format = &config["log_format"];
    let text = format["text_format_source"]["inline_string"].as_str().or_else(|| format["text_format"].as_str());
    let json = format["json_format"].as_object().filter(|labels| !labels.is_empty());
    let text = text.map(str::to_owned).or_else(|| json.map(|labels| Value::Object(labels.clone()).to_string()))?;
    to_output.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_a_real_dump_and_of_json_ones() {
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
        let (formats, refused) = log_formats(dump.as_bytes()).unwrap();
        assert_eq!((formats.len(), refused.len()), (2, 1));
        let elsewhere =
            br#"{"access_log": [{"typed_config": {"path": "/tmp/x", "log_format": {"text_format": "%DURATION%"}}}]}"#;
        assert!(log_formats(elsewhere).unwrap().0.is_empty());
        assert!(log_formats(b"404").unwrap().0.is_empty() && log_formats(b"not found").is_err());
    }
}
