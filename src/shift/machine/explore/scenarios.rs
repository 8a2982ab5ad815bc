//! What is explored.

use super::super::{FailureAction, RollbackTarget};
use super::setting::{Budget, ForeignWrite, Mutation, RunSpec, Scenario, TestedJob};

const TWO_STEPS: TestedJob = TestedJob::Shift(&["v2=25", "v2=50"]);
const ONE_STEP: TestedJob = TestedJob::Shift(&["v2=40"]);
pub(super) const ALL_FOREIGN: &[ForeignWrite] = &[
    ForeignWrite::ChangeWeights,
    ForeignWrite::TouchStatus,
    ForeignWrite::TouchLabels,
    ForeignWrite::InsertRule,
    ForeignWrite::Delete,
    ForeignWrite::Recreate,
    ForeignWrite::Restore,
];
pub(super) const NONE: Budget = Budget { faults: 0, foreign: 0, crashes: 0, signals: 0, jumps: 0, pods: 0 };
/// Longer than the longest sequence of any scenario, so that each is explored completely.
const DEPTH: usize = 80;

pub(super) fn scenario(name: &'static str, a: RunSpec, b: Option<RunSpec>, budget: Budget) -> Scenario {
    Scenario { name, a, b, budget, foreign: ALL_FOREIGN, quiet_timers: true, depth: DEPTH }
}

pub(super) fn analyzed() -> RunSpec {
    RunSpec { analysis: true, ..RunSpec::new(TWO_STEPS) }
}

pub(super) fn stepwise() -> RunSpec {
    RunSpec::new(TWO_STEPS)
}

pub(super) fn single() -> RunSpec {
    RunSpec::new(ONE_STEP)
}

fn other(job: TestedJob) -> Option<RunSpec> {
    Some(RunSpec::new(job))
}

fn taking_over(job: TestedJob) -> Option<RunSpec> {
    Some(RunSpec { takeover: true, ..RunSpec::new(job) })
}

/// The scenarios of every test run.
pub(super) fn all() -> Vec<Scenario> {
    [one_run(), two_runs()].concat()
}

fn one_run() -> Vec<Scenario> {
    let held =
        RunSpec { watch: true, on_failure: FailureAction::Hold, on_interrupt: FailureAction::Hold, ..analyzed() };
    let previous = RunSpec { rollback_to: RollbackTarget::Previous, ..stepwise() };
    let unacknowledged = RunSpec { acknowledges: false, ..single() };
    let asked = RunSpec { asks: true, ..stepwise() };
    vec![
        Scenario { quiet_timers: false, ..scenario("analysis, all orders of timers", analyzed(), None, NONE) },
        scenario("analysis: fault, signals", analyzed(), None, Budget { faults: 1, signals: 2, ..NONE }),
        scenario("analysis: another client", analyzed(), None, Budget { foreign: 1, ..NONE }),
        scenario("analysis: pods are lost", analyzed(), None, Budget { pods: 1, signals: 1, ..NONE }),
        scenario("analysis, watch, hold: signal", held, None, Budget { signals: 1, ..NONE }),
        scenario("questions: fault, signals", asked, None, Budget { faults: 1, signals: 2, ..NONE }),
        scenario("to the previous step: faults", previous.clone(), None, Budget { faults: 2, ..NONE }),
        scenario("to the previous step: signal, pods", previous, None, Budget { signals: 1, pods: 1, ..NONE }),
        scenario(
            "proxies not asked: fault, client, crash",
            unacknowledged,
            None,
            Budget { faults: 1, foreign: 1, signals: 1, crashes: 1, ..NONE },
        ),
        scenario("one step: fault, client", single(), None, Budget { faults: 1, foreign: 1, ..NONE }),
    ]
}

fn two_runs() -> Vec<Scenario> {
    let forced_undo = RunSpec { takeover: true, force: true, ..RunSpec::new(TestedJob::Undo) };
    vec![
        scenario("steps, another shift: crash", stepwise(), other(ONE_STEP), Budget { crashes: 1, ..NONE }),
        scenario(
            "one step, another shift that takes over: crash",
            single(),
            taking_over(ONE_STEP),
            Budget { crashes: 1, ..NONE },
        ),
        scenario(
            "steps, --undo: crash, deadline",
            stepwise(),
            other(TestedJob::Undo),
            Budget { crashes: 1, jumps: 1, ..NONE },
        ),
        scenario(
            "one step, --undo --takeover: fault",
            single(),
            taking_over(TestedJob::Undo),
            Budget { faults: 1, ..NONE },
        ),
        scenario("one step, --undo --force: pods", single(), Some(forced_undo), Budget { pods: 1, ..NONE }),
        scenario(
            "one step, --resume: crash, deadline",
            single(),
            other(TestedJob::Resume),
            Budget { crashes: 1, jumps: 1, ..NONE },
        ),
        scenario(
            "steps, --resume --takeover: crash",
            stepwise(),
            taking_over(TestedJob::Resume),
            Budget { crashes: 1, ..NONE },
        ),
        scenario("one step, --abort: fault", single(), other(TestedJob::Abort), Budget { faults: 1, ..NONE }),
        scenario("one step, --abort: pods", single(), other(TestedJob::Abort), Budget { pods: 1, ..NONE }),
    ]
}

/// Scenarios with more disturbances, which take minutes in a debug build.
pub(super) fn thorough() -> Vec<Scenario> {
    let asked = RunSpec { asks: true, ..stepwise() };
    vec![
        scenario(
            "one step, another shift that takes over: fault",
            single(),
            taking_over(ONE_STEP),
            Budget { faults: 1, ..NONE },
        ),
        scenario(
            "one step, --resume --takeover: fault",
            single(),
            taking_over(TestedJob::Resume),
            Budget { faults: 1, ..NONE },
        ),
        scenario("steps, --abort: pods", stepwise(), other(TestedJob::Abort), Budget { pods: 1, ..NONE }),
        scenario(
            "analysis: client, pods, signal",
            analyzed(),
            None,
            Budget { foreign: 1, pods: 1, signals: 1, ..NONE },
        ),
        scenario("questions: faults, client", asked, None, Budget { faults: 2, foreign: 1, ..NONE }),
        scenario(
            "steps, another shift: fault, client",
            stepwise(),
            other(ONE_STEP),
            Budget { faults: 1, foreign: 1, ..NONE },
        ),
        scenario(
            "steps, another shift that takes over: fault, signal",
            stepwise(),
            taking_over(ONE_STEP),
            Budget { faults: 1, signals: 1, ..NONE },
        ),
        scenario(
            "steps, --undo: fault, crash, deadline",
            stepwise(),
            other(TestedJob::Undo),
            Budget { faults: 1, crashes: 1, jumps: 1, ..NONE },
        ),
        scenario(
            "steps, --undo --takeover: fault, pods",
            stepwise(),
            taking_over(TestedJob::Undo),
            Budget { faults: 1, pods: 1, ..NONE },
        ),
        scenario(
            "steps, --resume: fault, crash, deadline",
            stepwise(),
            other(TestedJob::Resume),
            Budget { faults: 1, crashes: 1, jumps: 1, ..NONE },
        ),
        scenario(
            "steps, --resume --takeover: fault",
            stepwise(),
            taking_over(TestedJob::Resume),
            Budget { faults: 1, ..NONE },
        ),
        scenario(
            "steps, --abort: fault, signal",
            stepwise(),
            other(TestedJob::Abort),
            Budget { faults: 1, signals: 1, ..NONE },
        ),
    ]
}

/// Small scenarios that write in every way.
pub(super) fn samples() -> Vec<Scenario> {
    let unacknowledged = RunSpec { acknowledges: false, ..single() };
    vec![
        scenario("steps", stepwise(), None, NONE),
        scenario("proxies not asked", unacknowledged, None, NONE),
        scenario(
            "one step, interrupted",
            RunSpec { on_interrupt: FailureAction::Hold, ..single() },
            None,
            Budget { signals: 1, ..NONE },
        ),
        scenario("one step, --resume", single(), taking_over(TestedJob::Resume), NONE),
        scenario("one step, --abort", single(), other(TestedJob::Abort), NONE),
    ]
}

/// Preconditions that patches lack, with a scenario in which that must be noticed.
pub(super) fn broken() -> Vec<(Mutation, Scenario)> {
    let none = Mutation::default();
    let all = Mutation { uid: true, version: true, record: true, rule: true, backends: true };
    let with = |write: &'static [ForeignWrite]| Scenario {
        foreign: write,
        ..scenario("one step, another client", single(), None, Budget { foreign: 1, ..NONE })
    };
    let aborted = scenario("one step, --abort", single(), other(TestedJob::Abort), NONE);
    vec![
        (all, with(&[ForeignWrite::ChangeWeights])),
        (Mutation { version: true, record: true, ..none }, aborted),
        (Mutation { version: true, backends: true, ..none }, with(&[ForeignWrite::ChangeWeights])),
        (Mutation { uid: true, version: true, ..none }, with(&[ForeignWrite::Recreate])),
        (Mutation { version: true, rule: true, ..none }, with(&[ForeignWrite::InsertRule])),
    ]
}
