//! The context of one run: environment, flags that all commands share, and writers.

use std::io::Write;
use std::sync::Arc;

use super::env::Env;
use super::global::{ColorWhen, ConnectionArgs, OutputArgs, ScopeArgs};
use crate::cluster::ClusterError;
use crate::cluster::client::{ApiServer, ServerHealth};
use crate::cluster::request::RequestEvent;
use crate::render::style::Style;
use crate::terminal::Messages;

/// The environment and settings of one run, which every command receives. [`Context::new`] interprets the flags once.
pub struct Context<'w> {
    pub env: Env,
    pub connection: ConnectionArgs,
    pub scope: ScopeArgs,
    pub style: Style,
    pub messages: Messages,
    pub verbosity: u8,
    /// A client that is used in place of a connection, for tests.
    pub server: Option<ApiServer>,
    /// Shared by all connections of the run, so that it waits only once for a server that does not answer.
    pub health: Arc<ServerHealth>,
    /// Receives data: stdout, or a buffer in tests.
    pub out: &'w mut dyn Write,
}

impl<'w> Context<'w> {
    pub fn new(
        env: Env,
        connection: ConnectionArgs,
        scope: ScopeArgs,
        output: &OutputArgs,
        out: &'w mut dyn Write,
    ) -> Self {
        let uses_color = |is_terminal: bool| match output.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto if env.no_color => false,
            ColorWhen::Auto => env.force_color || (is_terminal && !env.dumb),
        };
        let style = Style {
            color: uses_color(env.stdout_is_terminal),
            width: env.width,
            headers: !output.no_headers,
            wide: false,
        };
        let messages = Messages {
            shows_progress: env.stderr_is_terminal && !output.quiet && !env.dumb,
            uses_color: uses_color(env.stderr_is_terminal),
            sink: None,
        };
        Self {
            style,
            messages,
            env,
            connection,
            scope,
            verbosity: output.verbosity,
            server: None,
            health: Arc::default(),
            out,
        }
    }

    /// Connects to the cluster. With `-v`, every request is reported on stderr.
    ///
    /// # Errors
    /// An invalid kubeconfig, certificate or credential.
    pub async fn connect(&self) -> Result<ApiServer, ClusterError> {
        if let Some(server) = &self.server {
            return Ok(server.clone());
        }
        let mut server = self.connection.connection(&self.env).connect().await?;
        server.health = Arc::clone(&self.health);
        if self.verbosity > 0 {
            let messages = self.messages;
            server.observer = Some(Arc::new(move |event: &RequestEvent<'_>| {
                let status = event.status.map_or("no answer".to_owned(), |status| status.to_string());
                let (bytes, millis) = (event.bytes, event.duration.as_millis());
                messages.detail(&format!("{} {} {status}, {bytes} bytes, {millis} ms", event.method, event.path));
            }));
        }
        Ok(server)
    }
}
