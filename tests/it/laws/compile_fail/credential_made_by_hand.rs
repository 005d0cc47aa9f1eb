//! A credential cannot be put together: not even what it is made of can be named.
use keybearer::credential::Credential;

fn main() {
    let _ = Credential {};
}
