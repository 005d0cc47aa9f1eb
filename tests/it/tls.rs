//! Leaves as other people's TLS stacks see them.

use std::{fs, net::SocketAddr, path::Path, process::Output, sync::Arc};

use keybearer::{
    drain::Drain,
    host::Host,
    tls::{Alpn, Authority, Downstream, Leaves, Metrics, Roots, upstream_config},
};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, ServerConfig,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// Plain, longer than a common name may be, with an underscore, international, and both kinds of address.
const HOSTS: [&str; 6] = [
    "api.github.com",
    "a-rather-long-tenant-name.with-a-region.and-an-environment.my.salesforce.com",
    "under_score.example.com",
    "xn--bcher-kva.example",
    "127.0.0.1",
    "[2001:db8::7]",
];

/// A CA on disk and what is made of it.
struct Ca {
    dir: tempfile::TempDir,
    downstream: Downstream,
}

impl Ca {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    fn open(dir: tempfile::TempDir) -> Self {
        let authority = Arc::new(Authority::open(Some(dir.path())).unwrap());
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let downstream = Downstream::new(Arc::new(Leaves::new(authority, 64, &metrics))).unwrap();
        Self { dir, downstream }
    }

    fn pem(&self) -> String {
        self.dir.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    async fn serve(&self, host: &str) -> Server {
        Server::start(self.downstream.config_for(&Host::parse(host).unwrap())).await
    }

    fn client(&self) -> ClientConfig {
        client(&self.dir.path().join("ca.pem"))
    }
}

fn client(ca_pem: &Path) -> ClientConfig {
    upstream_config(&Roots::File(ca_pem.to_owned()).load().unwrap(), Alpn::Any)
}

/// Echoes four bytes a connection; gone with the test's runtime.
struct Server {
    address: SocketAddr,
}

impl Server {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(config);
        Drain::default().spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                Drain::default().spawn(async move {
                    let mut tls = acceptor.accept(tcp).await?;
                    let mut four = [0; 4];
                    tls.read_exact(&mut four).await?;
                    tls.write_all(&four).await?;
                    tls.shutdown().await
                });
            }
        });
        Self { address }
    }

    fn port(&self) -> String {
        self.address.port().to_string()
    }

    async fn connect(&self, client: &Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(unbracketed(name).to_owned()).unwrap();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let mut tls = TlsConnector::from(client.clone()).connect(name, tcp).await?;
        tls.write_all(b"ping").await?;
        let mut echo = Vec::new();
        tls.read_to_end(&mut echo).await?; // tickets come with it
        assert_eq!(echo, b"ping");
        Ok(tls)
    }
}

fn unbracketed(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

fn is_address(host: &str) -> bool {
    matches!(Host::parse(host), Ok(Host::Ip(_)))
}

async fn run(command: &str, args: &[&str]) -> Output {
    Command::new(command).args(args).kill_on_drop(true).output().await.unwrap()
}

/// Each stack takes the leaf for its own host, and for no other: so it did look.
macro_rules! verified_by {
    ($test:ident, $verify:path) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let ca = Ca::new();
            for host in HOSTS {
                let server = ca.serve(host).await;
                let right = $verify(&server, &ca.pem(), host, host).await;
                assert_eq!(right, Ok(()), "{host}");
                let stranger = $verify(&server, &Ca::new().pem(), host, host).await;
                assert!(stranger.is_err(), "{host}, by another CA");
            }
            let server = ca.serve("127.0.0.1").await;
            assert!($verify(&server, &ca.pem(), "127.0.0.1", "127.0.0.2").await.is_err(), "another address");
            assert!($verify(&server, &ca.pem(), "127.0.0.1", "a.test").await.is_err(), "another name");
        }
    };
}

verified_by!(openssl_in_strict_mode_takes_a_leaf_for_its_host_only, openssl);
verified_by!(python_in_strict_mode_takes_a_leaf_for_its_host_only, python);
verified_by!(node_takes_a_leaf_for_its_host_only, node);
verified_by!(rustls_takes_a_leaf_for_its_host_only, with_rustls);

fn succeeded(output: Output, sign: &str) -> Result<(), String> {
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() && said.contains(sign) { Ok(()) } else { Err(said) }
}

async fn openssl(server: &Server, ca: &str, shown: &str, expected: &str) -> Result<(), String> {
    let connect = format!("127.0.0.1:{}", server.port());
    let trust = ["-CAfile", ca, "-no-CApath", "-no-CAstore", "-verify_return_error", "-x509_strict"];
    let asked = if is_address(shown) { vec!["-noservername"] } else { vec!["-servername", shown] };
    let check = if is_address(expected) { "-verify_ip" } else { "-verify_hostname" };
    let mut args = vec!["s_client", "-brief", "-connect", &connect, check, unbracketed(expected)];
    args.extend(trust.iter().chain(&asked));
    succeeded(run("openssl", &args).await, "Verification: OK")
}

const PYTHON: &str = r#"
import socket, ssl, sys
port, ca, host = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection(("127.0.0.1", int(port))) as tcp:
    with context.wrap_socket(tcp, server_hostname=host) as tls:
        tls.sendall(b"ping")
        assert tls.recv(4) == b"ping"
        print("verified", tls.version())
"#;

async fn python(server: &Server, ca: &str, _: &str, expected: &str) -> Result<(), String> {
    let output = run("python3", &["-c", PYTHON, &server.port(), ca, unbracketed(expected)]).await;
    succeeded(output, "verified TLSv1.3")
}

const NODE: &str = r#"
const [port, ca, host] = process.argv.slice(1);
const name = require("net").isIP(host) ? {} : {servername: host};
const socket = require("net").connect(Number(port), "127.0.0.1");
const tls = require("tls").connect({socket, host, ...name, ca: require("fs").readFileSync(ca)}, () => {
  console.log("verified", tls.authorized, tls.getProtocol());
  tls.end("ping");
});
tls.on("error", (error) => { console.error(error.message); process.exit(1); });
"#;

async fn node(server: &Server, ca: &str, _: &str, expected: &str) -> Result<(), String> {
    let output = run("node", &["-e", NODE, &server.port(), ca, unbracketed(expected)]).await;
    succeeded(output, "verified true TLSv1.3")
}

async fn with_rustls(server: &Server, ca: &str, _: &str, expected: &str) -> Result<(), String> {
    let client = Arc::new(client(Path::new(ca)));
    server.connect(&client, expected).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_second_connection_resumes_the_session() {
    let ca = Ca::new();
    for host in ["api.github.com", "127.0.0.1"] {
        let server = ca.serve(host).await;
        let client = Arc::new(ca.client());
        let first = server.connect(&client, host).await.unwrap();
        assert_eq!(first.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(first.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        let second = server.connect(&client, host).await.unwrap();
        assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{host}");
    }
}

#[tokio::test]
async fn each_upstream_configuration_has_sessions_of_its_own() {
    let ca = Ca::new();
    let server = ca.serve("api.github.com").await;
    let roots = Roots::File(ca.pem().into()).load().unwrap();
    let [tenant, other] = [(); 2].map(|()| Arc::new(upstream_config(&roots, Alpn::Any)));
    server.connect(&tenant, "api.github.com").await.unwrap();
    let unknown = server.connect(&other, "api.github.com").await.unwrap();
    assert_eq!(unknown.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
}

#[tokio::test]
async fn tls_1_2_clients_are_served_and_resume_too() {
    let ca = Ca::new();
    let server = ca.serve("api.github.com").await;
    let roots = Roots::File(ca.pem().into()).load().unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS12]);
    let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
    server.connect(&client, "api.github.com").await.unwrap();
    let second = server.connect(&client, "api.github.com").await.unwrap();
    assert_eq!(second.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn the_protocol_is_the_clients_choice_of_the_two() {
    let ca = Ca::new();
    let server = ca.serve("api.github.com").await;
    let mut client = ca.client();
    for offered in ["h2", "http/1.1"] {
        client.alpn_protocols = vec![offered.into()];
        let tls = server.connect(&Arc::new(client.clone()), "api.github.com").await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(offered.as_bytes()));
    }
    client.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    assert!(server.connect(&Arc::new(client), "api.github.com").await.is_err());
}

#[tokio::test]
async fn a_client_without_server_name_is_shown_the_leaf_of_its_destination() {
    let ca = Ca::new();
    let roots = Roots::File(ca.pem().into()).load().unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS13]);
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.enable_sni = false;
    let client = Arc::new(client);
    let host = Host::parse("api.github.com").unwrap();

    let by_sni = Server::start(ca.downstream.config_for(&host)).await;
    assert!(by_sni.connect(&client, "api.github.com").await.is_err());
    let without = Server::start(ca.downstream.config_without_sni(&host)).await;
    without.connect(&client, "api.github.com").await.unwrap();
}

#[tokio::test]
async fn leaves_of_a_reloaded_ca_verify_against_what_agents_were_given_first() {
    let first = Ca::new();
    let given = tempfile::NamedTempFile::new().unwrap();
    fs::copy(first.pem(), given.path()).unwrap();

    let server = Ca::open(first.dir).serve("api.github.com").await;
    assert_eq!(with_rustls(&server, given.path().to_str().unwrap(), "", "api.github.com").await, Ok(()));
    assert_eq!(
        openssl(&server, given.path().to_str().unwrap(), "api.github.com", "api.github.com").await,
        Ok(())
    );
}

#[tokio::test]
async fn a_certificate_made_anew_for_a_kept_key_leaves_agents_trust_in_place() {
    let first = Ca::new();
    let given = tempfile::NamedTempFile::new().unwrap();
    fs::rename(first.pem(), given.path()).unwrap();

    let server = Ca::open(first.dir).serve("api.github.com").await;
    assert_eq!(
        openssl(&server, given.path().to_str().unwrap(), "api.github.com", "api.github.com").await,
        Ok(())
    );
}
