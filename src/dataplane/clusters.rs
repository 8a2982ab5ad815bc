//! Clusters as they should be against those that an Envoy runs.

use std::collections::BTreeMap;

use super::Difference;
use crate::envoy::cluster::EnvoyCluster;

/// The differences between the clusters of calls that leave a proxy.
///
/// Clusters that only the Envoy has are none: istiod now and then leaves those of a Service that is gone, and no route
/// leads there. A route that does would be a difference itself.
pub fn compare(intent: &[&EnvoyCluster], live: &[EnvoyCluster]) -> Vec<Difference> {
    let mut found = Vec::new();
    let outbound = live.iter().filter(|cluster| cluster.name.starts_with("outbound|"));
    let of_live: BTreeMap<&str, &EnvoyCluster> = outbound.map(|cluster| (cluster.name.as_str(), cluster)).collect();
    for cluster in intent {
        let (name, from) = (cluster.name.as_str(), found.len());
        let host = name.splitn(4, '|').nth(3).unwrap_or_default();
        let Some(other) = of_live.get(name) else {
            let intent = "there".to_owned();
            found.push(Difference::new(format!("cluster {name}"), intent, String::new()));
            Difference::about(&mut found, from, host);
            continue;
        };
        for (setting, text) in &cluster.settings {
            let live = other.settings.get(setting).cloned().unwrap_or_default();
            Difference::note(&mut found, &format!("{} of {name}", setting.words()), text, &live, Clone::clone);
        }
        Difference::about(&mut found, from, host);
    }
    found
}
