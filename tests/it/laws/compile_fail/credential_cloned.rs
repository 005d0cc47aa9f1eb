//! A credential is shared and never copied, so that ending it ends it everywhere.
use keybearer::credential::Credential;

fn copy(credential: Credential) -> (Credential, Credential) {
    (credential.clone(), credential)
}

fn main() {}
