//! Why the broker gave nothing.

use std::path::PathBuf;

use crate::tls;

/// Why the broker gave nothing. No message shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be reached, or the connection broke.
    #[error("the broker {broker} cannot be reached: {why}")]
    Unreachable {
        /// Its URL.
        broker: String,
        /// What was the matter.
        why: String,
    },
    /// It took longer than `vault.timeout`.
    #[error("the broker {broker} does not answer in time")]
    Late {
        /// Its URL.
        broker: String,
    },
    /// It is there, and could not answer.
    #[error("the broker {broker} answers {error}: {detail}")]
    Refused {
        /// Its URL.
        broker: String,
        /// The code of its answer.
        error: String,
        /// The sentence of its answer.
        detail: String,
    },
    /// What it said is nothing that a broker says.
    #[error("the broker {broker} answers something that no broker does; is vault.url right?")]
    Unreadable {
        /// Its URL.
        broker: String,
    },
    /// Whom its certificate is checked by cannot be read.
    #[error(transparent)]
    Roots(#[from] tls::Error),
    /// There is no token that says who we are.
    #[error("the token file {} {why} (vault.token_file)", .path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// What is the matter with it.
        why: String,
    },
}
