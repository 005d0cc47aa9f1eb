//! What Java is told: it reads no proxy variable and no PEM file, but options in a variable.

use super::Trust;

/// What every virtual machine reads (it says so on standard error), before the options of its command line.
pub const VARIABLE: &str = "JAVA_TOOL_OPTIONS";

/// As `NO_PROXY`; Java's own default for `http://` and `https://`, which a value of the user's would replace.
const HERE: &str = "localhost|127.*|[::1]";

/// Options that are of use together only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The first of them: who sets it has settled all.
    pub key: &'static str,
    options: Vec<(&'static str, String)>,
}

/// What is told to Java in addition to what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// All of it.
    pub value: String,
    /// The groups that were settled otherwise, and stay so.
    pub kept: Vec<&'static str>,
}

/// Whom to trust.
#[must_use]
pub fn trust(trust: &Trust<'_>) -> Group {
    let options = vec![
        ("javax.net.ssl.trustStore", trust.store.to_string_lossy().into_owned()),
        ("javax.net.ssl.trustStoreType", "PKCS12".to_owned()),
        ("javax.net.ssl.trustStorePassword", trust.password.to_owned()),
    ];
    Group { key: "javax.net.ssl.trustStore", options }
}

/// The proxy at this URL. Its user name cannot be told: Java asks the program for one.
#[must_use]
pub fn proxy(url: &str) -> Group {
    let address = url.rsplit(['/', '@']).next().unwrap_or_default();
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "80"));
    let options = vec![
        ("https.proxyHost", host.to_owned()),
        ("https.proxyPort", port.to_owned()),
        ("http.proxyHost", host.to_owned()),
        ("http.proxyPort", port.to_owned()),
        ("http.nonProxyHosts", HERE.to_owned()),
    ];
    Group { key: "https.proxyHost", options }
}

impl Group {
    fn words(&self) -> impl Iterator<Item = String> {
        self.options.iter().map(|(name, value)| format!("-D{name}={}", quoted(value)))
    }
}

/// The groups as one value.
#[must_use]
pub fn options(groups: &[Group]) -> String {
    groups.iter().flat_map(Group::words).collect::<Vec<_>>().join(" ")
}

/// The groups after `own`, but for those that it has, in these words or in others. Joined twice is joined once.
#[must_use]
pub fn joined(own: &str, groups: &[Group]) -> Joined {
    let (mut kept, mut words) = (Vec::new(), vec![own.trim_end().to_owned()]);
    for group in groups {
        let key = format!("-D{}=", group.key);
        if group.words().all(|word| own.split_whitespace().any(|own| own == word)) {
            continue;
        }
        if own.split_whitespace().any(|word| word.trim_matches(['"', '\'']).starts_with(&key)) {
            kept.push(group.key);
            continue;
        }
        words.extend(group.words());
    }
    words.retain(|word| !word.is_empty());
    Joined { value: words.join(" "), kept }
}

/// A virtual machine splits at white space, but for what stands in quotation marks.
fn quoted(value: &str) -> String {
    if value.contains(char::is_whitespace) { format!("\"{value}\"") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn trusting(store: &str) -> Group {
        trust(&Trust { pem: Path::new("/ca/bundle.pem"), store: Path::new(store), password: "changeit" })
    }

    fn both() -> [Group; 2] {
        [trusting("/ca/bundle.p12"), proxy("http://acme%2Fresearcher:x@127.0.0.1:7080")]
    }

    const TRUST: &str = "-Djavax.net.ssl.trustStore=/ca/bundle.p12 -Djavax.net.ssl.trustStoreType=PKCS12 \
                         -Djavax.net.ssl.trustStorePassword=changeit";
    const PROXY: &str = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=7080 -Dhttp.proxyHost=127.0.0.1 \
                         -Dhttp.proxyPort=7080 -Dhttp.nonProxyHosts=localhost|127.*|[::1]";

    #[test]
    fn options_name_the_store_and_the_proxys_address_without_the_identity() {
        assert_eq!(options(&both()), format!("{TRUST} {PROXY}"));
        let spaced = options(&[trusting("/my tmp/bundle.p12")]);
        assert!(spaced.starts_with("-Djavax.net.ssl.trustStore=\"/my tmp/bundle.p12\" "), "{spaced}");
    }

    #[test]
    fn what_is_there_stays_before_them_and_joining_twice_is_joining_once() {
        let once = joined("-Xmx1g -ea ", &both());
        assert_eq!(once.value, format!("-Xmx1g -ea {TRUST} {PROXY}"));
        assert_eq!(joined(&once.value, &both()), once);
        let more = format!("{} -Dadded=later", once.value);
        assert_eq!(joined(&more, &both()).value, more);
        assert_eq!(joined("", &both()).value, format!("{TRUST} {PROXY}"));
    }

    #[test]
    fn a_store_or_a_proxy_of_its_own_is_kept_whole() {
        let store = joined("-Djavax.net.ssl.trustStore=/mine.jks", &both());
        let expected = format!("-Djavax.net.ssl.trustStore=/mine.jks {PROXY}");
        assert_eq!(store, Joined { value: expected, kept: vec!["javax.net.ssl.trustStore"] });
        let proxy = joined("\"-Dhttps.proxyHost=elsewhere\"", &both());
        assert_eq!(proxy.kept, ["https.proxyHost"]);
    }
}
