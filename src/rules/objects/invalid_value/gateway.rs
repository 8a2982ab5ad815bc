//! What validation refuses in an Istio Gateway, TLS aside.

use super::refuse;
use crate::mesh::gateway::IstioGateway;
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::rules::Findings;

pub(super) fn check(gateway: &IstioGateway, out: &mut Findings<'_>) {
    let object = &gateway.object;
    let mut names: Vec<&str> = Vec::new();
    for (index, server) in gateway.spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        if server.hosts.is_empty() {
            refuse(object, format!("{path}.hosts"), "the server has no hosts", "hosts: ['*']", out);
        }
        let Some(port) = &server.port else {
            refuse(object, &path, "the server has no port", "port: {number: 443, name: https, protocol: HTTPS}", out);
            continue;
        };
        let protocol = Protocol::parse(&port.protocol);
        if protocol.is_none() {
            refuse(
                object,
                format!("{path}.port.protocol"),
                format!("\"{}\" is not a protocol", port.protocol),
                "HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, TCP, TLS, MONGO, REDIS or MYSQL",
                out,
            );
        }
        if port.number == 0 || port.number > 65535 {
            refuse(
                object,
                format!("{path}.port.number"),
                format!("{} is not a port number", port.number),
                "1 to 65535",
                out,
            );
        }
        if port.name.is_empty() {
            refuse(object, format!("{path}.port.name"), "the port has no name", "name: https", out);
        } else if names.contains(&port.name.as_str()) {
            refuse(
                object,
                format!("{path}.port.name"),
                format!("two servers have the port name \"{}\"", port.name),
                "another name",
                out,
            );
        }
        names.push(&port.name);
        if port.target_port.is_some_and(|target| target > 0) {
            refuse(
                object,
                format!("{path}.port.targetPort"),
                "targetPort is not supported in a Gateway",
                "remove it",
                out,
            );
        }
        let plain_tcp = protocol.is_some_and(|protocol| {
            protocol.family() == ProtocolFamily::Tcp && !matches!(protocol, Protocol::Tls | Protocol::Https)
        });
        if plain_tcp && server.tls.is_some() {
            refuse(object, format!("{path}.tls"), "TLS settings need protocol HTTPS or TLS", "protocol: TLS", out);
        }
    }
    if gateway.spec.servers.is_empty() {
        refuse(object, "spec.servers", "the Gateway has no server", "servers: […]", out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::RULE;
    use crate::rules::testing::{check, istio};

    #[track_caller]
    fn refused(servers: &str, field: &str) {
        check(
            &RULE,
            &istio("Gateway", "g", &format!("{{servers: [{servers}]}}")),
            &[&format!("error Gateway shop/g {field}")],
        );
    }

    #[test]
    fn servers() {
        refused("{hosts: ['*']}", "spec.servers[0]");
        refused("{port: {number: 80, name: h, protocol: HTTP}}", "spec.servers[0].hosts");
        refused("{hosts: ['*'], port: {number: 80, protocol: HTTP}}", "spec.servers[0].port.name");
        refused("{hosts: ['*'], port: {number: 80, name: g, protocol: grpc-foo}}", "spec.servers[0].port.protocol");
        refused(
            "{hosts: ['*'], port: {number: 80, name: g, protocol: GRPC, targetPort: 8080}}",
            "spec.servers[0].port.targetPort",
        );
        refused(
            "{hosts: ['*'], port: {number: 80, name: t, protocol: TCP}, tls: {mode: SIMPLE}}",
            "spec.servers[0].tls",
        );
        refused(
            "{hosts: ['*'], port: {number: 80, name: h, protocol: HTTP}}, {hosts: ['*'], port: {number: 81, name: h, protocol: HTTP}}",
            "spec.servers[1].port.name",
        );
        refused("", "spec.servers");
    }

    #[test]
    fn https_and_grpc_are_silent() {
        let servers = "{hosts: ['*'], port: {number: 443, name: s, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}}, {hosts: ['*'], port: {number: 80, name: g, protocol: grpc}}";
        check(&RULE, &istio("Gateway", "g", &format!("{{servers: [{servers}]}}")), &[]);
    }
}
