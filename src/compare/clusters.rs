//! Clusters as they should be against those that an Envoy runs.

use std::collections::BTreeMap;

use super::Difference;
use crate::envoy::cluster::Cluster;

/// The differences between the clusters of calls that leave a proxy.
pub fn compare(intent: &[&Cluster], live: &[Cluster]) -> Vec<Difference> {
    let mut found = Vec::new();
    let outbound = live.iter().filter(|cluster| cluster.name.starts_with("outbound|"));
    let of_live: BTreeMap<&str, &Cluster> = outbound.map(|cluster| (cluster.name.as_str(), cluster)).collect();
    let of_intent: BTreeMap<&str, &Cluster> = intent.iter().map(|cluster| (cluster.name.as_str(), *cluster)).collect();
    for (name, cluster) in &of_intent {
        let Some(other) = of_live.get(name) else {
            let intent = "there".to_owned();
            found.push(Difference { what: format!("cluster {name}"), intent, live: String::new() });
            continue;
        };
        for (setting, text) in &cluster.settings {
            let live = other.settings.get(setting).cloned().unwrap_or_default();
            Difference::note(&mut found, &format!("{} of {name}", setting.words()), text, &live, Clone::clone);
        }
    }
    for name in of_live.keys().filter(|name| !of_intent.contains_key(*name)) {
        found.push(Difference { what: format!("cluster {name}"), intent: String::new(), live: "there".to_owned() });
    }
    found
}
