//! A secret cannot be formatted into a text (law 9).
use keybearer::secret::Secret;

fn show(secret: &Secret) -> String {
    format!("{secret}")
}

fn main() {}
