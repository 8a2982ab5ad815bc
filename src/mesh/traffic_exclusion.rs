//! Traffic exclusion: pod annotations that send ports or address ranges around the proxy.

use std::net::IpAddr;
use std::sync::Arc;

use super::ids::Interner;
use crate::schema::meta::StringMap;

/// A `traffic.sidecar.istio.io/*` annotation that excludes traffic from the proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrafficExclusion {
    /// Key of the annotation.
    pub annotation: Arc<str>,
    pub value: Arc<str>,
    pub effect: ExclusionEffect,
}

/// Traffic that an annotation excludes from the proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExclusionEffect {
    /// Calls to these pod ports.
    Inbound(PortSet),
    /// Calls from the pod to these ports.
    Outbound(PortSet),
    /// Calls from the pod to these address ranges.
    Addresses(Vec<IpRange>),
    /// Calls from the pod to any address outside these ranges.
    OnlyAddresses(Vec<IpRange>),
}

/// An IP address range in CIDR notation, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpRange {
    address: IpAddr,
    bits: u8,
}

impl IpRange {
    /// Parses `ADDRESS/BITS`, or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.trim().split_once('/').unwrap_or((text.trim(), ""));
        let address: IpAddr = address.parse().ok()?;
        let max_bits = if address.is_ipv4() { 32 } else { 128 };
        let bits = if bits.is_empty() { max_bits } else { bits.parse().ok().filter(|bits| *bits <= max_bits)? };
        Some(Self { address, bits })
    }

    pub fn contains(self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSet {
    Only(Vec<u16>),
    AllExcept(Vec<u16>),
}

impl PortSet {
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::Only(ports) => ports.contains(&port),
            Self::AllExcept(ports) => !ports.contains(&port),
        }
    }
}

/// The annotations that exclude traffic from the proxy.
/// Source: `traffic.sidecar.istio.io/*` in `annotation/annotations.yaml` of istio/api.
pub(super) fn exclusions(annotations: &StringMap, names: &mut Interner) -> Vec<TrafficExclusion> {
    const PREFIX: &str = "traffic.sidecar.istio.io/";
    let mut exclusions = Vec::new();
    for (key, value) in annotations.range(PREFIX.to_owned()..) {
        let Some(name) = key.strip_prefix(PREFIX) else { break };
        let ports = || -> Vec<u16> { value.split(',').filter_map(|port| port.trim().parse::<u16>().ok()).collect() };
        let ranges = || -> Vec<IpRange> { value.split(',').filter_map(IpRange::parse).collect() };
        let effect = match name {
            "excludeInboundPorts" => ExclusionEffect::Inbound(PortSet::Only(ports())),
            "includeInboundPorts" if value.trim() == "*" => continue,
            "includeInboundPorts" => ExclusionEffect::Inbound(PortSet::AllExcept(ports())),
            "excludeOutboundPorts" => ExclusionEffect::Outbound(PortSet::Only(ports())),
            "excludeOutboundIPRanges" if !value.trim().is_empty() => ExclusionEffect::Addresses(ranges()),
            "includeOutboundIPRanges" if value.trim() != "*" => ExclusionEffect::OnlyAddresses(ranges()),
            _ => continue,
        };
        exclusions.push(TrafficExclusion { annotation: names.intern(key), value: names.intern(value), effect });
    }
    exclusions
}
