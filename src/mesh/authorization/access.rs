//! Who may call which method of a Service: a table for people, from representative calls.

use std::collections::{BTreeMap, BTreeSet};

use super::patterns::is_path_template;
use super::policy::PolicyAttribute;
use super::request::{HttpRequest, Known, PeerIdentity, ServerRequest, SpiffeIdentity};
use super::truth::UnknownFact;
use super::{AuthorizationVerdict, PolicySet};
use crate::mesh::Mesh;
use crate::mesh::hop::{CallerTls, HopResult, InboundChain};
use crate::mesh::ids::{ServiceId, WorkloadId};
use crate::mesh::service::{Service, ServicePort};

/// Limits of the table: beyond them, callers and methods are left out.
const MAX_CALLERS: usize = 256;
const MAX_METHODS: usize = 64;

/// Callers that the server's proxy cannot tell apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallerGroup {
    /// Pods with a proxy, by namespace and ServiceAccount.
    Account(String, String),
    /// Callers without mTLS.
    Plaintext,
}

impl CallerGroup {
    /// The name in reports: `namespace/ServiceAccount`, or `callers without mTLS`.
    pub fn title(&self) -> String {
        match self {
            Self::Account(namespace, name) => format!("{namespace}/{name}"),
            Self::Plaintext => "callers without mTLS".to_owned(),
        }
    }
}

/// One method of the table, with the callers by verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRow {
    /// Port of the Service.
    pub port: u16,
    /// `/pkg.Service/Method`, `/pkg.Service/*`, or `*` for every other method.
    pub method: String,
    pub callers: BTreeMap<AuthorizationVerdict, Vec<CallerGroup>>,
}

impl Mesh<'_> {
    /// Who may call which method of a Service's gRPC ports. Empty when no policy decides about any of its pods.
    pub fn access_table(&self, id: ServiceId) -> Vec<AccessRow> {
        let service = self.service(id);
        let ports = service.ports.iter().filter(|port| !port.evidence.is_empty());
        ports.flat_map(|port| self.access_rows(service, port)).collect()
    }

    fn access_rows(&self, service: &Service, port: &ServicePort) -> Vec<AccessRow> {
        let servers = self.distinct_servers(service, port);
        if servers.iter().all(|(_, _, policies)| policies.is_empty()) {
            return Vec::new();
        }
        let callers = self.caller_groups();
        let methods = method_samples(servers.iter().map(|(_, _, policies)| policies));
        let mut rows: Vec<AccessRow> = Vec::new();
        for (method, path) in methods {
            let mut row = AccessRow { port: port.number, method, callers: BTreeMap::new() };
            for caller in &callers {
                let verdicts = servers.iter().filter_map(|(id, number, policies)| {
                    self.sample_verdict(service, port, caller, (*id, *number, policies), &path)
                });
                let verdicts: BTreeSet<AuthorizationVerdict> = verdicts.collect();
                let verdict = match (verdicts.first(), verdicts.len()) {
                    (None, _) => continue,
                    (Some(verdict), 1) => *verdict,
                    (Some(_), _)
                        if !verdicts.contains(&AuthorizationVerdict::Denied)
                            && !verdicts.contains(&AuthorizationVerdict::Undecided) =>
                    {
                        AuthorizationVerdict::Allowed
                    }
                    // The pods decide differently.
                    (Some(_), _) => AuthorizationVerdict::Undecided,
                };
                let verdict =
                    if verdict == AuthorizationVerdict::None { AuthorizationVerdict::Allowed } else { verdict };
                row.callers.entry(verdict).or_default().push(caller.clone());
            }
            rows.push(row);
        }
        rows
    }

    /// One server for each set of policies.
    fn distinct_servers(&self, service: &Service, port: &ServicePort) -> Vec<(WorkloadId, u16, PolicySet<'_>)> {
        let mut servers: Vec<(WorkloadId, u16, PolicySet<'_>)> = Vec::new();
        for id in &service.workloads {
            let workload = self.workload(*id);
            if workload.proxy.is_meshed() == Some(false) {
                continue;
            }
            let Some(number) = port.target.number_in(workload) else { continue };
            let policies = self.policies_for(workload);
            let is_known = servers.iter().any(|(known, known_port, known_policies)| {
                *known_port == number
                    && known_policies.has_same_policies(&policies)
                    && self.server_side(*known, number) == self.server_side(*id, number)
            });
            if !is_known {
                servers.push((*id, number, policies));
            }
        }
        servers
    }

    /// The identities of all pods with a proxy, and callers without one.
    fn caller_groups(&self) -> Vec<CallerGroup> {
        let meshed = self.workloads.iter().filter(|workload| workload.proxy.is_meshed() != Some(false));
        let accounts: BTreeSet<CallerGroup> = meshed
            .filter_map(|workload| {
                let name = workload.service_account.as_deref()?;
                Some(CallerGroup::Account(workload.namespace().to_string(), name.to_owned()))
            })
            .take(MAX_CALLERS)
            .collect();
        accounts.into_iter().chain([CallerGroup::Plaintext]).collect()
    }

    /// The verdict about a representative call. `None`: the server does not accept the connection.
    fn sample_verdict(
        &self,
        service: &Service,
        port: &ServicePort,
        caller: &CallerGroup,
        (id, number, policies): (WorkloadId, u16, &PolicySet<'_>),
        path: &str,
    ) -> Option<AuthorizationVerdict> {
        let side = self.server_side(id, number);
        let tls = if *caller == CallerGroup::Plaintext { CallerTls::Plaintext } else { CallerTls::Mtls };
        let chain = match (side.accept(tls, true), tls) {
            (HopResult::Chain(chain), _) => chain,
            // Proxies use plaintext where the server accepts nothing else.
            (_, CallerTls::Mtls) => match side.accept(CallerTls::Plaintext, true) {
                HopResult::Chain(chain) => chain,
                HopResult::Direct | HopResult::Fails(_) => return None,
            },
            _ => return None,
        };
        let request = self.sample_request(service, port, caller, (id, number), chain, path);
        Some(policies.decide(&request).verdict)
    }

    fn sample_request(
        &self,
        service: &Service,
        port: &ServicePort,
        caller: &CallerGroup,
        (id, number): (WorkloadId, u16),
        chain: InboundChain,
        path: &str,
    ) -> ServerRequest<'_> {
        let peer = match caller {
            CallerGroup::Account(namespace, name) if chain.is_mtls => PeerIdentity::Spiffe(SpiffeIdentity {
                trust_domain: self.trust_domains.first().cloned().unwrap_or_default(),
                namespace: namespace.clone(),
                service_account: Some(name.clone()),
            }),
            _ => PeerIdentity::None,
        };
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let http = HttpRequest {
            authorities: authorities(service, port),
            path: path.to_owned(),
            headers: vec![header(":method", "POST"), header("te", "trailers"), header(":path", path)],
            may_have_other_headers: true,
        };
        let workload = self.workload(id);
        let address = workload.ip.as_deref().and_then(|ip| ip.parse().ok());
        ServerRequest {
            peer,
            trust_domains: &self.trust_domains,
            source_ip: Known::Unknown(UnknownFact::CallerAddress),
            remote_ip: Known::Unknown(UnknownFact::CallerAddress),
            destination_ip: address.map_or(Known::Unknown(UnknownFact::ServerAddress), Known::Is),
            port: number,
            server_name: if chain.is_mtls {
                Known::Unknown(UnknownFact::CallerIdentity)
            } else {
                Known::Is(String::new())
            },
            http: chain.is_http.then_some(http),
            reads_tokens: self.reads_tokens(workload),
        }
    }
}

impl PolicySet<'_> {
    fn has_same_policies(&self, other: &PolicySet<'_>) -> bool {
        let objects =
            |set: &PolicySet<'_>| set.policies().iter().map(|policy| policy.object.clone()).collect::<Vec<_>>();
        objects(self) == objects(other)
    }
}

/// The authorities with which clients call a port of a Service.
fn authorities(service: &Service, port: &ServicePort) -> Vec<String> {
    let number = port.number;
    if !service.is_kubernetes() {
        return vec![format!("{}:{number}", service.host)];
    }
    let (name, namespace) = (&service.object.name, service.namespace());
    let host = &service.host;
    vec![
        format!("{name}:{number}"),
        format!("{name}.{namespace}:{number}"),
        format!("{name}.{namespace}.svc:{number}"),
        format!("{host}:{number}"),
    ]
}

/// The methods that some policy names, and one that stands for all others: title and path of a representative call.
fn method_samples<'a, 'm: 'a>(sets: impl Iterator<Item = &'a PolicySet<'m>>) -> Vec<(String, String)> {
    let mut samples: BTreeMap<String, String> = BTreeMap::new();
    for policy in sets.flat_map(|set| set.policies().iter()).filter(|policy| policy.is_enforced()) {
        let conditions = policy.rules().flat_map(|(_, rule)| rule.conditions());
        for condition in conditions.filter(|condition| condition.attribute == PolicyAttribute::Path) {
            for value in condition.values.iter().chain(&condition.not_values) {
                if let Some((title, path)) = method_sample(value) {
                    samples.insert(title, path);
                }
            }
        }
    }
    let mut methods: Vec<(String, String)> = samples.into_iter().take(MAX_METHODS).collect();
    methods.push(("*".to_owned(), "/other.Service/Other".to_owned()));
    methods
}

/// Title and path of a call that a path value stands for: one method, or all methods of a gRPC service.
fn method_sample(value: &str) -> Option<(String, String)> {
    let (service, method) = value.strip_prefix('/')?.split_once('/')?;
    let has_wildcard = |text: &str| text.contains(['*', '{']);
    if service.is_empty() || has_wildcard(service) || (method.contains('/') && !is_path_template(value)) {
        return None;
    }
    match method {
        "" => None,
        "*" | "{*}" | "{**}" => Some((format!("/{service}/*"), format!("/{service}/Other"))),
        _ if has_wildcard(method) => None,
        _ => Some((value.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_methods_and_services() {
        let title = |value: &str| method_sample(value).map(|(title, _)| title);
        assert_eq!(title("/a.B/C").as_deref(), Some("/a.B/C"));
        assert_eq!(title("/a.B/{*}").as_deref(), Some("/a.B/*"));
        for value in ["*/C", "/a.*", "/a.B", "/a.B/", "/{*}/C", "/a.B/Ge*"] {
            assert_eq!(title(value), None, "{value}");
        }
    }
}
