//! GET requests to a pod's port, such as Envoy's admin port, through the API server's port-forward.

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

/// Largest response that is read.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

impl ApiServer {
    /// Gets a path of a proxy's admin port. `limit` bounds the whole request.
    ///
    /// # Errors
    /// The user may not forward ports (`create` on `pods/portforward`), the pod does not listen on the port, the proxy does
    /// not answer in time, or the status is not a success.
    pub async fn get_admin(
        &self,
        namespace: &str,
        pod: &str,
        path: &str,
        limit: Duration,
    ) -> Result<Bytes, ClusterError> {
        let responses = self.get_forwarded(namespace, pod, ADMIN_PORT, &[path], limit).await?;
        responses.into_iter().next().flatten().ok_or_else(|| {
            ClusterError::new(
                ClusterErrorKind::NotFound,
                format!("cannot get {path} from the proxy of {namespace}/{pod}: not found"),
            )
        })
    }

    /// Gets paths from a port of a pod, one after another on one connection. `limit` bounds all of them together. The body
    /// is `None` for a path that is not found (404).
    ///
    /// # Errors
    /// As [`Self::get_admin`].
    pub async fn get_forwarded(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        paths: &[&str],
        limit: Duration,
    ) -> Result<Vec<Option<Bytes>>, ClusterError> {
        let limit = limit.min(self.limit(limit));
        let responses = tokio::time::timeout(limit, self.get_all_forwarded(namespace, pod, port, paths)).await;
        responses.map_err(|_| {
            let seconds = limit.as_secs_f32();
            let message =
                format!("cannot reach port {port} of {namespace}/{pod}: it did not answer within {seconds} s");
            ClusterError::new(ClusterErrorKind::Timeout, message)
        })?
    }

    async fn get_all_forwarded(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        paths: &[&str],
    ) -> Result<Vec<Option<Bytes>>, ClusterError> {
        let unreachable = |cause: &dyn std::fmt::Display| {
            ClusterError::new(
                ClusterErrorKind::Unreachable,
                format!("cannot reach port {port} of {namespace}/{pod}: {cause}"),
            )
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut forwarded = api.portforward(pod, &[port]).await.map_err(|error| self.port_forward_error(&error))?;
        let stream = forwarded.take_stream(port).ok_or_else(|| unreachable(&"the port-forward has no stream"))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        // The task ends when the sender is dropped.
        tokio::spawn(connection);
        let mut responses = Vec::with_capacity(paths.len());
        for path in paths {
            match send_get(&mut sender, path).await {
                Ok((status, body)) if status.is_success() => responses.push(Some(body)),
                Ok((http::StatusCode::NOT_FOUND, _)) => responses.push(None),
                Ok((status, body)) => {
                    let text = String::from_utf8_lossy(body.get(..200).unwrap_or(&body)).trim().to_owned();
                    let message = format!(
                        "cannot get {path} from port {port} of {namespace}/{pod}: it responded with {status} {text}"
                    );
                    return Err(ClusterError::new(ClusterErrorKind::Server, message));
                }
                // The port-forward reports the reason of a refused connection on a separate channel.
                Err(error) => {
                    let reason = match forwarded.take_error(port) {
                        Some(reason) => tokio::time::timeout(Duration::from_millis(500), reason).await.ok().flatten(),
                        None => None,
                    };
                    return Err(unreachable(&reason.unwrap_or(error)));
                }
            }
        }
        Ok(responses)
    }

    fn port_forward_error(&self, error: &kube::Error) -> ClusterError {
        let is_forbidden = match error {
            kube::Error::Api(status) => status.code == 403,
            other => other.to_string().contains("403"),
        };
        if is_forbidden {
            return ClusterError::new(ClusterErrorKind::Forbidden, "cannot forward ports: forbidden")
                .hint("grant create on pods/portforward: kubectl apply -f docs/rbac/live-reader.yaml");
        }
        ClusterError::from_log_request(error, &self.server)
    }
}

/// Sends one request on an open connection. Errors are messages.
async fn send_get(
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    path: &str,
) -> Result<(http::StatusCode, Bytes), String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let request = Request::get(path).header(header::HOST, "localhost").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}
