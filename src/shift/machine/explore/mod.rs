//! Exhaustive exploration: two runs, another client and an unreliable API server against each other in every order.
//!
//! A breadth-first search visits every state of a [`world`] once, within the budgets of a [`Scenario`], and checks the
//! [`invariants`] after every transition. The first violation is printed with the shortest sequence of actions that
//! leads to it. A second test removes preconditions from the patches and expects violations.

mod invariants;
mod regressions;
mod scenarios;
mod server;
mod setting;
mod world;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use invariants::{BrokenInvariant, patch_has_its_preconditions};
use setting::{Mutation, Scenario};
use world::{Action, ModelWorld, Observed, SentPatch};

/// Names of all phases.
const PHASES: [&str; 17] = [
    "Checking",
    "Confirming",
    "CountingBaseline",
    "WritingFirstStep",
    "WritingNextStep",
    "ClosingRecord",
    "RollingBack",
    "TakingOver",
    "RequestingAbort",
    "Acknowledging",
    "Analyzing",
    "Pausing",
    "AskingNextStep",
    "CheckingRollback",
    "AcknowledgingRollback",
    "AwaitingAbort",
    "Finished",
];

/// The result of an exploration.
struct Exploration {
    states: usize,
    transitions: usize,
    /// Length of the longest sequence of actions.
    depth: usize,
    /// Whether states lie beyond the depth of the scenario.
    is_cut: bool,
    /// States from which no sequence of actions ends both runs.
    endless: usize,
    observed: Observed,
    violation: Option<(BrokenInvariant, Vec<String>)>,
    seconds: f64,
}

/// A visited state: the one before it, and the action in between.
struct Visit {
    parent: usize,
    action: Option<Action>,
    depth: usize,
}

/// Visits all states of a scenario.
fn explore(scenario: &Scenario, mutation: Mutation) -> Exploration {
    let started = Instant::now();
    let mut observed = Observed::default();
    let mut visits: Vec<Visit> = Vec::new();
    let mut known: HashMap<u64, usize> = HashMap::new();
    let mut queue: VecDeque<(usize, ModelWorld)> = VecDeque::new();
    let mut predecessors: Vec<(usize, usize)> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    let (mut transitions, mut is_cut, mut violation) = (0, false, None);
    let first = ModelWorld::new(scenario, &mut observed).unwrap();
    known.insert(first.checksum(), 0);
    visits.push(Visit { parent: 0, action: None, depth: 0 });
    queue.push_back((0, first));
    'search: while let Some((index, world)) = queue.pop_front() {
        if world.is_over() {
            ends.push(index);
        }
        let depth = visits[index].depth;
        let actions = world.actions(scenario);
        if depth >= scenario.depth {
            is_cut |= !actions.is_empty();
            continue;
        }
        for action in actions {
            transitions += 1;
            let after = match world.after(scenario, mutation, action, &mut observed) {
                Ok(after) => after,
                Err(found) => {
                    violation = Some((found, trace(&visits, index, action)));
                    break 'search;
                }
            };
            let next = *known.entry(after.checksum()).or_insert_with(|| {
                visits.push(Visit { parent: index, action: Some(action), depth: depth + 1 });
                queue.push_back((visits.len() - 1, after));
                visits.len() - 1
            });
            predecessors.push((next, index));
        }
        deduplicate(&mut observed.patches);
    }
    let endless =
        if is_cut || violation.is_some() { 0 } else { visits.len() - count_ending(visits.len(), &ends, predecessors) };
    let depth = visits.iter().map(|visit| visit.depth).max().unwrap_or_default();
    let seconds = started.elapsed().as_secs_f64();
    Exploration { states: visits.len(), transitions, depth, is_cut, endless, observed, violation, seconds }
}

/// Keeps some patches of each kind as samples.
fn deduplicate(patches: &mut Vec<Arc<SentPatch>>) {
    let mut counts: HashMap<(usize, world::WriteKind), usize> = HashMap::new();
    patches.retain(|patch| {
        let count = counts.entry((patch.run, patch.kind)).or_default();
        *count += 1;
        *count <= 5
    });
}

/// The number of states from which both runs can end.
fn count_ending(states: usize, ends: &[usize], mut predecessors: Vec<(usize, usize)>) -> usize {
    predecessors.sort_unstable();
    let mut can_end = vec![false; states];
    let mut stack: Vec<usize> = ends.to_vec();
    for end in ends {
        can_end[*end] = true;
    }
    while let Some(state) = stack.pop() {
        let from = predecessors.partition_point(|(next, _)| *next < state);
        for (_, before) in predecessors[from..].iter().take_while(|(next, _)| *next == state) {
            if !std::mem::replace(&mut can_end[*before], true) {
                stack.push(*before);
            }
        }
    }
    can_end.into_iter().filter(|can_end| *can_end).count()
}

/// The actions that lead to a state, and one more.
fn trace(visits: &[Visit], mut index: usize, last: Action) -> Vec<String> {
    let mut actions = vec![format!("{last:?}")];
    while let Some(action) = visits[index].action {
        actions.push(format!("{action:?}"));
        index = visits[index].parent;
    }
    actions.reverse();
    actions
}

/// Explores a scenario, prints its size, and fails on a violation.
#[expect(clippy::print_stdout, reason = "the size of a scenario is part of the result")]
fn check(scenario: &Scenario) -> BTreeSet<(&'static str, &'static str)> {
    let found = explore(scenario, Mutation::default());
    let extent = if found.is_cut { "cut at depth" } else { "complete, depth" };
    println!(
        "{:<44} {:>7} states {:>8} transitions  {extent} {:>3}  {:>5.1} s",
        scenario.name, found.states, found.transitions, found.depth, found.seconds
    );
    if let Some((violation, trace)) = &found.violation {
        panic!("{}: {}: {}\n  {}", scenario.name, violation.invariant, violation.details, trace.join("\n  "));
    }
    assert_eq!(found.endless, 0, "{}: states from which a run never ends", scenario.name);
    found.observed.edges
}

/// Checks scenarios on two threads and returns every pair of phases that follow each other in any of them.
fn check_all(scenarios: &[Scenario]) -> BTreeSet<(&'static str, &'static str)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut edges = BTreeSet::new();
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            edges.extend(check(scenario));
        }
        edges
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Every pair of phases that follow each other in any scenario; `Start` is before the first phase.
pub(in crate::shift) fn edges() -> BTreeSet<(&'static str, &'static str)> {
    static EDGES: OnceLock<BTreeSet<(&'static str, &'static str)>> = OnceLock::new();
    EDGES.get_or_init(|| check_all(&scenarios::all())).clone()
}

#[test]
fn every_order_of_events_keeps_the_invariants() {
    let edges = edges();
    for phase in PHASES {
        assert!(edges.iter().any(|(_, after)| *after == phase), "no scenario reaches {phase}");
    }
}

/// Takes minutes: `cargo test --lib shift::machine -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn every_order_of_more_events_keeps_the_invariants() {
    check_all(&scenarios::thorough());
}

#[test]
fn a_patch_without_one_of_its_preconditions_is_noticed() {
    let none = Mutation::default();
    let single = [
        Mutation { uid: true, ..none },
        Mutation { version: true, ..none },
        Mutation { record: true, ..none },
        Mutation { rule: true, ..none },
        Mutation { backends: true, ..none },
    ];
    let mut kinds = BTreeSet::new();
    for scenario in scenarios::samples() {
        for patch in explore(&scenario, none).observed.patches {
            kinds.insert(format!("{:?}", patch.kind));
            assert_eq!(patch_has_its_preconditions(&patch.operations, &patch.base), Ok(()));
            let has_record = server::record_text(&patch.base).is_some();
            for mutation in single.iter().filter(|mutation| has_record || !mutation.record) {
                let result = patch_has_its_preconditions(&mutation.apply(&patch.operations), &patch.base);
                assert!(result.is_err(), "{:?} without {mutation:?}", patch.kind);
            }
        }
    }
    let all = ["Advance", "Begin", "Done", "Held", "RequestAbort", "RollBack", "TakeOver", "Unacknowledged"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
#[expect(clippy::print_stdout, reason = "the sequence of events shows what the preconditions prevent")]
fn without_preconditions_something_is_overwritten() {
    for (mutation, scenario) in scenarios::broken() {
        assert!(explore(&scenario, Mutation::default()).violation.is_none(), "{}", scenario.name);
        let found = explore(&scenario, mutation);
        let Some((violation, trace)) = found.violation else {
            panic!("{}: {} states, and nothing is wrong with {mutation:?}", scenario.name, found.states)
        };
        println!("{mutation:?}\n  {}: {}\n  {}", violation.invariant, violation.details, trace.join(", "));
        assert_eq!(violation.invariant, "nothing_is_overwritten");
    }
}

/// The page for users shows the states of the machine. Its diagram is compared with what the exploration has seen, without
/// transitions to the end and from a state to itself.
#[test]
fn the_documented_diagram_shows_the_explored_transitions() {
    let page = include_str!("../../../../docs/how-shift-works.md");
    let diagram = page.split("```mermaid").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let documented: BTreeSet<String> =
        diagram.lines().map(str::trim).filter(|line| line.contains(" --> ")).map(str::to_owned).collect();
    let is_shown = |(from, to): &(&str, &str)| from != to && *to != "Finished";
    let line = |(from, to): (&str, &str)| format!("{} --> {to}", if from == "Start" { "[*]" } else { from });
    let explored: BTreeSet<String> = edges().into_iter().filter(is_shown).map(line).collect();
    let missing: Vec<&String> = explored.difference(&documented).collect();
    let wrong: Vec<&String> = documented.difference(&explored).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:#?}\nnot explored: {wrong:#?}");
}
