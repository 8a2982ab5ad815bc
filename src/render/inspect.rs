//! Writes `inspect` as text: the overview or the pages of Services, then the findings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::finding::findings;
use super::page::page;
use super::style::{Style, TextRole};
use super::table::{self, Column, STICKY};
use super::text::{count, gap_lines, paragraph, safe};
use crate::dataplane::proxy::ProxyState;
use crate::mesh::protocol::Protocol;
use crate::mesh::xds::BackendState;
use crate::report::inspect::{BackendReport, InspectReport, PodsReport, PortReport, RuleReport, ServiceReport};
use crate::rules::Severity;
use crate::snapshot::GapKind;
use crate::vocabulary::share::format_percent;

/// The form of the Services part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectView {
    /// One row per port.
    Overview,
    /// One page per Service.
    Pages,
}

/// Writes the report.
///
/// # Errors
/// Errors of `out`.
pub fn inspect(report: &InspectReport, view: InspectView, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    match view {
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

/// Writes `kind/namespace/name`, one line per Service.
///
/// # Errors
/// Errors of `out`.
pub fn names(report: &InspectReport, out: &mut dyn Write) -> io::Result<()> {
    for service in &report.services {
        writeln!(out, "{}/{}/{}", service.kind.as_str().to_lowercase(), safe(&service.namespace), safe(&service.name))?;
    }
    Ok(())
}

fn overview(report: &InspectReport, style: &Style) -> String {
    let (whole, flexible) = (Column::whole, Column::flexible);
    // A narrow terminal gets one column for both names, and no DECIDED BY and PROXIES: the Service's own page has them,
    // and their faults are among the findings.
    let is_narrow = style.width.is_some_and(|width| width < 110);
    let mut columns = if is_narrow {
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
                format_pods(&service.pods),
                format_proxies(service),
                routes_cell(service),
                first(counts(&service.finding_counts, style, STICKY)),
            ];
            if is_narrow {
                row.remove(6);
                row.remove(4);
                let namespace = row.remove(0);
                if let Some(name) = row.first_mut() {
                    *name = format!("{name}.{namespace}");
                }
            }
            if style.wide {
                let gateways = service.gateways.iter().map(|gateway| {
                    if gateway.in_source {
                        format!("{}:{} {}", gateway.object.name, gateway.port, gateway.tls)
                    } else {
                        format!("{} (not in the source)", gateway.object.name)
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
        protocol if protocol.is_http2() => TextRole::Good,
        _ if port.evidence.is_empty() => TextRole::Faint,
        Protocol::Auto => TextRole::Warning,
        _ => TextRole::Error,
    };
    style.paint(role, port.protocol.label())
}

pub(super) fn format_pods(pods: &PodsReport) -> String {
    match pods {
        PodsReport { in_source: false, .. } => "?".to_owned(),
        PodsReport { ready: 0, unknown, total, .. } if *unknown > 0 => format!("{total}"),
        PodsReport { ready, total, .. } => format!("{ready}/{total}"),
    }
}

fn format_proxies(service: &ServiceReport) -> String {
    let proxies = service.proxies;
    if !service.pods.in_source || (proxies.total > 0 && proxies.unknown == proxies.total) {
        return "?".to_owned();
    }
    format!("{}/{}", proxies.present, proxies.total)
}

fn routes_cell(service: &ServiceReport) -> String {
    match service.routes.as_slice() {
        [] => "default".to_owned(),
        [route] if route.backends.is_empty() => action_title(route),
        [route] => {
            let all_pods = |backend: &BackendReport| backend.subset.is_none() && backend.host == service.host;
            match route.backends.as_slice() {
                [backend] if all_pods(backend) => format!("all{STICKY}pods"),
                backends => {
                    let shares = backends.iter().map(|backend| {
                        format!("{}{STICKY}{}", backend_name(backend), format_percent(backend.share_percent.0))
                    });
                    shares.collect::<Vec<_>>().join("  ")
                }
            }
        }
        rules => format!("{} rules", rules.len()),
    }
}

/// The action of a rule without backends: `direct-response 503`, `delegate shop/checkout-canary`.
pub(super) fn action_title(rule: &RuleReport) -> String {
    let status = rule.status.map(|status| format!(" {status}")).unwrap_or_default();
    let delegate = rule.delegate.as_ref().map(|object| format!(" {}/{}", object.namespace, object.name));
    safe(&format!("{}{status}{}", rule.action.as_str(), delegate.unwrap_or_default())).into_owned()
}

/// The subset, or the host without its domain, with a mark when calls cannot arrive.
fn backend_name(backend: &BackendReport) -> String {
    let name = backend.subset.as_deref().unwrap_or(&backend.short_host);
    let mark = match backend.state {
        BackendState::NoCluster => "!",
        BackendState::NoEndpoints => "∅",
        BackendState::Ok | BackendState::Unknown => "",
    };
    format!("{}{mark}", safe(name))
}

/// `1 error, 2 warnings`, with `space` between number and noun.
fn counts(counts: &BTreeMap<Severity, usize>, style: &Style, space: char) -> String {
    let parts: Vec<_> = [Severity::Error, Severity::Warning, Severity::Info]
        .into_iter()
        .filter_map(|severity| counts.get(&severity).map(|number| (severity, *number)))
        .map(|(severity, number)| {
            style.paint(severity.into(), &count(number, severity.as_str()).replace(' ', &space.to_string()))
        })
        .collect();
    if parts.is_empty() { style.paint(TextRole::Good, "none") } else { parts.join(", ") }
}

fn summary(report: &InspectReport, style: &Style) -> String {
    let mut totals: BTreeMap<Severity, usize> = BTreeMap::new();
    for finding in &report.findings {
        *totals.entry(finding.severity).or_default() += 1;
    }
    let services = count(report.services.len(), "Service");
    let findings =
        if totals.is_empty() { style.paint(TextRole::Good, "no findings") } else { counts(&totals, style, ' ') };
    let ignored = if report.ignored > 0 { format!(", {} ignored", report.ignored) } else { String::new() };
    let mut out = format!("\n{services}: {findings}{ignored}\n");
    if let Some(live) = &report.live {
        let all: usize = live.proxies.values().sum();
        let synced = live.proxies.get(&ProxyState::Synced).copied().unwrap_or(0);
        let others = live.proxies.iter().filter(|(state, _)| **state != ProxyState::Synced);
        let others: Vec<String> = others.map(|(state, number)| format!("{number}{STICKY}{}", state.as_str())).collect();
        let others = if others.is_empty() { String::new() } else { format!(", {}", others.join(", ")) };
        let role = if synced == all { TextRole::Good } else { TextRole::Warning };
        let text = format!("{synced} of {all} synced{others}");
        out.push_str(&paragraph(style, "Proxies: ", "  ", &style.paint(role, &text)));
    }
    if let Some(first) = report.findings.first() {
        let _ = writeln!(
            out,
            "{}",
            style.paint(TextRole::Faint, &format!("explain a code: kubectl grpcmesh explain {}", first.code))
        );
    }
    if !report.undecided.is_empty() {
        let codes: Vec<_> = report.undecided.iter().map(|(code, number)| format!("{code} ×{number}")).collect();
        out.push_str(&paragraph(style, "undecided because of gaps: ", "  ", &codes.join(", ")));
    }
    out.push_str(&gap_lines(report.gaps.iter().filter(|gap| gap.reason != GapKind::NotInstalled), style));
    out
}
