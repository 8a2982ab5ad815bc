//! Seeing that the proxies follow, and what is done when they do not.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::super::proxy_states::{ProxyQuery, ask};
use super::monitor::is_patchy;
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
use crate::report::shift::ProxyAckCounts;
use crate::shift::affected::classes;
use crate::shift::record::{RuleRecord, ShiftEntry};
use crate::snapshot::live::{LiveProxy, ProxyResponse};

/// Proxies that are all asked.
const ALL: usize = 50;
/// Pause between two looks at the proxies.
const LOOK: Duration = Duration::from_secs(1);

/// What came of looking at the proxies.
enum AckOutcome {
    /// All that could be asked run the new weights.
    Yes(ProxyAckCounts),
    /// Some do not.
    No(ProxyAckCounts, String),
    /// Nobody could be asked.
    Unknown(ProxyAckCounts, String),
    /// The object is not ours any more.
    Slipped(StopReason),
    /// The program was asked to end.
    Interrupted,
}

impl ShiftSession<'_, '_> {
    /// Sees that the proxies follow an entry that is written. If they do not, the shift ends as was asked for.
    pub(super) async fn acknowledge(
        &mut self,
        entry: &ShiftEntry,
    ) -> Result<Result<ProxyAckCounts, CommandOutcome>, Failure> {
        let ended = match self.follow(&entry.rules, Some(entry), self.arguments.ack_timeout).await {
            AckOutcome::Yes(counts) => return Ok(Ok(counts)),
            AckOutcome::No(counts, why) => {
                self.tell("acknowledged", &why, |event| event.proxies = Some(counts))?;
                match self.arguments.on_failure {
                    FailureAction::Hold => self.hold(entry, &why).await,
                    FailureAction::Rollback => self.back_out(entry, &why).await,
                }
            }
            // Not knowing is no reason to take anything back.
            AckOutcome::Unknown(counts, why) => {
                self.tell("acknowledged", &why, |event| event.proxies = Some(counts))?;
                self.hold(entry, &why).await
            }
            AckOutcome::Slipped(slip) => self.slipped(entry, slip).await,
            AckOutcome::Interrupted => self.interrupted(entry).await,
        };
        ended.map(Err)
    }

    /// Sees that the proxies follow the way back, too.
    pub(super) async fn follow_back(
        &mut self,
        restored: &[RuleRecord],
        limit: Duration,
    ) -> Result<CommandOutcome, Failure> {
        if self.arguments.ack == Some(AckMode::None) {
            return Ok(CommandOutcome::Clean);
        }
        match self.follow(restored, None, limit).await {
            AckOutcome::Yes(counts) => {
                let message = format!("{} of {} proxies run the weights from before", counts.in_step, counts.total);
                let partial = counts.in_step < counts.total;
                self.tell("acknowledged", &message, |event| event.proxies = Some(counts))?;
                Ok(if partial { CommandOutcome::Partial } else { CommandOutcome::Clean })
            }
            AckOutcome::No(counts, why) | AckOutcome::Unknown(counts, why) => {
                self.tell("acknowledged", &why, |event| event.proxies = Some(counts))?;
                Ok(CommandOutcome::Partial)
            }
            AckOutcome::Slipped(StopReason::Lost(why) | StopReason::Aborted(why) | StopReason::NoCanary(why)) => {
                self.gone(&why)
            }
            AckOutcome::Interrupted => Err(Failure::interrupted()),
        }
    }

    /// Waits until the proxies run what was written. With an entry, it must still be ours.
    async fn follow(&mut self, rules: &[RuleRecord], entry: Option<&ShiftEntry>, limit: Duration) -> AckOutcome {
        let end = Instant::now() + limit;
        let bar = self.context.messages.bar("proxies that follow");
        // One bar at a time: what is read meanwhile shows none.
        let progress = std::mem::replace(&mut self.context.messages.progress, false);
        let mut last = (ProxyAckCounts::default(), "the cluster did not answer".to_owned());
        let times = u32::from(entry.is_none() && self.is_interrupted());
        let followed = loop {
            let left = end.saturating_duration_since(Instant::now()).max(LOOK);
            let looked = tokio::select! {
                biased;
                () = self.asked_to_end(times) => break AckOutcome::Interrupted,
                looked = tokio::time::timeout(left, self.look_at_proxies(rules, entry)) => looked,
            };
            match looked {
                Ok(Ok(Ok(counts))) => {
                    bar.set_length(counts.total as u64);
                    bar.set_position(counts.in_step as u64);
                    if let Some(first) = counts.refused.first() {
                        let why = format!("refused by {first}");
                        break AckOutcome::No(counts, why);
                    }
                    if counts.late.is_empty() && counts.in_step > 0 {
                        break AckOutcome::Yes(counts);
                    }
                    let why = match counts.late.first() {
                        Some(first) => format!(
                            "{} of {} proxies did not run them within {}, such as {first}",
                            counts.late.len(),
                            counts.total,
                            crate::vocabulary::duration::show(limit)
                        ),
                        None => "no proxy that obeys could be asked: it is not known whether they follow".to_owned(),
                    };
                    last = (counts, why);
                }
                Ok(Ok(Err(slip))) => break AckOutcome::Slipped(slip),
                // An API server that is away for a moment ends nothing.
                Ok(Err(failure)) => self.context.messages.warning(&failure.message),
                Err(_) => {}
            }
            if Instant::now() >= end {
                let (counts, why) = last;
                break if counts.late.is_empty() {
                    AckOutcome::Unknown(counts, why)
                } else {
                    AckOutcome::No(counts, why)
                };
            }
            tokio::select! {
                biased;
                () = self.asked_to_end(times) => break AckOutcome::Interrupted,
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        self.context.messages.progress = progress;
        bar.finish_and_clear();
        followed
    }

    /// One look: whether the object is still ours, and who runs the weights.
    async fn look_at_proxies(
        &mut self,
        rules: &[RuleRecord],
        entry: Option<&ShiftEntry>,
    ) -> Result<Result<ProxyAckCounts, StopReason>, Failure> {
        let object = self.look().await?;
        let gripped = match entry {
            Some(entry) => self.grip(&object, entry),
            None => self.places(&object, rules),
        };
        let places: Vec<usize> = match gripped {
            Ok(splits) => splits.into_iter().map(|split| split.rule).collect(),
            Err(slip) => return Ok(Err(slip)),
        };
        let mut read = self.source.read(self.context).await?;
        let options = self.source.options(&self.context.scope);
        let (hosts, obeying) = {
            let mesh = mesh::resolve(&read.snapshot, &options);
            let all = classes(&mesh, &self.target.object(), &places, "");
            let obey: Vec<_> = all.into_iter().filter(|class| class.obeys).collect();
            let is_known = !self.arguments.force && !is_patchy(&read.snapshot);
            if let Some(why) = entry.filter(|_| is_known).and_then(|entry| self.dead_canary(entry, &obey)) {
                return Ok(Err(StopReason::NoCanary(why)));
            }
            let ready = obey.iter().flat_map(|class| &class.pods);
            let ready = ready.filter(|id| mesh.workload(**id).readiness != Readiness::NotReady);
            let obeying: HashSet<String> = ready.map(|id| mesh.workload(*id).object.path()).collect();
            let mut hosts: Vec<String> = obey.into_iter().flat_map(|class| class.hosts).collect();
            hosts.sort();
            hosts.dedup();
            (hosts, obeying)
        };
        let mut counts = ProxyAckCounts { total: obeying.len(), ..ProxyAckCounts::default() };
        let gaps = read.snapshot.gaps.iter().filter(|gap| gap.touches_answers());
        counts.unreachable.extend(gaps.map(|gap| format!("{}: {}", gap.what, gap.why)));
        counts.total += counts.unreachable.len();
        if hosts.is_empty() {
            return Ok(Ok(counts));
        }
        let most = match self.arguments.ack {
            Some(AckMode::All) => None,
            Some(AckMode::Sampled) => Some(ALL),
            _ => (obeying.len() > ALL).then_some(ALL),
        };
        let question = ProxyQuery { everywhere: true, only: Some(&obeying), most, reach: self.arguments.reach };
        ask(self.context, &self.server, &self.source, &mut read, question).await;
        let mesh = mesh::resolve(&read.snapshot, &options);
        let Some(proxies) = ProxyComparisons::new(&mesh) else { return Ok(Ok(counts)) };
        for (id, proxy) in proxies.known() {
            let path = mesh.workload(id).object.path();
            let Some(judged) = proxies.judge(id, &hosts).filter(|_| obeying.contains(&path)) else { continue };
            let named = format!("{path}: {}", judged.evidence);
            match verdict(&judged, proxy, &hosts) {
                ProxyAck::Runs => counts.in_step += 1,
                ProxyAck::Late => counts.late.push(named),
                ProxyAck::Refuses => counts.refused.push(named),
                ProxyAck::Unknown(why) => {
                    counts.unreachable.push(format!("{path}: {}", why.unwrap_or(judged.evidence)))
                }
            }
        }
        Ok(Ok(counts))
    }
}

/// How a proxy stands to the weights.
#[derive(Debug, PartialEq)]
enum ProxyAck {
    Runs,
    Late,
    Refuses,
    Unknown(Option<String>),
}

/// Looks at the routes to the hosts only: pods that come and go, and clusters, are another matter.
fn verdict(judged: &ComparedProxy, proxy: &LiveProxy, hosts: &[String]) -> ProxyAck {
    // Not part of the sample: istiod's word must do.
    if matches!(proxy.answer, ProxyResponse::NotAsked(_)) {
        return match &proxy.sync {
            XdsSyncState::Connected(sync) if sync.refused.is_some() => ProxyAck::Refuses,
            XdsSyncState::Connected(sync) if sync.waiting.is_empty() => ProxyAck::Runs,
            XdsSyncState::Connected(_) => ProxyAck::Late,
            XdsSyncState::NotConnected => ProxyAck::Unknown(Some("it is connected to no istiod".to_owned())),
            XdsSyncState::NoAnswer(why) | XdsSyncState::Unknown(why) => ProxyAck::Unknown(Some(why.clone())),
        };
    }
    if matches!(judged.state, ProxyState::Unreachable | ProxyState::NotCompared) {
        return ProxyAck::Unknown(None);
    }
    if judged.skips_routes {
        let patched = judged.not_compared.join("; ");
        return ProxyAck::Unknown(Some(format!("its weights cannot be compared: {patched}")));
    }
    let is_ours = |one: &&Difference| one.routes_calls && one.host.as_ref().is_none_or(|host| hosts.contains(host));
    match (judged.differences.iter().find(is_ours), judged.state, &proxy.sync) {
        (None, ..) => ProxyAck::Runs,
        (Some(_), ProxyState::Refused, _) => ProxyAck::Refuses,
        (Some(_), _, XdsSyncState::NotConnected) => ProxyAck::Unknown(Some("it is connected to no istiod".to_owned())),
        (Some(_), ..) => ProxyAck::Late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::sync::XdsConnection;

    #[test]
    fn of_those_outside_a_sample_istiod_tells() {
        let proxy = |sync| LiveProxy {
            sync,
            answer: ProxyResponse::NotAsked("not asked: --proxies 50".to_owned()),
            counted: (None, None),
            passing: Vec::new(),
        };
        let of = |sync| verdict(&ComparedProxy::without(ProxyState::NotCompared, String::new()), &proxy(sync), &[]);
        let waiting = vec![("route".to_owned(), None)];
        assert_eq!(of(XdsSyncState::Connected(XdsConnection::default())), ProxyAck::Runs);
        assert_eq!(of(XdsSyncState::Connected(XdsConnection { waiting, refused: None })), ProxyAck::Late);
        assert_eq!(
            of(XdsSyncState::Connected(XdsConnection { waiting: Vec::new(), refused: Some("no".to_owned()) })),
            ProxyAck::Refuses
        );
        assert!(matches!(of(XdsSyncState::NotConnected), ProxyAck::Unknown(Some(_))));
        assert!(matches!(of(XdsSyncState::Unknown("403".to_owned())), ProxyAck::Unknown(Some(_))));
    }

    #[test]
    fn only_routes_to_the_hosts_keep_a_proxy_from_running_the_weights() {
        let connected = XdsSyncState::Connected(XdsConnection::default());
        let answer = ProxyResponse::Silent(String::new());
        let proxy = LiveProxy { sync: connected, answer, counted: (None, None), passing: Vec::new() };
        let judged = |routes_calls: bool, host: &str| {
            let one = Difference {
                what: String::new(),
                desired: String::new(),
                live: String::new(),
                host: Some(host.to_owned()),
                routes_calls,
            };
            ComparedProxy { differences: vec![one], ..ComparedProxy::without(ProxyState::Different, String::new()) }
        };
        let of = |routes_calls: bool, host: &str| verdict(&judged(routes_calls, host), &proxy, &["a".to_owned()]);
        assert_eq!(of(true, "a"), ProxyAck::Late);
        assert_eq!(of(true, "b"), ProxyAck::Runs);
        assert_eq!(of(false, "a"), ProxyAck::Runs, "a circuit breaker, say");
        let patched = ComparedProxy { skips_routes: true, ..judged(true, "a") };
        assert!(matches!(verdict(&patched, &proxy, &["a".to_owned()]), ProxyAck::Unknown(Some(_))));
    }
}
