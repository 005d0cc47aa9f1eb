//! One identity's questions, all answered by the same rules.

use super::{
    super::{Proxy, arrival::Arrival, place::Place, refusal::Refusal},
    is_ours, page,
};
use crate::{
    credential::Survey,
    host::Target,
    id::{ConnectorName, OperationName},
    identity::Identity,
    policy::Permit,
    ruleset::{Offer, Ruleset},
};

/// What would be said to the identity's requests.
///
/// A verdict is made by what judges the requests themselves: [`Place`], the policy, the resolver. So it cannot be
/// another one, unless something changes before the request comes.
pub(super) struct Inquiry<'a> {
    proxy: &'a Proxy,
    pub(super) rules: &'a Ruleset,
    pub(super) identity: &'a Identity,
    survey: Survey,
}

impl<'a> Inquiry<'a> {
    pub(super) fn new(proxy: &'a Proxy, rules: &'a Ruleset, identity: &'a Identity) -> Self {
        Self { proxy, rules, identity, survey: Survey::new(&proxy.resolver) }
    }

    /// What a request would be told before it is sent.
    pub(super) async fn request(&mut self, method: &str, url: &str) -> Result<(), Refusal> {
        let arrival = Arrival::of(method, url)?;
        if is_ours(&arrival.host) {
            return page(&arrival).map(drop);
        }
        if self.passes_through(&arrival) {
            return Ok(());
        }
        let place = self.place(&arrival)?;
        self.verdict(&place).await
    }

    /// What a request for an operation would be told, sent to wherever its connector is.
    pub(super) async fn operation(
        &mut self,
        connector: &ConnectorName,
        operation: &OperationName,
    ) -> Result<(), Refusal> {
        let arrival = Arrival::by_name(connector)?;
        let place = self.place(&arrival)?.named(operation.as_str());
        self.verdict(&place).await
    }

    /// What a request for an operation would be told that the policy lets through.
    pub(super) async fn offer(&mut self, offer: &Offer<'_>) -> Result<(), Refusal> {
        let arrival = Arrival::by_name(&offer.connector.name)?;
        let place = self.place(&arrival)?.named(offer.operation.name.as_str());
        self.account(&place, &offer.permit).await
    }

    fn place<'b>(&self, arrival: &'b Arrival) -> Result<Place<'b>, Refusal>
    where
        'a: 'b,
    {
        Place::find(self.rules, arrival, &self.proxy.dialer)
    }

    async fn verdict(&mut self, place: &Place<'_>) -> Result<(), Refusal> {
        let permit = place.judge(self.identity).map_err(|denial| place.refusal(&denial))?;
        self.account(place, &permit).await
    }

    async fn account(&mut self, place: &Place<'_>, permit: &Permit) -> Result<(), Refusal> {
        let looked = self.survey.look(permit, place.connector(), place.captured()).await;
        let credential =
            looked.map_err(|error| self.proxy.credential_refusal(&error, permit, place.host()))?;
        place.check_endpoint(&credential)
    }

    /// A CONNECT to such a host is not looked into, whatever is asked inside.
    fn passes_through(&self, arrival: &Arrival) -> bool {
        let target = arrival.port.map(|port| Target { host: arrival.host.clone(), port });
        !arrival.plain && target.is_some_and(|target| self.proxy.passes_through(&target))
    }
}
