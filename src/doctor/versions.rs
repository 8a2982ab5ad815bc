//! Checks the version skew between istiod, its proxies and this program.
//!
//! Source: istio.io, "Supported Releases": a control plane supports data planes of its own minor release and the two before
//! it. A data plane must not be newer than its control plane.

use std::collections::BTreeMap;

use super::{CheckState, DoctorCheck};
use crate::mesh::version::IstioVersion;

/// Minor releases that a proxy may be older than istiod.
const MAX_SKEW: u16 = 2;

/// Checks the proxies against istiod. `proxies` counts proxies by version.
pub fn proxies(istiod: Option<IstioVersion>, proxies: &BTreeMap<IstioVersion, u32>) -> DoctorCheck {
    let id = "proxies/version";
    let shown = proxies.iter().map(|(version, count)| format!("{version} ({count})")).collect::<Vec<_>>().join(", ");
    if proxies.is_empty() {
        return DoctorCheck::new(id, CheckState::Warning, "no pod has a proxy with a known version")
            .with_fix("kubectl label namespace NAMESPACE istio-injection=enabled, then restart its workloads");
    }
    let Some(istiod) = istiod else {
        return DoctorCheck::new(
            id,
            CheckState::Unknown,
            format!("proxies run {shown}; the version of istiod is unknown"),
        );
    };
    let is_newer = |version: &&IstioVersion| **version > istiod;
    let is_too_old = |version: &&IstioVersion| version.minor + MAX_SKEW < istiod.minor;
    let restart = "kubectl rollout restart deployment -n NAMESPACE";
    if let Some(newer) = proxies.keys().find(is_newer) {
        return DoctorCheck::new(
            id,
            CheckState::Warning,
            format!("proxies run {shown}: {newer} is newer than istiod {istiod}"),
        )
        .with_fix(format!("upgrade istiod first, or downgrade the proxies: {restart}"));
    }
    if let Some(old) = proxies.keys().find(is_too_old) {
        let reason = format!(
            "proxies run {shown}: istiod {istiod} supports the {MAX_SKEW} minor releases before it, and {old} is older"
        );
        return DoctorCheck::new(id, CheckState::Warning, reason).with_fix(restart);
    }
    DoctorCheck::new(id, CheckState::Ok, format!("proxies run {shown}, istiod {istiod}"))
}

/// Checks that istiod's version is not newer than the newest one that this program supports.
pub fn istiod(version: Option<IstioVersion>) -> DoctorCheck {
    let id = "istio/version";
    match version {
        None => DoctorCheck::new(id, CheckState::Warning, "cannot determine the version of istiod: no istiod found")
            .with_fix("pass its namespace with -i and its revision with --revision"),
        Some(version) if version > IstioVersion::NEWEST => DoctorCheck::new(
            id,
            CheckState::Warning,
            format!(
                "istiod {version} is newer than {}, the newest version that this program supports",
                IstioVersion::NEWEST
            ),
        )
        .with_fix("kubectl krew upgrade grpcmesh"),
        Some(version) => DoctorCheck::new(id, CheckState::Ok, format!("istiod {version}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_proxies_newer_than_istiod_or_too_old() {
        let version = |minor| IstioVersion { major: 1, minor };
        let state = |istiod: u16, minors: &[u16]| {
            proxies(Some(version(istiod)), &minors.iter().map(|minor| (version(*minor), 1)).collect()).state
        };
        assert_eq!(state(31, &[31, 30, 29]), CheckState::Ok);
        assert_eq!(state(31, &[31, 28]), CheckState::Warning);
        assert_eq!(state(30, &[31]), CheckState::Warning);
        assert_eq!(state(30, &[]), CheckState::Warning);
        assert_eq!(proxies(None, &BTreeMap::from([(version(30), 2)])).state, CheckState::Unknown);
        assert_eq!(istiod(Some(IstioVersion { major: 1, minor: 99 })).state, CheckState::Warning);
    }
}
