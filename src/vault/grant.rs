//! An OAuth grant: what a person consented to, and how its tokens fare.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::secret_input;
use crate::{
    cause::Cause,
    secret::{Secret, encoded},
};

/// The tokens of one consent, and what is known of their ends.
///
/// `Debug` shows no token. An unknown field is an error when it is read, because writing it back would lose it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What is injected; `None` where it has to be obtained first, or is gone.
    pub access: Option<Access>,
    /// What obtains the next one; `None` where the provider gave none.
    #[serde(serialize_with = "encoded::write_option", deserialize_with = "encoded::read_option")]
    pub refresh: Option<Secret>,
    /// When the refresh token ends unless it is used or replaced; `None` where that is not known.
    pub refresh_expires: Option<Timestamp>,
    /// When the grant ends whatever is done; `None` where that is not known.
    pub deadline: Option<Timestamp>,
    /// Who consented, as the provider names them. Another one cannot take the account over.
    pub subject: Option<String>,
    /// What the provider granted, in its own words.
    pub provider_scopes: Vec<String>,
    /// When a request used it last, as far as that was written down.
    pub used: Option<Timestamp>,
    /// How it fares.
    pub state: GrantState,
}

/// An access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The token itself.
    #[serde(serialize_with = "encoded::write", deserialize_with = "encoded::read")]
    pub token: Secret,
    /// When it ends; `None` where the provider does not say.
    pub expires: Option<Timestamp>,
    /// When it was obtained.
    pub obtained: Timestamp,
}

/// How a grant fares. Whether the account may be used at all is its [`Status`](super::Status).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GrantState {
    /// Nothing is known against it.
    #[default]
    Fresh,
    /// The provider could not be reached, or did not want to be.
    Backoff {
        /// Since when.
        since: Timestamp,
        /// Not to be tried again before.
        until: Timestamp,
        /// How many attempts failed since then.
        failures: u32,
    },
    /// A refresh was sent, and nobody knows whether it was done.
    Ambiguous {
        /// When it was sent.
        since: Timestamp,
    },
    /// A person has to do something at the provider; the tokens may work again then.
    NeedsUser {
        /// What was the matter.
        cause: Cause,
    },
    /// Only a new consent helps.
    ReauthRequired {
        /// What was the matter.
        cause: Cause,
    },
    /// Whoever consented is gone.
    SubjectGone {
        /// What was the matter.
        cause: Cause,
    },
}

impl GrantState {
    /// `fresh`, `backoff`, `ambiguous`, `needs_user`, `reauth_required` or `subject_gone`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Backoff { .. } => "backoff",
            Self::Ambiguous { .. } => "ambiguous",
            Self::NeedsUser { .. } => "needs_user",
            Self::ReauthRequired { .. } => "reauth_required",
            Self::SubjectGone { .. } => "subject_gone",
        }
    }
}

impl Grant {
    /// When it ends unless a person does something; `None` where that is not known.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        let tokens = match &self.refresh {
            Some(_) => self.refresh_expires,
            None => self.access.as_ref().and_then(|access| access.expires),
        };
        [tokens, self.deadline].into_iter().flatten().min()
    }

    /// The same grant without its tokens. Who consented stays, so that nobody else takes the account over.
    pub(super) fn emptied(&self) -> Self {
        Self {
            access: None,
            refresh: None,
            refresh_expires: None,
            state: GrantState::ReauthRequired { cause: Cause::Revoked },
            ..self.clone()
        }
    }

    /// Whether its tokens can be such.
    pub(super) fn check(&self) -> Result<(), secret_input::Error> {
        let access = self.access.as_ref().map(|access| ("access_token", &access.token));
        let refresh = self.refresh.as_ref().map(|token| ("refresh_token", token));
        access
            .into_iter()
            .chain(refresh)
            .try_for_each(|(name, token)| secret_input::check_secret(name, token))
    }

    /// Whether there is a token at all, as there must be in a new one.
    pub(super) fn check_new(&self) -> Result<(), secret_input::Error> {
        if self.access.is_none() && self.refresh.is_none() {
            return Err(secret_input::Error::Missing("access_token".to_owned()));
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        let secret = |text: &str| Secret::new(text.into());
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        Grant {
            access: Some(Access { token: secret("access-1"), expires: Some(at(100)), obtained: at(0) }),
            refresh: Some(secret("refresh-1")),
            refresh_expires: Some(at(300)),
            deadline: None,
            subject: Some("00u1".to_owned()),
            provider_scopes: vec!["api".to_owned()],
            used: None,
            state: GrantState::Backoff { since: at(1), until: at(2), failures: 3 },
        }
    }

    #[test]
    fn a_grant_is_read_back_and_one_of_a_newer_program_is_not() {
        let text = crate::secret::to_json(&grant()).unwrap();
        assert_eq!(serde_json::from_slice::<Grant>(&text).unwrap(), grant());
        let newer = String::from_utf8(text.to_vec()).unwrap().replacen('{', r#"{"epoch":1,"#, 1);
        assert!(serde_json::from_str::<Grant>(&newer).is_err());
    }

    #[test]
    fn causes_and_states_are_called_what_they_are_written_as() {
        for cause in [
            Cause::Revoked,
            Cause::ExpiredIdle,
            Cause::ExpiredHard,
            Cause::UserDisabled,
            Cause::Policy,
            Cause::LostRotation,
            Cause::WrongClient,
            Cause::Uninstalled,
        ] {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
            let state = GrantState::NeedsUser { cause };
            let written = serde_json::to_value(state).unwrap();
            assert_eq!(written["needs_user"]["cause"], cause.as_str());
        }
    }

    #[test]
    fn debug_of_a_grant_shows_no_token() {
        let shown = format!("{:?}", grant());
        assert!(!shown.contains("access-1") && !shown.contains("refresh-1"), "{shown}");
    }

    #[test]
    fn a_grant_ends_with_what_cannot_be_renewed() {
        let at = |seconds| Timestamp::from_second(seconds).ok();
        assert_eq!(grant().expires(), at(300), "the access token is refreshed");
        assert_eq!(Grant { refresh: None, ..grant() }.expires(), at(100));
        assert_eq!(Grant { deadline: at(200), ..grant() }.expires(), at(200));
        assert_eq!(Grant { refresh_expires: None, ..grant() }.expires(), None);
    }

    #[test]
    fn an_emptied_grant_has_no_token_and_still_its_subject() {
        let emptied = grant().emptied();
        assert_eq!((&emptied.access, &emptied.refresh), (&None, &None));
        assert_eq!(emptied.subject.as_deref(), Some("00u1"));
        assert!(emptied.check().is_ok() && emptied.check_new().is_err());
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        let torn = Secret::new(b"two\nlines".to_vec());
        assert!(Grant { refresh: Some(torn.clone()), ..grant() }.check().is_err());
        let access = Access { token: torn, expires: None, obtained: Timestamp::UNIX_EPOCH };
        assert!(Grant { access: Some(access), ..grant() }.check().is_err());
        assert!(grant().check().is_ok());
    }
}
