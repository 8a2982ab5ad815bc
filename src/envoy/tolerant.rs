//! Values of proto JSON that come in several forms.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A whole number, written as a number or, from 64 bits on, as text.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Number(number) => number,
        Either::Text(text) => text.parse().unwrap_or(0),
        Either::Other(_) => 0,
    })
}

/// An address, as Envoy writes it: `{socket_address: {address, port_value}}`.
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
    /// `10.0.0.1:50051`, `[::1]:50051`; `None` for what is no IP address and port, such as a pipe.
    pub(super) fn show(&self) -> Option<String> {
        let Socket { address, port_value } = self.socket_address.as_ref()?;
        Some(super::endpoint::show(address, port_value.unwrap_or(0)))
    }
}

/// `1.500s`; nothing, and what is no duration, is zero.
pub(super) fn duration(text: Option<&str>) -> Duration {
    text.and_then(|text| crate::vocabulary::duration::parse(text).ok()).unwrap_or_default()
}
