//! The calls that are asked about: from flags, or from a file with one a line.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::{CallProtocolArg, RouteArgs};
use crate::cli::failure::Failure;
use crate::mesh::Mesh;
use crate::mesh::xds::{Call, CallProtocol};

/// The port of plain HTTP, for hosts that nothing else is known of.
const HTTP_PORT: u16 = 80;

/// A call of a file.
#[derive(Debug)]
pub(super) struct CallRequest {
    /// `file:line`.
    pub(super) place: String,
    pub(super) id: Option<String>,
    pub(super) caller: String,
    pub(super) call: Call,
}

/// A line as it is written.
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

/// Reads a file of calls; `-` is standard input. A line that is no call is told with its place, and the others stand.
pub(super) fn read(path: &Path) -> Result<Vec<Result<CallRequest, String>>, Failure> {
    let name = path.display();
    let failed = |error: std::io::Error| Failure::source(format!("cannot read {name}")).cause(error);
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map_err(failed)?;
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let calls: Vec<_> = lines
        .map(|(at, line)| {
            let place = format!("{name}:{}", at + 1);
            parse(line, &place).map_err(|why| format!("{place}: {why}"))
        })
        .collect();
    match calls.iter().find_map(|call| call.as_ref().err()) {
        Some(first) if calls.iter().all(Result::is_err) => Err(Failure::usage(first.clone())
            .hint("each line is a call: {\"caller\": \"NS/POD\", \"authority\": \"HOST:PORT\", \"path\": \"/S/M\"}")),
        _ => Ok(calls),
    }
}

fn parse(line: &str, place: &str) -> Result<CallRequest, String> {
    let written: CallRecord = serde_json::from_str(line).map_err(|error| {
        // The line is told already.
        let text = error.to_string();
        text.split(" at line ").next().unwrap_or(&text).to_owned()
    })?;
    let (_, in_authority) = split_port(&written.authority);
    let port = written.port.or(in_authority).ok_or("no port, neither of its own nor in the authority")?;
    let protocol = match written.protocol.as_deref() {
        None => CallProtocol::Grpc,
        Some(word) => {
            parse_protocol(word).ok_or_else(|| format!("protocol {word} is none of grpc, grpc-tls, http1"))?
        }
    };
    Ok(CallRequest {
        place: place.to_owned(),
        id: written.id,
        caller: written.caller,
        call: Call {
            authority: written.authority,
            port,
            path: path(written.path)?,
            headers: headers(written.headers)?,
            protocol,
            dial: written.dial,
        },
    })
}

/// Reads a protocol's word.
pub(super) fn parse_protocol(word: &str) -> Option<CallProtocol> {
    match word {
        "grpc" => Some(CallProtocol::Grpc),
        "grpc-tls" => Some(CallProtocol::GrpcTls),
        "http1" => Some(CallProtocol::Http1),
        _ => None,
    }
}

/// An authority and the port in it.
pub(super) fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

/// The call of the flags. Without a port, the Service's only one that is no plain TCP is meant.
pub(super) fn of_flags(mesh: &Mesh<'_>, arguments: &RouteArgs, namespace: Option<&str>) -> Result<Call, Failure> {
    let written = arguments.host.as_deref().unwrap_or_default();
    let (host, port) = split_port(written);
    if host.is_empty() {
        return Err(Failure::usage(format!("\"{written}\" is no host")).hint("as in checkout.shop:50051"));
    }
    let after = written.rsplit_once(':').map(|(_, after)| after).filter(|_| port.is_none());
    if let Some(number) = after.filter(|after| !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Failure::usage(format!("{number} is no port")).hint("ports end at 65535"));
    }
    let headers = arguments.headers.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
    let protocol = match arguments.protocol {
        CallProtocolArg::Grpc => CallProtocol::Grpc,
        CallProtocolArg::GrpcTls => CallProtocol::GrpcTls,
        CallProtocolArg::Http1 => CallProtocol::Http1,
    };
    // A short name is meant in the namespace of the scope, whoever calls.
    let known = host.split_once('.').map_or_else(
        || namespace.and_then(|namespace| mesh.find_service(namespace, host)),
        |(name, rest)| {
            let namespace = rest.split('.').next().unwrap_or(rest);
            mesh.find_service(namespace, name).or_else(|| mesh.find_host(host))
        },
    );
    let full = match (known, host.contains('.')) {
        (Some(id), false) => {
            let service = mesh.service(id);
            format!("{}.{}", service.object.name, service.namespace())
        }
        _ => host.to_owned(),
    };
    let port = match (port, known) {
        (Some(port), _) => port,
        (None, Some(id)) => the_port(mesh.service(id))?,
        (None, None) => HTTP_PORT,
    };
    Ok(Call {
        authority: format!("{full}:{port}"),
        port,
        path: path(arguments.method.clone()).map_err(|why| Failure::usage(why).hint("as in /shop.v1.Checkout/Pay"))?,
        headers,
        protocol,
        dial: arguments.dial.clone(),
    })
}

fn the_port(service: &crate::mesh::service::Service) -> Result<u16, Failure> {
    let grpc: Vec<u16> =
        service.ports.iter().filter(|port| !port.evidence.is_empty()).map(|port| port.number).collect();
    match (service.ports.as_slice(), grpc.as_slice()) {
        ([one], _) => Ok(one.number),
        (_, [one]) => Ok(*one),
        (all, _) => {
            let numbers: Vec<String> = all.iter().map(crate::mesh::service::ServicePort::title).collect();
            Err(Failure::usage(format!("{} has several ports: {}", service.object, numbers.join(", ")))
                .hint("name one, as in HOST:PORT"))
        }
    }
}

/// The path of a call; absent is `/`.
pub(super) fn path(written: Option<String>) -> Result<String, String> {
    let path = written.unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("\"{path}\" is no path: it begins with / and has no spaces"));
    }
    Ok(path)
}

/// Whether a path is one that gRPC clients call: `/package.Service/Method`.
pub(super) fn is_grpc_path(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(service, method)| !service.is_empty() && !method.is_empty() && !method.contains(['/', '?', '#']))
}

/// Headers of a call, their names in lower case.
pub(super) fn headers(written: BTreeMap<String, String>) -> Result<Vec<(String, String)>, String> {
    written.into_iter().map(|(name, value)| legal(&name, &value)).collect()
}

/// A header as HTTP/2 takes it.
fn legal(name: &str, value: &str) -> Result<(String, String), String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let bare = name.strip_prefix(':').unwrap_or(name);
    if bare.is_empty() || !bare.chars().all(token) {
        return Err(format!("\"{name}\" is no name of a header"));
    }
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err(format!("the value of header {name} has characters that HTTP does not take"));
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

/// Reads `name:value`.
pub(super) fn header(text: &str) -> Result<(String, String), Failure> {
    let split = text.strip_prefix(':').map_or_else(
        || text.split_once([':', '=']).map(|(name, value)| (name.to_owned(), value)),
        |rest| rest.split_once([':', '=']).map(|(name, value)| (format!(":{name}"), value)),
    );
    let (name, value) = split
        .filter(|(name, _)| !name.trim_matches(':').is_empty())
        .ok_or_else(|| Failure::usage(format!("\"{text}\" is no header")).hint("as in -H x-canary:true"))?;
    legal(name.trim(), value.trim()).map_err(|why| Failure::usage(why).hint("as in -H x-canary:true"))
}
