//! Writes the report of `route --test` as text and as JUnit XML.

use std::io::{self, Write};

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::style::{Style, TextRole};
use super::text::{count, safe};
use crate::report::route_test::{RouteTestReport, RouteTestsReport};

/// Writes one line per test with its failures below, and the totals.
///
/// # Errors
/// Errors of `out`.
pub fn text(report: &RouteTestsReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    for test in &report.tests {
        let (mark, role) = if test.failures.is_empty() { ("✓", TextRole::Good) } else { ("✗", TextRole::Error) };
        writeln!(out, "{} {}", style.paint(role, mark), safe(&test.name))?;
        for line in details(test) {
            writeln!(out, "    {}", safe(&line))?;
        }
    }
    let failed = if report.failed == 0 { String::new() } else { format!(", {} failed", report.failed) };
    writeln!(out, "{}{failed}", count(report.tests.len(), "test"))
}

/// The failures of a test, and the decision about its call.
fn details(test: &RouteTestReport) -> Vec<String> {
    if test.failures.is_empty() {
        return Vec::new();
    }
    let mut lines = test.failures.clone();
    let Some(route) = &test.route else { return lines };
    match &route.rule {
        Some(rule) => lines.push(format!("matched {}/{}/{}[{}]", rule.kind, rule.namespace, rule.name, rule.index)),
        None => lines.push(format!("outcome {}", route.outcome.as_str())),
    }
    lines.extend(route.tried.iter().map(|tried| format!("did not match {}: {}", tried.rule, tried.why_not)));
    if !route.message.is_empty() {
        lines.push(route.message.clone());
    }
    lines
}

/// Writes one test suite with a test case per test.
///
/// # Errors
/// Errors of `out`.
pub fn junit(report: &RouteTestsReport, out: &mut dyn Write) -> io::Result<()> {
    let mut xml = Writer::new_with_indent(&mut *out, b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let counts = [("tests", report.tests.len().to_string()), ("failures", report.failed.to_string())];
    let counts = || counts.iter().map(|(key, value)| (*key, value.as_str()));
    xml.create_element("testsuites").with_attributes(counts()).write_inner_content(|xml| {
        let suite = xml.create_element("testsuite").with_attribute(("name", "routes")).with_attributes(counts());
        suite.write_inner_content(|xml| {
            for test in &report.tests {
                let name = safe(&test.name);
                let case = xml.create_element("testcase");
                let case = case.with_attributes([("name", &*name), ("classname", &*safe(&test.authority))]);
                if test.failures.is_empty() {
                    case.write_empty()?;
                    continue;
                }
                case.write_inner_content(|xml| {
                    let message = safe(&test.failures.join("; ")).into_owned();
                    let text = details(test).join("\n");
                    xml.create_element("failure")
                        .with_attribute(("message", message.as_str()))
                        .write_text_content(BytesText::new(&super::text::safe_lines(&text)))?;
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    writeln!(out)
}
