//! Compares what proxies run with the objects, and waits until they are synced.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::live_proxies::{ATTEMPTS, ProxyQuery, SETTLE_TIME, read_proxies, read_settled_proxies};
use super::DiffArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::dataplane::proxy::ProxyState;
use crate::mesh::{self, Mesh};
use crate::report::diff::{DiffProxyReport, proxy_reports};

/// Compares the proxies of a snapshot that are in scope.
pub(super) fn saved(mesh: &Mesh<'_>, namespaces: &BTreeSet<String>, hosts: &[String]) -> Vec<DiffProxyReport> {
    let mut reports = proxy_reports(mesh, hosts);
    // With a target, the callers of the Service may be in any namespace.
    reports.retain(|proxy| !hosts.is_empty() || namespaces.is_empty() || namespaces.contains(&proxy.namespace));
    reports
}

/// Compares the proxies in scope. While proxies differ, repeats the comparison with fresh objects, because istiod may be about
/// to send an update: a few times, or with `--wait` until all are synced or the time is up.
///
/// # Errors
/// If the cluster cannot be read.
pub(super) async fn compare(
    context: &mut Context<'_>,
    arguments: &DiffArgs,
    source: &SourceArgs,
    mut scoped: ScopedSnapshot,
    hosts: &[String],
) -> Result<Vec<DiffProxyReport>, Failure> {
    // With a target, the callers of the Service may be in any namespace.
    let query = ProxyQuery {
        all_namespaces: !hosts.is_empty(),
        only: None,
        limit: arguments.proxies.proxies,
        access: arguments.proxies.access,
    };
    let Some(limit) = arguments.wait else {
        let scoped = read_settled_proxies(context, source, scoped, query).await?;
        return Ok(proxy_reports(&mesh::resolve(&scoped.snapshot, &source.options(&context.scope)), hosts));
    };
    let server = context.connect().await?;
    let start = Instant::now();
    let mut attempt = 1;
    loop {
        read_proxies(context, &server, source, &mut scoped, query).await;
        let reports = proxy_reports(&mesh::resolve(&scoped.snapshot, &source.options(&context.scope)), hosts);
        // Reading an unreachable proxy is retried. Waiting does not help a proxy that cannot be compared.
        let may_answer = |state: ProxyState| state == ProxyState::Unreachable && attempt < ATTEMPTS;
        let is_pending = reports.iter().any(|proxy| proxy.state.differs() || may_answer(proxy.state));
        if !is_pending || start.elapsed() >= limit {
            return Ok(reports);
        }
        attempt += 1;
        if context.messages.shows_progress {
            let pending = reports.iter().filter(|proxy| proxy.state != ProxyState::Synced).count();
            context.messages.detail(&format!("{pending} of {} proxies are not synced yet", reports.len()));
        }
        tokio::time::sleep(SETTLE_TIME).await;
        scoped = source.read(context).await?;
    }
}
