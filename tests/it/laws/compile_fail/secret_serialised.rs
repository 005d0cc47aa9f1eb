//! A secret cannot be written into a document (law 9).
use keybearer::secret::Secret;

fn write(secret: &Secret) -> serde_json::Value {
    serde_json::to_value(secret).unwrap_or_default()
}

fn main() {}
