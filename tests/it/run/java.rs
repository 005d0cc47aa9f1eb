//! Java reads no proxy variable and no PEM file: it is told by options, and trusts stores of its own two kinds.

use std::{fs, path::Path, process::Command};

use super::{ACME, Home, environment, stderr, stdout};

/// By default, Java reads a store of either kind under the name of the other.
const STRICT: &str = "keystore.type.compat=false\n";
const FETCH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/Fetch.java");
const URLS: &str = "https://api.crm.test/echo http://api.crm.test/echo";

#[tokio::test(flavor = "multi_thread")]
async fn java_calls_through_it_with_either_store_and_nothing_told_to_it() {
    let home = Home::new().await;
    let strict = home.dir.path().join("strict.properties");
    fs::write(&strict, STRICT).unwrap();
    let jks = "-Djavax.net.ssl.trustStore=${SSL_CERT_FILE%.pem}.jks -Djavax.net.ssl.trustStoreType=JKS";
    for store in ["", jks] {
        let java =
            format!("exec java -Djava.security.properties={} {store} {FETCH} {URLS}", strict.display());
        let output =
            home.run(ACME, &["sh", "-c", &java]).env("JAVA_TOOL_OPTIONS", "-Dmine=kept").output().unwrap();
        let said = stdout(&output);
        assert!(output.status.success() && said.starts_with("mine=kept\n"), "{store}: {output:?}");
        for client in ["HttpClient", "HttpURLConnection"] {
            let answers = said.lines().filter(|line| line.starts_with(&format!("{client} ")));
            let tenants: Vec<_> = answers.map(|line| line.contains("\"tenant\":\"acme\"")).collect();
            assert_eq!(tenants, [true, true], "{store}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn java_that_does_not_trust_the_ca_makes_no_call() {
    let home = Home::new().await;
    let java = format!("exec java -Djavax.net.ssl.trustStore=/dev/null {FETCH} https://api.crm.test/echo");
    let output = home.output(ACME, &["sh", "-c", &java]);
    assert!(!output.status.success() && stderr(&output).contains("SSLHandshakeException"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_own_options_for_java_come_before_ours() {
    let home = Home::new().await;
    let seen = environment(
        &home
            .run(ACME, &["env", "-0"])
            .env("JAVA_TOOL_OPTIONS", "-Xmx64m -Dhttps.proxyPort=1")
            .output()
            .unwrap(),
    );
    let options = seen["JAVA_TOOL_OPTIONS"].to_str().unwrap();
    let store = Path::new(&seen["SSL_CERT_FILE"]).with_extension("p12");
    let ours = format!("-Xmx64m -Dhttps.proxyPort=1 -Djavax.net.ssl.trustStore={} ", store.display());
    assert!(options.starts_with(&ours), "{options}");
    assert!(options.ends_with("|[::1]") && !options.contains("acme"), "{options}");
}

/// The certificates in a PEM text.
fn certificates(pem: &str) -> usize {
    pem.matches("-----BEGIN CERTIFICATE-----").count()
}

fn keytool(store: &Path, kind: &str, password: &str, strict: &Path) -> (bool, String) {
    let output = Command::new("keytool")
        .arg(format!("-J-Djava.security.properties={}", strict.display()))
        .args(["-list", "-v", "-storetype", kind, "-storepass", password, "-keystore"])
        .arg(store)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_are_what_keytool_and_openssl_take_them_for() {
    let home = Home::new().await;
    let config = home.file();
    let keybearer = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keybearer"));
        let output = command.args(arguments).arg("--config").arg(&config).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let strict = home.dir.path().join("strict.properties");
    fs::write(&strict, STRICT).unwrap();
    let pem = keybearer(&["ca", "export", "--bundle"]);
    let pem = String::from_utf8(pem).unwrap();
    let shown: serde_json::Value =
        serde_json::from_slice(&keybearer(&["ca", "show", "--output", "json"])).unwrap();
    let fingerprint = shown["fingerprint_sha256"].as_str().unwrap().to_uppercase();
    for (format, kind, wrong) in
        [("pkcs12", "PKCS12", "Integrity check failed"), ("jks", "JKS", "password was incorrect")]
    {
        let store = home.dir.path().join(format);
        fs::write(&store, keybearer(&["ca", "export", "--bundle", "--format", format])).unwrap();
        let (is_read, listed) = keytool(&store, kind, "changeit", &strict);
        assert!(is_read && listed.contains(&format!("Keystore type: {kind}\n")), "{format}: {listed}");
        assert_eq!(listed.matches("Entry type: trustedCertEntry").count(), certificates(&pem), "{format}");
        let own = listed.split("Alias name: ").find(|entry| entry.starts_with("keybearer\n")).unwrap();
        assert!(own.replace(':', "").contains(&fingerprint), "{own}");
        let (is_read, said) = keytool(&store, kind, "changeit2", &strict);
        assert!(!is_read && said.contains(wrong), "the digest is checked: {said}");

        fs::write(&store, keybearer(&["ca", "export", "--format", format])).unwrap();
        let (_, listed) = keytool(&store, kind, "changeit", &strict);
        assert!(listed.contains("contains 1 entry"), "{format}: {listed}");
    }
    let store = home.dir.path().join("bundle.p12");
    fs::write(&store, keybearer(&["ca", "export", "--bundle", "--format", "pkcs12"])).unwrap();
    let output = Command::new("openssl")
        .args(["pkcs12", "-nokeys", "-info", "-passin", "pass:changeit", "-in"])
        .arg(store)
        .output()
        .unwrap();
    assert!(output.status.success() && stderr(&output).contains("MAC: sha256, Iteration 2048"), "{output:?}");
    assert_eq!(certificates(&stdout(&output)), certificates(&pem));
}
