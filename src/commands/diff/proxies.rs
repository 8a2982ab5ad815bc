//! Which proxies are asked, and until when.

use std::time::{Duration, Instant};

use super::super::proxies::{ProxyArgs, choose, pods};
use super::DiffArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::cli::source::Read;
use crate::cluster::ClusterError;
use crate::cluster::client::Server;
use crate::compare::endpoints::Slices;
use crate::compare::proxy::{self, State};
use crate::envoy::running::Running;
use crate::mesh;
use crate::mesh::outbound::Caller;
use crate::report::diff::ProxyReport;

/// istiod waits for changes to settle before it sends: `PILOT_DEBOUNCE_AFTER` is 100 ms, and proxies answer in moments.
const SETTLE: Duration = Duration::from_millis(1500);
/// Times that what differs is looked at again before it counts, without `--wait`.
const LOOKS: u32 = 3;

/// Compares the proxies in scope. What differs is looked at again, with objects read anew: istiod may be about to send.
pub(super) async fn compare(
    context: &mut Context<'_>,
    arguments: &DiffArgs,
    source: &SourceArgs,
    mut read: Read,
    hosts: &[String],
) -> Result<Vec<ProxyReport>, Failure> {
    let server = context.connection.connection(&context.env).connect().await?;
    let start = Instant::now();
    let mut look = 1;
    loop {
        let reports = round(context, arguments, source, &server, &read, hosts).await;
        let waits = |one: &ProxyReport| matches!(one.state, "different" | "late" | "not-sent");
        let settles = match arguments.wait {
            // One that cannot be asked is given a few chances; what is never compared is not waited for.
            Some(limit) => {
                let silent = |one: &ProxyReport| one.state == "unreachable" && look < LOOKS;
                let out = |one: &ProxyReport| waits(one) || one.state == "refused" || silent(one);
                !reports.iter().any(out) || start.elapsed() >= limit
            }
            None => !reports.iter().any(waits) || look == LOOKS,
        };
        if settles {
            return Ok(reports);
        }
        look += 1;
        if arguments.wait.is_some() && context.messages.progress {
            let out = reports.iter().filter(|one| one.state != "in-step").count();
            context.messages.detail(&format!("{out} of {} proxies are not in step yet", reports.len()));
        }
        tokio::time::sleep(SETTLE).await;
        read = source.read(context).await?;
    }
}

/// One look at all proxies.
async fn round(
    context: &mut Context<'_>,
    arguments: &DiffArgs,
    source: &SourceArgs,
    server: &Server,
    read: &Read,
    hosts: &[String],
) -> Vec<ProxyReport> {
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    // Callers of a Service may be anywhere.
    let in_scope =
        |namespace: &str| read.namespaces.is_empty() || !hosts.is_empty() || read.namespaces.contains(namespace);
    let (chosen, others) = choose(&mesh, in_scope, arguments.asking.proxies);
    let pods = pods(&mesh, &chosen);
    let bar = context.messages.bar("asking proxies");
    bar.set_length(pods.len() as u64);
    let slices = Slices::new(&mesh);
    let sync = server.sync_state(&context.scope.istio_namespace).await;
    // Judged as they come: what a proxy runs is large, and what is said of it small.
    let judged = |at: usize, running: Result<Running, ClusterError>| {
        bar.inc(1);
        let (id, pod) = (chosen[at], &pods[at]);
        match running {
            Ok(running) => {
                let caller = Caller::of_workload(&mesh, id);
                let judged = proxy::judge(&mesh, &caller, &running, &sync.of(pod), slices.as_ref(), hosts);
                ProxyReport::new(&mesh, id, judged)
            }
            Err(error) => ProxyReport::without(&mesh, id, State::Unreachable, error.message),
        }
    };
    let ProxyArgs { via, parallel, proxy_timeout, .. } = arguments.asking;
    let mut reports = server.all_running(&pods, via.into(), parallel, proxy_timeout, &judged).await;
    bar.finish_and_clear();
    for (id, why) in others {
        reports.push(ProxyReport::without(&mesh, id, State::NotCompared, why));
    }
    reports
}
