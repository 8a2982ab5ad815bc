//! `route` for people: the call's road from top to bottom.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{paragraph, safe};
use crate::report::route::{RouteBackendReport, RouteReport, RouteRetriesReport, shares};

/// Width of the names on the left.
const LEFT: usize = 14;
/// Columns where nothing says how many there are.
const WIDE: usize = 160;

/// Writes the road of a call.
///
/// # Errors
/// Those of `out`.
pub fn route(report: &RouteReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let callers = if report.callers.len() > 1 { report.callers.join(", ") } else { report.caller.clone() };
    writeln!(out, "{}", style.paint(TextRole::Heading, &safe(&format!("{} {}", report.authority, report.path))))?;
    let mut page = RoutePage { style, out };
    page.row("caller", &callers)?;
    page.row("listener", listener(report.listener))?;
    if let Some(host) = &report.virtual_host {
        page.row("virtual host", host)?;
    }
    for (at, tried) in report.tried.iter().enumerate() {
        let name = if at == 0 { "rules" } else { "" };
        page.row(name, &format!("✗ {}: {}", tried.rule, tried.why_not))?;
    }
    let name = if report.tried.is_empty() { "rules" } else { "" };
    match &report.rule {
        Some(rule) => {
            let inner = rule.alternative.map(|at| format!(".{at}")).unwrap_or_default();
            let mut text = format!("✓ {}/{}/{}[{}{inner}]", rule.kind, rule.namespace, rule.name, rule.index);
            if let Some(delegate) = &rule.delegate {
                text.push_str(&format!(", by its delegate {delegate}"));
            }
            if !rule.route_name.is_empty() {
                text.push_str(&format!(" (route {})", rule.route_name));
            }
            page.row(name, &text)?;
        }
        None if report.outcome == "forward" => {
            page.row(name, "✓ Istio's default route: no object has a rule for the host")?;
        }
        None => {}
    }
    page.outcome(report)?;
    page.backends(&report.backends, report.outcome == "tcp")?;
    for (at, mirror) in report.mirrors.iter().enumerate() {
        let state = if mirror.state == "ok" { String::new() } else { format!(" · {}", mirror.state) };
        let name = if at == 0 { "mirrors" } else { "" };
        page.row(name, &format!("{}% {}{state}", number(mirror.percent), mirror.cluster))?;
    }
    if let Some(limit) = report.timeout_ms {
        let text = match limit {
            0 => "none; the client's own deadline holds".to_owned(),
            limit => format!("{}, which caps the client's deadline too", crate::report::page::show_millis(limit)),
        };
        page.row("timeout", &text)?;
    }
    if let Some(policy) = &report.retries {
        page.row("retries", &retries(policy))?;
    }
    if let Some(fault) = &report.fault {
        let delay = fault
            .delay
            .as_ref()
            .map(|delay| format!("{delay} delay for {}%", number(fault.delay_percent.unwrap_or(100.0))));
        let abort =
            fault.abort.as_ref().map(|abort| format!("{abort} for {}%", number(fault.abort_percent.unwrap_or(100.0))));
        page.row("faults", &delay.into_iter().chain(abort).collect::<Vec<_>>().join(", "))?;
    }
    if let Some(rewrite) = &report.rewrite {
        let path = rewrite.path.as_ref().map(|path| format!("path {path}"));
        let authority = rewrite.authority.as_ref().map(|authority| format!("authority {authority}"));
        let parts: Vec<String> = path.into_iter().chain(authority).chain(rewrite.headers.iter().cloned()).collect();
        page.row("rewrites", &parts.join(", "))?;
    }
    if !report.hash_policy.is_empty() {
        page.row("pinned by", &report.hash_policy.join(", "))?;
    }
    if let Some(seen) = &report.client_sees {
        let share =
            if seen.percent >= 100.0 { String::new() } else { format!(" for {}% of the calls", number(seen.percent)) };
        // To a gRPC call Envoy answers with the gRPC status, and 200.
        let http = seen.http_status.map(|status| format!(" (HTTP/1.1 clients: {status})")).unwrap_or_default();
        let flag = seen.flag.map(|flag| format!(", flag {flag}")).unwrap_or_default();
        page.row("client sees", &format!("{}{http}{flag}{share}", seen.grpc_status))?;
    }
    if let Some(live) = &report.live {
        page.row("its Envoy", &format!("{} {}: {}", live.pod, live.state, live.evidence))?;
        for one in &live.differences {
            let side = |text: &str| if text.is_empty() { "not there".to_owned() } else { text.to_owned() };
            page.row("", &format!("{}: intent {}, Envoy {}", one.what, side(&one.intent), side(&one.live)))?;
        }
    }
    for (at, note) in report.not_modelled.iter().enumerate() {
        page.row(if at == 0 { "not modelled" } else { "" }, note)?;
    }
    Ok(())
}

fn listener(word: &str) -> &'static str {
    match word {
        "http" => "HTTP: shared by the Services of the port, routed by authority",
        "auto" => "auto-detected: the Service's own, whatever the authority",
        "tcp" => "TCP: connections, not calls",
        _ => "none: nothing listens for this address and port",
    }
}

fn retries(policy: &RouteRetriesReport) -> String {
    if policy.attempts == 0 {
        return format!("none ({})", policy.owner);
    }
    let codes: Vec<String> = policy.status_codes.iter().map(ToString::to_string).collect();
    let codes = if codes.is_empty() { String::new() } else { format!(" and HTTP {}", codes.join(", ")) };
    let limit = match policy.per_try_timeout_ms {
        0 => String::new(),
        limit => format!(", {} each", crate::report::page::show_millis(limit)),
    };
    format!("{} on {}{codes}{limit} ({})", policy.attempts, policy.retry_on.join(", "), policy.owner)
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct RoutePage<'p> {
    style: &'p Style,
    out: &'p mut dyn Write,
}

impl RoutePage<'_> {
    fn row(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.painted(name, text, None)
    }

    fn painted(&mut self, name: &str, text: &str, role: Option<TextRole>) -> io::Result<()> {
        let plain = Style { color: false, width: Some(self.style.width.unwrap_or(WIDE)), ..*self.style };
        let rest = " ".repeat(LEFT + 2);
        let lines = paragraph(&plain, &format!("  {name:<LEFT$}"), &rest, &safe(text));
        for (at, line) in lines.lines().enumerate() {
            let body = line.get(LEFT + 2..).unwrap_or_default();
            let left = if at == 0 { name } else { "" };
            let left = self.style.paint(TextRole::Faint, &format!("{left:<LEFT$}"));
            let body = role.map_or_else(|| body.to_owned(), |role| self.style.paint(role, body));
            writeln!(self.out, "  {left}{body}")?;
        }
        Ok(())
    }

    fn outcome(&mut self, report: &RouteReport) -> io::Result<()> {
        let (text, role) = match report.outcome {
            "forward" => {
                if report.message.is_empty() {
                    return Ok(());
                }
                (report.message.clone(), TextRole::Warning)
            }
            word => {
                let status = report.status.map(|status| format!(" {status}")).unwrap_or_default();
                let message = if report.message.is_empty() { String::new() } else { format!(": {}", report.message) };
                let role = match word {
                    "tcp" | "passthrough" => TextRole::Warning,
                    "direct-response" => TextRole::Info,
                    _ => TextRole::Error,
                };
                (format!("{word}{status}{message}"), role)
            }
        };
        self.painted("outcome", &text, Some(role))?;
        if !report.did_you_mean.is_empty() {
            self.row("", &format!("did you mean {}?", report.did_you_mean.join(", ")))?;
        }
        Ok(())
    }

    fn backends(&mut self, backends: &[RouteBackendReport], as_bytes: bool) -> io::Result<()> {
        for (at, (backend, share)) in shares(backends).enumerate() {
            let mut parts = vec![format!("{}% {}", number(share), backend.cluster)];
            match (backend.state, backend.endpoints) {
                ("no-cluster", _) => parts.push("the proxy has no such cluster".to_owned()),
                ("no-endpoints", _) => parts.push("no ready endpoint".to_owned()),
                (_, Some(1)) => parts.push("1 endpoint".to_owned()),
                (_, Some(count)) => parts.push(format!("{count} endpoints")),
                (_, None) => {}
            }
            match backend.upstream_protocol.filter(|_| !as_bytes) {
                Some("http2") => parts.push("HTTP/2".to_owned()),
                Some("http1") => parts.push("HTTP/1.1".to_owned()),
                Some(_) => parts.push("the caller's protocol".to_owned()),
                None => {}
            }
            match backend.tls.filter(|_| !as_bytes) {
                Some("auto") => parts.push("mTLS where the server has a proxy".to_owned()),
                Some("mtls") => parts.push("mTLS".to_owned()),
                Some("tls") => parts.push("TLS".to_owned()),
                Some(_) => parts.push("no TLS".to_owned()),
                None => {}
            }
            if let Some(rule) = &backend.destination_rule {
                parts.push(format!("DestinationRule {rule}"));
            }
            let role = (backend.state != "ok").then_some(TextRole::Error);
            self.painted(if at == 0 { "backends" } else { "" }, &parts.join(" · "), role)?;
        }
        let pools: Vec<&[String]> = backends.iter().map(|backend| backend.connection_pool.as_slice()).collect();
        for (at, pool) in pools.iter().enumerate().filter(|(at, pool)| !pool.is_empty() && !pools[..*at].contains(pool))
        {
            let whose = match (pools.iter().all(|other| other == pool), &backends[at].subset) {
                (false, Some(subset)) => format!("{subset}: "),
                _ => String::new(),
            };
            self.row("pool", &format!("{whose}{}", pool.join("; ")))?;
        }
        Ok(())
    }
}
