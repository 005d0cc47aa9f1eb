//! `Proxy-Authorization`: how clients that only know a proxy URL say who asks.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderValue;
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::{Error, Identity};
use crate::{
    id::{RoleName, Subject, TenantId, UserId},
    secret::Secret,
};

/// RFC 7617 pads, some clients do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `Proxy-Authorization`, by scheme (RFC 9110 §11.6.2).
pub(super) enum Credentials {
    /// RFC 7617.
    Basic { user: Zeroizing<Vec<u8>>, password: Secret },
    /// RFC 6750.
    Bearer(Secret),
}

impl Credentials {
    pub(super) fn read(value: &HeaderValue) -> Result<Self, Error> {
        let text = value.to_str().map_err(|_| Error::invalid("Proxy-Authorization is not plain text"))?;
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::basic(rest);
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Bearer(Secret::new(rest.as_bytes().to_vec())));
        }
        Err(Error::invalid("Proxy-Authorization must be Basic, with the user name tenant/role, or Bearer"))
    }

    fn basic(encoded: &str) -> Result<Self, Error> {
        let decoded = BASE64
            .decode(encoded)
            .map(Zeroizing::new)
            .map_err(|_| Error::invalid("Proxy-Authorization: Basic is not base64"))?;
        // RFC 7617 §2: the first colon ends the user name; a user name cannot have one, a password can.
        let colon = decoded
            .iter()
            .position(|byte| *byte == b':')
            .ok_or_else(|| Error::invalid("Proxy-Authorization: Basic has no colon after the user name"))?;
        Ok(Self::Basic {
            user: Zeroizing::new(decoded[..colon].to_vec()),
            password: Secret::new(decoded[colon + 1..].to_vec()),
        })
    }
}

/// `tenant/role[/user]`. Clients decode the user name of a proxy URL before they send it; some leave it as it
/// stood. No name can contain a `%`, so decoding once gives the one possible reading of either. A name with a `:` cannot come this way
/// (RFC 7617 §2): it would end at the colon; such users are named in the `Agent-Identity` header.
pub(super) fn user_name(raw: &[u8]) -> Result<Identity, Error> {
    const FORM: &str = "the proxy user name must be tenant/role or tenant/role/user; in a proxy URL the / is \
                        written %2F";
    let text = percent_decode(raw).decode_utf8().map_err(|_| Error::invalid(FORM))?;
    let mut parts = text.split('/');
    let (Some(tenant), Some(role), user, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::invalid(FORM));
    };
    let user = user.map(UserId::new).transpose()?;
    let subject = Subject { tenant: TenantId::new(tenant)?, role: RoleName::new(role)?, user };
    Ok(Identity { subject, agent: None, delegation: Vec::new(), chain: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::fixture::{agent_identity, basic_claim, proxy_authorization, subject},
        *,
    };

    /// `user:password`
    fn basic(user_and_password: &str) -> Result<Identity, Error> {
        let (user, password) = user_and_password.split_once(':').unwrap();
        basic_claim(user, password).stated()
    }

    #[test]
    fn the_proxy_user_name_is_tenant_role_and_perhaps_user() {
        assert_eq!(basic("acme/researcher:x").unwrap().subject, subject("acme", "researcher", None));
        assert_eq!(basic("acme/researcher:").unwrap().subject, subject("acme", "researcher", None));
        assert_eq!(
            basic("acme/researcher/alice@acme.example:a:b").unwrap().subject,
            subject("acme", "researcher", Some("alice@acme.example"))
        );
    }

    #[test]
    fn percent_encoding_that_a_client_left_in_is_decoded_once() {
        let plain = subject("acme", "researcher", Some("alice"));
        assert_eq!(basic("acme%2Fresearcher%2falice:x").unwrap().subject, plain);
        assert_eq!(basic("acme%2Fresearcher/alice:x").unwrap().subject, plain);
        for bad in ["acme%252Fresearcher:x", "acme%2researcher:x", "acme/%zz:x", "acme/%ff:x", "acme/%00:x"] {
            assert!(matches!(basic(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn other_counts_of_slashes_and_empty_names_are_refused() {
        for bad in
            [":x", "acme:x", "acme/:x", "/researcher:x", "acme/r/:x", "acme/r/u/v:x", "acme//u:x", "//:x"]
        {
            assert!(matches!(basic(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn the_scheme_has_any_case_and_padding_may_be_missing() {
        let encoded = BASE64.encode("acme/writer:x");
        for value in [
            format!("bAsIc {encoded}"),
            format!("Basic   {encoded}"),
            format!("Basic {}", encoded.trim_end_matches('=')),
        ] {
            let read = proxy_authorization(&value).stated().unwrap();
            assert_eq!(read.subject, subject("acme", "writer", None), "{value}");
        }
    }

    #[test]
    fn other_schemes_and_broken_credentials_are_refused_with_what_to_send() {
        for (value, says) in [
            ("Digest username=x", "must be Basic"),
            ("Basic", "no colon"),
            ("Basic !!!", "not base64"),
            ("Basic YWNtZQ==", "no colon"),
            ("Basic YWNtZS93 OmE=", "not base64"),
            ("", "must be Basic"),
            ("Bearer eyJh.e30.c2ln", "identity.mode: signed"),
        ] {
            let error = proxy_authorization(value).stated().unwrap_err().to_string();
            assert!(error.contains(says), "{value:?}: {error}");
        }
        assert!(agent_identity("eyJh.e30.c2ln").stated().unwrap_err().to_string().contains("mode: signed"));
    }

    proptest! {
        #[test]
        fn no_credentials_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let basic = format!("Basic {}", BASE64.encode(&bytes));
            let read = Credentials::read(&HeaderValue::from_str(&basic).unwrap());
            prop_assert_eq!(read.is_ok(), bytes.contains(&b':'));
            let _ = user_name(&bytes);
            let _ = HeaderValue::from_bytes(&bytes).map(|value| Credentials::read(&value).is_ok());
        }
    }
}
