//! Faults that the exploration found, each as the shortest sequence of events that leads to it.

use super::scenarios::{NONE, analyzed, scenario, stepwise};
use super::server::record_text;
use super::setting::{Budget, ForeignWrite, Mutation, RunSpec};
use super::world::{Action, ModelWorld, Observed, Pending, Reply, Slot};
use crate::shift::machine::{Ending, FailureReport, Timer};

const PLAIN: Action = Action::Reply(0, Reply::Plain);
const GOOD: Action = Action::Reply(0, Reply::GoodWindow);
const WINDOW: Action = Action::Timer(0, Timer::Window);
const PROXIES: Action = Action::ProxiesFollow;

/// The world after a sequence of actions of one run.
fn replay(run: RunSpec, actions: &[Action]) -> (ModelWorld, Option<Ending>) {
    let budget = Budget { faults: 9, foreign: 9, ..NONE };
    let scenario = scenario("regression", run, None, budget);
    let mut observed = Observed::default();
    let first = ModelWorld::new(&scenario, &mut observed).unwrap();
    let world = actions
        .iter()
        .fold(first, |world, action| world.after(&scenario, Mutation::default(), *action, &mut observed).unwrap());
    (world, observed.ending)
}

fn failure(ending: Option<Ending>) -> FailureReport {
    let Some(Ending::Failed(report)) = ending else { panic!("{ending:?}") };
    report
}

/// The end of a shift was judged on the object that was read last, not on the one that the proxies acknowledged.
#[test]
fn a_rule_that_is_added_during_the_last_window_is_acknowledged_before_done() {
    let baseline = [PLAIN, PLAIN, WINDOW, GOOD];
    let applied = [PLAIN, PLAIN, PLAIN, PROXIES, PLAIN, PLAIN, PLAIN];
    let first_step = [&baseline[..], &applied, &[WINDOW, GOOD]].concat();
    let added = [Action::Foreign(ForeignWrite::InsertRule), Action::Timer(0, Timer::Monitor), PLAIN, WINDOW, GOOD];
    let (world, _) = replay(analyzed(), &[&first_step[..], &applied, &added].concat());
    let Slot::Running(running) = &world.slots[0] else { panic!("the run has ended") };
    let Some(Pending::Proxies { object, rules }) = &running.pending else { panic!("{:?}", running.pending) };
    assert_eq!((running.state.name(), object["spec"]["http"].as_array().unwrap().len()), ("Acknowledging", 2));
    assert_eq!(*rules, [1], "the rule has moved");
}

/// A patch that may still arrive was forgotten when the next attempt was rejected.
#[test]
fn a_rejected_patch_after_a_lost_answer_does_not_mean_that_nothing_was_applied() {
    for refusal in [Reply::Rejected, Reply::Forbidden] {
        let retry = Action::Timer(0, Timer::Retry);
        let actions = [PLAIN, Action::Reply(0, Reply::Delayed), retry, PLAIN, Action::Reply(0, refusal)];
        let (world, ending) = replay(stepwise(), &actions);
        let report = failure(ending);
        assert!(report.hints.iter().any(|hint| hint.contains("the weights may be applied")), "{report:?}");
        assert!(record_text(world.object.as_deref().unwrap()).is_none() && world.late_patches.len() == 1);
    }
}

/// The same for a rollback: whether the new weights stay is unknown.
#[test]
fn a_refused_rollback_after_a_lost_answer_does_not_mean_that_the_weights_stay() {
    let refused = |first: Reply| {
        // One query is in flight when the time is over, and one more follows.
        let ack_ends = [Action::Timer(0, Timer::Ack), PLAIN, PLAIN];
        let rollback =
            [PLAIN, Action::Reply(0, first), Action::Timer(0, Timer::Retry), PLAIN, Action::Reply(0, Reply::Forbidden)];
        let (_, ending) = replay(stepwise(), &[&[PLAIN, PLAIN][..], &ack_ends, &rollback].concat());
        failure(ending).hints.join("; ")
    };
    assert!(refused(Reply::Delayed).starts_with("the change may be applied"), "{}", refused(Reply::Delayed));
    assert!(refused(Reply::Busy).starts_with("the new weights stay"), "{}", refused(Reply::Busy));
}
