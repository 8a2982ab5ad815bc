//! Until when proxies are asked again.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::proxy_states::{LOOKS, ProxyQuery, SETTLE, ask, settled};
use super::DiffArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::mesh::{self, Mesh};
use crate::report::diff::{DiffProxyReport, proxies};

/// The proxies of a snapshot that are in scope.
pub(super) fn saved(mesh: &Mesh<'_>, namespaces: &BTreeSet<String>, hosts: &[String]) -> Vec<DiffProxyReport> {
    let mut reports = proxies(mesh, hosts);
    // Callers of a Service may be anywhere.
    reports.retain(|one| !hosts.is_empty() || namespaces.is_empty() || namespaces.contains(&one.namespace));
    reports
}

/// Compares the proxies in scope. What differs is looked at again, with objects read anew: istiod may be about to send.
pub(super) async fn compare(
    context: &mut Context<'_>,
    arguments: &DiffArgs,
    source: &SourceArgs,
    mut read: ScopedSnapshot,
    hosts: &[String],
) -> Result<Vec<DiffProxyReport>, Failure> {
    // Callers of a Service may be anywhere.
    let question = ProxyQuery {
        everywhere: !hosts.is_empty(),
        only: None,
        most: arguments.asking.proxies,
        reach: arguments.asking.reach,
    };
    let Some(limit) = arguments.wait else {
        let read = settled(context, source, read, question).await?;
        return Ok(proxies(&mesh::resolve(&read.snapshot, &source.options(&context.scope)), hosts));
    };
    let server = context.connect().await?;
    let start = Instant::now();
    let mut look = 1;
    loop {
        ask(context, &server, source, &mut read, question).await;
        let reports = proxies(&mesh::resolve(&read.snapshot, &source.options(&context.scope)), hosts);
        // One that cannot be asked is given a few chances; what is never compared is not waited for.
        let silent = |one: &DiffProxyReport| one.state == "unreachable" && look < LOOKS;
        let waits = |one: &DiffProxyReport| matches!(one.state, "different" | "late" | "not-sent" | "refused");
        let settles = !reports.iter().any(|one| waits(one) || silent(one)) || start.elapsed() >= limit;
        if settles {
            return Ok(reports);
        }
        look += 1;
        if context.messages.progress {
            let out = reports.iter().filter(|one| one.state != "in-step").count();
            context.messages.detail(&format!("{out} of {} proxies are not in step yet", reports.len()));
        }
        tokio::time::sleep(SETTLE).await;
        read = source.read(context).await?;
    }
}
