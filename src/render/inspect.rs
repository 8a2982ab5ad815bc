//! `inspect` as text: the overview, the page of one Service, and findings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::style::{Role, Style};
use super::table;
use super::text::{count, paragraph, safe, safe_lines, safe_same_length};
use crate::mesh::route::show_share;
use crate::report::finding::FindingReport;
use crate::report::inspect::{BackendReport, InspectReport, PodsReport, PortReport, RouteReport, ServiceReport};
use crate::report::page::show_millis;
use crate::rules::Severity;

/// Whether the overview or pages are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One row a port.
    Overview,
    /// One page a Service.
    Pages,
}

/// Writes the report.
///
/// # Errors
/// Those of `out`.
pub fn inspect(report: &InspectReport, shape: Shape, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    match shape {
        Shape::Overview if report.services.is_empty() => {}
        Shape::Overview => write!(out, "{}", overview(report, style))?,
        Shape::Pages => {
            for (index, service) in report.services.iter().enumerate() {
                let gap = if index > 0 { "\n" } else { "" };
                write!(out, "{gap}{}", page(service, style))?;
            }
        }
    }
    write!(out, "{}", findings(report, style))
}

/// Writes `kind/namespace/name`, one Service a line.
///
/// # Errors
/// Those of `out`.
pub fn names(report: &InspectReport, out: &mut dyn Write) -> io::Result<()> {
    for service in &report.services {
        writeln!(out, "{}/{}/{}", service.kind.to_lowercase(), safe(&service.namespace), safe(&service.name))?;
    }
    Ok(())
}

fn overview(report: &InspectReport, style: &Style) -> String {
    let mut headings =
        vec!["NAMESPACE", "SERVICE", "PORT", "PROTOCOL", "DECIDED BY", "PODS", "PROXIES", "ROUTES", "FINDINGS"];
    // On a narrow terminal the two names share a column, and who decided is left to the Service's own page.
    let narrow = style.width.is_some_and(|width| width < 110);
    if narrow {
        headings = vec!["SERVICE", "PORT", "PROTOCOL", "PODS", "PROXIES", "ROUTES", "FINDINGS"];
    }
    if style.wide {
        headings.extend(["EVIDENCE", "GATEWAYS"]);
    }
    let mut rows = Vec::new();
    for service in &report.services {
        let ports = service.ports.iter().filter(|port| !port.evidence.is_empty() || !service.has_grpc);
        for (index, port) in ports.enumerate() {
            let first = |text: String| if index == 0 { text } else { String::new() };
            let mut row = vec![
                safe(&service.namespace).into_owned(),
                safe(&service.name).into_owned(),
                port_title(port),
                protocol(port, style),
                safe(&port.decided_by).into_owned(),
                show_pods(&service.pods),
                show_proxies(service),
                routes_cell(&service.routes),
                first(counts(&service.finding_counts, style)),
            ];
            if narrow {
                row.remove(4);
                let name = format!("{}.{}", row[1], row[0]);
                row.splice(0..2, [name]);
            }
            if style.wide {
                let gateways = service.gateways.iter().map(|g| format!("{}:{} {}", g.gateway.name, g.port, g.tls));
                row.push(safe(&port.evidence.join("; ")).into_owned());
                row.push(safe(&gateways.collect::<Vec<_>>().join(", ")).into_owned());
            }
            rows.push(row);
        }
    }
    table::render(style, &headings, rows, 0)
}

fn port_title(port: &PortReport) -> String {
    format!("{} {}", port.number, safe(&port.name)).trim_end().to_owned()
}

fn protocol(port: &PortReport, style: &Style) -> String {
    let role = match port.protocol {
        "GRPC" | "GRPC-Web" | "HTTP2" => Role::Good,
        _ if port.evidence.is_empty() => Role::Faint,
        "Auto" => Role::Warning,
        _ => Role::Error,
    };
    style.paint(role, port.protocol_label)
}

fn show_pods(pods: &PodsReport) -> String {
    match pods {
        PodsReport { known: false, .. } => "?".to_owned(),
        PodsReport { ready: 0, unknown, total, .. } if *unknown > 0 => format!("{total}"),
        PodsReport { ready, total, .. } => format!("{ready}/{total}"),
    }
}

fn show_proxies(service: &ServiceReport) -> String {
    let proxies = service.proxies;
    if !service.pods.known || (proxies.total > 0 && proxies.unknown == proxies.total) {
        return "?".to_owned();
    }
    format!("{}/{}", proxies.with, proxies.total)
}

fn routes_cell(routes: &[RouteReport]) -> String {
    match routes {
        [] => "default".to_owned(),
        [route] => route_cell(route),
        [_, _, ..] => format!("{} rules", routes.len()),
    }
}

fn route_cell(route: &RouteReport) -> String {
    if route.backends.is_empty() {
        return safe(&route.action).into_owned();
    }
    route
        .backends
        .iter()
        .map(|backend| format!("{} {}", backend_name(backend), show_share(backend.share)))
        .collect::<Vec<_>>()
        .join("  ")
}

/// The subset, or the host without its domain.
fn backend_name(backend: &BackendReport) -> String {
    let name = backend.subset.as_deref().unwrap_or(&backend.short);
    let mark = match backend.state {
        "no-cluster" => "!",
        "no-endpoints" => "∅",
        _ => "",
    };
    format!("{}{mark}", safe(name))
}

fn counts(counts: &BTreeMap<&'static str, usize>, style: &Style) -> String {
    let parts: Vec<_> = [Severity::Error, Severity::Warning, Severity::Info]
        .into_iter()
        .filter_map(|severity| counts.get(severity.word()).map(|number| (severity, *number)))
        .map(|(severity, number)| style.paint(severity.into(), &count(number, severity.word())))
        .collect();
    if parts.is_empty() { style.paint(Role::Good, "none") } else { parts.join(", ") }
}

fn heading(out: &mut String, style: &Style, text: &str) {
    let _ = writeln!(out, "\n{}", style.paint(Role::Heading, text));
}

fn bullet(out: &mut String, style: &Style, text: &str) {
    out.push_str(&paragraph(style, "  ", "    ", &safe_lines(text)));
}

fn page(service: &ServiceReport, style: &Style) -> String {
    let mut out = String::new();
    let title = format!("{} {}/{}", service.kind, service.namespace, service.name);
    let _ = writeln!(
        out,
        "{}  {}",
        style.paint(Role::Heading, &safe(&title)),
        style.paint(Role::Faint, &safe(&service.host))
    );
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
    if !service.not_modelled.is_empty() {
        heading(&mut out, style, "Not part of this picture");
        for text in &service.not_modelled {
            bullet(&mut out, style, text);
        }
    }
    out
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
        &["WORKLOAD", "VERSION", "READY", "PROXY", "ROUND THE PROXY"],
        rows.collect(),
        2,
    ));
}

fn routes(out: &mut String, service: &ServiceReport, style: &Style) {
    heading(out, style, "Routes, in the order Envoy tries them");
    if service.routes.is_empty() {
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

fn route_lines(route: &RouteReport, style: &Style) -> String {
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
            "no-cluster" => style.paint(Role::Error, "no such cluster: calls fail (NC)"),
            "no-endpoints" => style.paint(Role::Error, "no ready pods: calls fail (UH)"),
            _ => "pods unknown".to_owned(),
        };
        let _ = writeln!(
            out,
            "    → {:>5} {}{port}{}  {state}",
            show_share(backend.share),
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
        let text = format!("callers in {} {}", caller.namespaces.join(", "), caller.differs.join("; "));
        bullet(out, style, &text);
        for route in caller.routes.iter().flatten() {
            for line in route_lines(route, style).lines() {
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

/// Findings, worst first, those of one object together.
fn findings(report: &InspectReport, style: &Style) -> String {
    let mut out = String::new();
    let mut last = None;
    for finding in &report.findings {
        if finding.excerpt.is_some() {
            let _ = write!(out, "\n{}", excerpt(finding, style));
            last = None;
            continue;
        }
        if last != Some(&finding.object) {
            let _ = writeln!(out, "\n{}", style.paint(Role::Heading, &safe(&finding.object.to_string())));
            last = Some(&finding.object);
        }
        let title = format!("{} {} {}", finding.severity.word(), finding.code, finding.name);
        let _ = writeln!(
            out,
            "  {}  {}",
            style.paint(finding.severity.into(), &title),
            style.paint(Role::Faint, &safe(&finding.field))
        );
        for (label, text) in notes(finding) {
            out.push_str(&paragraph(style, &format!("    {label:<9} "), "              ", &safe_lines(&text)));
        }
    }
    out.push_str(&summary(report, style));
    out
}

/// The parts of a finding with their labels.
fn notes(finding: &FindingReport) -> Vec<(&'static str, String)> {
    let mut notes = vec![("what", finding.message.clone()), ("effect", finding.effect.clone())];
    if !finding.callers.is_empty() {
        notes.push(("callers", format!("in {}", finding.callers.join(", "))));
    }
    notes.extend(finding.evidence.iter().map(|evidence| ("because", evidence.clone())));
    notes.push(("fix", finding.fix.clone()));
    notes
}

/// A finding with the lines of its file and a caret.
fn excerpt(finding: &FindingReport, style: &Style) -> String {
    let Some(excerpt) = &finding.excerpt else { return String::new() };
    let source = safe_same_length(&excerpt.text.text);
    // Only the lines around the place are handed over: a long file would be scanned once a finding.
    let (bytes, text) = (excerpt.bytes.clone(), source.as_ref());
    let from = text[..bytes.start].rmatch_indices('\n').nth(2).map_or(0, |(at, _)| at + 1);
    let to = text[bytes.start..].match_indices('\n').nth(2).map_or(text.len(), |(at, _)| bytes.start + at);
    let line = text[..from].matches('\n').count() + 1;
    let span = bytes.start - from..bytes.end.min(to) - from;
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let path = safe(&excerpt.text.path);
    let snippet = Snippet::source(&text[from..to])
        .line_start(line)
        .path(path.as_ref())
        .annotation(AnnotationKind::Primary.span(span));
    let message = format!("{} ({} {})", safe(&finding.message), finding.name, safe(&finding.object.to_string()));
    let notes: Vec<String> = notes(finding)
        .into_iter()
        .skip(1)
        .map(|(label, text)| format!("{label}: {}", safe_lines(&text)))
        .chain(
            finding
                .position
                .as_ref()
                .and_then(|at| at.template.as_ref())
                .map(|template| format!("template: {}", safe(template))),
        )
        .collect();
    let mut group = level.primary_title(message.as_str()).id(finding.code).element(snippet);
    for note in &notes {
        group = group.element(Level::NOTE.no_name().message(note.as_str()));
    }
    let renderer = if style.color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(style.width.unwrap_or(1000));
    format!("{}\n", renderer.render(&[group]))
}

fn summary(report: &InspectReport, style: &Style) -> String {
    let mut totals: BTreeMap<&'static str, usize> = BTreeMap::new();
    for finding in &report.findings {
        *totals.entry(finding.severity.word()).or_insert(0) += 1;
    }
    let services = count(report.services.len(), "Service");
    let found = if totals.is_empty() { style.paint(Role::Good, "no findings") } else { counts(&totals, style) };
    let ignored = if report.ignored > 0 { format!(", {} ignored", report.ignored) } else { String::new() };
    let mut out = format!("\n{services}: {found}{ignored}\n");
    if let Some(first) = report.findings.first() {
        let _ = writeln!(
            out,
            "{}",
            style.paint(Role::Faint, &format!("more about a code: kubectl grpcmesh explain {}", first.code))
        );
    }
    if !report.undecided.is_empty() {
        let codes: Vec<_> = report.undecided.iter().map(|(code, number)| format!("{code} ×{number}")).collect();
        out.push_str(&paragraph(style, "not judged, because of what could not be read: ", "  ", &codes.join(", ")));
    }
    let gaps: Vec<_> = report.gaps.iter().filter(|gap| gap.touches_answers).collect();
    if !gaps.is_empty() {
        let _ = writeln!(out, "{}", style.paint(Role::Heading, "Gaps"));
        for gap in gaps {
            out.push_str(&paragraph(style, "  ", "    ", &safe(&format!("{}: {}", gap.what, gap.why))));
        }
    }
    out
}
