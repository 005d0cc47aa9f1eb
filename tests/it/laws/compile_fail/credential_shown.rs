//! A credential has no Debug that a log line could use.
use keybearer::credential::Credential;

fn show(credential: &Credential) -> String {
    format!("{credential:?}")
}

fn main() {}
