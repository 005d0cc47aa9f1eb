//! The command line's way to a running proxy.

use std::{
    fmt::Display,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::{Command, Error, Fault, Reply, socket};
use crate::{drain::Drain, secret::to_json};

/// More than any command takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// More than a vault full of accounts takes to be listed.
const LARGEST_REPLY: usize = 256 << 20;

/// A proxy that answers on its admin socket.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    drain: Drain,
}

impl Client {
    /// Finds the proxy behind a socket; `None` where there is no socket, or nobody answers there.
    ///
    /// # Errors
    /// [`Error::Socket`] where somebody is there and we may not ask.
    pub async fn find(path: &Path, drain: &Drain) -> Result<Option<Self>, Error> {
        if socket::check_length(path).is_err() {
            return Ok(None); // then no proxy can be there either
        }
        match UnixStream::connect(path).await {
            Ok(_) => Ok(Some(Self { path: path.to_owned(), drain: drain.clone() })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(source) => Err(Error::Socket { attempt: "connect to", path: path.to_owned(), source }),
        }
    }

    /// Has the proxy do it.
    ///
    /// # Errors
    /// [`Error::Refused`] with the proxy's own reason; [`Error::Socket`] and [`Error::Talk`] where it cannot be
    /// talked to.
    pub async fn execute(&self, command: &Command) -> Result<Reply, Error> {
        let body = to_json(command).map_err(|_| self.talk(&"the secret is not UTF-8 text"))?;
        let request = Request::post("/v1/accounts")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from_owner(body)))
            .map_err(|error| self.talk(&error))?;
        let answered = timeout(PATIENCE, self.send(request)).await;
        let (status, answer) = answered.map_err(|_| self.talk(&format!("nothing within {PATIENCE:?}")))??;
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).map_err(|error| self.talk(&error));
        }
        let fault: Fault = serde_json::from_slice(&answer).map_err(|_| self.talk(&status))?;
        Err(Error::Refused(fault))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error> {
        let failed = |source| Error::Socket { attempt: "connect to", path: self.path.clone(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(failed)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.talk(&error))?;
        self.drain.detach(async move {
            let _ = connection.await; // the request tells what went wrong
        });
        let response = sender.send_request(request).await.map_err(|error| self.talk(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_REPLY).collect().await;
        Ok((status, body.map_err(|error| self.talk(&error))?.to_bytes()))
    }

    fn talk(&self, why: &dyn Display) -> Error {
        Error::Talk { path: self.path.clone(), why: why.to_string() }
    }
}
