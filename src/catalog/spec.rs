//! A connector as its file says it (contract §6).

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{auth::AuthSpec, query::QuerySpec};
use crate::{
    document::Unsupported,
    id::{Effect, OperationName, Scope},
};

/// The `spec` of a `Connector`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorSpec {
    /// Host patterns, each with a port where it is not 443.
    pub hosts: Vec<String>,
    /// Whether the provider is reached without TLS, credential and all: for tests and meshes.
    #[serde(default)]
    pub cleartext: bool,
    /// Whether the agent's `Accept-Encoding` passes. Off by default, so that an answer that echoes the
    /// credential can be seen.
    #[serde(default)]
    pub compression: bool,
    /// How the provider authenticates.
    pub auth: AuthSpec,
    /// Where the credential goes.
    #[serde(default)]
    pub inject: Vec<InjectSpec>,
    /// What else of the agent's request could authenticate, and is removed.
    #[serde(default)]
    pub strip: StripSpec,
    /// Our scope → the provider's scopes to ask consent for.
    #[serde(default)]
    pub scopes: BTreeMap<Scope, Vec<String>>,
    /// What can be asked of it.
    #[serde(default)]
    pub operations: Vec<OperationSpec>,
}

/// One line of `inject`: a `header` or a `query` parameter.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectSpec {
    /// The header's name.
    pub header: Option<String>,
    /// The query parameter's name.
    pub query: Option<String>,
    /// Its value, with `{field}` or `{basic(a, b)}` in it.
    pub value: String,
}

/// What is removed from the agent's request besides what every connector removes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripSpec {
    /// Header names.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Query parameters.
    #[serde(default)]
    pub query: Vec<String>,
    /// Parameters of `application/x-www-form-urlencoded` bodies.
    #[serde(default)]
    pub form: Vec<String>,
}

/// One line of `operations`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationSpec {
    /// Its name, one of a kind in this connector.
    pub name: OperationName,
    /// `METHOD /path/{template}`, one or several.
    #[serde(deserialize_with = "one_or_many")]
    pub request: Vec<String>,
    /// The scopes that it needs, all of them.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// What it does; from the method where this is left out.
    pub effect: Option<Effect>,
    /// Which query parameters it needs and takes; any where this is left out.
    pub query: Option<QuerySpec>,
    /// What of the body decides: not supported yet.
    #[serde(default)]
    pub body: Unsupported,
}

/// A text or a list of texts. An untagged enum would do, but its errors lose their place in the file.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;
    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a request line such as `GET /items/{id}`, or a list of them")
        }
        fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
            Ok(vec![one.to_owned()])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, many: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(many))
        }
    }
    deserializer.deserialize_any(OneOrMany)
}
