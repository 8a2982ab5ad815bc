//! Whether a proxy writes an access log where `tail` can read it, which setting decides that, and in which formats.
//!
//! Sources: `pilot/pkg/model/telemetry.go` (`applicableTelemetries`, `mergeLogs`) and
//! `pilot/pkg/model/telemetry_logging.go` (`telemetryAccessLog`, `FileAccessLogFromMeshConfig`) of istio/istio 1.31.

use std::collections::{BTreeMap, BTreeSet};

use super::Direction;
use super::format::{FormatError, LogFormat};
use crate::schema::mesh_config::{FileAccessLog, MeshConfig};
use crate::schema::meta::StringMap;
use crate::schema::telemetry::{AccessLogging, TelemetrySpec};

/// The provider that Istio brings along.
const BUILT_IN: &str = "envoy";
/// Where a container's log comes from.
const STDOUT: &str = "/dev/stdout";

/// The settings of a mesh.
#[derive(Debug, Clone, Default)]
pub struct LogSettings {
    /// Mesh configuration.
    pub mesh: MeshConfig,
    /// Namespace of mesh-wide objects.
    pub root: String,
    /// Telemetry objects, oldest first as istiod takes them.
    pub telemetries: Vec<TelemetryObject>,
}

/// A Telemetry.
#[derive(Debug, Clone, Default)]
pub struct TelemetryObject {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What it says.
    pub spec: TelemetrySpec,
}

/// Who is asked about.
#[derive(Debug, Clone, Copy)]
pub struct LogProxy<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Labels of the pod.
    pub labels: &'a StringMap,
}

/// What one side of a proxy does with its access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logging {
    /// It writes lines; only for calls that a filter lets through, if there is one.
    On {
        /// CEL.
        filter: Option<String>,
    },
    /// It writes none to standard output.
    Off(NotLoggedReason),
}

/// Why there is nothing to read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotLoggedReason {
    /// `meshConfig.accessLogFile` is empty, and nothing else is said.
    NoFile,
    /// `meshConfig.accessLogFile` is another file.
    OtherFile(String),
    /// A Telemetry turns it off, by namespace and name.
    Disabled(String, String),
    /// What is written goes to these providers, none of which is a container's output.
    OtherProviders(Vec<String>),
    /// Providers are named, and nothing turns them on for this side.
    NotThisSide,
}

impl LogSettings {
    /// What a proxy does for calls that it makes or gets.
    pub fn of(&self, proxy: LogProxy<'_>, direction: Direction) -> Logging {
        let telemetries = self.applicable(proxy);
        let defaults: Vec<&str> =
            self.mesh.default_providers.iter().flat_map(|one| &one.access_logging).map(String::as_str).collect();
        if telemetries.is_empty() && defaults.is_empty() {
            return match self.mesh.access_log_file.as_deref().unwrap_or_default() {
                "" => Logging::Off(NotLoggedReason::NoFile),
                STDOUT => Logging::On { filter: None },
                other => Logging::Off(NotLoggedReason::OtherFile(other.to_owned())),
            };
        }
        // Providers with their filters, and who turned off what.
        let mut on: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        let mut off = None;
        if telemetries.is_empty() {
            on.extend(defaults.iter().map(|name| (*name, None)));
        }
        let in_scope = in_scope(&telemetries, &defaults, direction);
        let mut parents = defaults;
        for telemetry in &telemetries {
            for setting in &telemetry.spec.access_logging {
                let named: Vec<&str> = setting.providers.iter().map(|one| one.name.as_str()).collect();
                let names = if named.is_empty() { parents.clone() } else { named };
                parents.clone_from(&names);
                for name in names.into_iter().filter(|name| in_scope.contains(name) && is_for(setting, direction)) {
                    if setting.disabled == Some(true) {
                        on.remove(name);
                        off = Some(telemetry);
                    } else {
                        on.insert(name, setting.filter.as_ref().map(|filter| filter.expression.as_str()));
                    }
                }
            }
        }
        let readable = on.iter().find(|(name, _)| self.writes_to_stdout(name));
        match (readable, off) {
            (Some((_, filter)), _) => Logging::On { filter: filter.map(str::to_owned) },
            (None, Some(telemetry)) if on.is_empty() => {
                Logging::Off(NotLoggedReason::Disabled(telemetry.namespace.clone(), telemetry.name.clone()))
            }
            (None, _) if on.is_empty() => Logging::Off(NotLoggedReason::NotThisSide),
            (None, _) => {
                Logging::Off(NotLoggedReason::OtherProviders(on.keys().map(|name| (*name).to_owned()).collect()))
            }
        }
    }

    /// Every custom format that a proxy of this mesh may use, and those that cannot be compiled, with where they stand.
    pub fn formats(&self) -> (Vec<LogFormat>, Vec<(String, FormatError)>) {
        let mut texts: Vec<(String, String)> = Vec::new();
        let mut add = |place: String, text: &str| {
            if !text.trim().is_empty() {
                texts.push((place, text.to_owned()));
            }
        };
        add("meshConfig.accessLogFormat".to_owned(), self.mesh.access_log_format.as_deref().unwrap_or_default());
        for provider in &self.mesh.extension_providers {
            let format = provider.envoy_file_access_log.as_ref().and_then(|file| file.log_format.as_ref());
            let place = || format!("the logFormat of provider {}", provider.name);
            if let Some(text) = format.and_then(|format| format.text.as_deref()) {
                add(place(), text);
            }
            if let Some(labels) = format.and_then(|format| format.labels.as_ref()).filter(|labels| !labels.is_empty()) {
                add(place(), &serde_json::Value::Object(labels.clone()).to_string());
            }
        }
        let mut formats = Vec::new();
        let mut refused = Vec::new();
        for (place, text) in texts {
            match LogFormat::compile(&text) {
                Ok(format) => formats.push(format),
                Err(error) => refused.push((place, error)),
            }
        }
        (formats, refused)
    }

    /// Whether some format that lines may have tells the gRPC status; Istio's default one does not.
    pub fn tells_status(&self) -> bool {
        self.formats().0.iter().any(LogFormat::tells_status)
    }

    /// The Telemetry that would make a namespace's proxies write lines: a new one, or the one that is in the way, changed.
    pub fn remedy(&self, namespace: &str, reason: &NotLoggedReason) -> String {
        let own = match reason {
            NotLoggedReason::Disabled(place, name) if place == namespace => Some(name.as_str()),
            // Two for a whole namespace are in conflict: only the older counts (IST0159).
            _ => self.telemetries.iter().find(|one| one.namespace == namespace && is_wide(one)).map(|one| &*one.name),
        };
        let selector = self
            .telemetries
            .iter()
            .find(|one| one.namespace == namespace && Some(one.name.as_str()) == own)
            .and_then(|one| one.spec.selector.as_ref())
            .map(|selector| format!("  selector: {}\n", serde_json::json!({"matchLabels": selector.match_labels})))
            .unwrap_or_default();
        let name = own.unwrap_or("access-log");
        format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n\
             {selector}  accessLogging:\n  - providers:\n    - name: {BUILT_IN}\n"
        )
    }

    /// Root namespace, namespace, workload: at most one of each, the oldest.
    fn applicable(&self, proxy: LogProxy<'_>) -> Vec<&TelemetryObject> {
        let wide = |namespace: &str| self.telemetries.iter().find(|one| one.namespace == namespace && is_wide(one));
        let root = wide(&self.root);
        let own = (proxy.namespace != self.root).then(|| wide(proxy.namespace)).flatten();
        let picks = |one: &&TelemetryObject| {
            one.namespace == proxy.namespace
                && one.spec.selector.as_ref().is_some_and(|selector| {
                    selector.match_labels.iter().all(|(key, value)| proxy.labels.get(key) == Some(value))
                })
        };
        let of_pod = self.telemetries.iter().filter(|one| !is_wide(one)).find(picks);
        let says = |one: &&TelemetryObject| !one.spec.access_logging.is_empty();
        [root, own, of_pod].into_iter().flatten().filter(says).collect()
    }

    fn writes_to_stdout(&self, provider: &str) -> bool {
        let written = self.mesh.extension_providers.iter().find(|one| one.name == provider);
        match written.and_then(|one| one.envoy_file_access_log.as_ref()) {
            Some(FileAccessLog { path, .. }) => matches!(path.as_deref(), None | Some("" | STDOUT)),
            None => provider == BUILT_IN && written.is_none(),
        }
    }
}

/// Providers of the last Telemetry that names any; what an earlier one names does not count beside them.
fn in_scope<'a>(telemetries: &[&'a TelemetryObject], defaults: &[&'a str], direction: Direction) -> BTreeSet<&'a str> {
    let mut names: BTreeSet<&str> = defaults.iter().copied().collect();
    for telemetry in telemetries {
        let settings = telemetry.spec.access_logging.iter().filter(|setting| is_for(setting, direction));
        let own: BTreeSet<&str> =
            settings.flat_map(|setting| &setting.providers).map(|provider| provider.name.as_str()).collect();
        if !own.is_empty() {
            names = own;
        }
    }
    names
}

/// Whether it is for all pods of its namespace.
fn is_wide(telemetry: &TelemetryObject) -> bool {
    let labels = telemetry.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    !labels && telemetry.spec.target_refs.is_empty()
}

fn is_for(setting: &AccessLogging, direction: Direction) -> bool {
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
            root: "istio-system".into(),
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

    fn both(settings: &LogSettings) -> [Logging; 2] {
        let labels = StringMap::from([("app".into(), "echo".into())]);
        let proxy = LogProxy { namespace: "shop", labels: &labels };
        [settings.of(proxy, Direction::Outbound), settings.of(proxy, Direction::Inbound)]
    }

    #[test]
    fn the_status_is_told_however_it_is_written() {
        for (mesh, tells) in [
            (json!({}), false),
            (json!({"accessLogFormat": "%RESPONSE_CODE% %RESPONSE_FLAGS%"}), false),
            (json!({"accessLogFormat": "%RESPONSE_CODE% %GRPC_STATUS(NUMBER)%"}), true),
            (json!({"accessLogFormat": "%RESPONSE_CODE% %RESP(GRPC-STATUS)%"}), true),
            (json!({"accessLogFormat": "{\"status\": \"%TRAILER(GRPC-STATUS)%\"}"}), true),
        ] {
            assert_eq!(settings(mesh.clone(), &[]).tells_status(), tells, "{mesh}");
        }
    }

    #[test]
    fn the_nearest_setting_decides() {
        let on = Logging::On { filter: None };
        let file = json!({"accessLogFile": "/dev/stdout"});
        let envoy = json!({"accessLogging": [{"providers": [{"name": "envoy"}]}]});
        let off = json!({"accessLogging": [{"disabled": true}]});
        let named_off = json!({"accessLogging": [{"providers": [{"name": "envoy"}], "disabled": true}]});
        let otel = json!({"accessLogging": [{"providers": [{"name": "otel"}]}]});
        let client = json!({"accessLogging": [{"match": {"mode": "CLIENT"}, "providers": [{"name": "envoy"}]}]});
        let picked = json!({"selector": {"matchLabels": {"app": "echo"}}, "accessLogging": [{"disabled": true}]});
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
            // A Telemetry for the proxy takes the mesh's file away, even one that only turns something off.
            (json!({}), vec![("istio-system", "mesh", envoy.clone())], [on.clone(), on.clone()]),
            (file.clone(), vec![("shop", "o", otel.clone())], [elsewhere.clone(), elsewhere.clone()]),
            (file.clone(), vec![("web", "o", otel.clone())], [on.clone(), on.clone()]),
            (json!({}), vec![("istio-system", "mesh", envoy.clone()), ("shop", "quiet", named_off)], {
                [off_by("shop", "quiet"), off_by("shop", "quiet")]
            }),
            (json!({}), vec![("istio-system", "mesh", envoy.clone()), ("shop", "quiet", off)], {
                [off_by("shop", "quiet"), off_by("shop", "quiet")]
            }),
            (json!({}), vec![("istio-system", "mesh", envoy.clone()), ("shop", "pod", picked)], {
                [off_by("shop", "pod"), off_by("shop", "pod")]
            }),
            (json!({}), vec![("shop", "half", client)], [on.clone(), Logging::Off(NotLoggedReason::NotThisSide)]),
            (json!({"defaultProviders": {"accessLogging": ["envoy"]}}), vec![], [on.clone(), on.clone()]),
            // What a nearer object names takes the place of what a farther one named.
            (json!({}), vec![("istio-system", "mesh", envoy), ("shop", "o", otel)], [elsewhere.clone(), elsewhere]),
        ];
        for (mesh, telemetries, wanted) in cases {
            assert_eq!(both(&settings(mesh.clone(), &telemetries)), wanted, "{mesh} {telemetries:?}");
        }
    }

    #[test]
    fn formats_come_from_the_mesh_and_from_its_providers() {
        let settings = settings(
            json!({"accessLogFormat": "%START_TIME% %RESPONSE_FLAGS%", "extensionProviders": [
                {"name": "json", "envoyFileAccessLog": {"logFormat": {"labels": {"flags": "%RESPONSE_FLAGS%"}}}},
                {"name": "bad", "envoyFileAccessLog": {"logFormat": {"text": "nothing"}}},
                {"name": "plain", "envoyFileAccessLog": {"path": "/dev/stdout"}},
            ]}),
            &[],
        );
        let (formats, refused) = settings.formats();
        assert_eq!((formats.len(), refused.len()), (2, 1));
        assert!(refused[0].0.contains("bad"));
        assert!(settings.writes_to_stdout("plain") && !settings.writes_to_stdout("otel"));
    }

    #[test]
    fn the_remedy_changes_what_is_in_the_way() {
        let quiet = json!({"selector": {"matchLabels": {"app": "echo"}}, "accessLogging": [{"disabled": true}]});
        let settings = settings(json!({}), &[("shop", "quiet", quiet)]);
        let text = settings.remedy("shop", &NotLoggedReason::Disabled("shop".into(), "quiet".into()));
        assert!(
            text.contains("name: quiet") && text.contains("selector: {\"matchLabels\":{\"app\":\"echo\"}}"),
            "{text}"
        );
        assert!(settings.remedy("web", &NotLoggedReason::NoFile).contains("name: access-log\n  namespace: web"));
    }
}
