//! What one Envoy runs, as far as calls that leave it are concerned, and how it is asked for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::cluster::EnvoyCluster;
use super::endpoint::EndpointAssignment;
use super::route::EnvoyRouteTable;
use super::{cluster, elements, endpoint, route};

/// What an Envoy runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningConfig {
    /// Its route tables.
    pub routes: Vec<EnvoyRouteTable>,
    /// Its clusters.
    pub clusters: Vec<EnvoyCluster>,
    /// Their endpoints.
    pub endpoints: Vec<EndpointAssignment>,
    /// What it refused: a name, and Envoy's words.
    pub refused: Vec<(String, String)>,
    /// Names of the secrets that it has, never more than names; absent when it was not asked for them.
    #[serde(default)]
    pub secrets: Option<BTreeSet<String>>,
}

/// The questions to an admin port, in the order in which [`Running::read`] takes the answers. Filters and masks keep
/// everything else in the proxy; what Envoy refused is left out too, since it may hold types that it cannot print, and
/// then there would be no answer at all.
pub const QUESTIONS: [&str; 6] = [
    "/config_dump?resource=dynamic_route_configs&mask=route_config.name,route_config.virtual_hosts,error_state.details",
    concat!(
        "/config_dump?resource=dynamic_active_clusters&name_regex=outbound.*&mask=error_state.details,cluster.name,",
        "cluster.type,cluster.lb_policy,cluster.connect_timeout,cluster.circuit_breakers,cluster.outlier_detection,",
        "cluster.transport_socket.name,cluster.transport_socket_matches,cluster.typed_extension_protocol_options"
    ),
    "/config_dump?include_eds&resource=dynamic_endpoint_configs&name_regex=outbound.*&mask=endpoint_config.cluster_name,endpoint_config.endpoints",
    "/config_dump?resource=dynamic_listeners&mask=name,error_state.details",
    "/config_dump?resource=dynamic_warming_clusters&mask=cluster.name,error_state.details",
    "/config_dump?resource=dynamic_active_secrets&mask=name",
];

/// Place of the answer about secrets.
const SECRETS: usize = 5;

#[derive(Deserialize)]
struct Refusable {
    name: Option<String>,
    route_config: Option<Named>,
    cluster: Option<Named>,
    error_state: Option<ErrorState>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Deserialize)]
struct ErrorState {
    #[serde(default)]
    details: String,
}

impl RunningConfig {
    /// Puts the answers together; `None` stands for "there is none of that".
    ///
    /// # Errors
    /// Which answer is not in Envoy's form.
    pub fn read(answers: &[Option<Vec<u8>>]) -> Result<Self, String> {
        let answer = |at: usize| answers.get(at).and_then(Option::as_deref).unwrap_or(b"{}");
        let wrong = |error: serde_json::Error| format!("the answer of its admin port cannot be read: {error}");
        let mut running = Self {
            routes: elements::<route::RawRouteElement>(answer(0))
                .map_err(wrong)?
                .into_iter()
                .filter_map(route::RawRouteElement::table)
                .collect(),
            clusters: elements::<cluster::RawClusterElement>(answer(1))
                .map_err(wrong)?
                .into_iter()
                .filter_map(cluster::RawClusterElement::cluster)
                .collect(),
            endpoints: elements::<endpoint::RawEndpointElement>(answer(2))
                .map_err(wrong)?
                .into_iter()
                .filter_map(endpoint::RawEndpointElement::assignment)
                .collect(),
            refused: Vec::new(),
            secrets: None,
        };
        if answers.len() > SECRETS {
            let named = elements::<Named>(answer(SECRETS)).map_err(wrong)?;
            running.secrets = Some(named.into_iter().filter_map(|one| one.name).collect());
        }
        for at in [0, 1, 3, 4] {
            for one in elements::<Refusable>(answer(at)).map_err(wrong)? {
                let Some(ErrorState { details }) = one.error_state.filter(|state| !state.details.is_empty()) else {
                    continue;
                };
                let inner = one.route_config.or(one.cluster).and_then(|named| named.name);
                running.refused.push((one.name.or(inner).unwrap_or_default(), details));
            }
        }
        Ok(running)
    }
}
