//! Values that Istio's validation rejects in a Gateway. GM501 and GM502 cover its TLS settings.

use super::reject;
use crate::mesh::gateway::IstioGateway;
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::rules::Findings;

pub(super) fn check(gateway: &IstioGateway, out: &mut Findings<'_>) {
    let object = &gateway.object;
    let mut names: Vec<&str> = Vec::new();
    for (index, server) in gateway.spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        if server.hosts.is_empty() {
            reject(object, format!("{path}.hosts"), "the server has no hosts", "hosts: ['*']", out);
        }
        let Some(port) = &server.port else {
            reject(object, &path, "the server has no port", "port: {number: 443, name: https, protocol: HTTPS}", out);
            continue;
        };
        let protocol = Protocol::parse(&port.protocol);
        if protocol.is_none() {
            reject(
                object,
                format!("{path}.port.protocol"),
                format!("\"{}\" is not a valid protocol", port.protocol),
                "use HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, TCP, TLS, MONGO, REDIS or MYSQL",
                out,
            );
        }
        if port.number == 0 || port.number > 65535 {
            reject(
                object,
                format!("{path}.port.number"),
                format!("{} is not a valid port number", port.number),
                "use a number from 1 to 65535",
                out,
            );
        }
        if port.name.is_empty() {
            reject(object, format!("{path}.port.name"), "the port has no name", "name: https", out);
        } else if names.contains(&port.name.as_str()) {
            reject(
                object,
                format!("{path}.port.name"),
                format!("two servers have the port name \"{}\"", port.name),
                "rename one of the two ports",
                out,
            );
        }
        names.push(&port.name);
        if port.target_port.is_some_and(|target| target > 0) {
            reject(
                object,
                format!("{path}.port.targetPort"),
                "targetPort is not supported in a Gateway",
                "remove the field",
                out,
            );
        }
        let is_plain_tcp = protocol.is_some_and(|protocol| {
            protocol.family() == ProtocolFamily::Tcp && !matches!(protocol, Protocol::Tls | Protocol::Https)
        });
        if is_plain_tcp && server.tls.is_some() {
            reject(object, format!("{path}.tls"), "TLS settings require protocol HTTPS or TLS", "protocol: TLS", out);
        }
    }
    if gateway.spec.servers.is_empty() {
        reject(
            object,
            "spec.servers",
            "the Gateway has no servers",
            "servers:\n- port: {number: 443, name: https, protocol: HTTPS}\n  hosts: ['*']",
            out,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::RULE;
    use crate::rules::testing::{assert_findings, istio};

    #[track_caller]
    fn assert_rejected_at(servers: &str, field: &str) {
        assert_findings(
            &RULE,
            &istio("Gateway", "g", &format!("{{servers: [{servers}]}}")),
            &[&format!("error Gateway shop/g {field}")],
        );
    }

    #[test]
    fn rejects_invalid_servers() {
        assert_rejected_at("{hosts: ['*']}", "spec.servers[0]");
        assert_rejected_at("{port: {number: 80, name: h, protocol: HTTP}}", "spec.servers[0].hosts");
        assert_rejected_at("{hosts: ['*'], port: {number: 80, protocol: HTTP}}", "spec.servers[0].port.name");
        assert_rejected_at(
            "{hosts: ['*'], port: {number: 80, name: g, protocol: grpc-foo}}",
            "spec.servers[0].port.protocol",
        );
        assert_rejected_at(
            "{hosts: ['*'], port: {number: 80, name: g, protocol: GRPC, targetPort: 8080}}",
            "spec.servers[0].port.targetPort",
        );
        assert_rejected_at(
            "{hosts: ['*'], port: {number: 80, name: t, protocol: TCP}, tls: {mode: SIMPLE}}",
            "spec.servers[0].tls",
        );
        assert_rejected_at(
            "{hosts: ['*'], port: {number: 80, name: h, protocol: HTTP}}, {hosts: ['*'], port: {number: 81, name: h, protocol: HTTP}}",
            "spec.servers[1].port.name",
        );
        assert_rejected_at("", "spec.servers");
    }

    #[test]
    fn is_silent_on_https_and_grpc_servers() {
        let servers = "{hosts: ['*'], port: {number: 443, name: s, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}}, {hosts: ['*'], port: {number: 80, name: g, protocol: grpc}}";
        assert_findings(&RULE, &istio("Gateway", "g", &format!("{{servers: [{servers}]}}")), &[]);
    }
}
