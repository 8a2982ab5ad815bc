//! Route tables as they should be against those that an Envoy runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Difference;
use crate::envoy::route::{Action, Forward, Retries, Route, RouteTable, VirtualHost};
use crate::schema::duration;

/// The differences between route tables.
pub fn compare(intent: &[RouteTable], live: &[RouteTable]) -> Vec<Difference> {
    let mut found = Vec::new();
    let of_live: BTreeMap<&str, &RouteTable> = live.iter().map(|table| (table.name.as_str(), table)).collect();
    let of_intent: BTreeMap<&str, &RouteTable> = intent.iter().map(|table| (table.name.as_str(), table)).collect();
    for (name, table) in &of_intent {
        match of_live.get(name) {
            Some(other) => hosts(&table.hosts, &other.hosts, &mut found),
            None => found.push(Difference::new(format!("route table {name}"), names(&table.hosts), String::new())),
        }
    }
    // A table that a listener used once stays, with nothing in it but what unknown hosts get.
    let is_left_over = |table: &RouteTable| table.hosts.iter().all(|host| host.domains == ["*"]);
    let others = of_live.iter().filter(|(name, table)| !of_intent.contains_key(*name) && !is_left_over(table));
    for (name, table) in others {
        found.push(Difference::new(format!("route table {name}"), String::new(), names(&table.hosts)));
    }
    found
}

fn names(hosts: &[VirtualHost]) -> String {
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).take(3).collect();
    let more = hosts.len().saturating_sub(names.len());
    if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
}

fn hosts(intent: &[VirtualHost], live: &[VirtualHost], found: &mut Vec<Difference>) {
    let of_live: BTreeMap<&str, &VirtualHost> = live.iter().map(|host| (host.name.as_str(), host)).collect();
    let of_intent: BTreeMap<&str, &VirtualHost> = intent.iter().map(|host| (host.name.as_str(), host)).collect();
    // `HOST:PORT`, as istiod names them.
    let about = |found: &mut Vec<Difference>, from, name: &str| {
        Difference::about(found, from, name.rsplit_once(':').map_or(name, |(host, _)| host));
    };
    for (name, host) in &of_intent {
        let from = found.len();
        match of_live.get(name) {
            Some(other) => same_host(host, other, found),
            None => {
                found.push(Difference::new(format!("virtual host {name}"), host.domains.join(", "), String::new()));
            }
        }
        about(found, from, name);
    }
    for (name, host) in of_live.iter().filter(|(name, _)| !of_intent.contains_key(*name)) {
        let from = found.len();
        found.push(Difference::new(format!("virtual host {name}"), String::new(), host.domains.join(", ")));
        about(found, from, name);
    }
}

fn same_host(intent: &VirtualHost, live: &VirtualHost, found: &mut Vec<Difference>) {
    let name = &intent.name;
    // No authority is a range of addresses, and istiod hands out addresses of its own to ServiceEntries without any.
    let domains = |host: &VirtualHost| -> BTreeSet<String> {
        let is_handed_out = |domain: &str| domain.starts_with("240.240.") || domain.starts_with("[2001:2:");
        let names = host.domains.iter().filter(|domain| !domain.contains('/') && !is_handed_out(domain));
        names.map(|domain| domain.to_ascii_lowercase()).collect()
    };
    let (wanted, have) = (domains(intent), domains(live));
    let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>().join(", ");
    if wanted != have {
        let (intent, live) = (only(&wanted, &have), only(&have, &wanted));
        found.push(Difference::new(format!("domains of {name}"), intent, live));
    }
    Difference::note(
        found,
        &format!("plain text at {name}"),
        &intent.redirects_to_tls,
        &live.redirects_to_tls,
        |redirects| if *redirects { "sent to HTTPS".to_owned() } else { "taken".to_owned() },
    );
    let conditions = |host: &VirtualHost| host.routes.iter().map(|one| one.conditions.clone()).collect::<Vec<_>>();
    if conditions(intent) != conditions(live) {
        order(name, &intent.routes, &live.routes, found);
        return;
    }
    let several = intent.routes.len() > 1;
    for (at, (intent, live)) in intent.routes.iter().zip(&live.routes).enumerate() {
        let place = if several { format!("{name}, route {} ({})", at + 1, shown(intent)) } else { name.clone() };
        same_route(&place, intent, live, found);
    }
}

fn shown(route: &Route) -> String {
    route.conditions.join(", ")
}

/// The routes are not the same ones, or stand in another order.
fn order(name: &str, intent: &[Route], live: &[Route], found: &mut Vec<Difference>) {
    let missing = |from: &[Route], other: &[Route]| -> Vec<String> {
        from.iter().filter(|one| other.iter().all(|two| two.conditions != one.conditions)).map(shown).collect()
    };
    let (gone, more) = (missing(intent, live), missing(live, intent));
    let list = |routes: &[Route]| routes.iter().map(shown).collect::<Vec<_>>().join(" | ");
    let difference = if gone.is_empty() && more.is_empty() {
        Difference::new(format!("order of the routes of {name}"), list(intent), list(live))
    } else {
        Difference::new(format!("routes of {name}"), gone.join(" | "), more.join(" | "))
    };
    found.push(difference);
}

fn same_route(place: &str, intent: &Route, live: &Route, found: &mut Vec<Difference>) {
    Difference::note(found, &format!("name of the route of {place}"), &intent.name, &live.name, Clone::clone);
    match (&intent.action, &live.action) {
        (Action::Forward(intent), Action::Forward(live)) => same_forward(place, intent, live, found),
        (intent, live) => Difference::note(found, &format!("action of {place}"), intent, live, action),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Forward(forward) => format!("to {}", clusters(&forward.clusters)),
        Action::Redirect(status) => format!("redirect {status}"),
        Action::Respond(status) => format!("answer {status}"),
        Action::Other => "something that istiod does not write".to_owned(),
    }
}

fn same_forward(place: &str, intent: &Forward, live: &Forward, found: &mut Vec<Difference>) {
    Difference::note(found, &format!("backends of {place}"), &intent.clusters, &live.clusters, |one| clusters(one));
    Difference::note(found, &format!("timeout of {place}"), &intent.timeout, &live.timeout, limit);
    // PassthroughCluster's route has no cap.
    let capped = intent.max_grpc_timeout;
    Difference::note(found, &format!("cap of gRPC deadlines of {place}"), &capped, &live.max_grpc_timeout, limit);
    Difference::note(found, &format!("retries of {place}"), &intent.retries, &live.retries, |one| {
        retries(one.as_ref())
    });
    Difference::note(found, &format!("mirrors of {place}"), &intent.mirrors, &live.mirrors, |one| copies(one));
}

fn limit(limit: &Duration) -> String {
    if limit.is_zero() { "none".to_owned() } else { duration::show(*limit) }
}

/// `subset v1 90, subset v2 10` where only subsets tell them apart, else names of clusters.
fn clusters(clusters: &[(String, u64)]) -> String {
    let one = |(name, weight): &(String, u64)| {
        if clusters.len() > 1 { format!("{name} {weight}") } else { name.clone() }
    };
    clusters.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn copies(mirrors: &[(String, u64)]) -> String {
    let one = |(name, share): &(String, u64)| format!("{name} {}%", *share as f64 / crate::envoy::route::MILLIONTHS);
    mirrors.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn retries(retries: Option<&Retries>) -> String {
    let Some(Retries { on, attempts, status_codes, per_try_timeout }) = retries else { return "none".to_owned() };
    let mut text = format!("{attempts} on {}", on.join(","));
    if !status_codes.is_empty() {
        let codes: Vec<String> = status_codes.iter().map(u32::to_string).collect();
        text += &format!(", statuses {}", codes.join(","));
    }
    if !per_try_timeout.is_zero() {
        text += &format!(", {} each", duration::show(*per_try_timeout));
    }
    text
}
