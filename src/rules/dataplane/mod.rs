//! Rules GM7xx: pods, proxies and what they run.

pub(super) mod ambient_without_waypoint;
pub(super) mod calls_pinned;
pub(super) mod endpoints_differ;
pub(super) mod envoy_filter_in_path;
pub(super) mod live_differs_from_intent;
pub(super) mod no_ready_pods;
pub(super) mod pod_without_proxy;
pub(super) mod proxy_rejected_config;
pub(super) mod proxy_stale;
pub(super) mod proxyless_grpc;
pub(super) mod sidecar_hides_host;
pub(super) mod sidecars_conflict;
pub(super) mod traffic_around_proxy;
pub(super) mod waypoint_not_attached;
