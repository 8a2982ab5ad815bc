//! How far the parts of a mesh may lie apart.
//!
//! Source: istio.io, "Supported releases": a control plane supports data planes of its own and of the two minor releases
//! before; a data plane is never newer than its control plane.

use std::collections::BTreeMap;

use super::{CheckState, DoctorCheck};
use crate::mesh::version::IstioVersion;

/// Releases that a proxy may lie behind.
const BEHIND: u16 = 2;

/// The proxies against istiod.
pub fn proxies(istiod: Option<IstioVersion>, proxies: &BTreeMap<IstioVersion, u32>) -> DoctorCheck {
    let id = "proxies/version";
    let shown = proxies.iter().map(|(version, count)| format!("{version} ({count})")).collect::<Vec<_>>().join(", ");
    if proxies.is_empty() {
        return DoctorCheck::new(id, CheckState::Warning, "no pod here has a proxy whose version is known")
            .fix("kubectl label namespace NAMESPACE istio-injection=enabled, then restart its workloads");
    }
    let Some(istiod) = istiod else {
        return DoctorCheck::new(id, CheckState::Unknown, format!("proxies of {shown}; istiod's version is not known"));
    };
    let is_newer = |version: &&IstioVersion| **version > istiod;
    let is_too_old = |version: &&IstioVersion| version.minor + BEHIND < istiod.minor;
    let restart = "kubectl rollout restart deployment -n NAMESPACE";
    if let Some(newer) = proxies.keys().find(is_newer) {
        return DoctorCheck::new(
            id,
            CheckState::Warning,
            format!("proxies of {shown}: {newer} is newer than istiod {istiod}"),
        )
        .fix(format!("upgrade istiod first, or go back with the proxies: {restart}"));
    }
    if let Some(old) = proxies.keys().find(is_too_old) {
        let why =
            format!("proxies of {shown}: istiod {istiod} supports {BEHIND} releases before it, and {old} is older");
        return DoctorCheck::new(id, CheckState::Warning, why).fix(restart);
    }
    DoctorCheck::new(id, CheckState::Ok, format!("proxies of {shown} beside istiod {istiod}"))
}

/// istiod against what this program knows.
pub fn istiod(version: Option<IstioVersion>) -> DoctorCheck {
    let id = "istio/version";
    match version {
        None => DoctorCheck::new(id, CheckState::Warning, "no istiod was found: its version is not known")
            .fix("name its namespace with -i, and its revision with --revision"),
        Some(version) if version > IstioVersion::NEWEST => DoctorCheck::new(
            id,
            CheckState::Warning,
            format!("istiod {version} is newer than {}, whose rules are known here", IstioVersion::NEWEST),
        )
        .fix("kubectl krew upgrade grpcmesh"),
        Some(version) => DoctorCheck::new(id, CheckState::Ok, format!("istiod {version}")),
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
        assert_eq!(of(31, &[31, 30, 29]), CheckState::Ok);
        assert_eq!(of(31, &[31, 28]), CheckState::Warning);
        assert_eq!(of(30, &[31]), CheckState::Warning);
        assert_eq!(of(30, &[]), CheckState::Warning);
        assert_eq!(proxies(None, &BTreeMap::from([(version(30), 2)])).state, CheckState::Unknown);
        assert_eq!(istiod(Some(IstioVersion { major: 1, minor: 99 })).state, CheckState::Warning);
    }
}
