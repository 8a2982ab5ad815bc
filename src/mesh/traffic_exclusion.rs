//! Traffic that goes round a pod's proxy: annotations for ports and for ranges of addresses.

use std::net::IpAddr;
use std::sync::Arc;

use super::ids::Interner;
use crate::schema::meta::StringMap;

/// An annotation that leads traffic round the proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrafficExclusion {
    /// The annotation.
    pub annotation: Arc<str>,
    /// Its value.
    pub value: Arc<str>,
    /// What it does to a port.
    pub effect: ExclusionEffect,
}

/// What an exclusion annotation says about ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExclusionEffect {
    /// Calls that arrive on these ports go round the proxy.
    Inbound(PortSet),
    /// Calls that leave to these ports go round the proxy.
    Outbound(PortSet),
    /// Calls that leave to these address ranges go round the proxy.
    Addresses(Vec<IpRange>),
    /// Only calls that leave to these address ranges go through the proxy.
    OnlyAddresses(Vec<IpRange>),
}

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpRange {
    address: IpAddr,
    bits: u8,
}

impl IpRange {
    /// Parses `address/bits`, or an address alone.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.trim().split_once('/').unwrap_or((text.trim(), ""));
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = if bits.is_empty() { all } else { bits.parse().ok().filter(|bits| *bits <= all)? };
        Some(Self { address, bits })
    }

    /// Whether an address is in the range.
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

/// A set of ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSet {
    /// These.
    These(Vec<u16>),
    /// All but these.
    AllBut(Vec<u16>),
}

impl PortSet {
    /// Whether a port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::These(ports) => ports.contains(&port),
            Self::AllBut(ports) => !ports.contains(&port),
        }
    }
}

/// The annotations that lead traffic round the proxy.
/// Source: `traffic.sidecar.istio.io/*` in `annotation/annotations.yaml` of istio/api.
pub(super) fn exclusions(annotations: &StringMap, names: &mut Interner) -> Vec<TrafficExclusion> {
    const PREFIX: &str = "traffic.sidecar.istio.io/";
    let mut found = Vec::new();
    for (key, value) in annotations.range(PREFIX.to_owned()..) {
        let Some(name) = key.strip_prefix(PREFIX) else { break };
        let ports = || -> Vec<u16> { value.split(',').filter_map(|port| port.trim().parse::<u16>().ok()).collect() };
        let ranges = || -> Vec<IpRange> { value.split(',').filter_map(IpRange::parse).collect() };
        let effect = match name {
            "excludeInboundPorts" => ExclusionEffect::Inbound(PortSet::These(ports())),
            "includeInboundPorts" if value.trim() == "*" => continue,
            "includeInboundPorts" => ExclusionEffect::Inbound(PortSet::AllBut(ports())),
            "excludeOutboundPorts" => ExclusionEffect::Outbound(PortSet::These(ports())),
            "excludeOutboundIPRanges" if !value.trim().is_empty() => ExclusionEffect::Addresses(ranges()),
            "includeOutboundIPRanges" if value.trim() != "*" => ExclusionEffect::OnlyAddresses(ranges()),
            _ => continue,
        };
        found.push(TrafficExclusion { annotation: names.intern(key), value: names.intern(value), effect });
    }
    found
}
