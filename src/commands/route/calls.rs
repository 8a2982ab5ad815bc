//! Parses calls from flags, or from a file with one call per line.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::{CallProtocolArg, RouteArgs, known_hosts};
use crate::cli::failure::Failure;
use crate::mesh::Mesh;
use crate::mesh::service::{Service, ServicePort};
use crate::mesh::xds::{Call, CallProtocol};

/// The port for hosts that are not in the mesh.
const HTTP_PORT: u16 = 80;

const HEADER_FORM: &str = "use NAME:VALUE, such as -H x-canary:true";

/// A call from a file.
#[derive(Debug)]
pub(super) struct CallRequest {
    /// `file:line`, for error messages.
    pub(super) position: String,
    pub(super) id: Option<String>,
    pub(super) caller: String,
    pub(super) call: Call,
}

/// A line of a calls file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallRecord {
    id: Option<String>,
    caller: String,
    authority: String,
    port: Option<u16>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    protocol: Option<String>,
    dial: Option<String>,
}

/// Reads a file of calls, or standard input for `-`. A line that is not a call becomes an error with its position.
///
/// # Errors
/// If the file cannot be read, or none of its lines is a call.
pub(super) fn read(path: &Path) -> Result<Vec<Result<CallRequest, String>>, Failure> {
    let name = path.display();
    let cannot_read = |error: std::io::Error| Failure::unavailable(format!("cannot read {name}")).cause(error);
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).map_err(cannot_read)?;
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map_err(cannot_read)?;
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let calls: Vec<_> = lines
        .map(|(index, line)| {
            let position = format!("{name}:{}", index + 1);
            parse(line, &position).map_err(|error| format!("{position}: {error}"))
        })
        .collect();
    match calls.iter().find_map(|call| call.as_ref().err()) {
        Some(first) if calls.iter().all(Result::is_err) => Err(Failure::usage(first.clone()).hint(
            "expected one call per line: {\"caller\": \"NS/POD\", \"authority\": \"HOST:PORT\", \"path\": \"/S/M\"}",
        )),
        _ => Ok(calls),
    }
}

fn parse(line: &str, position: &str) -> Result<CallRequest, String> {
    let record: CallRecord = serde_json::from_str(line).map_err(|error| {
        // The line number of serde_json counts within this line.
        let message = error.to_string();
        message.split(" at line ").next().unwrap_or(&message).to_owned()
    })?;
    let (_, authority_port) = split_port(&record.authority);
    let port = record.port.or(authority_port).ok_or("no port given: add it to authority, or as port")?;
    let protocol = match record.protocol.as_deref() {
        None => CallProtocol::Grpc,
        Some(name) => parse_protocol(name)?,
    };
    Ok(CallRequest {
        position: position.to_owned(),
        id: record.id,
        caller: record.caller,
        call: Call {
            authority: record.authority,
            port,
            path: path(record.path)?,
            headers: headers(record.headers)?,
            protocol,
            dial: record.dial,
        },
    })
}

/// Parses the name of a client's protocol.
///
/// # Errors
/// If the name is unknown.
pub(super) fn parse_protocol(name: &str) -> Result<CallProtocol, String> {
    name.parse().map_err(|_| format!("\"{name}\" is not a valid protocol: expected grpc, grpc-tls or http1"))
}

/// Splits an authority into host and port. IPv6 addresses are in brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

/// The call that the flags describe. Without a port, the only port or the only gRPC port of the Service is used.
///
/// # Errors
/// If the host, port, path or a header is not valid, or the Service has several ports.
pub(super) fn from_flags(mesh: &Mesh<'_>, arguments: &RouteArgs, namespace: Option<&str>) -> Result<Call, Failure> {
    let authority = arguments.host.as_deref().unwrap_or_default();
    known_hosts::check_form(authority, arguments.method.as_deref())?;
    let (host, port) = split_port(authority);
    if host.is_empty() {
        return Err(Failure::usage(format!("\"{authority}\" is not a valid host"))
            .hint("use HOST:PORT, such as checkout.shop:50051"));
    }
    let suffix = authority.rsplit_once(':').filter(|(name, _)| port.is_none() && !name.contains(':'));
    if let Some((name, suffix)) = suffix {
        return Err(Failure::unavailable(format!("\"{suffix}\" is not a valid port of {name}"))
            .hint("use a number from 1 to 65535"));
    }
    let headers = arguments.headers.iter().map(|text| parse_header(text)).collect::<Result<_, _>>()?;
    let protocol = match arguments.protocol {
        CallProtocolArg::Grpc => CallProtocol::Grpc,
        CallProtocolArg::GrpcTls => CallProtocol::GrpcTls,
        CallProtocolArg::Http1 => CallProtocol::Http1,
    };
    // A short name refers to the namespace in scope, not to that of the caller.
    let service = host.split_once('.').map_or_else(
        || namespace.and_then(|namespace| mesh.find_service(namespace, host)),
        |(name, rest)| {
            let namespace = rest.split('.').next().unwrap_or(rest);
            mesh.find_service(namespace, name).or_else(|| mesh.find_host(host))
        },
    );
    if !arguments.allow_unknown_host {
        known_hosts::check(mesh, arguments, host, port, service)?;
    }
    let host = match (service, host.contains('.')) {
        (Some(id), false) => {
            let service = mesh.service(id);
            format!("{}.{}", service.object.name, service.namespace())
        }
        _ => host.to_owned(),
    };
    let port = match (port, service) {
        (Some(port), _) => port,
        (None, Some(id)) => default_port(mesh.service(id))?,
        (None, None) => HTTP_PORT,
    };
    Ok(Call {
        authority: format!("{host}:{port}"),
        port,
        path: path(arguments.method.as_deref().map(with_slash))
            .map_err(|error| Failure::unavailable(error).hint("use /package.Service/Method"))?,
        headers,
        protocol,
        dial: arguments.dial.clone(),
    })
}

fn default_port(service: &Service) -> Result<u16, Failure> {
    let grpc_ports: Vec<u16> =
        service.ports.iter().filter(|port| !port.evidence.is_empty()).map(|port| port.number).collect();
    match (service.ports.as_slice(), grpc_ports.as_slice()) {
        ([port], _) => Ok(port.number),
        (_, [number]) => Ok(*number),
        (ports, _) => {
            let ports: Vec<String> = ports.iter().map(ServicePort::title).collect();
            Err(Failure::usage(format!("{} has several ports: {}", service.object, ports.join(", ")))
                .hint("select one with HOST:PORT"))
        }
    }
}

/// The path for a method as grpcurl writes it: `package.Service/Method`, without the slash.
fn with_slash(method: &str) -> String {
    let path = format!("/{method}");
    if !method.starts_with('/') && is_grpc_path(&path) { path } else { method.to_owned() }
}

/// The path of a call, by default `/`.
///
/// # Errors
/// If the path does not start with `/`, or contains white space.
pub(super) fn path(path: Option<String>) -> Result<String, String> {
    let path = path.unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("\"{path}\" is not a valid path: it must start with / and contain no spaces"));
    }
    Ok(path)
}

/// Whether the path has the form that gRPC clients send: `/package.Service/Method`.
pub(super) fn is_grpc_path(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(service, method)| !service.is_empty() && !method.is_empty() && !method.contains(['/', '?', '#']))
}

/// The headers of a call, with names in lower case.
///
/// # Errors
/// If a name or value is not valid in HTTP/2.
pub(super) fn headers(headers: BTreeMap<String, String>) -> Result<Vec<(String, String)>, String> {
    headers.into_iter().map(|(name, value)| validate_header(&name, &value)).collect()
}

fn validate_header(name: &str, value: &str) -> Result<(String, String), String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let token = name.strip_prefix(':').unwrap_or(name);
    if token.is_empty() || !token.chars().all(is_token) {
        return Err(format!("\"{name}\" is not a valid header name"));
    }
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err(format!("the value of header {name} contains control characters"));
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

/// Parses `name:value` or `name=value`. The name of a pseudo-header starts with a colon.
fn parse_header(text: &str) -> Result<(String, String), Failure> {
    let parts = text.strip_prefix(':').map_or_else(
        || text.split_once([':', '=']).map(|(name, value)| (name.to_owned(), value)),
        |rest| rest.split_once([':', '=']).map(|(name, value)| (format!(":{name}"), value)),
    );
    let (name, value) = parts
        .filter(|(name, _)| !name.trim_matches(':').is_empty())
        .ok_or_else(|| Failure::usage(format!("\"{text}\" is not a valid header")).hint(HEADER_FORM))?;
    validate_header(name.trim(), value.trim()).map_err(|error| Failure::usage(error).hint(HEADER_FORM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_may_lack_its_first_slash() {
        assert_eq!(with_slash("shop.Cart/Add"), "/shop.Cart/Add");
        assert_eq!(with_slash("/shop.Cart/Add"), "/shop.Cart/Add");
        assert_eq!(with_slash("Add"), "Add");
    }

    #[test]
    fn a_protocol_has_the_same_name_in_calls_and_reports() {
        for (name, protocol) in
            [("grpc", CallProtocol::Grpc), ("grpc-tls", CallProtocol::GrpcTls), ("http1", CallProtocol::Http1)]
        {
            assert_eq!(parse_protocol(name), Ok(protocol));
            assert_eq!(serde_json::to_value(protocol).unwrap(), name);
        }
        assert!(parse_protocol("http2").is_err());
    }
}
