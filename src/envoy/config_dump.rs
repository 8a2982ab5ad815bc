//! The observed configuration of one Envoy for outgoing calls, and the admin paths that return it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::cluster::EnvoyCluster;
use super::endpoint::EndpointAssignment;
use super::route::EnvoyRouteTable;
use super::{cluster, elements, endpoint, route};

/// The configuration that an Envoy runs, as far as it affects outgoing calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningConfig {
    /// Route tables of all dynamic listeners.
    pub routes: Vec<EnvoyRouteTable>,
    /// Active outbound clusters.
    pub clusters: Vec<EnvoyCluster>,
    /// Endpoints of the outbound clusters.
    pub endpoints: Vec<EndpointAssignment>,
    /// Resources that Envoy rejected: name and error message.
    pub rejected: Vec<(String, String)>,
    /// Names of the secrets that it holds, never their contents; absent if they were not requested.
    #[serde(default)]
    pub secrets: Option<BTreeSet<String>>,
}

/// Paths of the admin port, in the order of the responses that [`RunningConfig::parse`] expects.
///
/// Filters and masks keep everything else in the proxy. Rejected resources are masked except for their error: they may
/// contain types that Envoy cannot print, and then the whole request fails.
pub const CONFIG_DUMP_PATHS: [&str; 6] = [
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

/// Index of the response that lists secrets.
const SECRETS_RESPONSE_INDEX: usize = 5;
/// Indexes of the responses that contain error states.
const ERROR_STATE_RESPONSE_INDEXES: [usize; 4] = [0, 1, 3, 4];

#[derive(Deserialize)]
struct DumpedResource {
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
    /// Parses the bodies of [`CONFIG_DUMP_PATHS`]. `None` is an empty response; later ones may be missing.
    ///
    /// # Errors
    /// When a response is not a config dump in JSON.
    pub fn parse(responses: &[Option<Vec<u8>>]) -> Result<Self, String> {
        let response = |index: usize| responses.get(index).and_then(Option::as_deref).unwrap_or(b"{}");
        let decode_error = |error: serde_json::Error| format!("cannot decode the response of its admin port: {error}");
        let mut running = Self {
            routes: elements::<route::RawRouteElement>(response(0))
                .map_err(decode_error)?
                .into_iter()
                .filter_map(route::RawRouteElement::table)
                .collect(),
            clusters: elements::<cluster::RawClusterElement>(response(1))
                .map_err(decode_error)?
                .into_iter()
                .filter_map(cluster::RawClusterElement::cluster)
                .collect(),
            endpoints: elements::<endpoint::RawEndpointElement>(response(2))
                .map_err(decode_error)?
                .into_iter()
                .filter_map(endpoint::RawEndpointElement::assignment)
                .collect(),
            rejected: Vec::new(),
            secrets: None,
        };
        if responses.len() > SECRETS_RESPONSE_INDEX {
            let secrets = elements::<Named>(response(SECRETS_RESPONSE_INDEX)).map_err(decode_error)?;
            running.secrets = Some(secrets.into_iter().filter_map(|secret| secret.name).collect());
        }
        for index in ERROR_STATE_RESPONSE_INDEXES {
            for resource in elements::<DumpedResource>(response(index)).map_err(decode_error)? {
                let Some(ErrorState { details }) = resource.error_state.filter(|state| !state.details.is_empty())
                else {
                    continue;
                };
                let inner = resource.route_config.or(resource.cluster).and_then(|named| named.name);
                running.rejected.push((resource.name.or(inner).unwrap_or_default(), details));
            }
        }
        Ok(running)
    }
}
