//! One more try with another token, for a request that the provider refused with 401.
//!
//! Only a request without a body is sent again: that one is still at hand, and a provider that asks for another
//! credential has not done it. For any other one the token is replaced as well, so that the agent's own next try has it:
//! some agents send nothing but bodies.

use std::sync::Arc;

use http::{Request, Response};

use super::{
    Proxy,
    body::RequestBody,
    forward,
    place::Place,
    record::Record,
    upstream::{self, Outbound},
};
use crate::{credential::Credential, policy::Permit};

/// What is needed to replace a request's token, and to send the request again, if that can be.
pub(super) struct Again<'a> {
    pub(super) permit: &'a Permit,
    pub(super) place: &'a Place<'a>,
    pub(super) head: Option<Request<RequestBody>>,
}

impl<'a> Again<'a> {
    /// Keeps what is needed to send `outbound` once more, if it could be.
    pub(super) fn of(
        permit: &'a Permit,
        place: &'a Place<'a>,
        outbound: &Outbound,
        credential: &Credential,
    ) -> Self {
        let head = credential.is_replaceable().then(|| outbound.repeated()).flatten();
        Self { permit, place, head }
    }
}

impl Proxy {
    /// The answer to a second try, where there is another token to try it with; else the
    /// first answer. A second 401 is the provider's last word.
    pub(super) async fn once_more(
        &self,
        again: Again<'_>,
        answer: Response<upstream::Body>,
        credential: Arc<Credential>,
        record: &mut Record,
    ) -> (Response<upstream::Body>, Arc<Credential>) {
        let Again { permit, place, head } = again;
        if !credential.is_renewed() {
            return (answer, credential);
        }
        let connector = place.connector();
        let another = self.resolver.challenged(permit, connector, place.captured(), &credential).await;
        let (Some(another), Some(mut request)) = (another, head) else { return (answer, credential) };
        let Ok(endpoint) = place.endpoint(&another) else { return (answer, credential) };
        // Its headers take the place of the first one's; nothing else of it is in the request.
        let _no_query = another.inject(request.headers_mut(), None);
        record.resolved(&another);
        let outbound = Outbound::new(permit, endpoint, request);
        match forward::send(&self.upstream, outbound, self.limits.upstream_timeout, record).await {
            Ok(second) => (second, another),
            Err(_) => (answer, credential),
        }
    }
}
