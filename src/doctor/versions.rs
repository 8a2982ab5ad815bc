//! How far the parts of a mesh may lie apart.
//!
//! Source: istio.io, "Supported releases": a control plane supports data planes of its own and of the two minor releases
//! before; a data plane is never newer than its control plane.

use std::collections::BTreeMap;

use super::{Check, State};
use crate::mesh::version::IstioVersion;

/// Releases that a proxy may lie behind.
const BEHIND: u16 = 2;

/// The proxies against istiod.
pub fn proxies(istiod: Option<IstioVersion>, proxies: &BTreeMap<IstioVersion, u32>) -> Check {
    let id = "proxies/version";
    let shown = proxies.iter().map(|(version, count)| format!("{version} ({count})")).collect::<Vec<_>>().join(", ");
    if proxies.is_empty() {
        return Check::new(id, State::Warning, "no pod here has a proxy whose version is known")
            .fix("kubectl label namespace NAMESPACE istio-injection=enabled, then restart its workloads");
    }
    let Some(istiod) = istiod else {
        return Check::new(id, State::Unknown, format!("proxies of {shown}; istiod's version is not known"));
    };
    let is_newer = |version: &&IstioVersion| **version > istiod;
    let is_too_old = |version: &&IstioVersion| version.minor + BEHIND < istiod.minor;
    let restart = "kubectl rollout restart deployment -n NAMESPACE";
    if let Some(newer) = proxies.keys().find(is_newer) {
        return Check::new(id, State::Warning, format!("proxies of {shown}: {newer} is newer than istiod {istiod}"))
            .fix(format!("upgrade istiod first, or go back with the proxies: {restart}"));
    }
    if let Some(old) = proxies.keys().find(is_too_old) {
        let why =
            format!("proxies of {shown}: istiod {istiod} supports {BEHIND} releases before it, and {old} is older");
        return Check::new(id, State::Warning, why).fix(restart);
    }
    Check::new(id, State::Ok, format!("proxies of {shown} beside istiod {istiod}"))
}

/// istiod against what this program knows.
pub fn istiod(version: Option<IstioVersion>) -> Check {
    let id = "istio/version";
    match version {
        None => Check::new(id, State::Warning, "no istiod was found: its version is not known")
            .fix("name its namespace with -i, and its revision with --revision"),
        Some(version) if version > IstioVersion::NEWEST => Check::new(
            id,
            State::Warning,
            format!("istiod {version} is newer than {}, whose rules are known here", IstioVersion::NEWEST),
        )
        .fix("kubectl krew upgrade grpcmesh"),
        Some(version) => Check::new(id, State::Ok, format!("istiod {version}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew() {
        let version = |minor| IstioVersion { major: 1, minor };
        let of = |istiod: u16, minors: &[u16]| {
            proxies(Some(version(istiod)), &minors.iter().map(|minor| (version(*minor), 1)).collect()).state
        };
        assert_eq!(of(31, &[31, 30, 29]), State::Ok);
        assert_eq!(of(31, &[31, 28]), State::Warning);
        assert_eq!(of(30, &[31]), State::Warning);
        assert_eq!(of(30, &[]), State::Warning);
        assert_eq!(proxies(None, &BTreeMap::from([(version(30), 2)])).state, State::Unknown);
        assert_eq!(istiod(Some(IstioVersion { major: 1, minor: 99 })).state, State::Warning);
    }
}
