//! Tests of routes: a YAML list of calls with what is expected of them.

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

/// A test as it is written.
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

/// A test.
#[derive(Debug)]
pub(super) struct RouteTestCase {
    name: String,
    caller: String,
    call: Call,
    expect: RouteExpectation,
}

/// Reads a file of tests.
pub(super) fn read(path: &Path) -> Result<Vec<RouteTestCase>, Failure> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::source(format!("cannot read {name}")).cause(error))?;
    let converted = yaml::to_json(&text)
        .map_err(|error| Failure::usage(format!("{name}:{}:{}: {}", error.at.line, error.at.column, error.what)))?;
    let json = converted.json.as_ref().map_or("[]", |json| json.get());
    let written: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| {
        Failure::usage(format!("{name}: not a list of tests"))
            .hint("- {name: …, caller: NS/deploy/NAME, host: HOST:PORT, method: /S/M, expect: {subset: v1}}")
    })?;
    if written.is_empty() {
        return Err(Failure::usage(format!("{name}: there is no test in it")));
    }
    written
        .into_iter()
        .enumerate()
        .map(|(at, value)| test(at, value).map_err(|why| Failure::usage(format!("{name}: test {}: {why}", at + 1))))
        .collect()
}

fn test(at: usize, value: &RawValue) -> Result<RouteTestCase, String> {
    let written: TestRecord =
        decode_error::decode(value.get()).map_err(|DecodeError { field, why }| match &*field {
            "" => why,
            field => format!("{field}: {why}"),
        })?;
    if written.expect.is_empty() {
        return Err("expect names nothing".to_owned());
    }
    if let Some(mistake) = written.expect.mistake() {
        return Err(format!("expect: {mistake}"));
    }
    let (_, in_host) = calls::split_port(&written.host);
    let port = written.port.or(in_host).ok_or("no port, neither of its own nor in the host")?;
    let protocol = match written.protocol.as_deref() {
        None => CallProtocol::Grpc,
        Some(word) => {
            calls::parse_protocol(word).ok_or_else(|| format!("protocol {word} is none of grpc, grpc-tls, http1"))?
        }
    };
    // A gRPC client sends the port with the host.
    let authority = if in_host.is_some() { written.host } else { format!("{}:{port}", written.host) };
    Ok(RouteTestCase {
        name: written.name.unwrap_or_else(|| format!("test {}", at + 1)),
        caller: written.caller,
        call: Call {
            authority,
            port,
            path: calls::path(written.method)?,
            headers: calls::headers(written.headers)?,
            protocol,
            dial: written.dial,
        },
        expect: written.expect,
    })
}

/// Runs the tests.
pub(super) fn run<'m>(mesh: &'m Mesh<'m>, tests: Vec<RouteTestCase>) -> RouteTestsReport {
    let mut proxies = ProxyConfigs::new(mesh);
    let mut results = Vec::with_capacity(tests.len());
    for RouteTestCase { name, caller, call, expect } in tests {
        let authority = call.authority.clone();
        let (failures, route) = match proxies.find(&caller) {
            Ok((named, outbound)) => {
                let route = RouteReport::new(mesh, &named.caller, &named.title, &call, &outbound.answer(&call));
                (expect.failures(&route), Some(route))
            }
            Err(failure) => (vec![failure.message], None),
        };
        results.push(RouteTestReport { name, failures, authority, route });
    }
    RouteTestsReport::new(results)
}
