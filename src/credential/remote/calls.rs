//! Asking the broker.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    Error,
    link::{Link, Links},
    token::TokenFile,
};
use crate::{
    credential::wire::{Answer, Ask, CREDENTIAL, Code, POLICY, Problem, Question, WATCH},
    fetch,
    secret::to_json,
};

/// The longest answer, in bytes: as long as a bundle of rules may be, and longer than any account.
const LARGEST: usize = 16 << 20;
/// On how many connections a question is tried, when those before turned out to be closing.
const TRIES: usize = 3;

/// What it takes to ask.
pub(super) struct Calls {
    pub(super) links: Links,
    pub(super) token: TokenFile,
    pub(super) timeout: Duration,
    pub(super) patience: Duration,
}

/// An answer, read whole.
struct Read {
    status: StatusCode,
    body: Zeroizing<Vec<u8>>,
}

impl Calls {
    /// What the broker answers: how the account stands, or why it gives nothing.
    pub(super) async fn answer(&self, question: &Question) -> Result<Result<Answer, Problem>, Error> {
        let limit = match question.ask {
            // It may wait for what was interrupted, and then for a token.
            Ask::Give | Ask::Challenged => self.timeout + 2 * self.patience,
            Ask::Look | Ask::Ahead => self.timeout,
        };
        let body = to_json(question).map_err(|_| self.unreadable())?;
        let read = self.within(limit, Method::POST, CREDENTIAL, &body).await?;
        match read.status {
            StatusCode::OK => match serde_json::from_slice(&read.body) {
                Ok(answer) => Ok(Ok(answer)),
                Err(_) => Err(self.unreadable()),
            },
            _ => self.problem(&read).map(Err),
        }
    }

    /// The rules that we may see.
    pub(super) async fn policy(&self) -> Result<Vec<u8>, Error> {
        let mut read = self.within(self.timeout, Method::GET, POLICY, &[]).await?;
        match read.status {
            StatusCode::OK => Ok(std::mem::take(&mut *read.body)),
            _ => Err(self.refused(self.problem(&read)?)),
        }
    }

    /// Opens the watch on this connection.
    pub(super) async fn watch(&self, link: &Link) -> Result<Incoming, Error> {
        let asked = async {
            let request = self.request(&Method::GET, WATCH, self.token.bearer()?, &[])?;
            let sent = link.sender.clone().send_request(request).await;
            let response = sent.map_err(|error| self.links.unreachable(&error.to_string()))?;
            if response.status() == StatusCode::OK {
                return Ok(response.into_body());
            }
            let problem = self.problem(&self.read(response).await?)?;
            if problem.error == Code::WorkloadInvalid {
                self.token.forget();
            }
            Err(self.refused(problem))
        };
        timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(self.late()))
    }

    async fn within(
        &self,
        limit: Duration,
        method: Method,
        path: &'static str,
        body: &[u8],
    ) -> Result<Read, Error> {
        timeout(limit, self.ask(&method, path, body)).await.unwrap_or_else(|_| Err(self.late()))
    }

    /// Asks until somebody has answered. Whatever is asked here may be asked twice.
    async fn ask(&self, method: &Method, path: &'static str, body: &[u8]) -> Result<Read, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut link = self.links.current().await?;
            let bearer = self.token.bearer()?;
            let request = self.request(method, path, bearer.clone(), body)?;
            let read = match link.sender.send_request(request).await {
                Ok(response) => self.read(response).await,
                Err(error) => Err(self.links.unreachable(&error.to_string())),
            };
            match read {
                Err(Error::Unreachable { .. }) if tries < TRIES => self.links.lost(&link),
                Ok(read) if read.status == StatusCode::UNAUTHORIZED && tries < TRIES => {
                    self.token.forget();
                    if self.token.bearer()? == bearer {
                        return Ok(read);
                    }
                }
                read => return read,
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &'static str,
        bearer: HeaderValue,
        body: &[u8],
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.links.way().name()))
            .header(header::AUTHORIZATION, bearer)
            .header(header::USER_AGENT, concat!("keybearer/", env!("CARGO_PKG_VERSION")));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(Bytes::copy_from_slice(body))).map_err(|_| self.unreadable())
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Read, Error> {
        let (head, body) = response.into_parts();
        match fetch::body(body, LARGEST).await {
            Ok(body) => Ok(Read { status: head.status, body }),
            Err(fetch::BodyError::TooLong) => Err(self.unreadable()),
            Err(fetch::BodyError::Broken(error)) => Err(self.links.unreachable(&error.to_string())),
        }
    }

    fn problem(&self, read: &Read) -> Result<Problem, Error> {
        serde_json::from_slice(&read.body).map_err(|_| self.unreadable())
    }

    fn refused(&self, problem: Problem) -> Error {
        let Problem { error, detail, .. } = problem;
        let (broker, error) = (self.links.way().name().to_owned(), error.as_str().to_owned());
        Error::Refused { broker, error, detail }
    }

    fn late(&self) -> Error {
        Error::Late { broker: self.links.way().name().to_owned() }
    }

    fn unreadable(&self) -> Error {
        Error::Unreadable { broker: self.links.way().name().to_owned() }
    }
}
