//! Checks which pods write no access log, and prints the Telemetry object that enables it.

use std::collections::{BTreeMap, BTreeSet};

use crate::accesslog::Direction;
use crate::accesslog::settings::{LogProxy, LogSettings, Logging, NotLoggedReason};
use crate::cluster::logs::ProxyPod;

/// Access logging of the selected pods.
pub(super) struct LoggingCheck {
    /// Warning about pods that log in neither direction.
    pub(super) disabled_warning: Option<String>,
    /// Hint for a run that reads no access log line.
    pub(super) no_lines_hint: String,
}

pub(super) fn check_logging(settings: &LogSettings, pods: &[ProxyPod]) -> LoggingCheck {
    let mut disabled: BTreeMap<(&str, NotLoggedReason), BTreeSet<&str>> = BTreeMap::new();
    let mut one_direction_disabled: BTreeSet<String> = BTreeSet::new();
    let mut filters: BTreeSet<String> = BTreeSet::new();
    for pod in pods {
        let proxy = LogProxy { namespace: &pod.namespace, labels: &pod.labels };
        let directions = [Direction::Outbound, Direction::Inbound].map(|direction| settings.logging(proxy, direction));
        if let [Logging::Off(reason), Logging::Off(_)] = &directions {
            disabled.entry((&pod.namespace, reason.clone())).or_default().insert(&pod.name);
            continue;
        }
        for (logging, calls) in directions.iter().zip(["outbound calls", "inbound calls"]) {
            let namespace = &pod.namespace;
            match logging {
                Logging::Off(reason) => {
                    let reason = describe(reason);
                    one_direction_disabled.insert(format!("{calls} of pods in {namespace} are not logged: {reason}"));
                }
                Logging::On { filter: Some(filter) } => {
                    filters.insert(format!("{calls} of pods in {namespace} are logged only if {filter}"));
                }
                Logging::On { filter: None } => {}
            }
        }
    }
    let disabled_warning = (!disabled.is_empty()).then(|| {
        let mut text = String::new();
        for ((namespace, reason), names) in &disabled {
            let pods = match names.len() {
                1 => format!("pod {} in {namespace} writes", names.first().copied().unwrap_or_default()),
                count => format!("{count} pods in {namespace} write"),
            };
            text.push_str(&format!("{pods} no access log: {}. ", describe(reason)));
            text.push_str(&format!(
                "To enable it, pass this object to kubectl apply -f -:\n{}",
                settings.telemetry_fix(namespace, reason)
            ));
        }
        text.trim_end().to_owned()
    });
    let notes: Vec<String> = one_direction_disabled.into_iter().chain(filters).collect();
    let no_lines_hint = if notes.is_empty() {
        "access logging is enabled for these pods: either there were no calls, or their streams are still open"
            .to_owned()
    } else {
        notes.join("; ")
    };
    LoggingCheck { disabled_warning, no_lines_hint }
}

fn describe(reason: &NotLoggedReason) -> String {
    match reason {
        NotLoggedReason::NoFile => "no Telemetry names a provider, and meshConfig.accessLogFile is empty".to_owned(),
        NotLoggedReason::OtherFile(path) => format!("meshConfig.accessLogFile is {path}, not /dev/stdout"),
        NotLoggedReason::Disabled(namespace, name) => format!("Telemetry {namespace}/{name} disables it"),
        NotLoggedReason::OtherProviders(names) => {
            format!("the access log goes to {}, not to the stdout of the container", names.join(" and "))
        }
        NotLoggedReason::OtherDirectionOnly => "the Telemetry that applies covers only the other direction".to_owned(),
    }
}
