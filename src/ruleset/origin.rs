//! One entry of `policies:` in the configuration: a path, or a signed bundle and the keys that it is believed by.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Where policy files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, or a folder at any depth.
    Path(PathBuf),
    /// A signed bundle.
    Bundle {
        /// The bundle's file.
        bundle: PathBuf,
        /// The file with the public keys that may sign it, as a JSON Web Key Set.
        keys: PathBuf,
    },
}

impl Origin {
    /// The files and folders that it names.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let (first, second) = match self {
            Self::Path(path) => (path, None),
            Self::Bundle { bundle, keys } => (bundle, Some(keys)),
        };
        std::iter::once(first).chain(second).map(PathBuf::as_path)
    }

    /// The same, to be changed.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let (first, second) = match self {
            Self::Path(path) => (path, None),
            Self::Bundle { bundle, keys } => (bundle, Some(keys)),
        };
        std::iter::once(first).chain(second)
    }
}

impl From<PathBuf> for Origin {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OriginVisitor)
    }
}

struct OriginVisitor;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    bundle: PathBuf,
    keys: PathBuf,
}

impl<'de> Visitor<'de> for OriginVisitor {
    type Value = Origin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, or {bundle: FILE, keys: FILE}")
    }

    fn visit_str<E>(self, path: &str) -> Result<Origin, E> {
        Ok(Origin::Path(path.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Origin, A::Error> {
        let Bundle { bundle, keys } = Bundle::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Origin::Bundle { bundle, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_path_or_a_bundle_with_its_keys() {
        let read = |yaml: &str| serde_saphyr::from_str::<Origin>(yaml).map_err(|error| error.to_string());
        assert_eq!(read("./policies").unwrap(), Origin::Path("./policies".into()));
        let bundle = Origin::Bundle { bundle: "policy.jws".into(), keys: "keys.json".into() };
        assert_eq!(read("{bundle: policy.jws, keys: keys.json}").unwrap(), bundle);
        assert!(read("{bundle: policy.jws}").unwrap_err().contains("missing field `keys`"));
        assert!(
            read("{bundle: policy.jws, keys: keys.json, url: x}")
                .unwrap_err()
                .contains("unknown field `url`")
        );
        assert!(read("[policies]").unwrap_err().contains("a path, or {bundle: FILE, keys: FILE}"));
    }
}
