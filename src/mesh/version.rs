//! Istio releases. The model follows the release that the source shows where behavior changed between releases.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IstioVersion {
    pub major: u16,
    pub minor: u16,
}

impl IstioVersion {
    /// The oldest release that the model supports.
    pub const OLDEST: Self = Self { major: 1, minor: 20 };
    /// The newest release that the model supports.
    pub const NEWEST: Self = Self { major: 1, minor: 31 };

    /// Whether the model knows the behavior of the release.
    pub fn is_supported(self) -> bool {
        (Self::OLDEST..=Self::NEWEST).contains(&self)
    }

    /// Parses `1.27`, `1.27.3`, `v1.27` or `1.27.3-distroless`. Any other text, and any major version but 1, is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (major, rest) = text.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let version = Self { major: major.parse().ok()?, minor: rest.get(..end)?.parse().ok()? };
        (version.major == 1).then_some(version)
    }

    /// The version in the tag of an image reference such as `docker.io/istio/proxyv2:1.31.0`. A digest contains none.
    pub fn from_image(image: &str) -> Option<Self> {
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

/// How the Istio version was determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionSource {
    /// `--istio-version` sets it.
    Flag,
    /// Tag of istiod's image.
    Istiod,
    /// Newest tag of a proxy image.
    Proxy,
    /// The source shows no version, so [`IstioVersion::NEWEST`] is assumed.
    Assumed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_from_an_image_tag() {
        let version = |minor| Some(IstioVersion { major: 1, minor });
        assert_eq!(IstioVersion::from_image("docker.io/istio/proxyv2:1.27.3-distroless"), version(27));
        assert_eq!(IstioVersion::from_image("registry:5000/proxyv2:1.31.0@sha256:aa"), version(31));
        assert_eq!(IstioVersion::from_image("registry:5000/proxyv2@sha256:aa"), None);
        assert_eq!(IstioVersion::from_image("proxyv2:latest"), None);
        assert_eq!(IstioVersion::parse("v1.20"), version(20));
    }
}
