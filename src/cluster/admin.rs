//! A proxy's admin port, through the API server's port-forward. Only GET: nothing of a proxy is changed.

use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::client::Server;
use super::error::{ClusterError, Trouble};
use crate::envoy::ADMIN_PORT;

/// Largest answer that is read.
const LARGEST: usize = 256 << 20;

impl Server {
    /// Asks a pod's proxy for a path of its admin port, within `limit` in all.
    ///
    /// # Errors
    /// No right to forward ports (`pods/portforward`, create), a pod without such a port, no answer in time, or a status
    /// that is not a success.
    pub async fn admin(&self, namespace: &str, pod: &str, path: &str, limit: Duration) -> Result<Bytes, ClusterError> {
        let asked = tokio::time::timeout(limit, self.ask_admin(namespace, pod, path)).await;
        asked.map_err(|_| {
            let seconds = limit.as_secs_f32();
            ClusterError::new(Trouble::Silent, format!("the proxy of {namespace}/{pod} did not answer in {seconds} s"))
        })?
    }

    async fn ask_admin(&self, namespace: &str, pod: &str, path: &str) -> Result<Bytes, ClusterError> {
        let broken = |what: &dyn std::fmt::Display| {
            ClusterError::new(Trouble::Unreachable, format!("the proxy of {namespace}/{pod} cannot be asked: {what}"))
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut forwarded = api.portforward(pod, &[ADMIN_PORT]).await.map_err(|error| self.refused_forward(&error))?;
        let stream = forwarded.take_stream(ADMIN_PORT).ok_or_else(|| broken(&"no stream"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // It ends when the sender is dropped.
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            // Why the port was refused comes on a way of its own.
            Err(error) => {
                let why = match forwarded.take_error(ADMIN_PORT) {
                    Some(why) => tokio::time::timeout(Duration::from_millis(500), why).await.ok().flatten(),
                    None => None,
                };
                return Err(broken(&why.unwrap_or_else(|| error.to_string())));
            }
        };
        let status = answer.status();
        let body =
            Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| broken(&error))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let trouble = if status == http::StatusCode::NOT_FOUND { Trouble::NotFound } else { Trouble::Server };
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
        Err(ClusterError::new(trouble, format!("the proxy of {namespace}/{pod} answered {status}: {text}")))
    }

    fn refused_forward(&self, error: &kube::Error) -> ClusterError {
        let forbidden = match error {
            kube::Error::Api(status) => status.code == 403,
            other => other.to_string().contains("403"),
        };
        if forbidden {
            return ClusterError::new(Trouble::Forbidden, "the right to forward ports is missing")
                .hint("it is create on pods/portforward: docs/rbac/live-reader.yaml");
        }
        ClusterError::of_log(error, &self.server)
    }
}
