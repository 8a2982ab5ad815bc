//! The world of a shift: what it reads, asks and waits for besides the API server. Tests replace these parts.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::super::live_proxies::AdminAccessArgs;
use crate::cli::env::Env;
use crate::cluster::ClusterError;
use crate::cluster::client::ApiServer;
use crate::cluster::proxies::{IstiodSyncState, PodName};
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::counters::EndpointCounters;
use crate::snapshot::live::ProxyResponse;
use crate::terminal::Messages;

/// The parts that a test replaces.
pub(super) struct World {
    pub(super) proxies: Box<dyn Proxies>,
    pub(super) prompter: Rc<dyn Prompter>,
    pub(super) clock: Rc<dyn Clock>,
    /// Number of signals to end that the process has received.
    pub(super) signals: watch::Receiver<u32>,
    /// Whether the state machine runs, which handles signals itself.
    pub(super) handles_signals: Rc<Cell<bool>>,
}

impl World {
    /// The world of the command line.
    pub(super) fn real(messages: Messages) -> Self {
        Self {
            proxies: Box::new(AdminPorts),
            prompter: Rc::new(TerminalPrompter { messages }),
            clock: Rc::new(SystemClock),
            signals: super::super::count_termination_signals(),
            handles_signals: Rc::default(),
        }
    }
}

/// Stores the configuration of a pod, by index, as soon as it arrives.
pub(super) type RecordConfig<'a> = dyn Fn(usize, Result<RunningConfig, ClusterError>) -> ProxyResponse + 'a;

/// The counters of each pod, or why they could not be read.
pub(super) type CounterResults = Vec<Result<Vec<EndpointCounters>, ClusterError>>;

/// The admin ports of Envoys, and istiod's view of them.
pub(super) trait Proxies {
    /// Reads the configuration of pods; the results are in their order.
    fn read_configs<'a>(
        &'a self,
        server: &'a ApiServer,
        pods: &'a [PodName],
        access: AdminAccessArgs,
        record: &'a RecordConfig<'a>,
    ) -> LocalBoxFuture<'a, Vec<ProxyResponse>>;

    /// Reads the sync state from istiod pods.
    fn read_sync_state<'a>(
        &'a self,
        server: &'a ApiServer,
        istiod: &'a [PodName],
        limit: Duration,
    ) -> LocalBoxFuture<'a, IstiodSyncState>;

    /// Reads the endpoint counters of pods, for clusters that `is_wanted` accepts.
    fn read_counters<'a>(
        &'a self,
        server: &'a ApiServer,
        pods: &'a [PodName],
        access: AdminAccessArgs,
        is_wanted: &'a dyn Fn(&str) -> bool,
    ) -> LocalBoxFuture<'a, CounterResults>;
}

/// Reaches proxies through the API server.
struct AdminPorts;

impl Proxies for AdminPorts {
    fn read_configs<'a>(
        &'a self,
        server: &'a ApiServer,
        pods: &'a [PodName],
        access: AdminAccessArgs,
        record: &'a RecordConfig<'a>,
    ) -> LocalBoxFuture<'a, Vec<ProxyResponse>> {
        let AdminAccessArgs { via, parallel, proxy_timeout } = access;
        async move { server.running_configs(pods, via.into(), parallel, proxy_timeout, &record).await }.boxed_local()
    }

    fn read_sync_state<'a>(
        &'a self,
        server: &'a ApiServer,
        istiod: &'a [PodName],
        limit: Duration,
    ) -> LocalBoxFuture<'a, IstiodSyncState> {
        async move { server.sync_state_of(istiod, limit).await }.boxed_local()
    }

    fn read_counters<'a>(
        &'a self,
        server: &'a ApiServer,
        pods: &'a [PodName],
        access: AdminAccessArgs,
        is_wanted: &'a dyn Fn(&str) -> bool,
    ) -> LocalBoxFuture<'a, CounterResults> {
        let AdminAccessArgs { via, parallel, proxy_timeout } = access;
        let keep_all = |counters| counters;
        async move { server.endpoint_counters(pods, via.into(), parallel, proxy_timeout, is_wanted, &keep_all).await }
            .boxed_local()
    }
}

/// An answer that the user has not given yet. `None` means that the user cancelled the prompt.
pub(super) type PendingAnswer<T> = LocalBoxFuture<'static, io::Result<Option<T>>>;

/// Asks the user. Each prompt runs beside the rest, so that signals and the monitoring of the object go on meanwhile.
pub(super) trait Prompter {
    fn confirm(&self, question: String) -> PendingAnswer<bool>;
    /// Asks to choose one of several items, by index.
    fn choose(&self, question: String, items: Vec<String>) -> PendingAnswer<usize>;
    /// Asks for a line of text that passes a check.
    fn line(&self, question: String, check: fn(&str) -> Result<(), String>) -> PendingAnswer<String>;
    /// Restores the terminal while a prompt is open.
    fn restore(&self);
}

struct TerminalPrompter {
    messages: Messages,
}

impl Prompter for TerminalPrompter {
    fn confirm(&self, question: String) -> PendingAnswer<bool> {
        let messages = self.messages;
        spawn(move || messages.confirm(&question).map(Some))
    }

    fn choose(&self, question: String, items: Vec<String>) -> PendingAnswer<usize> {
        let messages = self.messages;
        spawn(move || messages.choose(&question, &items))
    }

    fn line(&self, question: String, check: fn(&str) -> Result<(), String>) -> PendingAnswer<String> {
        let messages = self.messages;
        spawn(move || messages.prompt_line(&question, check).map(Some))
    }

    fn restore(&self) {
        self.messages.restore();
    }
}

/// Runs a prompt on its own thread.
fn spawn<T: Send + 'static>(prompt: impl FnOnce() -> io::Result<Option<T>> + Send + 'static) -> PendingAnswer<T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(prompt()));
    async move { receiver.await.unwrap_or_else(|_| Err(io::Error::other("the prompt ended without an answer"))) }
        .boxed_local()
}

/// The wall clock.
pub(super) trait Clock {
    fn now(&self) -> Timestamp;
    /// An ID that no other run has.
    fn unique_id(&self) -> String;
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Env::timestamp()
    }

    fn unique_id(&self) -> String {
        Env::unique_id()
    }
}
