//! Decides whether a server is reached through an HTTP proxy.
//!
//! The client library compares `NO_PROXY` with the proxy's own address instead of the server's, so this module decides
//! like Go programs do. Source: `golang.org/x/net/http/httpproxy`.

use std::net::IpAddr;

use http::Uri;

use super::client::without_credentials;
use crate::mesh::traffic_exclusion::IpRange;

/// The proxy variables of the environment. Empty values count as absent.
#[derive(Debug, Clone, Default)]
pub struct HttpProxyEnvironment {
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl HttpProxyEnvironment {
    /// Returns the proxy for a server. The kubeconfig's `proxy-url` takes precedence over the environment.
    ///
    /// # Errors
    /// The proxy URL is invalid.
    pub fn proxy_for(&self, server: &Uri, proxy_url: Option<&str>) -> Result<Option<Uri>, String> {
        let parse = |text: &str| {
            let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
            full.parse::<Uri>()
                .map(Some)
                .map_err(|error| format!("invalid proxy URL \"{}\": {error}", without_credentials(text)))
        };
        if let Some(proxy_url) = proxy_url.filter(|url| !url.is_empty()) {
            return parse(proxy_url);
        }
        let variable = if server.scheme_str() == Some("http") { &self.http } else { &self.https };
        let Some(proxy) = variable.as_deref().filter(|proxy| !proxy.is_empty()) else { return Ok(None) };
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
        if bypasses(host, port, self.no_proxy.as_deref().unwrap_or_default()) { Ok(None) } else { parse(proxy) }
    }
}

/// Reports whether `NO_PROXY` or a loopback address excludes the host from the proxy.
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
        let (name, entry_port) = match entry.rsplit_once(':') {
            Some((name, number)) if !name.contains(':') => (name.to_owned(), number.parse::<u16>().ok()),
            _ => (entry.clone(), None),
        };
        if entry_port.is_some_and(|entry_port| entry_port != port) {
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
        let environment = HttpProxyEnvironment {
            https: Some("http://proxy.example:3128".to_owned()),
            http: None,
            no_proxy: Some(no_proxy.to_owned()),
        };
        environment.proxy_for(&server.parse().unwrap(), None).unwrap().map(|uri| uri.to_string())
    }

    #[test]
    fn compares_no_proxy_with_the_server() {
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
    fn proxy_url_of_the_kubeconfig_takes_precedence() {
        let environment = HttpProxyEnvironment { no_proxy: Some("*".to_owned()), ..HttpProxyEnvironment::default() };
        let server = "https://api.example".parse().unwrap();
        let proxy = environment.proxy_for(&server, Some("socks5://p:1080")).unwrap();
        assert_eq!(proxy.unwrap().to_string(), "socks5://p:1080/");
    }
}
