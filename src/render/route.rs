//! Writes `route` as text: the decision about a call from top to bottom.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{paragraph, safe};
use crate::mesh::authorization::AuthorizationVerdict;
use crate::mesh::xds::{BackendState, CallOutcome, ListenerClass, UpstreamProtocol};
use crate::report::Percent;
use crate::report::page::format_millis;
use crate::report::route::{
    ClientOutcomeReport, RetriesReport, RouteBackendReport, RouteFaultReport, RouteReport, RouteRewriteReport,
    RouteRuleReport, UpstreamTls, shares,
};

/// Width of the labels on the left.
const LABEL_WIDTH: usize = 14;
/// Width of the page when the output is not a terminal.
const DEFAULT_WIDTH: usize = 160;

/// Writes the decision about one call.
///
/// # Errors
/// Errors of `out`.
pub fn route(report: &RouteReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let callers = if report.callers.len() > 1 { report.callers.join(", ") } else { report.caller.clone() };
    writeln!(out, "{}", style.paint(TextRole::Heading, &safe(&format!("{} {}", report.authority, report.path))))?;
    let mut page = RoutePage { style, out };
    page.row("caller", &callers)?;
    page.row("listener", format_listener(report))?;
    if let Some(host) = &report.virtual_host {
        page.row("virtual host", host)?;
    }
    page.rules(report)?;
    page.outcome(report)?;
    page.backends(&report.backends, report.outcome == CallOutcome::Tcp)?;
    let mirrors = report.mirrors.iter().map(|mirror| {
        let state = match mirror.state {
            BackendState::Ok => String::new(),
            state => format!(" · {}", state.as_str()),
        };
        format!("{} {}{state}", format_share(mirror.percent), mirror.cluster)
    });
    page.rows("mirrors", mirrors)?;
    if let Some(limit) = report.timeout_ms {
        let text = match limit {
            0 => "none; the client's own deadline applies".to_owned(),
            limit => format!("{}, which also caps the client's deadline", format_millis(limit)),
        };
        page.row("timeout", &text)?;
    }
    if let Some(policy) = &report.retries {
        page.row("retries", &format_retries(policy))?;
    }
    if let Some(fault) = &report.fault {
        page.row("faults", &format_fault(fault))?;
    }
    if let Some(rewrite) = &report.rewrite {
        page.row("rewrites", &format_rewrite(rewrite))?;
    }
    if !report.hash_policy.is_empty() {
        page.row("hashed by", &report.hash_policy.join(", "))?;
    }
    page.authorization(report)?;
    page.rows("client sees", report.client_sees.iter().map(format_client_outcome))?;
    if let Some(live) = &report.live {
        let pod = format!("{}/{}", live.namespace, live.pod);
        page.row("its Envoy", &format!("{pod} {}: {}", live.state.as_str(), live.evidence))?;
        for difference in &live.differences {
            let side = |text: &str| if text.is_empty() { "missing".to_owned() } else { text.to_owned() };
            let (desired, live) = (side(&difference.desired), side(&difference.live));
            page.row("", &format!("{}: desired {desired}, Envoy {live}", difference.what))?;
        }
    }
    page.rows("not modelled", report.not_modelled.iter().cloned())
}

fn format_listener(report: &RouteReport) -> &'static str {
    match report.listener {
        ListenerClass::Http => "HTTP: shared by the Services of the port, routed by authority",
        ListenerClass::Auto => "auto-detected: the Service's own listener, whatever the authority",
        ListenerClass::Tcp => "TCP: connections, not calls",
        ListenerClass::None if report.outcome == CallOutcome::Tcp => "none: no Envoy handles the caller's connections",
        ListenerClass::None => "none: no listener matches this address and port",
    }
}

fn format_rule(rule: &RouteRuleReport) -> String {
    let inner = rule.match_index.map(|index| format!(".{index}")).unwrap_or_default();
    let mut text = format!("✓ {}/{}/{}[{}{inner}]", rule.kind, rule.namespace, rule.name, rule.index);
    if let Some(delegate) = &rule.delegate {
        text.push_str(&format!(", by its delegate {}/{}", delegate.namespace, delegate.name));
    }
    if !rule.route_name.is_empty() {
        text.push_str(&format!(" (route {})", rule.route_name));
    }
    text
}

fn format_retries(policy: &RetriesReport) -> String {
    if policy.attempts == 0 {
        return format!("none ({})", policy.owner);
    }
    let codes: Vec<String> = policy.status_codes.iter().map(ToString::to_string).collect();
    let codes = if codes.is_empty() { String::new() } else { format!(" and HTTP {}", codes.join(", ")) };
    let limit = match policy.per_try_timeout_ms {
        0 => String::new(),
        limit => format!(", {} each", format_millis(limit)),
    };
    format!("{} on {}{codes}{limit} ({})", policy.attempts, policy.retry_on.join(", "), policy.owner)
}

fn format_fault(fault: &RouteFaultReport) -> String {
    let share = |percent: Option<Percent>| format_share(percent.unwrap_or(Percent::ALL));
    let delay = fault.delay.as_ref().map(|delay| format!("{delay} delay for {}", share(fault.delay_percent)));
    let abort = fault.abort.as_ref().map(|abort| format!("{abort} for {}", share(fault.abort_percent)));
    delay.into_iter().chain(abort).collect::<Vec<_>>().join(", ")
}

fn format_rewrite(rewrite: &RouteRewriteReport) -> String {
    let path = rewrite.path.as_ref().map(|path| format!("path {path}"));
    let authority = rewrite.authority.as_ref().map(|authority| format!("authority {authority}"));
    let parts: Vec<String> = path.into_iter().chain(authority).chain(rewrite.headers.iter().cloned()).collect();
    parts.join(", ")
}

fn format_client_outcome(outcome: &ClientOutcomeReport) -> String {
    let share = match outcome.share_percent {
        Percent(percent) if percent >= 100.0 => String::new(),
        percent => format!(" for {} of the calls", format_share(percent)),
    };
    // A gRPC client gets HTTP 200 with the gRPC status.
    let http = outcome.http_status.map(|status| format!(" (HTTP/1.1 clients: {status})")).unwrap_or_default();
    let flag = outcome.flag.map(|flag| format!(", flag {flag}")).unwrap_or_default();
    format!("{}{http}{flag}{share}", outcome.grpc_status)
}

/// A share with at most two decimals: `33.33%`.
fn format_share(Percent(percent): Percent) -> String {
    let text = format!("{percent:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

struct RoutePage<'p> {
    style: &'p Style,
    out: &'p mut dyn Write,
}

impl RoutePage<'_> {
    fn row(&mut self, label: &str, text: &str) -> io::Result<()> {
        self.painted_row(label, text, None)
    }

    /// Writes one row per text; only the first has the label.
    fn rows(&mut self, label: &str, texts: impl Iterator<Item = String>) -> io::Result<()> {
        for (index, text) in texts.enumerate() {
            self.row(if index == 0 { label } else { "" }, &text)?;
        }
        Ok(())
    }

    fn painted_row(&mut self, label: &str, text: &str, role: Option<TextRole>) -> io::Result<()> {
        let plain = Style { color: false, width: Some(self.style.width.unwrap_or(DEFAULT_WIDTH)), ..*self.style };
        let rest = " ".repeat(LABEL_WIDTH + 2);
        let lines = paragraph(&plain, &format!("  {label:<LABEL_WIDTH$}"), &rest, &safe(text));
        for (index, line) in lines.lines().enumerate() {
            let body = line.get(LABEL_WIDTH + 2..).unwrap_or_default();
            let label = if index == 0 { label } else { "" };
            let label = self.style.paint(TextRole::Faint, &format!("{label:<LABEL_WIDTH$}"));
            let body = role.map_or_else(|| body.to_owned(), |role| self.style.paint(role, body));
            writeln!(self.out, "  {label}{body}")?;
        }
        Ok(())
    }

    fn rules(&mut self, report: &RouteReport) -> io::Result<()> {
        let tried = report.tried.iter().map(|tried| format!("✗ {}: {}", tried.rule, tried.why_not));
        let default_route = || "✓ Istio's default route: no object has a rule for the host".to_owned();
        let matched = match &report.rule {
            Some(rule) => Some(format_rule(rule)),
            None => (report.outcome == CallOutcome::Forward).then(default_route),
        };
        let omitted = (report.tried_omitted > 0)
            .then(|| format!("✗ {} more rules do not match: --caller lists them", report.tried_omitted));
        self.rows("rules", tried.chain(omitted).chain(matched))
    }

    fn outcome(&mut self, report: &RouteReport) -> io::Result<()> {
        let (text, role) = match report.outcome {
            CallOutcome::Forward if report.message.is_empty() => return Ok(()),
            CallOutcome::Forward => (report.message.clone(), TextRole::Warning),
            outcome => {
                let status = report.status.map(|status| format!(" {status}")).unwrap_or_default();
                let message = if report.message.is_empty() { String::new() } else { format!(": {}", report.message) };
                let role = match outcome {
                    CallOutcome::Tcp | CallOutcome::Passthrough => TextRole::Warning,
                    CallOutcome::DirectResponse => TextRole::Info,
                    _ => TextRole::Error,
                };
                (format!("{}{status}{message}", outcome.as_str()), role)
            }
        };
        self.painted_row("outcome", &text, Some(role))?;
        if !report.did_you_mean.is_empty() {
            self.row("", &format!("did you mean {}?", report.did_you_mean.join(", ")))?;
        }
        Ok(())
    }

    /// Backends to which TLS does not fit.
    fn tls_problems(&mut self, backends: &[RouteBackendReport]) -> io::Result<()> {
        let mut shown: Vec<&str> = Vec::new();
        for backend in backends {
            let Some(problem) = backend.tls_problem.as_deref().filter(|problem| !shown.contains(problem)) else {
                continue;
            };
            let label = if shown.is_empty() { "TLS" } else { "" };
            self.painted_row(label, &format!("✗ {problem}"), Some(TextRole::Error))?;
            shown.push(problem);
        }
        Ok(())
    }

    /// The decision at the servers; nothing when no policy applies to any of them.
    fn authorization(&mut self, report: &RouteReport) -> io::Result<()> {
        let of_backends = report.backends.iter().filter_map(|backend| {
            let name = backend.subset.as_ref().or(backend.host.as_ref()).unwrap_or(&backend.cluster);
            Some((format!("{name}: "), backend.authorization.as_ref()?))
        });
        let decisions = report.authorization.iter().map(|decision| (String::new(), decision)).chain(of_backends);
        let decisions = decisions.filter(|(_, decision)| decision.decision != AuthorizationVerdict::None);
        for (index, (name, decision)) in decisions.enumerate() {
            let role = match decision.decision {
                AuthorizationVerdict::None | AuthorizationVerdict::Allowed => None,
                AuthorizationVerdict::Undecided => Some(TextRole::Warning),
                AuthorizationVerdict::Denied => Some(TextRole::Error),
            };
            let text = format!("{name}{}: {}", decision.decision.as_str(), decision.reason);
            self.painted_row(if index == 0 { "authorization" } else { "" }, &text, role)?;
        }
        Ok(())
    }

    /// For TCP, protocol and TLS of the backends are omitted.
    fn backends(&mut self, backends: &[RouteBackendReport], is_tcp: bool) -> io::Result<()> {
        for (index, (backend, share)) in shares(backends).enumerate() {
            let text = format_backend(backend, share, is_tcp);
            let role = (backend.state != BackendState::Ok).then_some(TextRole::Error);
            self.painted_row(if index == 0 { "backends" } else { "" }, &text, role)?;
        }
        self.tls_problems(backends)?;
        let pools: Vec<&[String]> = backends.iter().map(|backend| backend.connection_pool.as_slice()).collect();
        let mut shown: Vec<&[String]> = Vec::new();
        for (pool, backend) in pools.iter().zip(backends) {
            if pool.is_empty() || shown.contains(pool) {
                continue;
            }
            shown.push(pool);
            let subset = match (pools.iter().all(|other| other == pool), &backend.subset) {
                (false, Some(subset)) => format!("{subset}: "),
                _ => String::new(),
            };
            self.row("pool", &format!("{subset}{}", pool.join("; ")))?;
        }
        Ok(())
    }
}

fn format_backend(backend: &RouteBackendReport, share: Percent, is_tcp: bool) -> String {
    let mut parts = vec![format!("{} {}", format_share(share), backend.cluster)];
    match (backend.state, backend.endpoints) {
        (BackendState::NoCluster, _) => parts.push("the proxy has no such cluster".to_owned()),
        (BackendState::NoEndpoints, _) => parts.push("no ready endpoint".to_owned()),
        (_, Some(1)) => parts.push("1 endpoint".to_owned()),
        (_, Some(count)) => parts.push(format!("{count} endpoints")),
        (_, None) => {}
    }
    if let Some(protocol) = backend.upstream_protocol.filter(|_| !is_tcp) {
        let text = match protocol {
            UpstreamProtocol::Http2 => "HTTP/2",
            UpstreamProtocol::Http1 => "HTTP/1.1",
            UpstreamProtocol::Downstream => "the caller's protocol",
        };
        parts.push(text.to_owned());
    }
    if let Some(tls) = backend.tls.filter(|_| !is_tcp) {
        let text = match tls {
            UpstreamTls::Auto => "mTLS where the server has a proxy",
            UpstreamTls::Mtls => "mTLS",
            UpstreamTls::Tls => "TLS",
            UpstreamTls::Plain => "no TLS",
        };
        parts.push(text.to_owned());
    }
    if let Some(policy) = &backend.backend_tls_policy {
        parts.push(format!("BackendTLSPolicy {policy}"));
    }
    if let Some(rule) = &backend.destination_rule {
        parts.push(format!("DestinationRule {rule}"));
    }
    parts.join(" · ")
}
