//! `tenant="acme", role="researcher", user="alice", chain="run-42", agent="planner"`: an RFC 9651 dictionary.
//!
//! Stricter than the RFC where leniency would give two readings: it lets the last of two equal members win and
//! ignores parameters; here both are refused.

use std::{borrow::Cow, convert::Infallible};

use sfv::{
    BareItemFromInput, KeyRef, Parser,
    visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor},
};

use super::{Error, Identity};
use crate::id::{AgentName, ChainId, RoleName, Subject, TenantId, UserId};

/// Reads the header's value.
pub(super) fn read(value: &[u8]) -> Result<Identity, Error> {
    let members = Parser::new(value).parse_dictionary_with_visitor(Members::default()).map_err(malformed)?;
    if let Some(problem) = members.problem {
        return Err(Error::Invalid(problem));
    }
    let missing = |name| Error::invalid(format!("Agent-Identity names no {name}"));
    Ok(Identity {
        subject: Subject {
            tenant: TenantId::new(&members.tenant.ok_or_else(|| missing("tenant"))?)?,
            role: RoleName::new(&members.role.ok_or_else(|| missing("role"))?)?,
            user: members.user.map(|text| UserId::new(&text)).transpose()?,
        },
        agent: members.agent.map(|text| AgentName::new(&text)).transpose()?,
        delegation: Vec::new(),
        chain: members.chain.map(|text| ChainId::new(&text)).transpose()?,
    })
}

/// Says where, not what: the text could be a token sent to the wrong proxy.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn malformed(error: sfv::Error) -> Error {
    let at = error.index().map_or_else(String::new, |at| format!(" (at byte {at})"));
    Error::invalid(format!(
        "Agent-Identity is not a dictionary{at}: write tenant=\"...\", role=\"...\", user=\"...\", chain=\"...\""
    ))
}

/// The members as they are met, and the first thing wrong with them.
#[derive(Default)]
struct Members<'de> {
    tenant: Option<Cow<'de, str>>,
    role: Option<Cow<'de, str>>,
    user: Option<Cow<'de, str>>,
    agent: Option<Cow<'de, str>>,
    chain: Option<Cow<'de, str>>,
    problem: Option<Cow<'static, str>>,
}

/// One member being read.
struct Member<'a, 'de> {
    members: &'a mut Members<'de>,
    key: &'de KeyRef,
}

impl<'de> Members<'de> {
    fn take(&mut self, key: &KeyRef, value: BareItemFromInput<'de>) {
        let place = match key.as_str() {
            "tenant" => &mut self.tenant,
            "role" => &mut self.role,
            "user" => &mut self.user,
            "agent" => &mut self.agent,
            "chain" => &mut self.chain,
            _ => {
                return self.refuse(format!(
                    "Agent-Identity has no member {}: it has tenant, role, user, chain and agent",
                    short(key)
                ));
            }
        };
        let text = match value {
            BareItemFromInput::String(Cow::Borrowed(text)) => Cow::Borrowed(text.as_str()),
            BareItemFromInput::String(Cow::Owned(text)) => Cow::Owned(text.into()),
            BareItemFromInput::Token(token) => Cow::Borrowed(token.as_str()),
            _ => return self.refuse(format!("{key} in Agent-Identity must be a text: {key}=\"...\"")),
        };
        if place.replace(text).is_some() {
            self.refuse(format!("Agent-Identity names {key} twice"));
        }
    }

    fn refuse(&mut self, problem: String) {
        self.problem.get_or_insert_with(|| problem.into());
    }
}

impl<'de> DictionaryVisitor<'de> for Members<'de> {
    type Out = Self;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        Ok(Member { members: self, key })
    }

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }
}

impl<'de> EntryVisitor<'de> for Member<'_, 'de> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        self.members.refuse(format!("{} in Agent-Identity must be a text, not a list", short(self.key)));
        Ok(Ignored)
    }
}

impl<'de> ItemVisitor<'de> for Member<'_, 'de> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        self.members.take(self.key, item);
        Ok(self)
    }
}

impl<'de> ParameterVisitor<'de> for Member<'_, 'de> {
    type Out = ();
    type Error = Infallible;

    fn parameter(&mut self, _: &'de KeyRef, _: BareItemFromInput<'de>) -> Result<(), Infallible> {
        self.members.refuse(format!(
            "{} in Agent-Identity has a parameter: separate members by commas, not semicolons",
            short(self.key)
        ));
        Ok(())
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A key is letters, digits and `_-.*`, but of any length.
fn short(key: &KeyRef) -> &str {
    key.as_str().get(..40).unwrap_or(key.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::fixture::{name, subject},
        *,
    };

    #[test]
    fn the_contracts_example_is_read_as_strings_and_as_tokens() {
        let expected = Identity {
            subject: subject("acme", "researcher", Some("alice")),
            agent: None,
            delegation: vec![],
            chain: Some(name("run-42")),
        };
        for header in [
            r#"tenant="acme", role="researcher", user="alice", chain="run-42""#,
            "tenant=acme, role=researcher, user=alice, chain=run-42",
            "  chain=run-42 ,\t user=\"alice\",role=researcher,tenant=acme",
        ] {
            assert_eq!(read(header.as_bytes()).unwrap(), expected, "{header}");
        }
        assert_eq!(read(b"tenant=a, role=b, agent=planner").unwrap().agent, Some(name("planner")));
    }

    #[test]
    fn a_string_can_hold_what_a_token_cannot() {
        let identity = read(br#"tenant="42", role="r", user="9lives@acme.example""#).unwrap();
        assert_eq!(identity.subject, subject("42", "r", Some("9lives@acme.example")));
    }

    #[test]
    fn what_has_two_readings_or_none_is_refused_with_the_reason() {
        for (header, says) in [
            ("", "names no tenant"),
            ("tenant=acme", "names no role"),
            ("role=writer", "names no tenant"),
            ("tenant=acme, role=writer,", "not a dictionary"),
            ("tenant=acme role=writer", "not a dictionary"),
            ("tenant=acme; role=writer", "parameter"),
            ("tenant=acme;x, role=writer", "parameter"),
            ("tenant=acme, role=writer, role=admin", "role twice"),
            ("tenant=acme, tenant=acme, role=writer", "tenant twice"),
            ("tenant=acme, role=writer, rolle=admin", "no member rolle"),
            ("tenant=acme, role=writer, admin", "no member admin"),
            ("tenant=acme, role=writer, admin=(a b)", "must be a text"),
            ("tenant=(acme), role=writer", "must be a text"),
            ("tenant, role=writer", "must be a text"),
            ("tenant=42, role=writer", "must be a text"),
            ("tenant=:YWNtZQ==:, role=writer", "must be a text"),
            ("tenant=%\"acme\", role=writer", "must be a text"),
            ("Tenant=acme, role=writer", "not a dictionary"),
            ("tenant=\"acme, role=writer", "not a dictionary"),
            ("tenant='acme', role=writer", "not a dictionary"),
            ("tenant=\"\", role=writer", "cannot be empty"),
            ("tenant=\"ac/me\", role=writer", "cannot contain '/'"),
            ("tenant=\"ac\\\"me\", role=writer", "cannot contain '\"'"),
            ("tenant=\"*\", role=writer", "cannot contain '*'"),
            ("acme/writer", "not a dictionary"),
        ] {
            let error = read(header.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{header:?}: {error}");
        }
        assert!(read(b"tenant=\"ac\xffme\", role=writer").is_err());
    }

    #[test]
    fn a_refusal_repeats_no_value() {
        let error = read(b"tenant=s3cr3t-value-here=, role=writer").unwrap_err().to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
        let long = format!("{}=1, tenant=a, role=b", "k".repeat(1000));
        assert!(read(long.as_bytes()).unwrap_err().to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_near_dictionary_makes_the_reader_panic(text in r#"((tenant|role|user|x)?[=;,() \t"\\:%@?*a0-]{0,3}){0,9}"#) {
            let _ = read(text.as_bytes());
        }

        #[test]
        fn every_name_survives_as_a_string(
            tenant in "[A-Za-z0-9._@:+=~!$|-]{1,60}",
            role in "[A-Za-z0-9._@:+=~!$|-]{1,60}",
            user in proptest::option::of("[A-Za-z0-9._@:+=~!$|-]{1,60}"),
        ) {
            let shown = user.as_ref().map(|user| format!(", user=\"{user}\"")).unwrap_or_default();
            let header = format!("tenant=\"{tenant}\", role=\"{role}\"{shown}");
            prop_assert_eq!(read(header.as_bytes()).unwrap().subject, subject(&tenant, &role, user.as_deref()));
        }
    }
}
