//! Durations as people write them in a configuration: `60s`, `1m 30s`, `250ms`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// For `#[serde(with = "crate::duration")]`.
///
/// # Errors
/// When the text is no duration.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format!("{text:?} is no duration; write it as in 60s, 250ms or 1m 30s"))
    })
}

/// The same where it may be left out, for `#[serde(with = "crate::duration::option")]`.
pub(crate) mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    #[derive(Deserialize)]
    struct Span(#[serde(with = "super")] Duration);

    /// # Errors
    /// When the text is no duration.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Span>::deserialize(input)?.map(|Span(span)| span))
    }
}
