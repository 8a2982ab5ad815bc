//! What lines look like that contain no access line.

use serde_json::Value;

use super::is_start_time;

/// Keys in which log collectors keep the line of a container.
const LINE_KEYS: [&str; 8] = ["log", "message", "MESSAGE", "line", "msg", "textPayload", "body", "event"];

/// What a line of a log without access lines looks like, and what to do about it.
pub(crate) fn lead_for(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_start();
    let contains = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let is_binary = line.iter().filter(|byte| **byte < 9).count() * 20 > line.len().max(1);
    let lead = if is_binary {
        "these look like binary data: pass the text of the log"
    } else if text.starts_with('[') && is_start_time(text.as_bytes()) {
        "these start like Istio's access log but have other fields: pass the format with --log-format"
    } else if contains(&["apiVersion:", "\"apiVersion\""]) {
        "these look like Kubernetes objects; for logs: kubectl logs -n NAMESPACE POD -c istio-proxy"
    } else if contains(&["type.googleapis.com/envoy.admin"]) {
        "these look like Envoy's configuration; for logs: kubectl logs -n NAMESPACE POD -c istio-proxy"
    } else if text.starts_with("# HELP ") || text.starts_with("# TYPE ") {
        "these look like Prometheus metrics; for logs: kubectl logs -n NAMESPACE POD -c istio-proxy"
    } else if text.starts_with('<') && contains(&["<!DOCTYPE", "<!doctype", "<html", "<?xml"]) {
        "these look like a web page or XML, perhaps a login page: check how the log was downloaded"
    } else if contains(&[" - - ["]) {
        "these look like the access log of a web server (combined format), not of an Envoy: if it is an Envoy's, pass its \
         format with --log-format"
    } else {
        return json_lead(text);
    };
    Some(lead.to_owned())
}

/// The same for a JSON record.
fn json_lead(text: &str) -> Option<String> {
    let Ok(Value::Object(record)) = serde_json::from_str(text) else { return None };
    let key = LINE_KEYS.into_iter().find(|key| record.get(*key).is_some_and(Value::is_string))?;
    if record.contains_key("level") || record.contains_key("severity") {
        return Some(format!(
            "these look like the log of an application (\"{key}\" has its messages): choose the container istio-proxy"
        ));
    }
    Some(format!(
        "these look like records of a log collector, but \"{key}\" contains no access line: choose the container \
         istio-proxy, or pass a custom format with --log-format"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_lines_look_like() {
        for (line, word) in [
            ("apiVersion: v1", "Kubernetes objects"),
            ("{\"log\":\"GET / 200\\n\",\"stream\":\"stdout\"}", "\"log\" contains no access line"),
            ("{\"level\":\"info\",\"message\":\"ready\"}", "application"),
            ("10.0.0.1 - - [21/Nov/2026:09:00:00 +0000] \"GET / HTTP/1.1\" 200 5", "web server"),
            ("<!DOCTYPE html>", "web page"),
            ("# HELP istio_requests_total x", "metrics"),
            ("[2026-11-21T09:00:00.000Z] \"GET\" nonsense", "--log-format"),
            ("\0\0\0\0", "binary"),
        ] {
            assert!(lead_for(line.as_bytes()).is_some_and(|lead| lead.contains(word)), "{line}");
        }
        assert_eq!(lead_for(b"ready"), None);
        assert_eq!(lead_for(b""), None);
    }
}
