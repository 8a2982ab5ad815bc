//! One file or folder per command: its arguments first, then what it does.

pub(crate) mod balance;
mod complete;
pub mod completion;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod inspect;
mod live_proxies;
pub(crate) mod route;
pub(crate) mod shift;
pub(crate) mod snapshot;
pub(crate) mod tail;
pub(crate) mod version;

use std::io::Write;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::{ConnectionArgs, OutputArgs, ScopeArgs};
use crate::cli::replace_file;
use crate::render::text::safe_block;
use crate::terminal::Messages;

/// Inspect gRPC services in an Istio mesh, and shift their traffic
///
/// Shows whether calls are balanced, routed, retried and secured as intended. Reads a cluster, a snapshot or manifests.
/// Installs nothing in the cluster. Only shift writes to it.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-grpcmesh",
    bin_name = "kubectl grpcmesh",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Try it without a cluster:\n  kubectl grpcmesh inspect --from demo"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::InspectArgs),
    Route(route::RouteArgs),
    Diff(diff::DiffArgs),
    Shift(shift::ShiftArgs),
    Tail(tail::TailArgs),
    Balance(balance::BalanceArgs),
    Explain(explain::ExplainArgs),
    Doctor(doctor::DoctorArgs),
    Snapshot(snapshot::SnapshotArgs),
    Completion(completion::CompletionArgs),
    Version(version::VersionArgs),
}

/// The definition of the command line, for completions and documentation.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the program and returns its exit code. The first argument is the name of the program.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>, env: Env, out: &mut dyn Write) -> u8 {
    let arguments: Vec<std::ffi::OsString> = arguments.into_iter().collect();
    if let Some(code) = complete::respond(&arguments, &env, out) {
        return code;
    }
    let parsed = definition().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error, &env, out),
    };
    let Cli { command, connection, scope, output } = cli;
    let mut context = Context::new(env, connection, scope, &output, out);
    let messages = context.messages;
    match dispatch(command, &mut context).and_then(|outcome| {
        context.out.flush()?;
        Ok(outcome)
    }) {
        Ok(outcome) => outcome.exit_code(),
        Err(failure) => {
            failure.report(&messages);
            failure.exit_code()
        }
    }
}

/// Prints help and versions to stdout, and errors in the arguments to stderr. Returns the exit code.
fn report_usage(error: &clap::Error, env: &Env, out: &mut dyn Write) -> u8 {
    let is_error = error.use_stderr();
    let is_terminal = if is_error { env.stderr_is_terminal } else { env.stdout_is_terminal };
    let text = error.render();
    // clap quotes arguments as they are. Such a text has no colors, because escaping would show their codes.
    let plain = text.to_string();
    let escaped = safe_block(&plain);
    let has_colors = is_terminal && !env.no_color && !env.dumb && escaped == plain;
    let text = if has_colors { text.ansi().to_string() } else { escaped.into_owned() };
    if is_error {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        return Failure::usage("").exit_code();
    }
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    CommandOutcome::Clean.exit_code()
}

fn dispatch(command: Command, context: &mut Context<'_>) -> Result<CommandOutcome, Failure> {
    // A shift, and following logs, end in an orderly way.
    let ends_itself = match &command {
        Command::Shift(_) => true,
        Command::Tail(arguments) => arguments.ends_itself(),
        _ => false,
    };
    if !ends_itself {
        exit_on_interrupt(context.messages);
    }
    match command {
        Command::Inspect(arguments) => block_on(interruptible(inspect::run(context, arguments))),
        Command::Route(arguments) => block_on(interruptible(route::run(context, arguments))),
        Command::Diff(arguments) => block_on(interruptible(diff::run(context, arguments))),
        Command::Shift(arguments) => block_on(shift::run(context, arguments)),
        Command::Tail(arguments) => block_on(tail::run(context, arguments)),
        Command::Balance(arguments) => block_on(interruptible(balance::run(context, arguments))),
        Command::Explain(arguments) => explain::run(context, &arguments),
        Command::Doctor(arguments) => block_on(interruptible(doctor::run(context, arguments))),
        Command::Snapshot(arguments) => block_on(interruptible(snapshot::run(context, arguments))),
        Command::Completion(arguments) => completion::run(context, &arguments),
        Command::Version(arguments) => block_on(version::run(context, arguments)),
    }
}

/// Time for a command to end by itself after Ctrl-C.
const INTERRUPT_GRACE: std::time::Duration = std::time::Duration::from_millis(50);

/// Ends the program on Ctrl-C even while it computes, or waits for standard input or another program: then the command's own
/// code does not run. A command that has to end in an orderly way must not use it.
fn exit_on_interrupt(messages: Messages) {
    let watch = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                tokio::time::sleep(INTERRUPT_GRACE).await;
                replace_file::remove_unfinished();
                let failure = Failure::interrupted();
                failure.report(&messages);
                exit(failure.exit_code());
            }
        });
    };
    // Without the thread, Ctrl-C works wherever the command waits for the cluster.
    let _ = std::thread::Builder::new().name("interrupt".to_owned()).spawn(watch);
}

#[expect(clippy::exit, reason = "another thread is busy, and nothing that has to be kept is in memory")]
fn exit(code: u8) -> ! {
    std::process::exit(code.into())
}

/// Aborts a command on Ctrl-C.
async fn interruptible(work: impl Future<Output = Result<CommandOutcome, Failure>>) -> Result<CommandOutcome, Failure> {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

/// Runs an asynchronous command on this thread.
fn block_on(work: impl Future<Output = Result<CommandOutcome, Failure>>) -> Result<CommandOutcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable("cannot start the async runtime").cause(error))?;
    let outcome = runtime.block_on(work);
    // A name lookup or another blocking call may still wait for its own limit.
    runtime.shutdown_background();
    outcome
}

/// Counts SIGINT, SIGTERM and SIGHUP from now on.
fn count_termination_signals() -> tokio::sync::watch::Receiver<u32> {
    let (sender, receiver) = tokio::sync::watch::channel(0);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        for mut stream in kinds.into_iter().filter_map(|kind| signal(kind).ok()) {
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    sender.send_modify(|count| *count += 1);
                }
            });
        }
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            sender.send_modify(|count| *count += 1);
        }
    });
    receiver
}

/// Waits for SIGINT, SIGTERM, or SIGHUP, which is sent when the terminal closes.
async fn termination_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let streams = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::hangup())?)));
        if let Ok((mut term, mut hup)) = streams {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
