//! Writes the page of one Service.

use std::fmt::Write as _;

use super::balance::{call_counts, endpoint_name};
use super::diff::{self, DiffDetail};
use super::inspect::{action_title, format_pods, port_title, protocol};
use super::style::{Style, TextRole};
use super::table::{self, Column};
use super::tail::count_of;
use super::text::{count, paragraph, safe, safe_lines};
use crate::dataplane::proxy::ProxyState;
use crate::mesh::xds::BackendState;
use crate::report::balance::DistributionReport;
use crate::report::inspect::{AccessReport, LiveServiceReport, RuleAction, RuleReport, ServiceReport};
use crate::report::page::format_millis;
use crate::vocabulary::name_list::abbreviate;
use crate::vocabulary::share::format_percent;

fn heading(out: &mut String, style: &Style, text: &str) {
    let _ = writeln!(out, "\n{}", style.paint(TextRole::Heading, text));
}

fn bullet(out: &mut String, style: &Style, text: &str) {
    out.push_str(&paragraph(style, "  ", "    ", &safe_lines(text)));
}

pub(super) fn page(service: &ServiceReport, style: &Style) -> String {
    let mut out = String::new();
    let title = format!("{} {}/{}", service.kind, service.namespace, service.name);
    let _ = writeln!(
        out,
        "{}  {}",
        style.paint(TextRole::Heading, &safe(&title)),
        style.paint(TextRole::Faint, &safe(&service.host))
    );
    for text in &service.affected_by_gaps {
        out.push_str(&style.paint(TextRole::Warning, paragraph(style, "  ! ", "    ", &safe(text)).trim_end()));
        out.push('\n');
    }
    ports(&mut out, service, style);
    workloads(&mut out, service, style);
    routes(&mut out, service, style);
    callers(&mut out, service, style);
    policies(&mut out, service, style);
    security(&mut out, service, style);
    gateways(&mut out, service, style);
    if let Some(report) = &service.live {
        live(&mut out, service, report, style);
    }
    if !service.not_modelled.is_empty() {
        heading(&mut out, style, "Not modelled");
        for text in &service.not_modelled {
            bullet(&mut out, style, text);
        }
    }
    out
}

fn gateways(out: &mut String, service: &ServiceReport, style: &Style) {
    if service.gateways.is_empty() {
        return;
    }
    heading(out, style, "Gateways");
    for gateway in &service.gateways {
        let hosts = gateway.hosts.join(", ");
        let server = if gateway.in_source {
            format!(" port {} {} ({})", gateway.port, gateway.protocol, gateway.tls)
        } else {
            " is not in the source;".to_owned()
        };
        bullet(out, style, &format!("{}{server} hosts {hosts} by {}", gateway.object, gateway.route));
    }
}

/// Number of endpoints whose calls are listed.
const LISTED_ENDPOINTS: usize = 10;

fn live(out: &mut String, service: &ServiceReport, report: &LiveServiceReport, style: &Style) {
    heading(out, style, "Live state of callers' proxies");
    let synced = report.proxies.iter().filter(|proxy| proxy.state == ProxyState::Synced).count();
    let all = report.proxies.len();
    bullet(out, style, &format!("{synced} of {all} proxies synced for this host"));
    let mut text = Vec::new();
    let narrower = Style { width: style.width.map(|width| width.saturating_sub(2)), ..*style };
    if diff::proxies(&report.proxies, DiffDetail::Summary, &narrower, &mut text).is_ok() {
        for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.is_empty()) {
            let _ = writeln!(out, "  {line}");
        }
    }
    if let Some(distribution) = &report.distribution {
        calls(out, service, distribution, style);
    }
}

fn calls(out: &mut String, service: &ServiceReport, distribution: &DistributionReport, style: &Style) {
    let period = distribution.period.label();
    let cause = if distribution.cause.is_empty() { String::new() } else { format!(": {}", distribution.cause) };
    let callers = count(distribution.callers, "caller");
    let (verdict, calls) = (distribution.verdict.as_str(), count_of(distribution.calls, "call"));
    bullet(out, style, &format!("{calls} by {callers} {period}: {verdict}{cause}"));
    for endpoint in distribution.endpoints.iter().take(LISTED_ENDPOINTS) {
        let (name, share) = (endpoint_name(endpoint), endpoint.share_percent.0);
        let _ = writeln!(out, "    {share:>5.1}%  {name}  {}", call_counts(endpoint, style));
    }
    let more = distribution.endpoints.len().saturating_sub(LISTED_ENDPOINTS);
    if more > 0 {
        let (name, namespace) = (safe(&service.name), safe(&service.namespace));
        let _ = writeln!(out, "    and {more} more: kubectl grpcmesh balance {name}.{namespace}");
    }
}

fn ports(out: &mut String, service: &ServiceReport, style: &Style) {
    let target = service.external_name.as_ref().map(|target| format!(" {target}")).unwrap_or_default();
    heading(out, style, &safe(&format!("Ports ({}{target})", service.resolution)));
    for port in &service.ports {
        let _ = writeln!(
            out,
            "  {} → {}  {}  decided by {}",
            port_title(port),
            safe(&port.target_port),
            protocol(port, style),
            safe(&port.decided_by)
        );
        for (label, text) in [("callers", &port.outbound), ("gateways", &port.gateway), ("server", &port.inbound)] {
            let _ = writeln!(out, "    {label:<9} {}", safe(text));
        }
        if !port.evidence.is_empty() {
            out.push_str(&paragraph(style, "    evidence  ", "              ", &safe(&port.evidence.join("; "))));
        }
    }
}

fn workloads(out: &mut String, service: &ServiceReport, style: &Style) {
    heading(out, style, "Workloads and proxies");
    if service.workloads.is_empty() {
        let text = if service.pods.in_source { "no pods" } else { "the source does not contain its pods" };
        bullet(out, style, text);
        return;
    }
    let rows = service.workloads.iter().map(|workload| {
        vec![
            safe(&workload.name).into_owned(),
            safe(workload.version.as_deref().unwrap_or("-")).into_owned(),
            format_pods(&workload.pods),
            safe(&workload.proxy).into_owned(),
            safe(&workload.exclusions.join("; ")).into_owned(),
        ]
    });
    let style = Style { headers: true, ..*style };
    out.push_str(&table::render(
        &style,
        &[
            Column::whole("WORKLOAD"),
            Column::whole("VERSION"),
            Column::whole("READY"),
            Column::flexible("PROXY"),
            Column::flexible("EXCLUDED TRAFFIC"),
        ],
        rows.collect(),
        2,
    ));
}

fn routes(out: &mut String, service: &ServiceReport, style: &Style) {
    heading(out, style, "Routes, in the order Envoy tries them");
    if let Some(target) = service.external_name.as_ref().filter(|_| service.routes.is_empty()) {
        bullet(out, style, &format!("alias of {target}: calls use the routes of that host, if it is in the mesh"));
    } else if service.routes.is_empty() {
        bullet(
            out,
            style,
            "Istio's default route: all calls to all pods, no timeout, 2 retries on connect-failure, refused-stream, unavailable, cancelled",
        );
    }
    for route in &service.routes {
        out.push_str(&route_lines(route, style));
    }
}

fn route_lines(route: &RuleReport, style: &Style) -> String {
    let mut out = String::new();
    let matches = if route.matches.is_empty() { "any call".to_owned() } else { route.matches.join(" or ") };
    let name = route.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
    let source = format!("{}[{}]{name}", route.object, route.index);
    out.push_str(&paragraph(style, "  ", "    ", &safe(&format!("{matches}   ({source})"))));
    if route.action != RuleAction::Forward {
        let _ = writeln!(out, "    → {}", action_title(route));
    }
    for backend in &route.backends {
        let subset = backend.subset.as_ref().map(|subset| format!(" subset {subset}")).unwrap_or_default();
        let port = backend.port.map(|port| format!(":{port}")).unwrap_or_default();
        let state = match backend.state {
            BackendState::Ok => format!("{} pods ready", format_pods(&backend.pods)),
            BackendState::NoCluster => style.paint(TextRole::Error, "cluster missing: calls fail (NC)"),
            BackendState::NoEndpoints => style.paint(TextRole::Error, "no ready pods: calls fail (UH)"),
            BackendState::Unknown => "pods unknown".to_owned(),
        };
        let _ = writeln!(
            out,
            "    → {:>5} {}{port}{}  {state}",
            format_percent(backend.share_percent.0),
            safe(&backend.short_host),
            safe(&subset)
        );
    }
    let timeout = if route.timeout_ms == 0 {
        "none; the client's deadline applies unchanged".to_owned()
    } else {
        format!("{}, which also caps the client's deadline", format_millis(route.timeout_ms))
    };
    let _ = writeln!(out, "    timeout   {timeout}");
    let retries = &route.retries;
    let text = if retries.attempts == 0 {
        format!("off ({})", retries.owner)
    } else {
        let codes: Vec<_> = retries.status_codes.iter().map(ToString::to_string).collect();
        let conditions = retries.retry_on.iter().cloned().chain(codes).collect::<Vec<_>>().join(", ");
        let per_try = match retries.per_try_timeout_ms {
            0 => String::new(),
            limit => format!(", {} each,", format_millis(limit)),
        };
        format!("up to {}{per_try} on {conditions} ({})", retries.attempts, retries.owner)
    };
    out.push_str(&paragraph(style, "    retries   ", "              ", &safe(&text)));
    for (label, texts) in [("fault", &route.faults), ("mirror", &route.mirrors), ("rewrite", &route.rewrites)] {
        for text in texts {
            let _ = writeln!(out, "    {label:<9} {}", safe(text));
        }
    }
    out
}

fn callers(out: &mut String, service: &ServiceReport, style: &Style) {
    if service.callers.is_empty() {
        return;
    }
    heading(out, style, "Callers with different configuration");
    for caller in &service.callers {
        let pods = caller.pod_labels.as_ref().map(|labels| format!(" (pods {labels})")).unwrap_or_default();
        let text = format!("callers in {}{pods} {}", caller.namespaces.join(", "), caller.differs.join("; "));
        bullet(out, style, &text);
        let narrower = Style { width: style.width.map(|width| width.saturating_sub(2)), ..*style };
        for route in caller.routes.iter().flatten() {
            for line in route_lines(route, &narrower).lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
    }
}

fn policies(out: &mut String, service: &ServiceReport, style: &Style) {
    if service.policies.is_empty() {
        return;
    }
    let rules: Vec<_> =
        service.destination_rules.iter().map(|rule| format!("{}/{}", rule.namespace, rule.name)).collect();
    let from = if rules.is_empty() {
        "no DestinationRule".to_owned()
    } else {
        format!("DestinationRule {}", rules.join(", "))
    };
    heading(out, style, &format!("Traffic policy ({})", safe(&from)));
    for policy in &service.policies {
        let subset = policy.subset.as_ref().map(|subset| format!(" subset {subset}")).unwrap_or_default();
        let _ = writeln!(out, "  port {}{}", policy.port, safe(&subset));
        out.push_str(&paragraph(
            style,
            "    pool      ",
            "              ",
            &safe_lines(&policy.connection_pool.join("\n")),
        ));
        for (label, text) in
            [("balancing", &policy.load_balancing), ("ejection", &policy.outlier_detection), ("TLS", &policy.tls)]
        {
            out.push_str(&paragraph(style, &format!("    {label:<9} "), "              ", &safe(text)));
        }
    }
}

fn security(out: &mut String, service: &ServiceReport, style: &Style) {
    if service.tls.is_empty() && service.authorization.is_empty() {
        return;
    }
    heading(out, style, "Server-side security");
    for tls in &service.tls {
        let mode = tls.mode.map_or_else(|| "unknown".to_owned(), |mode| mode.to_string());
        bullet(out, style, &format!("pod port {}: {mode} ({})", tls.port, tls.decided_by));
    }
    for policy in &service.authorization {
        let paths = if policy.paths.is_empty() { "no method paths".to_owned() } else { policy.paths.join(", ") };
        let dry_run = if policy.is_dry_run { " (dry run)" } else { "" };
        bullet(out, style, &format!("{} {}{dry_run}: {paths}", policy.object, policy.action));
    }
    access(out, &service.access, style);
}

/// Number of callers that a line lists.
const MAX_CALLERS: usize = 6;

/// Who may call which method.
fn access(out: &mut String, rows: &[AccessReport], style: &Style) {
    if rows.is_empty() {
        return;
    }
    heading(out, style, "Who may call");
    for row in rows {
        let method = match row.method.as_str() {
            "*" if rows.len() == 1 => "every method",
            "*" => "every other method",
            method => method,
        };
        let lists = [("allowed", &row.allowed), ("denied", &row.denied), ("depends on the call", &row.undecided)];
        let parts = lists.iter().filter(|(_, callers)| !callers.is_empty()).map(|(verdict, callers)| {
            let is_everyone = lists.iter().all(|(other, list)| other == verdict || list.is_empty());
            let callers = if is_everyone { "all callers".to_owned() } else { abbreviate(callers.iter(), MAX_CALLERS) };
            format!("{verdict}: {callers}")
        });
        let parts: Vec<String> = parts.collect();
        bullet(out, style, &format!("port {} {method} · {}", row.port, parts.join("; ")));
    }
}
