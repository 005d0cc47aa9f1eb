//! Where the query decides: which parameters an operation needs, and which it takes besides.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// `query` of an operation. Without it any query is the operation's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuerySpec {
    /// Parameters that all have to be there.
    pub needs: BTreeSet<String>,
    /// Parameters that may be there. Any other, and the request is not this operation.
    pub takes: BTreeSet<String>,
}

/// The parameters of a request, by their names: decoded, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// The names in a query, but for those that are taken out before it is sent. `None` where it has two readings.
    pub(super) fn read(query: &str, stripped: &[String]) -> Option<Self> {
        if query.contains(';') {
            return None; // to some servers a separator
        }
        let names = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let name = pair.split('=').next().unwrap_or(pair).replace('+', " ");
            percent_decode_str(&name).decode_utf8().ok().map(std::borrow::Cow::into_owned)
        });
        let mut names = names.collect::<Option<BTreeSet<String>>>()?;
        names.retain(|name| !stripped.iter().any(|other| other.eq_ignore_ascii_case(name)));
        Some(Self(names))
    }
}

impl QuerySpec {
    /// Whether a request with these parameters is the operation.
    pub(super) fn fits(&self, names: &Names) -> bool {
        self.needs.is_subset(&names.0)
            && names.0.iter().all(|name| self.needs.contains(name) || self.takes.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(query: &str) -> bool {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let spec = QuerySpec { needs: set(&["uploadId"]), takes: set(&["partNumber"]) };
        Names::read(query, &["X-Amz-Date".to_owned()]).is_some_and(|names| spec.fits(&names))
    }

    #[test]
    fn all_that_is_needed_and_nothing_unknown_has_to_be_there() {
        for query in [
            "uploadId=1",
            "uploadId",
            "partNumber=2&uploadId=1",
            "%75ploadId=1",
            "uploadId=1&uploadId=2",
            "&uploadId=1&",
            "uploadId=1&x-amz-date=stripped",
        ] {
            assert!(fits(query), "{query}");
        }
        for query in [
            "",
            "partNumber=2",
            "uploadid=1",
            "uploadId=1&acl",
            "uploadId=1&%61cl",
            "uploadId=1;acl",
            "uploadId[]=1",
            "uploadId=1&%ff",
            "upload+Id=1",
        ] {
            assert!(!fits(query), "{query}");
        }
    }
}
