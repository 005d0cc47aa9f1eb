//! What is wrong with what tokens are to be minted from.

use std::path::PathBuf;

use crate::{oauth::FillError, vault::SecretError};

/// What is wrong with what an account's tokens are to be minted from. Each says what to write; none shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It cannot be read at all.
    #[error(transparent)]
    Input(#[from] SecretError),
    /// A part is missing.
    #[error("{0} is missing: {1}")]
    Missing(&'static str, &'static str),
    /// A part that this kind of connector has no use for.
    #[error("there is no use for {0} here: {1}")]
    Unused(String, &'static str),
    /// Two parts of which one would never be used.
    #[error("client_secret and private_key are two proofs of who we are: write one of them")]
    Two,
    /// A key that does not sign.
    #[error(
        "private_key does not sign: write an RSA, P-256 or Ed25519 private key in PEM, with its line breaks as \\n"
    )]
    Key,
    /// A text that cannot be part of a request.
    #[error("{0} is no plain text")]
    Text(&'static str),
    /// It looks like a service account's key, and is none.
    #[error(
        "this is no service account's key: write the JSON file that Google's console gives out, whole, with client_email and private_key in it"
    )]
    ServiceAccount,
    /// The connector's URL or parameters have a placeholder that the metadata does not fill.
    #[error("{}", unfilled(.0))]
    Metadata(FillError),
    /// Metadata that is missing.
    #[error("the account does not say {0}: add --meta {0}={1}")]
    NoMetadata(&'static str, &'static str),
    /// Metadata that is not what it has to be.
    #[error("--meta {0}={1} is not {2}")]
    Unfit(&'static str, String, &'static str),
    /// A file with a token.
    #[error("the token in {} cannot be used: {why}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is the matter with it.
        why: &'static str,
    },
    /// The configured app cannot sign.
    #[error("the app of oauth.apps has no private_key to sign with")]
    AppKey,
}

fn unfilled(error: &FillError) -> String {
    match error {
        FillError::Missing(name) => format!("the account does not say which {name}: add --meta {name}=..."),
        FillError::Unfit(_) => error.to_string(),
    }
}
