//! Waits until the affected proxies acknowledge the weights, and acts when they do not.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::super::live_proxies::{ProxyQuery, read_proxies};
use super::monitor::{POLL_INTERVAL, has_failed_reads};
use super::rollback::StopReason;
use super::session::ShiftSession;
use super::{AckMode, FailureAction};
use crate::cli::failure::{CommandOutcome, Failure};
use crate::dataplane::Difference;
use crate::dataplane::proxy::{ComparedProxy, ProxyState};
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::envoy::sync::XdsSyncState;
use crate::mesh;
use crate::mesh::workload::Readiness;
use crate::report::shift::{ProxyAckCounts, ShiftEventType};
use crate::shift::affected::caller_class_usage;
use crate::shift::record::{RuleRecord, ShiftEntry};
use crate::snapshot::live::{LiveProxy, ProxyResponse};

/// Up to this many proxies, all are queried by default; above it this is the size of the sample.
const MAX_QUERIED_PROXIES: usize = 50;

/// The result of waiting for the proxies.
enum AckOutcome {
    /// All proxies that could be queried run the weights.
    Synced(ProxyAckCounts),
    /// Some do not, with the reason.
    NotSynced(ProxyAckCounts, String),
    /// No proxy could be queried, with the reason.
    Unknown(ProxyAckCounts, String),
    /// The shift cannot continue.
    Stopped(StopReason),
    /// The process received a signal.
    Interrupted,
}

/// The result of waiting for the acknowledgement of a step.
pub(super) enum StepAck {
    Continue(ProxyAckCounts),
    Ended(CommandOutcome),
}

impl ShiftSession<'_, '_> {
    /// Waits for the proxies after a step was applied. If they do not acknowledge it, the shift ends as `--on-failure`
    /// says.
    pub(super) async fn acknowledge(&mut self, entry: &ShiftEntry) -> Result<StepAck, Failure> {
        let outcome = match self.wait_for_proxies(&entry.rules, Some(entry), self.arguments.ack_timeout).await {
            AckOutcome::Synced(counts) => return Ok(StepAck::Continue(counts)),
            AckOutcome::NotSynced(counts, reason) => {
                self.emit_acknowledged(&reason, counts)?;
                match self.arguments.on_failure {
                    FailureAction::Hold => self.hold(entry, &reason).await,
                    FailureAction::Rollback => self.roll_back_and_wait(entry, &reason).await,
                }
            }
            // An unknown state is no reason to roll back.
            AckOutcome::Unknown(counts, reason) => {
                self.emit_acknowledged(&reason, counts)?;
                self.hold(entry, &reason).await
            }
            AckOutcome::Stopped(reason) => self.stop(entry, reason).await,
            AckOutcome::Interrupted => self.handle_interrupt(entry).await,
        };
        outcome.map(StepAck::Ended)
    }

    /// Waits for the proxies after a rollback.
    pub(super) async fn acknowledge_rollback(
        &mut self,
        restored: &[RuleRecord],
        timeout: Duration,
    ) -> Result<CommandOutcome, Failure> {
        if self.arguments.ack == Some(AckMode::None) {
            return Ok(CommandOutcome::Clean);
        }
        match self.wait_for_proxies(restored, None, timeout).await {
            AckOutcome::Synced(counts) => {
                let message = format!("{} of {} proxies run the restored weights", counts.synced, counts.total);
                let is_partial = counts.synced < counts.total;
                self.emit_acknowledged(&message, counts)?;
                Ok(if is_partial { CommandOutcome::Partial } else { CommandOutcome::Clean })
            }
            AckOutcome::NotSynced(counts, reason) | AckOutcome::Unknown(counts, reason) => {
                self.emit_acknowledged(&reason, counts)?;
                Ok(CommandOutcome::Partial)
            }
            AckOutcome::Stopped(StopReason::LostControl(reason, message)) => {
                self.stop_without_control(reason, &message)
            }
            AckOutcome::Stopped(StopReason::AbortRequested(message) | StopReason::CanaryUnreachable(message)) => {
                Err(Failure::unavailable(message))
            }
            AckOutcome::Interrupted => Err(Failure::interrupted()),
        }
    }

    pub(super) fn emit_acknowledged(&mut self, message: &str, counts: ProxyAckCounts) -> Result<(), Failure> {
        self.emit(ShiftEventType::Acknowledged, message, |event| event.proxies = Some(counts))
    }

    /// Waits until the affected proxies run the weights of these rules. With an entry, this session must still own it.
    async fn wait_for_proxies(
        &mut self,
        rules: &[RuleRecord],
        entry: Option<&ShiftEntry>,
        timeout: Duration,
    ) -> AckOutcome {
        let end = Instant::now() + timeout;
        let bar = self.context.messages.progress_bar("waiting for proxies");
        // Only one progress bar at a time: reads meanwhile show none.
        let progress = std::mem::replace(&mut self.context.messages.shows_progress, false);
        let mut last = (ProxyAckCounts::default(), "the cluster did not answer".to_owned());
        let ignored_signals = u32::from(entry.is_none() && self.is_interrupted());
        let outcome = loop {
            let remaining = end.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
            let result = tokio::select! {
                biased;
                () = self.wait_for_signal(ignored_signals) => break AckOutcome::Interrupted,
                result = tokio::time::timeout(remaining, self.query_proxies(rules, entry)) => result,
            };
            match result {
                Ok(Ok(Ok(counts))) => {
                    bar.set_length(counts.total as u64);
                    bar.set_position(counts.synced as u64);
                    if let Some(first) = counts.rejected.first() {
                        let reason = format!("rejected by {first}");
                        break AckOutcome::NotSynced(counts, reason);
                    }
                    if counts.stale.is_empty() && counts.synced > 0 {
                        break AckOutcome::Synced(counts);
                    }
                    let reason = not_synced_reason(&counts, timeout);
                    last = (counts, reason);
                }
                Ok(Ok(Err(reason))) => break AckOutcome::Stopped(reason),
                // A short outage of the API server ends nothing.
                Ok(Err(failure)) => self.context.messages.warning(&failure.message),
                Err(_) => {}
            }
            if Instant::now() >= end {
                let (counts, reason) = last;
                break if counts.stale.is_empty() {
                    AckOutcome::Unknown(counts, reason)
                } else {
                    AckOutcome::NotSynced(counts, reason)
                };
            }
            tokio::select! {
                biased;
                () = self.wait_for_signal(ignored_signals) => break AckOutcome::Interrupted,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        };
        self.context.messages.shows_progress = progress;
        bar.finish_and_clear();
        outcome
    }

    /// Verifies that the weights are still applied, and queries the affected proxies once.
    async fn query_proxies(
        &mut self,
        rules: &[RuleRecord],
        entry: Option<&ShiftEntry>,
    ) -> Result<Result<ProxyAckCounts, StopReason>, Failure> {
        let object = self.get_object().await?;
        let located = match entry {
            Some(entry) => self.verify_ownership(&object, entry),
            None => self.locate_rules(&object, rules),
        };
        let rule_indexes: Vec<usize> = match located {
            Ok(splits) => splits.into_iter().map(|split| split.rule).collect(),
            Err(reason) => return Ok(Err(reason)),
        };
        let mut read = self.source.read(self.context).await?;
        let options = self.source.options(&self.context.scope);
        let (hosts, affected) = {
            let mesh = mesh::resolve(&read.snapshot, &options);
            let mut classes = caller_class_usage(&mesh, &self.target.object_ref(), &rule_indexes, "");
            classes.retain(|class| class.uses_rule);
            let can_judge = !self.arguments.force && !has_failed_reads(&read.snapshot);
            let unreachable = entry.filter(|_| can_judge).and_then(|entry| self.unreachable_canary(entry, &classes));
            if let Some(message) = unreachable {
                return Ok(Err(StopReason::CanaryUnreachable(message)));
            }
            let pods = classes.iter().flat_map(|class| &class.pods);
            let ready = pods.filter(|id| mesh.workload(**id).readiness != Readiness::NotReady);
            let affected: HashSet<String> = ready.map(|id| mesh.workload(*id).object.path()).collect();
            let mut hosts: Vec<String> = classes.into_iter().flat_map(|class| class.hosts).collect();
            hosts.sort();
            hosts.dedup();
            (hosts, affected)
        };
        let mut counts = ProxyAckCounts { total: affected.len(), ..ProxyAckCounts::default() };
        let gaps = read.snapshot.gaps.iter().filter(|gap| gap.affects_answers());
        counts.unreachable.extend(gaps.map(|gap| format!("{}: {}", gap.what, gap.why)));
        counts.total += counts.unreachable.len();
        if hosts.is_empty() {
            return Ok(Ok(counts));
        }
        let most = match self.arguments.ack {
            Some(AckMode::All) => None,
            Some(AckMode::Sampled) => Some(MAX_QUERIED_PROXIES),
            _ => (affected.len() > MAX_QUERIED_PROXIES).then_some(MAX_QUERIED_PROXIES),
        };
        let query = ProxyQuery {
            all_namespaces: true,
            only: Some(&affected),
            limit: most,
            access: self.arguments.admin_access,
        };
        read_proxies(self.context, &self.server, &self.source, &mut read, query).await;
        let mesh = mesh::resolve(&read.snapshot, &options);
        let Some(proxies) = ProxyComparisons::new(&mesh) else { return Ok(Ok(counts)) };
        for (id, proxy) in proxies.proxies() {
            let path = mesh.workload(id).object.path();
            let Some(compared) = proxies.compare(id, &hosts).filter(|_| affected.contains(&path)) else { continue };
            let with_evidence = format!("{path}: {}", compared.evidence);
            match proxy_ack(&compared, proxy, &hosts) {
                ProxyAck::Synced => counts.synced += 1,
                ProxyAck::Stale => counts.stale.push(with_evidence),
                ProxyAck::Rejected => counts.rejected.push(with_evidence),
                ProxyAck::Unknown(reason) => {
                    counts.unreachable.push(format!("{path}: {}", reason.unwrap_or(compared.evidence)));
                }
            }
        }
        Ok(Ok(counts))
    }
}

fn not_synced_reason(counts: &ProxyAckCounts, timeout: Duration) -> String {
    let timeout = crate::vocabulary::duration::format(timeout);
    match counts.stale.first() {
        Some(first) => format!(
            "{} of {} proxies do not run the weights after {timeout}, such as {first}",
            counts.stale.len(),
            counts.total
        ),
        None => "no affected proxy could be queried: it is unknown whether they run the weights".to_owned(),
    }
}

/// Whether a proxy runs the weights.
#[derive(Debug, PartialEq)]
enum ProxyAck {
    Synced,
    Stale,
    Rejected,
    /// With the reason, unless the comparison has it.
    Unknown(Option<String>),
}

const NOT_CONNECTED: &str = "it is not connected to istiod";

/// Judges only the routes to `hosts`: endpoints that come and go, and cluster settings, say nothing about weights.
fn proxy_ack(compared: &ComparedProxy, proxy: &LiveProxy, hosts: &[String]) -> ProxyAck {
    // Outside of the sample istiod's sync state decides.
    if matches!(proxy.response, ProxyResponse::NotQueried(_)) {
        return match &proxy.sync {
            XdsSyncState::Connected(sync) if sync.rejection.is_some() => ProxyAck::Rejected,
            XdsSyncState::Connected(sync) if sync.unacknowledged.is_empty() => ProxyAck::Synced,
            XdsSyncState::Connected(_) => ProxyAck::Stale,
            XdsSyncState::NotConnected => ProxyAck::Unknown(Some(NOT_CONNECTED.to_owned())),
            XdsSyncState::IstiodUnreachable(reason) | XdsSyncState::Unknown(reason) => {
                ProxyAck::Unknown(Some(reason.clone()))
            }
        };
    }
    if matches!(compared.state, ProxyState::Unreachable | ProxyState::NotCompared) {
        return ProxyAck::Unknown(None);
    }
    if compared.skips_routes {
        let patched = compared.not_compared.join("; ");
        return ProxyAck::Unknown(Some(format!("its routes cannot be compared: {patched}")));
    }
    let is_relevant = |difference: &&Difference| {
        difference.routes_calls && difference.host.as_ref().is_none_or(|host| hosts.contains(host))
    };
    match (compared.differences.iter().find(is_relevant), compared.state, &proxy.sync) {
        (None, ..) => ProxyAck::Synced,
        (Some(_), ProxyState::Rejected, _) => ProxyAck::Rejected,
        (Some(_), _, XdsSyncState::NotConnected) => ProxyAck::Unknown(Some(NOT_CONNECTED.to_owned())),
        (Some(_), ..) => ProxyAck::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::sync::XdsConnection;

    #[test]
    fn the_sync_state_of_istiod_decides_outside_of_the_sample() {
        let proxy = |sync| LiveProxy {
            sync,
            response: ProxyResponse::NotQueried("not queried: --proxies 50".to_owned()),
            counters: (None, None),
            transient: Vec::new(),
        };
        let ack =
            |sync| proxy_ack(&ComparedProxy::with_state(ProxyState::NotCompared, String::new()), &proxy(sync), &[]);
        let unacknowledged = vec![("route".to_owned(), None)];
        assert_eq!(ack(XdsSyncState::Connected(XdsConnection::default())), ProxyAck::Synced);
        assert_eq!(ack(XdsSyncState::Connected(XdsConnection { unacknowledged, rejection: None })), ProxyAck::Stale);
        assert_eq!(
            ack(XdsSyncState::Connected(XdsConnection {
                unacknowledged: Vec::new(),
                rejection: Some("no".to_owned())
            })),
            ProxyAck::Rejected
        );
        assert!(matches!(ack(XdsSyncState::NotConnected), ProxyAck::Unknown(Some(_))));
        assert!(matches!(ack(XdsSyncState::Unknown("403".to_owned())), ProxyAck::Unknown(Some(_))));
    }

    #[test]
    fn only_route_differences_of_the_hosts_make_a_proxy_stale() {
        let connected = XdsSyncState::Connected(XdsConnection::default());
        let response = ProxyResponse::Unreachable(String::new());
        let proxy = LiveProxy { sync: connected, response, counters: (None, None), transient: Vec::new() };
        let compared = |routes_calls: bool, host: &str| {
            let difference = Difference {
                what: String::new(),
                desired: String::new(),
                live: String::new(),
                host: Some(host.to_owned()),
                routes_calls,
            };
            ComparedProxy {
                differences: vec![difference],
                ..ComparedProxy::with_state(ProxyState::Different, String::new())
            }
        };
        let ack = |routes_calls: bool, host: &str| proxy_ack(&compared(routes_calls, host), &proxy, &["a".to_owned()]);
        assert_eq!(ack(true, "a"), ProxyAck::Stale);
        assert_eq!(ack(true, "b"), ProxyAck::Synced);
        assert_eq!(ack(false, "a"), ProxyAck::Synced, "such as a circuit breaker");
        let patched = ComparedProxy { skips_routes: true, ..compared(true, "a") };
        assert!(matches!(proxy_ack(&patched, &proxy, &["a".to_owned()]), ProxyAck::Unknown(Some(_))));
    }
}
