//! Deserializers for proto JSON values that have several representations.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// An integer: a number or, for 64-bit fields, a string. Anything else is 0.
pub(super) fn deserialize_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Integer {
        Number(u64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Integer::deserialize(deserializer)? {
        Integer::Number(number) => number,
        Integer::Text(text) => text.parse().unwrap_or(0),
        Integer::Other(_) => 0,
    })
}

/// An address in the form `{socket_address: {address, port_value}}`.
#[derive(Deserialize)]
pub(super) struct SocketAddress {
    socket_address: Option<Socket>,
}

#[derive(Deserialize)]
struct Socket {
    #[serde(default)]
    address: String,
    port_value: Option<u16>,
}

impl SocketAddress {
    /// Formats `10.0.0.1:50051` or `[::1]:50051`; `None` for a pipe and other addresses without a port.
    pub(super) fn to_address(&self) -> Option<String> {
        let Socket { address, port_value } = self.socket_address.as_ref()?;
        Some(super::endpoint::socket_address(address, port_value.unwrap_or(0)))
    }
}

/// A duration such as `1.500s`; zero if absent or invalid.
pub(super) fn parse_duration(text: Option<&str>) -> Duration {
    text.and_then(|text| crate::vocabulary::duration::parse(text).ok()).unwrap_or_default()
}
