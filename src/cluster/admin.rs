//! A proxy's admin port, through the API server's port-forward. Only GET: nothing of a proxy is changed.

use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use crate::envoy::ADMIN_PORT;

/// Largest answer that is read.
const LARGEST: usize = 256 << 20;

impl ApiServer {
    /// Asks a pod's proxy for a path of its admin port, within `limit` in all.
    ///
    /// # Errors
    /// No right to forward ports (`pods/portforward`, create), a pod without such a port, no answer in time, or a status
    /// that is not a success.
    pub async fn admin(&self, namespace: &str, pod: &str, path: &str, limit: Duration) -> Result<Bytes, ClusterError> {
        let answers = self.forwarded(namespace, pod, ADMIN_PORT, &[path], limit).await?;
        answers.into_iter().next().flatten().ok_or_else(|| {
            ClusterError::new(
                ClusterErrorKind::NotFound,
                format!("the proxy of {namespace}/{pod} has nothing at {path}"),
            )
        })
    }

    /// Asks a pod's port for paths one after another on one connection, within `limit` in all. What is not there (404)
    /// is `None`.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn forwarded(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        paths: &[&str],
        limit: Duration,
    ) -> Result<Vec<Option<Bytes>>, ClusterError> {
        let asked = tokio::time::timeout(limit, self.ask_all(namespace, pod, port, paths)).await;
        asked.map_err(|_| {
            let seconds = limit.as_secs_f32();
            ClusterError::new(ClusterErrorKind::Silent, format!("{namespace}/{pod} did not answer in {seconds} s"))
        })?
    }

    async fn ask_all(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        paths: &[&str],
    ) -> Result<Vec<Option<Bytes>>, ClusterError> {
        let broken = |what: &dyn std::fmt::Display| {
            ClusterError::new(
                ClusterErrorKind::Unreachable,
                format!("port {port} of {namespace}/{pod} cannot be asked: {what}"),
            )
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut forwarded = api.portforward(pod, &[port]).await.map_err(|error| self.refused_forward(&error))?;
        let stream = forwarded.take_stream(port).ok_or_else(|| broken(&"no stream"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // It ends when the sender is dropped.
        tokio::spawn(connection);
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            let answer = ask(&mut sender, path).await;
            match answer {
                Ok((status, body)) if status.is_success() => answers.push(Some(body)),
                Ok((http::StatusCode::NOT_FOUND, _)) => answers.push(None),
                Ok((status, body)) => {
                    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
                    let message = format!("port {port} of {namespace}/{pod} answered {status}: {text}");
                    return Err(ClusterError::new(ClusterErrorKind::Server, message));
                }
                // Why the port was refused comes on a way of its own.
                Err(error) => {
                    let why = match forwarded.take_error(port) {
                        Some(why) => tokio::time::timeout(Duration::from_millis(500), why).await.ok().flatten(),
                        None => None,
                    };
                    return Err(broken(&why.unwrap_or(error)));
                }
            }
        }
        Ok(answers)
    }

    fn refused_forward(&self, error: &kube::Error) -> ClusterError {
        let forbidden = match error {
            kube::Error::Api(status) => status.code == 403,
            other => other.to_string().contains("403"),
        };
        if forbidden {
            return ClusterError::new(ClusterErrorKind::Forbidden, "the right to forward ports is missing")
                .hint("it is create on pods/portforward: docs/rbac/live-reader.yaml");
        }
        ClusterError::of_log(error, &self.server)
    }
}

/// One question; an error is told in words.
async fn ask(sender: &mut http1::SendRequest<Empty<Bytes>>, path: &str) -> Result<(http::StatusCode, Bytes), String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let request = Request::get(path).header(header::HOST, "localhost").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}
