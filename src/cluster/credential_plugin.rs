//! Runs credential plugins, the programs that a kubeconfig names under `exec`.
//!
//! The client library runs them without a limit, and its errors quote what the plugin wrote, which is a token. Here a plugin
//! has a time limit and an output limit, is killed when it exceeds them, and no message contains its arguments, its
//! environment or its output.
//!
//! Source: `staging/src/k8s.io/client-go/plugin/pkg/client/auth/exec/exec.go` of kubernetes/kubernetes.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use kube::client::Body;
use kube::config::{ExecConfig, ExecInteractiveMode};
use serde::Deserialize;

use super::error::{ClusterError, ClusterErrorKind};
use crate::snapshot::yaml;

/// Largest output of a plugin: a token and a certificate with its key.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// Pause between two checks whether the plugin ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// A token is renewed this long before it expires.
const RENEWAL_SECONDS: i64 = 60;

/// What a plugin returned.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PluginCredential {
    pub(super) token: Option<String>,
    /// PEM.
    pub(super) client_certificate_data: Option<String>,
    /// PEM.
    pub(super) client_key_data: Option<String>,
    expiration_timestamp: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<PluginCredential>,
}

/// A plugin with its time limit.
#[derive(Clone)]
pub(super) struct CredentialPlugin {
    exec: ExecConfig,
    limit: Duration,
}

impl CredentialPlugin {
    pub(super) fn new(exec: ExecConfig, limit: Duration) -> Self {
        Self { exec, limit }
    }

    /// Runs the plugin once.
    ///
    /// # Errors
    /// It cannot be started, fails, exceeds its limits, or does not return credentials.
    pub(super) async fn run(&self) -> Result<PluginCredential, ClusterError> {
        let mut child = RunningPlugin(self.command()?.spawn().map_err(|error| self.start_error(&error))?);
        let (sender, output) = tokio::sync::oneshot::channel();
        let stdout = child.0.stdout.take();
        // A thread, because another process that the plugin started may keep the pipe open forever.
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.map(|stdout| stdout.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut bytes));
            let _ = sender.send(read.transpose().map(|_| bytes));
        });
        let ended = tokio::time::timeout(self.limit, async {
            let output = output.await;
            loop {
                match child.0.try_wait() {
                    Ok(None) => tokio::time::sleep(POLL_INTERVAL).await,
                    ended => return (ended, output),
                }
            }
        });
        let Ok((status, output)) = ended.await else {
            return Err(self
                .error(format_args!("it did not end within {} s", self.limit.as_secs_f32()))
                .hint("run the plugin by hand to see what it waits for, or raise the limit with --request-timeout"));
        };
        match status {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => return Err(self.error(format_args!("it failed with {status}")).hint(RUN_BY_HAND)),
            Ok(None) | Err(_) => return Err(self.error(format_args!("it cannot be monitored")).hint(RUN_BY_HAND)),
        }
        let output = output.ok().and_then(Result::ok).filter(|bytes| bytes.len() as u64 <= MAX_OUTPUT_BYTES);
        let output = output.ok_or_else(|| self.error(format_args!("its output is longer than 1 MiB")))?;
        parse(&output).ok_or_else(|| {
            self.error(format_args!("its output is not an ExecCredential with a status")).hint(RUN_BY_HAND)
        })
    }

    fn command(&self) -> Result<Command, ClusterError> {
        let ExecConfig { command, args, env, drop_env, interactive_mode, .. } = &self.exec;
        let program = command.as_deref().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| self.error(format_args!("the kubeconfig names no command")))?;
        let mut command = Command::new(program);
        command.args(args.iter().flatten());
        for variable in env.iter().flatten() {
            if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
                command.env(name, value);
            }
        }
        drop_env.iter().flatten().for_each(|name| {
            command.env_remove(name);
        });
        // Only a person at a terminal can answer a plugin, and only there may it write.
        let is_interactive = *interactive_mode != Some(ExecInteractiveMode::Never)
            && std::io::stdin().is_terminal()
            && std::io::stderr().is_terminal();
        let stdio = || if is_interactive { Stdio::inherit() } else { Stdio::null() };
        command.env("KUBERNETES_EXEC_INFO", self.exec_info(is_interactive));
        command.stdin(stdio()).stderr(stdio()).stdout(Stdio::piped());
        Ok(command)
    }

    /// The input of a plugin. The cluster is included if the kubeconfig asks for that.
    fn exec_info(&self, is_interactive: bool) -> String {
        let mut spec = serde_json::json!({ "interactive": is_interactive });
        if self.exec.provide_cluster_info
            && let (Some(spec), Ok(cluster)) = (spec.as_object_mut(), serde_json::to_value(&self.exec.cluster))
        {
            spec.insert("cluster".to_owned(), cluster);
        }
        serde_json::json!({"apiVersion": self.exec.api_version, "kind": "ExecCredential", "spec": spec}).to_string()
    }

    fn start_error(&self, error: &std::io::Error) -> ClusterError {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "install the plugin, or check its path in the kubeconfig",
            _ => RUN_BY_HAND,
        };
        self.error(format_args!("it cannot be started: {error}")).hint(hint)
    }

    fn error(&self, cause: std::fmt::Arguments<'_>) -> ClusterError {
        let name = self.exec.command.as_deref().map(Path::new).and_then(Path::file_name).unwrap_or_default();
        let message = format!("cannot get credentials from the plugin {}: {cause}", name.to_string_lossy());
        ClusterError::new(ClusterErrorKind::Unauthorized, message)
    }
}

#[expect(clippy::disallowed_methods, reason = "a token expires by the real clock, whatever the run's clock is")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

const RUN_BY_HAND: &str = "run the plugin by hand, as the kubeconfig names it under exec, to see its messages";

/// Kills the plugin if it still runs.
struct RunningPlugin(Child);

impl Drop for RunningPlugin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Parses the output, which is JSON, or YAML as client-go also accepts it.
fn parse(output: &[u8]) -> Option<PluginCredential> {
    let text = std::str::from_utf8(output).ok()?;
    let credential: ExecCredential = match serde_json::from_str(text) {
        Ok(credential) => credential,
        Err(_) => serde_json::from_str(yaml::to_json(text).ok()?.json?.get()).ok()?,
    };
    credential.status
}

/// The header for a token.
///
/// # Errors
/// The token has characters that a header cannot hold.
pub(super) fn bearer_header(token: &str) -> Result<HeaderValue, ClusterError> {
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    let mut header = header.map_err(|_| {
        ClusterError::new(
            ClusterErrorKind::Config,
            "cannot use the token: it contains a line break or another character that a header cannot hold",
        )
        .hint("remove line breaks around the token: in YAML, write it without |")
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// A token that expires. Its plugin runs again shortly before.
pub(super) struct ExpiringToken {
    plugin: CredentialPlugin,
    current: tokio::sync::Mutex<(HeaderValue, jiff::Timestamp)>,
}

impl ExpiringToken {
    /// `None` for a credential that has no token, or does not expire.
    pub(super) fn new(plugin: CredentialPlugin, credential: &PluginCredential) -> Result<Option<Self>, ClusterError> {
        let (Some(token), Some(expires)) = (&credential.token, credential.expiration_timestamp) else {
            return Ok(None);
        };
        let current = tokio::sync::Mutex::new((bearer_header(token)?, expires));
        Ok(Some(Self { plugin, current }))
    }

    /// Adds the header to a request.
    pub(super) async fn authorize(self: Arc<Self>, mut request: Request<Body>) -> Result<Request<Body>, ClusterError> {
        let mut current = self.current.lock().await;
        if now().as_second() + RENEWAL_SECONDS >= current.1.as_second() {
            let credential = self.plugin.run().await?;
            let token = credential.token.as_deref().unwrap_or_default();
            // Without a new time, the token is used as long as the old one was.
            *current = (bearer_header(token)?, credential.expiration_timestamp.unwrap_or(jiff::Timestamp::MAX));
        }
        request.headers_mut().insert(AUTHORIZATION, current.0.clone());
        Ok(request)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn plugin(script: &str) -> CredentialPlugin {
        let exec = ExecConfig {
            command: Some("/bin/sh".to_owned()),
            args: Some(vec!["-c".to_owned(), script.to_owned(), "CANARY-ARGUMENT".to_owned()]),
            env: Some(vec![
                [("name", "SECRET"), ("value", "CANARY-ENV")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ]),
            ..ExecConfig::default()
        };
        CredentialPlugin::new(exec, Duration::from_millis(300))
    }

    async fn failure(script: &str) -> String {
        let error = plugin(script).run().await.unwrap_err();
        format!("{} {}", error.message, error.hint.unwrap_or_default())
    }

    #[tokio::test]
    async fn a_failing_plugin_shows_neither_output_nor_environment() {
        for script in [
            "echo CANARY-OUT; echo CANARY-ERR >&2; exit 3",
            "echo CANARY-OUT $SECRET",
            "echo '{\"status\": {\"token\": [\"CANARY-OUT\"]}}'",
            "kill -9 $$",
            "echo 'status: {expirationTimestamp: CANARY-OUT}'",
        ] {
            let text = failure(script).await;
            assert!(text.starts_with("cannot get credentials from the plugin sh: "), "{text}");
            assert!(!text.contains("CANARY"), "{script}: {text}");
        }
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_or_floods_is_ended() {
        let start = std::time::Instant::now();
        assert!(failure("sleep 60").await.contains("did not end within 0.3 s"));
        assert!(failure("sleep 5 & exit 0").await.contains("did not end within 0.3 s"));
        let flood = CredentialPlugin { limit: Duration::from_secs(20), ..plugin("yes CANARY") };
        assert!(flood.run().await.unwrap_err().message.contains("longer than 1 MiB") || start.elapsed().as_secs() < 20);
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn reads_json_and_yaml() {
        for script in ["echo '{\"status\": {\"token\": \"t\"}}'", "printf 'status:\\n  token: t\\n'"] {
            assert_eq!(plugin(script).run().await.unwrap().token.as_deref(), Some("t"));
        }
    }
}
