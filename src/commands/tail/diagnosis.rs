//! Why there may be nothing to tail, and what would change it.

use std::collections::{BTreeMap, BTreeSet};

use crate::accesslog::Direction;
use crate::accesslog::settings::{LogProxy, LogSettings, Logging, NotLoggedReason};
use crate::cluster::logs::ProxyPod;

/// What the settings say of the pods that are read.
pub(super) struct LoggingDiagnosis {
    /// Said at once, when pods write nothing at all.
    pub(super) silent: Option<String>,
    /// Said at the end, when no line came.
    pub(super) if_nothing_comes: String,
}

/// Looks at each pod's settings.
pub(super) fn of(settings: &LogSettings, pods: &[ProxyPod]) -> LoggingDiagnosis {
    let mut silent: BTreeMap<(&str, NotLoggedReason), BTreeSet<&str>> = BTreeMap::new();
    let mut one_sided: BTreeSet<String> = BTreeSet::new();
    let mut filters: BTreeSet<String> = BTreeSet::new();
    for pod in pods {
        let proxy = LogProxy { namespace: &pod.namespace, labels: &pod.labels };
        let sides = [Direction::Outbound, Direction::Inbound].map(|direction| settings.of(proxy, direction));
        if let [Logging::Off(reason), Logging::Off(_)] = &sides {
            silent.entry((&pod.namespace, reason.clone())).or_default().insert(&pod.name);
            continue;
        }
        for (side, name) in sides.iter().zip(["make", "get"]) {
            match side {
                Logging::Off(reason) => {
                    one_sided.insert(format!(
                        "calls that pods of {} {name} are not logged: {}",
                        pod.namespace,
                        why(reason)
                    ));
                }
                Logging::On { filter: Some(filter) } => {
                    filters
                        .insert(format!("calls that pods of {} {name} are logged only where {filter}", pod.namespace));
                }
                Logging::On { filter: None } => {}
            }
        }
    }
    let silent = (!silent.is_empty()).then(|| {
        let mut text = String::new();
        for ((namespace, reason), names) in &silent {
            let who = match names.len() {
                1 => names.first().copied().unwrap_or_default().to_owned(),
                count => format!("{count} pods"),
            };
            text.push_str(&format!("{who} in {namespace} write no access log: {}. ", why(reason)));
            text.push_str(&format!(
                "This turns it on, with kubectl apply -f -:\n{}",
                settings.remedy(namespace, reason)
            ));
        }
        text.trim_end().to_owned()
    });
    let notes: Vec<String> = one_sided.into_iter().chain(filters).collect();
    let if_nothing_comes = if notes.is_empty() {
        "access logging is on for these pods: perhaps nobody called. A stream is logged when it ends".to_owned()
    } else {
        notes.join("; ")
    };
    LoggingDiagnosis { silent, if_nothing_comes }
}

fn why(reason: &NotLoggedReason) -> String {
    match reason {
        NotLoggedReason::NoFile => "no Telemetry names a provider, and meshConfig.accessLogFile is empty".to_owned(),
        NotLoggedReason::OtherFile(path) => format!("meshConfig.accessLogFile is {path}, not /dev/stdout"),
        NotLoggedReason::Disabled(namespace, name) => format!("Telemetry {namespace}/{name} disables it"),
        NotLoggedReason::OtherProviders(names) => {
            format!("it goes to {} and not to the container's output", names.join(" and "))
        }
        NotLoggedReason::NotThisSide => "the Telemetry that applies is for the other side of calls".to_owned(),
    }
}
