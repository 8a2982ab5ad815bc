//! Reads and runs route tests: a YAML list of calls with expectations.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::callers::ProxyConfigs;
use super::calls;
use crate::cli::failure::Failure;
use crate::mesh::Mesh;
use crate::mesh::xds::{Call, CallProtocol};
use crate::report::route::RouteReport;
use crate::report::route_test::{RouteExpectation, RouteTestReport, RouteTestsReport};
use crate::snapshot::decode_error::{self, DecodeError};
use crate::snapshot::yaml;

/// A test in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestRecord {
    name: Option<String>,
    caller: String,
    host: String,
    port: Option<u16>,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    protocol: Option<String>,
    dial: Option<String>,
    expect: RouteExpectation,
}

#[derive(Debug)]
pub(super) struct RouteTestCase {
    name: String,
    caller: String,
    call: Call,
    expect: RouteExpectation,
}

/// Reads a file of tests.
///
/// # Errors
/// If the file cannot be read, is not a list of tests, or contains an invalid test.
pub(super) fn read(path: &Path) -> Result<Vec<RouteTestCase>, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::unavailable(format!("cannot read {name}")).cause(error))?;
    let converted = yaml::to_json(&text).map_err(|error| {
        Failure::usage(format!("{name}:{}:{}: {}", error.position.line, error.position.column, error.message))
    })?;
    let json = converted.json.as_ref().map_or("[]", |json| json.get());
    let records: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| {
        Failure::usage(format!("{name} is not a YAML list of tests"))
            .hint("expected: - {name: …, caller: NS/deploy/NAME, host: HOST:PORT, method: /S/M, expect: {subset: v1}}")
    })?;
    if records.is_empty() {
        return Err(Failure::usage(format!("{name} contains no tests")));
    }
    let tests = records.into_iter().enumerate();
    tests
        .map(|(index, record)| {
            parse_test(index, record).map_err(|error| Failure::usage(format!("{name}: test {}: {error}", index + 1)))
        })
        .collect()
}

fn parse_test(index: usize, value: &RawValue) -> Result<RouteTestCase, String> {
    let record: TestRecord =
        decode_error::decode(value.get()).map_err(|DecodeError { field, message }| match &*field {
            "" => message,
            field => format!("{field}: {message}"),
        })?;
    if record.expect.is_empty() {
        return Err("expect is empty".to_owned());
    }
    if let Some(error) = record.expect.invalid_value() {
        return Err(format!("expect.{error}"));
    }
    let (_, host_port) = calls::split_port(&record.host);
    let port = record.port.or(host_port).ok_or("no port given: add it to host, or as port")?;
    let protocol = match record.protocol.as_deref() {
        None => CallProtocol::Grpc,
        Some(name) => calls::parse_protocol(name)?,
    };
    // gRPC clients send the port in the authority.
    let authority = if host_port.is_some() { record.host } else { format!("{}:{port}", record.host) };
    Ok(RouteTestCase {
        name: record.name.unwrap_or_else(|| format!("test {}", index + 1)),
        caller: record.caller,
        call: Call {
            authority,
            port,
            path: calls::path(record.method)?,
            headers: calls::headers(record.headers)?,
            protocol,
            dial: record.dial,
        },
        expect: record.expect,
    })
}

/// Runs the tests.
pub(super) fn run<'m>(mesh: &'m Mesh<'m>, tests: Vec<RouteTestCase>) -> RouteTestsReport {
    let mut configs = ProxyConfigs::new(mesh);
    let mut results = Vec::with_capacity(tests.len());
    for RouteTestCase { name, caller, call, expect } in tests {
        let authority = call.authority.clone();
        let (failures, route) = match configs.proxy_of(&caller) {
            Ok((caller, proxy)) => {
                let route = RouteReport::new(mesh, &caller.caller, &caller.name, &call, &proxy.decide(&call));
                (expect.failures(&route), Some(route))
            }
            Err(failure) => (vec![failure.message], None),
        };
        results.push(RouteTestReport { name, failures, authority, route });
    }
    RouteTestsReport::new(results)
}
