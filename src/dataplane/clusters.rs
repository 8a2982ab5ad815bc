//! Compares compiled with observed clusters.

use std::collections::BTreeMap;

use super::Difference;
use crate::envoy::cluster::EnvoyCluster;

/// Returns the differences between the outbound clusters of a proxy.
///
/// Clusters that only the Envoy has are ignored: istiod sometimes keeps those of a deleted Service, and no route leads
/// to them. A route that does is a difference itself.
pub fn compare(desired: &[&EnvoyCluster], live: &[EnvoyCluster]) -> Vec<Difference> {
    let mut differences = Vec::new();
    let outbound = live.iter().filter(|cluster| cluster.name.starts_with("outbound|"));
    let live_by_name: BTreeMap<&str, &EnvoyCluster> =
        outbound.map(|cluster| (cluster.name.as_str(), cluster)).collect();
    for cluster in desired {
        let (name, start) = (cluster.name.as_str(), differences.len());
        let host = name.splitn(4, '|').nth(3).unwrap_or_default();
        if let Some(live_cluster) = live_by_name.get(name) {
            for (setting, text) in &cluster.settings {
                let live = live_cluster.settings.get(setting).cloned().unwrap_or_default();
                let what = format!("{} of {name}", setting.label());
                Difference::push_if_different(&mut differences, &what, text, &live, Clone::clone);
            }
        } else {
            differences.push(Difference::new(format!("cluster {name}"), "present".to_owned(), String::new()));
        }
        Difference::set_host(&mut differences, start, host);
    }
    differences
}
