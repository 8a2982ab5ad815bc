//! Whole outputs of the commands that need a cluster, rendered from sample reports.

use std::collections::BTreeSet;
use std::io::{self, Write};

use insta::assert_snapshot;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::diff::DiffDetail;
use super::inspect::InspectView;
use super::style::Style;
use super::{balance, diff, doctor, inspect, json, json_line, shift, tail, yaml};
use crate::dataplane::balance::CountingPeriod;
use crate::dataplane::proxy::ProxyState;
use crate::report::balance::BalanceReport;
use crate::report::samples;
use crate::report::shift::ShiftEvent;

const WIDTHS: [usize; 2] = [80, 120];

/// The output of `render`.
#[track_caller]
fn render_to_string(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    render(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Renders text at each width, and fails when a line is wider. `is_code`: lines to copy, which never wrap.
#[track_caller]
fn assert_text(name: &str, is_code: impl Fn(&str) -> bool, render: impl Fn(&Style, &mut dyn Write) -> io::Result<()>) {
    for width in WIDTHS {
        let style = Style { color: false, width: Some(width), headers: true, wide: false };
        let text = render_to_string(|out| render(&style, out));
        let too_wide: Vec<&str> = text.lines().filter(|line| line.width() > width && !is_code(line)).collect();
        assert_eq!(too_wide, [""; 0], "{name} at {width} columns");
        assert_snapshot!(format!("{name}-{width}"), text);
    }
}

fn is_text(_: &str) -> bool {
    false
}

#[track_caller]
fn assert_json_and_yaml(name: &str, report: &impl Serialize) {
    assert_snapshot!(format!("{name}-json"), render_to_string(|out| json(report, out)));
    assert_snapshot!(format!("{name}-yaml"), render_to_string(|out| yaml::yaml(report, out)));
}

#[test]
fn diff_reports_objects_and_every_state_of_proxies() {
    let report = samples::diff();
    let states: BTreeSet<ProxyState> = report.proxies.iter().map(|proxy| proxy.state).collect();
    assert_eq!(states.len(), 7, "{states:?}");
    assert_text("diff", is_text, |style, out| diff::diff(&report, DiffDetail::Normal, style, out));
    assert_text("diff-summary", is_text, |style, out| diff::diff(&report, DiffDetail::Summary, style, out));
    assert_text("diff-full", is_text, |style, out| diff::diff(&report, DiffDetail::Full, style, out));
    assert_json_and_yaml("diff", &report);
    assert_snapshot!("diff-markdown", render_to_string(|out| diff::markdown(&report, out)));
    assert_snapshot!("diff-github", render_to_string(|out| diff::github(&report, out)));
}

#[test]
fn diff_of_synced_proxies_is_one_line() {
    let report = samples::diff_synced();
    assert_text("diff-synced", is_text, |style, out| diff::diff(&report, DiffDetail::Normal, style, out));
    assert_snapshot!("diff-synced-markdown", render_to_string(|out| diff::markdown(&report, out)));
    assert_eq!(render_to_string(|out| diff::github(&report, out)), "");
}

#[test]
fn balance_reports_each_verdict() {
    let assert_report = |name: &str, report: &BalanceReport| {
        assert_text(&format!("balance-{name}"), is_text, |style, out| balance::balance(report, style, out));
        assert_json_and_yaml(&format!("balance-{name}"), report);
    };
    assert_report("even", &samples::balance_even());
    assert_report("uneven", &samples::balance_uneven());
    assert_report("pinned", &samples::balance_pinned());
    assert_report("too-few-calls", &samples::balance_too_few());
}

#[test]
fn doctor_reports_each_state_with_its_fix() {
    let report = samples::doctor();
    let is_manifest = |line: &str| line.starts_with("    ") && !line.starts_with("     ");
    assert_text("doctor", is_manifest, |style, out| doctor::doctor(&report, style, out));
    assert_json_and_yaml("doctor", &report);
}

#[test]
fn shift_prints_every_event() {
    let events = samples::shift_events();
    let types: BTreeSet<&str> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(types.len(), 10, "{types:?}");
    let all = |out: &mut dyn Write, write: &dyn Fn(&ShiftEvent, &mut dyn Write) -> io::Result<()>| {
        events.iter().try_for_each(|event| write(event, out))
    };
    assert_text("shift-events", is_text, |style, out| all(out, &|event, out| shift::event(event, style, out)));
    assert_snapshot!("shift-events-json", render_to_string(|out| all(out, &|event, out| json_line(event, out))));
}

#[test]
fn shift_prints_the_change_and_the_unaffected_callers() {
    let style = Style { color: false, width: Some(80), headers: true, wide: false };
    let patch = &samples::diff().objects[0].patch;
    assert_snapshot!("shift-patch", render_to_string(|out| shift::patch(patch, &style, out)));
    let classes = samples::caller_classes();
    assert_text("shift-unaffected", is_text, |style, out| shift::unaffected(&classes, style, out));
}

#[test]
fn shift_prints_the_status() {
    for (name, report) in [
        ("open", samples::shift_status()),
        ("changed", samples::shift_status_changed()),
        ("empty", samples::shift_status_empty()),
    ] {
        assert_text(&format!("shift-status-{name}"), is_text, |style, out| shift::status(&report, style, out));
        assert_snapshot!(format!("shift-status-{name}-json"), render_to_string(|out| json(&report, out)));
    }
}

#[test]
fn shift_prints_the_history() {
    let report = samples::shift_history();
    assert_text("shift-history", is_text, |style, out| shift::history(&report, style, out));
    assert_snapshot!("shift-history-json", render_to_string(|out| json(&report, out)));
    let empty = samples::shift_history_empty();
    assert_text("shift-history-empty", is_text, |style, out| shift::history(&empty, style, out));
}

#[test]
fn tail_prints_lines_and_calls_with_the_names_of_pods() {
    let lines = samples::tail_lines();
    assert_text("tail-lines", is_text, |style, out| lines.iter().try_for_each(|line| tail::line(line, style, out)));
    let calls = samples::tail_calls();
    assert_text("tail-calls", is_text, |style, out| calls.iter().try_for_each(|call| tail::call(call, style, out)));
    let json_lines = render_to_string(|out| calls.iter().try_for_each(|call| json_line(call, out)));
    assert_snapshot!("tail-calls-json", json_lines);
}

#[test]
fn tail_prints_the_summary_and_the_top_table() {
    let report = samples::tail_summary();
    assert_text("tail-summary", is_text, |style, out| tail::summary(&report, style, out));
    assert_text("tail-top", is_text, |style, out| tail::top(&report, 24, style, out));
    for rows in [6, 7, 24] {
        let style = Style { color: false, width: Some(60), headers: true, wide: false };
        let screen = render_to_string(|out| tail::top(&report, rows, &style, out));
        assert!(screen.lines().count() <= rows, "{rows} rows:\n{screen}");
    }
    assert_text("tail-top-short", is_text, |style, out| tail::top(&report, 6, style, out));
}

#[test]
fn inspect_shows_the_live_state_of_callers() {
    let recent = samples::inspect_live(CountingPeriod::BetweenReadings);
    let total = samples::inspect_live(CountingPeriod::SinceEndpointAdded);
    assert_text("inspect-live", is_text, |style, out| inspect::inspect(&recent, InspectView::Pages, style, out));
    assert_text("inspect-live-total", is_text, |style, out| inspect::inspect(&total, InspectView::Pages, style, out));
    assert_snapshot!("inspect-live-json", render_to_string(|out| json(&recent, out)));
}
