//! A broker, so that there is a sidecar of one: with its own vault, and the issuer whose tokens it believes.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Result;

use crate::{
    peers::{Site, free_address, keybearer},
    process::Process,
    support::{
        cluster::{API_TOKEN, Cluster},
        provider::TestAuthority,
    },
};

/// Whose sidecar it is.
const WORKLOAD: &str = "agents/crew";
const BINDING: &str = "---
apiVersion: keybearer.dev/v1
kind: Binding
metadata: {name: crew}
spec: {workloads: [{serviceAccount: agents/crew}], tenants: [acme], roles: [bench]}
";

/// A running broker with the bench's account.
pub(super) struct Broker {
    address: SocketAddr,
    authority: TestAuthority,
    cluster: Cluster,
    _process: Process,
}

impl Broker {
    pub(super) async fn start(program: &Path, site: &Site, dir: &Path) -> Result<Self> {
        let authority = TestAuthority::new();
        let cluster = Cluster::start(&authority).await;
        let (address, admin) = (free_address()?, free_address()?);
        let (chain, key) = authority.leaf_pem(&[address.ip().to_string()]);
        let config = format!(
            "data_dir: data\nlisten: {{admin: '{admin}'}}\npolicies: [policies]\nvault: {}\nbroker: {{listen: '{address}', \
             certificate: tls.crt, key: tls.key, issuers: [{}]}}\n",
            keybearer::SLED,
            cluster.entry()
        );
        fs::create_dir_all(dir.join("policies"))?;
        for (file, text) in [
            ("policies/bench.yaml", keybearer::POLICY.to_owned() + BINDING),
            ("tls.crt", chain),
            ("tls.key", key),
            ("roots.pem", authority.pem()),
            ("api.token", API_TOKEN.to_owned()),
            ("keybearer.yaml", config),
        ] {
            fs::write(dir.join(file), text)?;
        }
        let config = dir.join("keybearer.yaml");
        keybearer::command_line(program, &config, &["vault", "init"], "")?;
        keybearer::add_account(program, &config)?;
        let (process, _) = keybearer::start(program, site.cores, &["vault", "serve"], &config, async || {
            keybearer::is_ready(admin).await
        })
        .await?;
        Ok(Self { address, authority, cluster, _process: process })
    }

    /// The vault's section of a sidecar in this folder, in which its token and the authority are put.
    pub(super) fn vault(&self, dir: &Path) -> Result<String> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("token"), self.cluster.token(WORKLOAD))?;
        fs::write(dir.join("roots.pem"), self.authority.pem())?;
        let address = self.address;
        Ok(format!(
            "{{backend: broker, url: 'https://{address}', token_file: token, roots: {{file: roots.pem}}}}"
        ))
    }
}
