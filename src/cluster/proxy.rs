//! Whether the API server is reached through a proxy.
//!
//! The client library compares `NO_PROXY` with the proxy's own address, so the decision is made here, as Go's
//! programs make it. Source: `golang.org/x/net/http/httpproxy`.

use std::net::IpAddr;

use http::Uri;

use crate::mesh::traffic_exclusion::IpRange;

/// What the environment says about proxies. Empty texts count as absent.
#[derive(Debug, Clone, Default)]
pub struct ProxyEnvironment {
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl ProxyEnvironment {
    /// The proxy for a server, if any. `own` is the kubeconfig's `proxy-url`, which nothing overrules.
    ///
    /// # Errors
    /// The text that is not an address.
    pub fn proxy_for(&self, server: &Uri, own: Option<&str>) -> Result<Option<Uri>, String> {
        let parse = |text: &str| {
            let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
            full.parse::<Uri>().map(Some).map_err(|error| format!("\"{text}\" is not the address of a proxy: {error}"))
        };
        if let Some(own) = own.filter(|own| !own.is_empty()) {
            return parse(own);
        }
        let wanted = if server.scheme_str() == Some("http") { &self.http } else { &self.https };
        let Some(proxy) = wanted.as_deref().filter(|proxy| !proxy.is_empty()) else { return Ok(None) };
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
        if bypasses(host, port, self.no_proxy.as_deref().unwrap_or_default()) { Ok(None) } else { parse(proxy) }
    }
}

/// Whether a host is reached without the proxy.
fn bypasses(host: &str, port: u16, no_proxy: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let Some(address) = address
            && let Some(range) = IpRange::parse(&entry)
        {
            return range.contains(address);
        }
        let (name, wanted_port) = match entry.rsplit_once(':') {
            Some((name, number)) if !name.contains(':') => (name.to_owned(), number.parse::<u16>().ok()),
            _ => (entry.clone(), None),
        };
        if wanted_port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let name = name.strip_prefix("*.").map_or(name.clone(), |rest| format!(".{rest}"));
        match name.strip_prefix('.') {
            Some(_) => host.ends_with(&name),
            None => host == name || host.ends_with(&format!(".{name}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, no_proxy: &str) -> Option<String> {
        let environment = ProxyEnvironment {
            https: Some("http://proxy.example:3128".to_owned()),
            http: None,
            no_proxy: Some(no_proxy.to_owned()),
        };
        environment.proxy_for(&server.parse().unwrap(), None).unwrap().map(|uri| uri.to_string())
    }

    #[test]
    fn no_proxy_is_compared_with_the_server() {
        for (server, no_proxy) in [
            ("https://api.example:6443", "api.example"),
            ("https://api.example:6443", "other, api.example:6443,"),
            ("https://api.example:6443", ".example"),
            ("https://api.example:6443", "example"),
            ("https://api.example:6443", "*"),
            ("https://10.1.2.3:6443", "10.0.0.0/8"),
            ("https://10.1.2.3:6443", "10.1.2.3"),
            ("https://localhost:6443", ""),
            ("https://127.0.0.1:6443", ""),
        ] {
            assert_eq!(proxy(server, no_proxy), None, "{server} {no_proxy}");
        }
        for (server, no_proxy) in [
            ("https://api.example:6443", "proxy.example"),
            ("https://api.example:6443", "api.example:443"),
            ("https://myapi.example:6443", "api.example"),
            ("https://10.1.2.3:6443", "192.168.0.0/16,,"),
        ] {
            assert_eq!(proxy(server, no_proxy).as_deref(), Some("http://proxy.example:3128/"), "{server} {no_proxy}");
        }
    }

    #[test]
    fn the_kubeconfigs_own_proxy_is_kept() {
        let environment = ProxyEnvironment { no_proxy: Some("*".to_owned()), ..ProxyEnvironment::default() };
        let server = "https://api.example".parse().unwrap();
        let own = environment.proxy_for(&server, Some("socks5://p:1080")).unwrap();
        assert_eq!(own.unwrap().to_string(), "socks5://p:1080/");
    }
}
