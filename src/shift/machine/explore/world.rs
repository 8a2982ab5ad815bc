//! The world around the machines: an API server with one VirtualService, two runs, another client, proxies and pods.
//!
//! [`ModelWorld::actions`] lists everything that can happen next, and [`ModelWorld::after`] returns the world after one of them.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::writing::{Close, Intent};
use super::super::{Answer, Effect, Ending, Event, Phase, Run, RunJob, State, Timer, next, start};
use super::invariants::{self, BrokenInvariant};
use super::setting::{Budget, ForeignWrite, Mutation, RunSpec, Scenario};
use crate::schema::Kind;
use crate::shift::split::{RuleSplit, rule_splits};

/// Name of the rule that the shifts are about.
pub(super) const RULE: &str = "checkout";
pub(super) const KIND: Kind = Kind::VirtualService;
/// The time when both runs begin.
const BEGIN: &str = "2026-01-01T00:00:00Z";

/// Something that happens. Runs are 0 (A) and 1 (B).
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    StartB,
    Reply(usize, Reply),
    Answer(usize, Answer),
    Timer(usize, Timer),
    Signal(usize),
    Crash(usize),
    Foreign(ForeignWrite),
    /// The API server applies a patch that it received earlier and whose sender is not waiting any longer.
    LatePatch(usize),
    ProxiesFollow,
    CanaryLosesPods,
    BaselineLosesPods,
    ClockJumps,
}

/// How an operation in flight ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// As the world is.
    Plain,
    /// The API server, or the source, does not answer; nothing was applied.
    Fails,
    /// Like `Fails`, but the patch is applied.
    AnswerLost,
    /// Like `Fails`, but the patch may be applied later.
    Delayed,
    Rejected,
    Forbidden,
    Busy,
    /// A preflight check fails.
    CheckFails,
    ProxyRejects,
    ProxiesUnknown,
    GoodWindow,
    BadWindow,
    FewCalls,
}

/// What a write is, as the ghost state needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum WriteKind {
    Begin,
    Advance,
    Done,
    Unacknowledged,
    Held,
    RollBack,
    TakeOver,
    RequestAbort,
}

impl WriteKind {
    fn of(state: &State) -> Option<Self> {
        let Phase::Writing(write) = &state.phase else { return None };
        Some(match &write.intent {
            Intent::Begin { .. } => Self::Begin,
            Intent::Advance => Self::Advance,
            Intent::Close(Close::Done { .. }) => Self::Done,
            Intent::Close(Close::Unacknowledged) => Self::Unacknowledged,
            Intent::Close(Close::Held { .. }) => Self::Held,
            Intent::RollBack(_) => Self::RollBack,
            Intent::TakeOver { .. } => Self::TakeOver,
            Intent::RequestAbort { .. } => Self::RequestAbort,
        })
    }

    pub(super) fn writes_weights(self) -> bool {
        matches!(self, Self::Begin | Self::Advance | Self::RollBack)
    }
}

/// A patch, with the object that the run computed it from.
#[derive(Debug, Clone, Hash)]
pub(super) struct SentPatch {
    pub(super) run: usize,
    pub(super) kind: WriteKind,
    pub(super) operations: Vec<Value>,
    pub(super) base: Arc<Value>,
}

/// The operation in flight of a run.
#[derive(Debug, Clone, Hash)]
pub(super) enum Pending {
    Read,
    Patch(Arc<SentPatch>),
    Check { object: Arc<Value>, operations: Vec<Value> },
    Proxies { object: Arc<Value>, rules: Vec<usize> },
    Backends,
    RollbackCheck,
    WindowStart,
    SwitchToLogs,
    Window,
}

/// A run that has not ended, with ghost state for the invariants.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) run: Arc<Run>,
    pub(super) state: State,
    pub(super) pending: Option<Pending>,
    pub(super) prompt: bool,
    pub(super) timers: BTreeSet<Timer>,
    pub(super) signals: u8,
    pub(super) ghost: Ghost,
    /// Checksum of the plans, which depend on the object that the run began with.
    plans: u64,
    /// Checksum of everything above.
    checksum: u64,
}

/// What really happened to a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Ghost {
    /// Whether the last window of the step was good; absent before the first.
    pub(super) was_good: Option<bool>,
    /// The spec that all proxies were found to run, last.
    pub(super) synced_spec: Option<u64>,
    /// Whether the last check before a rollback found pods; absent before the first.
    pub(super) found_pods: Option<bool>,
    /// Whether it sent a patch.
    pub(super) sent_patch: bool,
    /// Whether it changed weights.
    pub(super) changed_weights: bool,
    /// The last change of the record that it stored, with whether the object had the weights of the entry then.
    pub(super) stored: Option<(WriteKind, bool)>,
}

/// A run.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    NotStarted,
    Running(Arc<Running>),
    Over,
}

/// Who wrote the weights last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    Foreign,
    /// The shift with this number.
    Entry(u64),
}

/// Everything that counts.
#[derive(Debug, Clone)]
pub(super) struct ModelWorld {
    pub(super) object: Option<Arc<Value>>,
    pub(super) version: u32,
    pub(super) uid: u32,
    pub(super) late_patches: Vec<Arc<SentPatch>>,
    pub(super) slots: [Slot; 2],
    /// The weights of the rule, by its identity, that the proxies run.
    pub(super) proxies: u64,
    pub(super) canary_ready: bool,
    pub(super) baseline_ready: bool,
    clock: u8,
    pub(super) budget: Budget,
    pub(super) writer: Writer,
    /// Number of each shift of the object, with the weights before it.
    pub(super) starts: Vec<(u64, Vec<Option<u64>>)>,
    /// Whether each run lost the weights of its open entry to another client.
    pub(super) lost: [bool; 2],
    /// Whether a rollback was stored.
    pub(super) is_rolled_back: bool,
}

/// The rule that the shifts are about.
pub(super) fn the_rule(object: &Value) -> Option<RuleSplit> {
    rule_splits(KIND, object).into_iter().find(|split| split.name.as_deref() == Some(RULE))
}

/// Its weights.
pub(super) fn weights(object: &Value) -> Option<Vec<Option<u64>>> {
    Some(the_rule(object)?.backends.iter().map(|backend| backend.weight).collect())
}

pub(super) fn checksum(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn session(run: usize) -> &'static str {
    ["a", "b"][run]
}

/// The object at the beginning.
pub(super) fn first_object() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "checkout", "namespace": "shop", "uid": "u1", "resourceVersion": "1",
                     "annotations": {"team": "shop"}},
        "spec": {"hosts": ["checkout"], "http": [{
            "name": RULE, "match": [{"uri": {"prefix": "/shop.Checkout/"}}],
            "route": [{"destination": {"host": "checkout", "subset": "v1"}, "weight": 90},
                      {"destination": {"host": "checkout", "subset": "v2"}, "weight": 10}]}]}})
}

/// The weights of the rules with these indexes, as proxies run them.
pub(super) fn weights_in_use(object: &Value, rules: &[usize]) -> u64 {
    let splits = rule_splits(KIND, object);
    let used = splits.iter().filter(|split| rules.contains(&split.rule));
    let used = used.map(|split| (split.identity(), split.backends.iter().map(|backend| backend.weight).collect()));
    checksum(&used.collect::<Vec<(String, Vec<Option<u64>>)>>())
}

pub(super) fn weights_of_the_rule(object: &Value) -> u64 {
    the_rule(object).map_or(0, |rule| weights_in_use(object, &[rule.rule]))
}

fn is_same_object(one: Option<&Arc<Value>>, other: Option<&Arc<Value>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

type Transition = Result<ModelWorld, BrokenInvariant>;

/// What the exploration collects besides states.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) edges: BTreeSet<(&'static str, &'static str)>,
    pub(super) patches: Vec<Arc<SentPatch>>,
    /// How the last run ended.
    pub(super) ending: Option<Ending>,
}

impl ModelWorld {
    pub(super) fn new(scenario: &Scenario, observed: &mut Observed) -> Transition {
        let object = Arc::new(first_object());
        let mut world = Self {
            proxies: weights_of_the_rule(&object),
            object: Some(object),
            version: 1,
            uid: 1,
            late_patches: Vec::new(),
            slots: [Slot::NotStarted, Slot::NotStarted],
            canary_ready: true,
            baseline_ready: true,
            clock: 0,
            budget: scenario.budget,
            writer: Writer::Foreign,
            starts: Vec::new(),
            lost: [false; 2],
            is_rolled_back: false,
        };
        world.start(0, &scenario.a, true, observed)?;
        Ok(world)
    }

    pub(super) fn checksum(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.object, self.version, self.uid, &self.late_patches, self.proxies).hash(&mut hasher);
        (self.canary_ready, self.baseline_ready, self.clock, self.budget, self.writer).hash(&mut hasher);
        (&self.starts, self.lost, self.is_rolled_back).hash(&mut hasher);
        for slot in &self.slots {
            match slot {
                Slot::NotStarted => 0_u64.hash(&mut hasher),
                Slot::Over => 1_u64.hash(&mut hasher),
                Slot::Running(running) => running.checksum.hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    pub(super) fn is_over(&self) -> bool {
        self.slots.iter().all(|slot| !matches!(slot, Slot::Running(_)))
    }

    fn now(&self) -> Timestamp {
        let begin: Timestamp = BEGIN.parse().unwrap();
        begin.checked_add(Duration::from_hours(u64::from(self.clock))).unwrap()
    }

    pub(super) fn running(&mut self, run: usize) -> &mut Running {
        match &mut self.slots[run] {
            Slot::Running(running) => Arc::make_mut(running),
            Slot::NotStarted | Slot::Over => unreachable!("the run is not running"),
        }
    }

    // What can happen.

    /// Everything that can happen next.
    pub(super) fn actions(&self, scenario: &Scenario) -> Vec<Action> {
        let mut actions = Vec::new();
        for (run, slot) in self.slots.iter().enumerate() {
            let Slot::Running(running) = slot else { continue };
            self.actions_of_run(scenario, run, running, &mut actions);
        }
        let is_any_running = !self.is_over();
        if self.can_start(scenario) {
            actions.push(Action::StartB);
        }
        actions.extend((0..self.late_patches.len()).map(Action::LatePatch));
        if self.budget.foreign > 0 && self.object.is_some() && (is_any_running || self.can_start(scenario)) {
            let is_applicable = |write: &&ForeignWrite| {
                **write != ForeignWrite::InsertRule
                    || self.object.as_deref().is_some_and(|object| the_rule(object).is_some_and(|rule| rule.rule == 0))
            };
            actions.extend(scenario.foreign.iter().filter(is_applicable).map(|write| Action::Foreign(*write)));
        }
        let asks_proxies = self.slots.iter().any(|slot| match slot {
            Slot::Running(running) => matches!(running.pending, Some(Pending::Proxies { .. })),
            Slot::NotStarted | Slot::Over => false,
        });
        if asks_proxies && self.proxies != self.object.as_deref().map_or(0, weights_of_the_rule) {
            actions.push(Action::ProxiesFollow);
        }
        if self.budget.pods > 0 && is_any_running {
            actions.extend([Action::CanaryLosesPods, Action::BaselineLosesPods]);
        }
        if self.budget.jumps > 0 && (is_any_running || self.can_start(scenario)) {
            actions.push(Action::ClockJumps);
        }
        actions
    }

    fn can_start(&self, scenario: &Scenario) -> bool {
        scenario.b.is_some()
            && matches!(self.slots[1], Slot::NotStarted)
            && self.object.as_deref().is_some_and(|object| the_rule(object).is_some())
    }

    fn actions_of_run(&self, scenario: &Scenario, run: usize, running: &Running, actions: &mut Vec<Action>) {
        if let Some(pending) = &running.pending {
            actions.extend(pending.replies(self.budget.faults > 0).iter().map(|reply| Action::Reply(run, *reply)));
        }
        if running.prompt {
            let answers = [Answer::Yes, Answer::No, Answer::RollBack, Answer::Failed];
            actions.extend(answers.map(|answer| Action::Answer(run, answer)));
            if self.budget.signals > 0 {
                actions.push(Action::Answer(run, Answer::Interrupt));
            }
        }
        let is_periodic = |timer: &Timer| matches!(timer, Timer::Monitor | Timer::Backends | Timer::Poll);
        let is_free = !scenario.quiet_timers || running.pending.is_none();
        let timers = running.timers.iter().filter(|timer| is_free || !is_periodic(timer));
        // A check of backends that never lose their pods changes nothing.
        let timers =
            timers.filter(|timer| !scenario.quiet_timers || scenario.budget.pods > 0 || **timer != Timer::Backends);
        actions.extend(timers.map(|timer| Action::Timer(run, *timer)));
        if self.budget.signals > 0 && running.signals < 2 {
            actions.push(Action::Signal(run));
        }
        if self.budget.crashes > 0 {
            actions.push(Action::Crash(run));
        }
    }

    // What happens.

    /// The world after an action.
    pub(super) fn after(
        &self,
        scenario: &Scenario,
        mutation: Mutation,
        action: Action,
        observed: &mut Observed,
    ) -> Transition {
        let mut world = self.clone();
        match action {
            Action::StartB => {
                if let Some(spec) = &scenario.b {
                    world.start(1, spec, mutation == Mutation::default(), observed)?;
                }
            }
            Action::Reply(run, reply) => world.reply(run, reply, mutation, observed)?,
            Action::Answer(run, answer) => {
                world.running(run).prompt = false;
                world.budget.signals -= u8::from(answer == Answer::Interrupt);
                world.running(run).signals += u8::from(answer == Answer::Interrupt);
                world.deliver(run, Event::Answer(answer), mutation, observed)?;
            }
            Action::Timer(run, timer) => {
                world.running(run).timers.remove(&timer);
                world.deliver(run, Event::Timer(timer), mutation, observed)?;
            }
            Action::Signal(run) => {
                world.budget.signals -= 1;
                world.running(run).signals += 1;
                world.deliver(run, Event::Signal, mutation, observed)?;
            }
            Action::Crash(run) => {
                world.budget.crashes -= 1;
                world.end(run);
            }
            Action::Foreign(write) => world.foreign_write(write),
            Action::LatePatch(index) => {
                let patch = world.late_patches.remove(index);
                world.apply(&patch, mutation)?;
            }
            Action::ProxiesFollow => world.proxies = world.object.as_deref().map_or(0, weights_of_the_rule),
            Action::CanaryLosesPods => {
                world.budget.pods -= 1;
                world.canary_ready = false;
            }
            Action::BaselineLosesPods => {
                world.budget.pods -= 1;
                world.baseline_ready = false;
            }
            Action::ClockJumps => {
                world.budget.jumps -= 1;
                world.clock += 1;
            }
        }
        world.drop_hopeless_patches(mutation);
        if !is_same_object(world.object.as_ref(), self.object.as_ref()) {
            invariants::of_object(&world)?;
        }
        invariants::no_run_is_stuck(&world)?;
        Ok(world)
    }

    fn start(
        &mut self,
        run: usize,
        spec: &RunSpec,
        checks: bool,
        observed: &mut Observed,
    ) -> Result<(), BrokenInvariant> {
        let Some(object) = self.object.clone() else { return Ok(()) };
        let Some(settings) = spec.run(session(run), &object) else { return Ok(()) };
        let settings = Arc::new(settings);
        let plans = match &settings.job {
            RunJob::Shift(goal) => checksum(&format!("{:?}", goal.plans)),
            RunJob::Undo | RunJob::Resume | RunJob::Abort => 0,
        };
        let (state, effects) = start(&settings, object, self.now());
        observed.edges.insert(("Start", state.name()));
        self.slots[run] = Slot::Running(Arc::new(Running {
            run: settings,
            state,
            pending: None,
            prompt: false,
            timers: BTreeSet::new(),
            signals: 0,
            ghost: Ghost::default(),
            plans,
            checksum: 0,
        }));
        self.carry_out(run, effects, checks, observed)
    }

    /// A run ends, or its process is killed. A patch in flight may still arrive.
    fn end(&mut self, run: usize) {
        let slot = std::mem::replace(&mut self.slots[run], Slot::Over);
        if let Slot::Running(running) = slot
            && let Some(Pending::Patch(patch)) = &running.pending
        {
            self.late_patches.push(patch.clone());
        }
    }

    /// A patch that tests a resource version which the object never has again cannot be applied.
    fn drop_hopeless_patches(&mut self, mutation: Mutation) {
        if !mutation.version {
            let now = self.object.as_deref().and_then(|object| object.pointer("/metadata/resourceVersion").cloned());
            self.late_patches.retain(|patch| patch.base.pointer("/metadata/resourceVersion") == now.as_ref());
        }
    }

    /// Gives an event to a run and carries out the effects.
    pub(super) fn deliver(
        &mut self,
        run: usize,
        event: Event,
        mutation: Mutation,
        observed: &mut Observed,
    ) -> Result<(), BrokenInvariant> {
        let now = self.now();
        let running = self.running(run);
        let is_second_signal =
            running.signals == 2 && matches!(event, Event::Signal | Event::Answer(Answer::Interrupt));
        let settings = running.run.clone();
        let before = running.state.name();
        let state = running.state.clone();
        let result = catch_unwind(AssertUnwindSafe(|| next(&settings, state, event, now)));
        let Ok((state, effects)) = result else { return Err(BrokenInvariant::new("panic", "the machine panics")) };
        observed.edges.insert((before, state.name()));
        running.state = state;
        if is_second_signal {
            invariants::second_signal_ends_at_once(&effects)?;
        }
        self.carry_out(run, effects, mutation == Mutation::default(), observed)
    }

    fn carry_out(
        &mut self,
        run: usize,
        effects: Vec<Effect>,
        checks: bool,
        observed: &mut Observed,
    ) -> Result<(), BrokenInvariant> {
        let mut ending = None;
        for effect in effects {
            if ending.is_some() {
                return Err(BrokenInvariant::new("finish_is_last", format!("an effect follows Finish: {effect:?}")));
            }
            let running = self.running(run);
            let pending = match effect {
                Effect::Read => Pending::Read,
                Effect::Patch(operations) => {
                    let Some(kind) = WriteKind::of(&running.state) else {
                        return Err(BrokenInvariant::new("patch_outside_of_write", running.state.name()));
                    };
                    let patch = Arc::new(SentPatch { run, kind, operations, base: running.state.object.clone() });
                    invariants::of_patch(running, &patch, checks)?;
                    running.ghost.sent_patch = true;
                    observed.patches.push(patch.clone());
                    Pending::Patch(patch)
                }
                Effect::Check { object, operations, .. } => Pending::Check { object, operations },
                Effect::QueryProxies { object, rules } => Pending::Proxies { object, rules },
                Effect::CheckBackends { .. } => Pending::Backends,
                Effect::CheckRollback { .. } => Pending::RollbackCheck,
                Effect::StartWindow => Pending::WindowStart,
                Effect::CountWindow => Pending::Window,
                Effect::SwitchToLogs => Pending::SwitchToLogs,
                Effect::Ask(_) => {
                    running.prompt = true;
                    continue;
                }
                Effect::CancelPrompt => {
                    running.prompt = false;
                    continue;
                }
                Effect::StartTimer(timer, _) => {
                    running.timers.insert(timer);
                    continue;
                }
                Effect::StopTimers => {
                    running.timers.clear();
                    continue;
                }
                Effect::Finish(end) => {
                    ending = Some(end);
                    continue;
                }
                Effect::ShowPlan | Effect::ShowChecks | Effect::Emit(_) | Effect::Warn(_) | Effect::Applied => continue,
            };
            if let Some(Pending::Patch(_)) = running.pending {
                return Err(BrokenInvariant::new(
                    "patch_is_awaited",
                    format!("{pending:?} replaces a patch in flight"),
                ));
            }
            running.pending = Some(pending);
        }
        if let Some(ending) = ending {
            invariants::of_ending(self, run, &ending)?;
            observed.ending = Some(ending);
            self.end(run);
        } else {
            self.update_checksum(run);
        }
        Ok(())
    }

    pub(super) fn update_checksum(&mut self, run: usize) {
        let running = self.running(run);
        let Running { state, pending, prompt, timers, signals, ghost, plans, .. } = &*running;
        running.checksum = checksum(&(state, pending, prompt, timers, signals, ghost, plans));
    }
}
