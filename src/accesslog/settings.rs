//! Access logging settings: whether a proxy writes its access log to standard output, which setting decides that, and the
//! formats in use.
//!
//! Sources: `pilot/pkg/model/telemetry.go` (`applicableTelemetries`, `mergeLogs`) and
//! `pilot/pkg/model/telemetry_logging.go` (`telemetryAccessLog`, `FileAccessLogFromMeshConfig`) of istio/istio 1.31.

use std::collections::{BTreeMap, BTreeSet};

use super::Direction;
use super::format::{FormatError, LogFormat};
use crate::schema::mesh_config::{FileAccessLog, MeshConfig};
use crate::schema::meta::StringMap;
use crate::schema::telemetry::{AccessLogging, TelemetrySpec};

/// Istio's built-in provider.
const BUILT_IN_PROVIDER: &str = "envoy";
const STDOUT: &str = "/dev/stdout";

/// The access logging settings of a mesh.
#[derive(Debug, Clone, Default)]
pub struct LogSettings {
    /// The mesh configuration.
    pub mesh: MeshConfig,
    /// The root namespace, where objects apply to the whole mesh.
    pub root_namespace: String,
    /// Telemetry objects, oldest first: istiod prefers older ones.
    pub telemetries: Vec<TelemetryObject>,
}

/// A Telemetry object.
#[derive(Debug, Clone, Default)]
pub struct TelemetryObject {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Its spec.
    pub spec: TelemetrySpec,
}

/// The proxy whose settings are requested.
#[derive(Debug, Clone, Copy)]
pub struct LogProxy<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Labels of the pod.
    pub labels: &'a StringMap,
}

/// Access logging of a proxy in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logging {
    /// The proxy logs to standard output, with a filter only the calls that match it.
    On {
        /// A CEL expression.
        filter: Option<String>,
    },
    /// The proxy does not log to standard output.
    Off(NotLoggedReason),
}

/// Why a proxy does not log to standard output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotLoggedReason {
    /// No Telemetry applies, and `meshConfig.accessLogFile` is empty.
    NoFile,
    /// `meshConfig.accessLogFile` is another file.
    OtherFile(String),
    /// A Telemetry disables logging; holds its namespace and name.
    Disabled(String, String),
    /// Only these providers are enabled, and none of them writes to standard output.
    OtherProviders(Vec<String>),
    /// A Telemetry enables providers, but not for this direction.
    OtherDirectionOnly,
}

impl LogSettings {
    /// The setting for the outbound or inbound calls of a proxy.
    pub fn logging(&self, proxy: LogProxy<'_>, direction: Direction) -> Logging {
        let telemetries = self.applicable(proxy);
        let default_providers = self.mesh.default_providers.iter();
        let defaults: Vec<&str> =
            default_providers.flat_map(|providers| &providers.access_logging).map(String::as_str).collect();
        if telemetries.is_empty() && defaults.is_empty() {
            return match self.mesh.access_log_file.as_deref().unwrap_or_default() {
                "" => Logging::Off(NotLoggedReason::NoFile),
                STDOUT => Logging::On { filter: None },
                other => Logging::Off(NotLoggedReason::OtherFile(other.to_owned())),
            };
        }
        // Enabled providers with their filters, and the last Telemetry that disables one.
        let mut enabled: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        let mut disabled_by = None;
        if telemetries.is_empty() {
            enabled.extend(defaults.iter().map(|name| (*name, None)));
        }
        let in_scope = providers_in_scope(&telemetries, &defaults, direction);
        let mut parents = defaults;
        for telemetry in &telemetries {
            for setting in &telemetry.spec.access_logging {
                let named: Vec<&str> = setting.providers.iter().map(|provider| provider.name.as_str()).collect();
                let names = if named.is_empty() { parents.clone() } else { named };
                parents.clone_from(&names);
                for name in names.into_iter().filter(|name| in_scope.contains(name) && applies_to(setting, direction)) {
                    if setting.disabled == Some(true) {
                        enabled.remove(name);
                        disabled_by = Some(telemetry);
                    } else {
                        enabled.insert(name, setting.filter.as_ref().map(|filter| filter.expression.as_str()));
                    }
                }
            }
        }
        let readable = enabled.iter().find(|(name, _)| self.writes_to_stdout(name));
        match (readable, disabled_by) {
            (Some((_, filter)), _) => Logging::On { filter: filter.map(str::to_owned) },
            (None, Some(telemetry)) if enabled.is_empty() => {
                Logging::Off(NotLoggedReason::Disabled(telemetry.namespace.clone(), telemetry.name.clone()))
            }
            (None, _) if enabled.is_empty() => Logging::Off(NotLoggedReason::OtherDirectionOnly),
            (None, _) => {
                Logging::Off(NotLoggedReason::OtherProviders(enabled.keys().map(|name| (*name).to_owned()).collect()))
            }
        }
    }

    /// The custom formats that proxies of this mesh may use, and the settings whose format cannot be compiled.
    pub fn custom_formats(&self) -> (Vec<LogFormat>, Vec<(String, FormatError)>) {
        let mut texts: Vec<(String, String)> = Vec::new();
        let mut add = |setting: String, text: &str| {
            if !text.trim().is_empty() {
                texts.push((setting, text.to_owned()));
            }
        };
        add("meshConfig.accessLogFormat".to_owned(), self.mesh.access_log_format.as_deref().unwrap_or_default());
        for provider in &self.mesh.extension_providers {
            let format = provider.envoy_file_access_log.as_ref().and_then(|file| file.log_format.as_ref());
            let setting = || format!("the logFormat of provider {}", provider.name);
            if let Some(text) = format.and_then(|format| format.text.as_deref()) {
                add(setting(), text);
            }
            if let Some(labels) = format.and_then(|format| format.labels.as_ref()).filter(|labels| !labels.is_empty()) {
                add(setting(), &serde_json::Value::Object(labels.clone()).to_string());
            }
        }
        let mut formats = Vec::new();
        let mut invalid = Vec::new();
        for (setting, text) in texts {
            match LogFormat::compile(&text) {
                Ok(format) => formats.push(format),
                Err(error) => invalid.push((setting, error)),
            }
        }
        (formats, invalid)
    }

    /// Whether a custom format contains the gRPC status; Istio's default format does not.
    pub fn logs_grpc_status(&self) -> bool {
        self.custom_formats().0.iter().any(LogFormat::logs_grpc_status)
    }

    /// A Telemetry manifest that enables logging to standard output for the proxies of `namespace`: a new object, or the
    /// changed form of the one that applies today.
    pub fn telemetry_fix(&self, namespace: &str, reason: &NotLoggedReason) -> String {
        let existing = match reason {
            NotLoggedReason::Disabled(object_namespace, name) if object_namespace == namespace => Some(name.as_str()),
            // Two namespace-wide Telemetries conflict, and only the older one takes effect (IST0159).
            _ => self.namespace_wide(namespace).map(|telemetry| &*telemetry.name),
        };
        let selector = self
            .telemetries
            .iter()
            .find(|telemetry| telemetry.namespace == namespace && Some(telemetry.name.as_str()) == existing)
            .and_then(|telemetry| telemetry.spec.selector.as_ref())
            .map(|selector| format!("  selector: {}\n", serde_json::json!({"matchLabels": selector.match_labels})))
            .unwrap_or_default();
        let name = existing.unwrap_or("access-log");
        format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n\
             {selector}  accessLogging:\n  - providers:\n    - name: {BUILT_IN_PROVIDER}\n"
        )
    }

    /// The Telemetries that apply: mesh-wide, namespace-wide, and by selector; the oldest of each.
    fn applicable(&self, proxy: LogProxy<'_>) -> Vec<&TelemetryObject> {
        let root = self.namespace_wide(&self.root_namespace);
        let is_root = proxy.namespace == self.root_namespace;
        let namespace = if is_root { None } else { self.namespace_wide(proxy.namespace) };
        let selects_proxy = |telemetry: &&TelemetryObject| {
            telemetry.namespace == proxy.namespace
                && telemetry.spec.selector.as_ref().is_some_and(|selector| {
                    selector.match_labels.iter().all(|(key, value)| proxy.labels.get(key) == Some(value))
                })
        };
        let workload = self.telemetries.iter().filter(|telemetry| !is_namespace_wide(telemetry)).find(selects_proxy);
        let sets_logging = |telemetry: &&TelemetryObject| !telemetry.spec.access_logging.is_empty();
        [root, namespace, workload].into_iter().flatten().filter(sets_logging).collect()
    }

    /// The oldest Telemetry for a whole namespace.
    fn namespace_wide(&self, namespace: &str) -> Option<&TelemetryObject> {
        self.telemetries.iter().find(|telemetry| telemetry.namespace == namespace && is_namespace_wide(telemetry))
    }

    fn writes_to_stdout(&self, provider: &str) -> bool {
        let declared = self.mesh.extension_providers.iter().find(|declared| declared.name == provider);
        match declared.and_then(|declared| declared.envoy_file_access_log.as_ref()) {
            Some(FileAccessLog { path, .. }) => matches!(path.as_deref(), None | Some("" | STDOUT)),
            None => provider == BUILT_IN_PROVIDER && declared.is_none(),
        }
    }
}

/// The providers named by the nearest Telemetry that names any; it replaces the names of the others.
fn providers_in_scope<'a>(
    telemetries: &[&'a TelemetryObject],
    defaults: &[&'a str],
    direction: Direction,
) -> BTreeSet<&'a str> {
    let mut names: BTreeSet<&str> = defaults.iter().copied().collect();
    for telemetry in telemetries {
        let settings = telemetry.spec.access_logging.iter().filter(|setting| applies_to(setting, direction));
        let named: BTreeSet<&str> =
            settings.flat_map(|setting| &setting.providers).map(|provider| provider.name.as_str()).collect();
        if !named.is_empty() {
            names = named;
        }
    }
    names
}

/// Whether a Telemetry applies to all pods of its namespace.
fn is_namespace_wide(telemetry: &TelemetryObject) -> bool {
    let has_labels = telemetry.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    !has_labels && telemetry.spec.target_refs.is_empty()
}

fn applies_to(setting: &AccessLogging, direction: Direction) -> bool {
    let mode = setting.matches.as_ref().and_then(|matches| matches.mode.as_deref());
    !matches!((mode, direction), (Some("CLIENT"), Direction::Inbound) | (Some("SERVER"), Direction::Outbound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(mesh: serde_json::Value, telemetries: &[(&str, &str, serde_json::Value)]) -> LogSettings {
        LogSettings {
            mesh: serde_json::from_value(mesh).unwrap(),
            root_namespace: "istio-system".into(),
            telemetries: telemetries
                .iter()
                .map(|(namespace, name, logging)| TelemetryObject {
                    namespace: (*namespace).into(),
                    name: (*name).into(),
                    spec: serde_json::from_value(logging.clone()).unwrap(),
                })
                .collect(),
        }
    }

    fn outbound_and_inbound(settings: &LogSettings) -> [Logging; 2] {
        let labels = StringMap::from([("app".into(), "echo".into())]);
        let proxy = LogProxy { namespace: "shop", labels: &labels };
        [settings.logging(proxy, Direction::Outbound), settings.logging(proxy, Direction::Inbound)]
    }

    #[test]
    fn recognizes_every_operator_that_logs_the_grpc_status() {
        for (mesh, logs_status) in [
            (json!({}), false),
            (json!({"accessLogFormat": "%RESPONSE_CODE% %RESPONSE_FLAGS%"}), false),
            (json!({"accessLogFormat": "%RESPONSE_CODE% %GRPC_STATUS(NUMBER)%"}), true),
            (json!({"accessLogFormat": "%RESPONSE_CODE% %RESP(GRPC-STATUS)%"}), true),
            (json!({"accessLogFormat": "{\"status\": \"%TRAILER(GRPC-STATUS)%\"}"}), true),
        ] {
            assert_eq!(settings(mesh.clone(), &[]).logs_grpc_status(), logs_status, "{mesh}");
        }
    }

    #[test]
    fn the_most_specific_telemetry_decides() {
        let on = Logging::On { filter: None };
        let file = json!({"accessLogFile": "/dev/stdout"});
        let envoy = json!({"accessLogging": [{"providers": [{"name": "envoy"}]}]});
        let off = json!({"accessLogging": [{"disabled": true}]});
        let envoy_off = json!({"accessLogging": [{"providers": [{"name": "envoy"}], "disabled": true}]});
        let otel = json!({"accessLogging": [{"providers": [{"name": "otel"}]}]});
        let client = json!({"accessLogging": [{"match": {"mode": "CLIENT"}, "providers": [{"name": "envoy"}]}]});
        let pod_off = json!({"selector": {"matchLabels": {"app": "echo"}}, "accessLogging": [{"disabled": true}]});
        let off_by =
            |namespace: &str, name: &str| Logging::Off(NotLoggedReason::Disabled(namespace.into(), name.into()));
        let none = Logging::Off(NotLoggedReason::NoFile);
        let elsewhere = Logging::Off(NotLoggedReason::OtherProviders(vec!["otel".into()]));
        let cases = [
            (json!({}), vec![], [none.clone(), none.clone()]),
            (file.clone(), vec![], [on.clone(), on.clone()]),
            (json!({"accessLogFile": "/var/log/x"}), vec![], {
                let other = Logging::Off(NotLoggedReason::OtherFile("/var/log/x".into()));
                [other.clone(), other]
            }),
            // Any Telemetry for the proxy replaces meshConfig.accessLogFile, even one that only disables a provider.
            (json!({}), vec![("istio-system", "mesh", envoy.clone())], [on.clone(), on.clone()]),
            (file.clone(), vec![("shop", "o", otel.clone())], [elsewhere.clone(), elsewhere.clone()]),
            (file.clone(), vec![("web", "o", otel.clone())], [on.clone(), on.clone()]),
            (json!({}), vec![("istio-system", "mesh", envoy.clone()), ("shop", "quiet", envoy_off)], {
                [off_by("shop", "quiet"), off_by("shop", "quiet")]
            }),
            (json!({}), vec![("istio-system", "mesh", envoy.clone()), ("shop", "quiet", off)], {
                [off_by("shop", "quiet"), off_by("shop", "quiet")]
            }),
            (json!({}), vec![("istio-system", "mesh", envoy.clone()), ("shop", "pod", pod_off)], {
                [off_by("shop", "pod"), off_by("shop", "pod")]
            }),
            (
                json!({}),
                vec![("shop", "half", client)],
                [on.clone(), Logging::Off(NotLoggedReason::OtherDirectionOnly)],
            ),
            (json!({"defaultProviders": {"accessLogging": ["envoy"]}}), vec![], [on.clone(), on.clone()]),
            // Providers of a namespace replace the providers of the mesh.
            (json!({}), vec![("istio-system", "mesh", envoy), ("shop", "o", otel)], [elsewhere.clone(), elsewhere]),
        ];
        for (mesh, telemetries, expected) in cases {
            assert_eq!(outbound_and_inbound(&settings(mesh.clone(), &telemetries)), expected, "{mesh} {telemetries:?}");
        }
    }

    #[test]
    fn collects_formats_of_the_mesh_and_of_its_providers() {
        let settings = settings(
            json!({"accessLogFormat": "%START_TIME% %RESPONSE_FLAGS%", "extensionProviders": [
                {"name": "json", "envoyFileAccessLog": {"logFormat": {"labels": {"flags": "%RESPONSE_FLAGS%"}}}},
                {"name": "bad", "envoyFileAccessLog": {"logFormat": {"text": "nothing"}}},
                {"name": "plain", "envoyFileAccessLog": {"path": "/dev/stdout"}},
            ]}),
            &[],
        );
        let (formats, invalid) = settings.custom_formats();
        assert_eq!((formats.len(), invalid.len()), (2, 1));
        assert!(invalid[0].0.contains("bad"));
        assert!(settings.writes_to_stdout("plain") && !settings.writes_to_stdout("otel"));
    }

    #[test]
    fn the_fix_changes_the_telemetry_that_disables_logging() {
        let quiet = json!({"selector": {"matchLabels": {"app": "echo"}}, "accessLogging": [{"disabled": true}]});
        let settings = settings(json!({}), &[("shop", "quiet", quiet)]);
        let text = settings.telemetry_fix("shop", &NotLoggedReason::Disabled("shop".into(), "quiet".into()));
        assert!(
            text.contains("name: quiet") && text.contains("selector: {\"matchLabels\":{\"app\":\"echo\"}}"),
            "{text}"
        );
        assert!(settings.telemetry_fix("web", &NotLoggedReason::NoFile).contains("name: access-log\n  namespace: web"));
    }
}
