//! The page of one Service.

use std::fmt::Write as _;

use super::diff::{self, DiffDetail};
use super::inspect::{port_title, protocol, show_pods};
use super::style::{Style, TextRole};
use super::table::{self, Column};
use super::text::{count, paragraph, safe, safe_lines};
use crate::report::inspect::{LiveServiceReport, RuleReport, ServiceReport};
use crate::report::page::show_millis;
use crate::vocabulary::share::format_percent;

fn heading(out: &mut String, style: &Style, text: &str) {
    let _ = writeln!(out, "\n{}", style.paint(TextRole::Heading, text));
}

fn bullet(out: &mut String, style: &Style, text: &str) {
    out.push_str(&paragraph(style, "  ", "    ", &safe_lines(text)));
}

/// Writes the page.
pub(super) fn page(service: &ServiceReport, style: &Style) -> String {
    let mut out = String::new();
    let title = format!("{} {}/{}", service.kind, service.namespace, service.name);
    let _ = writeln!(
        out,
        "{}  {}",
        style.paint(TextRole::Heading, &safe(&title)),
        style.paint(TextRole::Faint, &safe(&service.host))
    );
    for text in &service.unread {
        out.push_str(&style.paint(TextRole::Warning, paragraph(style, "  ! ", "    ", &safe(text)).trim_end()));
        out.push('\n');
    }
    ports(&mut out, service, style);
    workloads(&mut out, service, style);
    routes(&mut out, service, style);
    callers(&mut out, service, style);
    policies(&mut out, service, style);
    security(&mut out, service, style);
    if !service.gateways.is_empty() {
        heading(&mut out, style, "Gateways");
        for gateway in &service.gateways {
            let text = if gateway.known {
                format!(
                    "{} port {} {} ({}) hosts {} by {}",
                    gateway.gateway,
                    gateway.port,
                    gateway.protocol,
                    gateway.tls,
                    gateway.hosts.join(", "),
                    gateway.route
                )
            } else {
                format!(
                    "{} is not in the source; hosts {} by {}",
                    gateway.gateway,
                    gateway.hosts.join(", "),
                    gateway.route
                )
            };
            bullet(&mut out, style, &text);
        }
    }
    if let Some(view) = &service.live {
        live(&mut out, service, view, style);
    }
    if !service.not_modelled.is_empty() {
        heading(&mut out, style, "Not part of this picture");
        for text in &service.not_modelled {
            bullet(&mut out, style, text);
        }
    }
    out
}

/// Endpoints whose calls are shown.
const ENDPOINTS: usize = 10;

fn live(out: &mut String, service: &ServiceReport, view: &LiveServiceReport, style: &Style) {
    heading(out, style, "Live: what Envoys have");
    let in_step = view.proxies.iter().filter(|one| one.state == "in-step").count();
    let all = view.proxies.len();
    bullet(out, style, &format!("{in_step} of {all} proxies have what the objects give for this host"));
    let mut text = Vec::new();
    if diff::proxies(&view.proxies, DiffDetail::Summary, style, &mut text).is_ok() {
        for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.is_empty()) {
            let _ = writeln!(out, "  {line}");
        }
    }
    if let Some(spread) = &view.spread {
        let cause = if spread.cause.is_empty() { String::new() } else { format!(": {}", spread.cause) };
        let callers = count(spread.callers, "caller");
        bullet(
            out,
            style,
            &format!("{} calls by {callers} {}: {}{cause}", spread.calls, spread.counted, spread.verdict),
        );
        for one in spread.endpoints.iter().take(ENDPOINTS) {
            let pod = one.pod.as_deref().unwrap_or_default();
            let errors = if one.errors > 0 { format!(", {} errors", one.errors) } else { String::new() };
            let _ = writeln!(
                out,
                "    {:<21}  {:>5.1}%  {}{errors}  {}",
                safe(&one.address),
                one.share * 100.0,
                one.calls,
                safe(pod)
            );
        }
        let more = spread.endpoints.len().saturating_sub(ENDPOINTS);
        if more > 0 {
            let _ = writeln!(
                out,
                "    and {more} more: kubectl grpcmesh balance {}.{}",
                safe(&service.name),
                safe(&service.namespace)
            );
        }
    }
}

fn ports(out: &mut String, service: &ServiceReport, style: &Style) {
    heading(out, style, &format!("Ports ({})", safe(&service.resolution)));
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
            out.push_str(&paragraph(style, "    gRPC?     ", "              ", &safe(&port.evidence.join("; "))));
        }
    }
}

fn workloads(out: &mut String, service: &ServiceReport, style: &Style) {
    heading(out, style, "Workloads and proxies");
    if service.workloads.is_empty() {
        let text = if service.pods.known { "no pods" } else { "the source does not tell which pods are behind it" };
        bullet(out, style, text);
        return;
    }
    let rows = service.workloads.iter().map(|workload| {
        vec![
            safe(&workload.name).into_owned(),
            safe(workload.version.as_deref().unwrap_or("-")).into_owned(),
            show_pods(&workload.pods),
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
            Column::flexible("ROUND THE PROXY"),
        ],
        rows.collect(),
        2,
    ));
}

fn routes(out: &mut String, service: &ServiceReport, style: &Style) {
    heading(out, style, "Routes, in the order Envoy tries them");
    let alias = service.resolution.strip_prefix("ExternalName ");
    if let Some(target) = alias.filter(|_| service.routes.is_empty()) {
        bullet(out, style, &format!("an alias: calls get the routes of {target}, if that is in the mesh"));
    } else if service.routes.is_empty() {
        bullet(
            out,
            style,
            "Istio's default route: every call to all pods, no timeout, 2 retries on connect-failure, refused-stream, unavailable, cancelled",
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
    if route.action != "forward" {
        let _ = writeln!(out, "    → {}", safe(&route.action));
    }
    for backend in &route.backends {
        let subset = backend.subset.as_ref().map(|subset| format!(" subset {subset}")).unwrap_or_default();
        let port = backend.port.map(|port| format!(":{port}")).unwrap_or_default();
        let state = match backend.state {
            "ok" => format!("{} pods ready", show_pods(&backend.pods)),
            "no-cluster" => style.paint(TextRole::Error, "no such cluster: calls fail (NC)"),
            "no-endpoints" => style.paint(TextRole::Error, "no ready pods: calls fail (UH)"),
            _ => "pods unknown".to_owned(),
        };
        let _ = writeln!(
            out,
            "    → {:>5} {}{port}{}  {state}",
            format_percent(backend.share),
            safe(&backend.short),
            safe(&subset)
        );
    }
    let timeout = if route.timeout_ms == 0 {
        "no timeout; the client's deadline holds as sent".to_owned()
    } else {
        format!("{}, which also caps the client's deadline", show_millis(route.timeout_ms))
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
            limit => format!(", each at most {}", show_millis(limit)),
        };
        format!("{} more tries{per_try} on {conditions} ({})", retries.attempts, retries.owner)
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
    heading(out, style, "Callers whose view differs");
    for caller in &service.callers {
        let pods = caller.pods.as_ref().map(|labels| format!(" (pods {labels})")).unwrap_or_default();
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
    heading(out, style, &format!("Policy toward it ({})", safe(&from)));
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
    heading(out, style, "Security on the server side");
    for tls in &service.tls {
        bullet(out, style, &format!("pod port {}: {} ({})", tls.port, tls.mode, tls.decided_by));
    }
    for policy in &service.authorization {
        let paths = if policy.paths.is_empty() { "names no method".to_owned() } else { policy.paths.join(", ") };
        bullet(out, style, &format!("{} {}: {paths}", policy.object, policy.action));
    }
}
