//! Istio versions: behaviour that changed between releases follows the version that was found.

use std::fmt;

/// A minor release of Istio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IstioVersion {
    /// Major number, 1.
    pub major: u16,
    /// Minor number.
    pub minor: u16,
}

impl IstioVersion {
    /// The newest release whose behaviour is known here.
    pub const NEWEST: Self = Self { major: 1, minor: 31 };

    /// Parses `1.27`, `1.27.3`, `v1.27`, `1.27.3-distroless`; anything that does not begin like that is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (major, rest) = text.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let version = Self { major: major.parse().ok()?, minor: rest[..end].parse().ok()? };
        (version.major == 1).then_some(version)
    }

    /// The version in an image reference's tag, such as `docker.io/istio/proxyv2:1.31.0`. Digests have none.
    pub fn of_image(image: &str) -> Option<Self> {
        let image = image.split('@').next()?;
        let (_, tag) = image.rsplit_once(':')?;
        Self::parse(tag)
    }
}

impl fmt::Display for IstioVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Where the version in use came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionSource {
    /// `--istio-version`.
    Given,
    /// istiod's image.
    Istiod,
    /// A proxy's image.
    Proxy,
    /// Nobody said: the newest known.
    Assumed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_tags() {
        let version = |minor| Some(IstioVersion { major: 1, minor });
        assert_eq!(IstioVersion::of_image("docker.io/istio/proxyv2:1.27.3-distroless"), version(27));
        assert_eq!(IstioVersion::of_image("registry:5000/proxyv2:1.31.0@sha256:aa"), version(31));
        assert_eq!(IstioVersion::of_image("registry:5000/proxyv2@sha256:aa"), None);
        assert_eq!(IstioVersion::of_image("proxyv2:latest"), None);
        assert_eq!(IstioVersion::parse("v1.20"), version(20));
    }
}
