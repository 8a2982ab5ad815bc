//! `inspect` as text: the overview, the page of one Service, and findings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::finding::findings;
use super::page::page;
use super::style::{Style, TextRole};
use super::table::{self, Column, STICKY};
use super::text::{count, paragraph, safe};
use crate::report::inspect::{BackendReport, InspectReport, PodsReport, PortReport, ServiceReport};
use crate::rules::Severity;
use crate::snapshot::GapKind;
use crate::vocabulary::share::format_percent;

/// Whether the overview or pages are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectView {
    /// One row a port.
    Overview,
    /// One page a Service.
    Pages,
}

/// Writes the report.
///
/// # Errors
/// Those of `out`.
pub fn inspect(report: &InspectReport, shape: InspectView, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    match shape {
        InspectView::Overview if report.services.is_empty() => {}
        InspectView::Overview => write!(out, "{}", overview(report, style))?,
        InspectView::Pages => {
            for (index, service) in report.services.iter().enumerate() {
                let gap = if index > 0 { "\n" } else { "" };
                write!(out, "{gap}{}", page(service, style))?;
            }
        }
    }
    write!(out, "{}{}", findings(report, style), summary(report, style))
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
    let (whole, flexible) = (Column::whole, Column::flexible);
    // On a narrow terminal the two names share a column, and who decided and the proxies are left to the Service's own
    // page: what is wrong with them is among the findings.
    let narrow = style.width.is_some_and(|width| width < 110);
    let mut columns = if narrow {
        vec![whole("SERVICE"), flexible("PORT"), whole("PROTOCOL"), whole("PODS")]
    } else {
        let mut columns = vec![whole("NAMESPACE"), whole("SERVICE"), whole("PORT"), whole("PROTOCOL")];
        columns.extend([flexible("DECIDED BY"), whole("PODS"), whole("PROXIES")]);
        columns
    };
    columns.extend([flexible("ROUTES"), flexible("FINDINGS")]);
    if style.wide {
        columns.extend([flexible("EVIDENCE"), flexible("GATEWAYS")]);
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
                routes_cell(service),
                first(counts(&service.finding_counts, style, STICKY)),
            ];
            if narrow {
                row.remove(6);
                row.remove(4);
                let name = format!("{}.{}", row[1], row[0]);
                row.splice(0..2, [name]);
            }
            if style.wide {
                let gateways = service.gateways.iter().map(|g| {
                    if g.known {
                        format!("{}:{} {}", g.gateway.name, g.port, g.tls)
                    } else {
                        format!("{} (not in the source)", g.gateway.name)
                    }
                });
                row.push(safe(&port.evidence.join("; ")).into_owned());
                row.push(safe(&gateways.collect::<Vec<_>>().join(", ")).into_owned());
            }
            rows.push(row);
        }
    }
    table::render(style, &columns, rows, 0)
}

pub(super) fn port_title(port: &PortReport) -> String {
    format!("{} {}", port.number, safe(&port.name)).trim_end().to_owned()
}

pub(super) fn protocol(port: &PortReport, style: &Style) -> String {
    let role = match port.protocol {
        "GRPC" | "GRPC-Web" | "HTTP2" => TextRole::Good,
        _ if port.evidence.is_empty() => TextRole::Faint,
        "Auto" => TextRole::Warning,
        _ => TextRole::Error,
    };
    style.paint(role, port.protocol_label)
}

pub(super) fn show_pods(pods: &PodsReport) -> String {
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

fn routes_cell(service: &ServiceReport) -> String {
    match service.routes.as_slice() {
        [] => "default".to_owned(),
        [route] if route.backends.is_empty() => safe(&route.action).into_owned(),
        [route] => {
            let all_pods = |backend: &BackendReport| backend.subset.is_none() && backend.host == service.host;
            match route.backends.as_slice() {
                [backend] if all_pods(backend) => format!("all{STICKY}pods"),
                backends => {
                    let shares = backends
                        .iter()
                        .map(|backend| format!("{}{STICKY}{}", backend_name(backend), format_percent(backend.share)));
                    shares.collect::<Vec<_>>().join("  ")
                }
            }
        }
        rules => format!("{} rules", rules.len()),
    }
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

/// `1 error, 2 warnings`, with `space` between number and word.
fn counts(counts: &BTreeMap<&'static str, usize>, style: &Style, space: char) -> String {
    let parts: Vec<_> = [Severity::Error, Severity::Warning, Severity::Info]
        .into_iter()
        .filter_map(|severity| counts.get(severity.as_str()).map(|number| (severity, *number)))
        .map(|(severity, number)| {
            style.paint(severity.into(), &count(number, severity.as_str()).replace(' ', &space.to_string()))
        })
        .collect();
    if parts.is_empty() { style.paint(TextRole::Good, "none") } else { parts.join(", ") }
}

fn summary(report: &InspectReport, style: &Style) -> String {
    let mut totals: BTreeMap<&'static str, usize> = BTreeMap::new();
    for finding in &report.findings {
        *totals.entry(finding.severity.as_str()).or_insert(0) += 1;
    }
    let services = count(report.services.len(), "Service");
    let found =
        if totals.is_empty() { style.paint(TextRole::Good, "no findings") } else { counts(&totals, style, ' ') };
    let ignored = if report.ignored > 0 { format!(", {} ignored", report.ignored) } else { String::new() };
    let mut out = format!("\n{services}: {found}{ignored}\n");
    if let Some(live) = &report.live {
        let all: usize = live.proxies.values().sum();
        let in_step = live.proxies.get("in-step").copied().unwrap_or(0);
        let others = live.proxies.iter().filter(|(state, _)| **state != "in-step");
        let others: Vec<String> = others.map(|(state, number)| format!("{number} {state}")).collect();
        let others = if others.is_empty() { String::new() } else { format!(", {}", others.join(", ")) };
        let role = if in_step == all { TextRole::Good } else { TextRole::Warning };
        let text = format!("{in_step} of {all} proxies in step{others}");
        let _ = writeln!(out, "Envoys: {}", style.paint(role, &text));
    }
    if let Some(first) = report.findings.first() {
        let _ = writeln!(
            out,
            "{}",
            style.paint(TextRole::Faint, &format!("more about a code: kubectl grpcmesh explain {}", first.code))
        );
    }
    if !report.undecided.is_empty() {
        let codes: Vec<_> = report.undecided.iter().map(|(code, number)| format!("{code} ×{number}")).collect();
        out.push_str(&paragraph(style, "not judged, because of what could not be read: ", "  ", &codes.join(", ")));
    }
    let gaps: Vec<_> = report.gaps.iter().filter(|gap| gap.reason != GapKind::NotInstalled).collect();
    if !gaps.is_empty() {
        let _ = writeln!(out, "{}", style.paint(TextRole::Heading, "Gaps"));
        for gap in gaps {
            out.push_str(&paragraph(style, "  ", "    ", &safe(&format!("{}: {}", gap.what, gap.why))));
        }
    }
    out
}
