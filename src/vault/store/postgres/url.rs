//! `vault.url`: which database, as whom, and whether by TLS.

use std::{fmt, net::IpAddr, path::Path, time::Duration};

use serde::{Deserialize, Deserializer, de};
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

/// `postgres://user:password@host:5432/database?sslmode=verify-full`, as libpq reads it. Its `Debug` hides the
/// password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Config);

/// Why a text is no such URL. It may hold a password, so it is never quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error(
        "vault.url is no PostgreSQL URL: write it as in postgres://keybearer@db.example/keybearer, \
         and what is special in a URL (such as @ and / in a password) percent-encoded"
    )]
    Malformed,
    /// The parameters that libpq has and we have not.
    #[error(
        "vault.url has a parameter that is not known here, or a wrong value of one: known are host, port, user, \
         dbname, sslmode, options, connect_timeout, tcp_user_timeout, keepalives, target_session_attrs, \
         load_balance_hosts and channel_binding; roots of trust are named in vault.roots"
    )]
    Parameter,
    /// Neither a host nor a socket.
    #[error(
        "vault.url names no host: write postgres://host/database, or postgres:///database?host=/run/postgresql"
    )]
    Host,
    /// TLS that whoever is in between could switch off.
    #[error(
        "vault.url has sslmode={0}, with which whoever is in between could switch TLS off: \
         write verify-full, or disable where the network is trusted"
    )]
    Downgrade(&'static str),
    /// Something else than libpq knows.
    #[error("vault.url has an sslmode that does not exist: write verify-full or disable")]
    Mode,
}

/// What libpq calls modes, as far as they differ here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Verified,
    Off,
}

impl DatabaseUrl {
    /// Reads a URL.
    ///
    /// Without `sslmode`, TLS is off for sockets and loopback, and `verify-full` else. `require` and `verify-ca` mean
    /// `verify-full` as well: a certificate that is not looked at protects from nobody.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(UrlError::Malformed);
        }
        let (address, parameters) = text.split_once('?').unwrap_or((text, ""));
        address.parse::<Config>().map_err(|_| UrlError::Malformed)?;
        let (modes, others): (Vec<&str>, Vec<&str>) = parameters
            .split('&')
            .filter(|part| !part.is_empty())
            .partition(|part| part.starts_with("sslmode="));
        let mut config: Config =
            format!("{address}?{}", others.join("&")).parse().map_err(|_| UrlError::Parameter)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(UrlError::Host);
        }
        let tls = match modes.last() {
            Some(mode) => tls(&mode["sslmode=".len()..])?,
            None if is_local(&config) => Tls::Off,
            None => Tls::Verified,
        };
        config.ssl_mode(if tls == Tls::Verified { SslMode::Require } else { SslMode::Disable });
        Ok(Self(config))
    }

    /// What to connect with. The server shows `keybearer ORIGIN` as the program's name.
    pub(super) fn config(&self, password: Option<&[u8]>, timeout: Duration, origin: &str) -> Config {
        let mut config = self.0.clone();
        if let Some(password) = password {
            config.password(password);
        }
        config.application_name(format!("keybearer {origin}"));
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // A standby has everything and takes nothing; after a failover the name may still lead to it.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(timeout);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(timeout);
        }
        config
    }

    /// Whether the connection is to be by TLS.
    pub(super) fn is_by_tls(&self) -> bool {
        self.0.get_ssl_mode() != SslMode::Disable
    }
}

fn tls(mode: &str) -> Result<Tls, UrlError> {
    match mode {
        "verify-full" | "verify-ca" | "require" => Ok(Tls::Verified),
        "disable" => Ok(Tls::Off),
        "prefer" => Err(UrlError::Downgrade("prefer")),
        "allow" => Err(UrlError::Downgrade("allow")),
        _ => Err(UrlError::Mode),
    }
}

fn is_local(config: &Config) -> bool {
    let is_loopback = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    };
    if config.get_hostaddrs().is_empty() {
        return config.get_hosts().iter().all(is_loopback);
    }
    config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

impl fmt::Display for DatabaseUrl {
    /// `db.example:5432/keybearer`: for messages, so without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.0.get_ports();
        let port = |at: usize| ports.get(at).or_else(|| ports.first()).copied().unwrap_or(5432);
        for (at, host) in self.0.get_hosts().iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{}", port(at))?,
                Host::Unix(dir) => write!(f, "{comma}{}", socket(dir, port(at)))?,
            }
        }
        if self.0.get_hosts().is_empty() {
            let addresses: Vec<String> = self.0.get_hostaddrs().iter().map(ToString::to_string).collect();
            f.write_str(&addresses.join(","))?;
        }
        match self.0.get_dbname() {
            Some(name) => write!(f, "/{name}"),
            None => Ok(()),
        }
    }
}

fn socket(dir: &Path, port: u16) -> String {
    format!("{}/.s.PGSQL.{port}", dir.display())
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_tls(text: &str) -> bool {
        DatabaseUrl::parse(text).unwrap().is_by_tls()
    }

    #[test]
    fn tls_is_verified_unless_nobody_is_in_between_or_the_operator_says_so() {
        for text in [
            "postgres://u:p@db.example/keybearer",
            "postgresql://u@10.0.0.5:6432/keybearer",
            "postgres://u@localhost,db.example/keybearer",
            "postgres://u@db.example/x?sslmode=require",
            "postgres://u@localhost/x?sslmode=verify-full",
            "postgres://u@db.example/x?sslmode=verify-ca&connect_timeout=5",
            "postgres://u@/x?host=localhost&hostaddr=10.0.0.5",
        ] {
            assert!(by_tls(text), "{text}");
        }
        for text in [
            "postgres://u:p@localhost/keybearer",
            "postgres://u@127.0.0.1:6432,[::1]/keybearer",
            "postgres:///keybearer?host=/run/postgresql",
            "postgres://u@db.example/x?sslmode=disable",
        ] {
            assert!(!by_tls(text), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_never_quoted() {
        for (text, why) in [
            ("host=db.example password=hunter2", UrlError::Malformed),
            ("mysql://u:hunter2@db.example/x", UrlError::Malformed),
            ("postgres://u:hunter2@db.example:port/x", UrlError::Malformed),
            ("postgres://u:hunter2@db.example/x?sslrootcert=ca.pem", UrlError::Parameter),
            ("postgres://u:hunter2@db.example/x?connect_timeout=soon", UrlError::Parameter),
            ("postgres:///x", UrlError::Host),
            ("postgres://u:hunter2@db.example/x?sslmode=prefer", UrlError::Downgrade("prefer")),
            ("postgres://u:hunter2@db.example/x?sslmode=allow", UrlError::Downgrade("allow")),
            ("postgres://u:hunter2@db.example/x?sslmode=on", UrlError::Mode),
        ] {
            let refused = DatabaseUrl::parse(text).unwrap_err();
            assert_eq!(refused, why, "{text}");
            assert!(!refused.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_database_is_named_without_its_user_and_password() {
        for (text, name) in [
            ("postgres://u:hunter2@db.example/keybearer", "db.example:5432/keybearer"),
            ("postgres://u:hunter2@a.example:6432,b.example/x", "a.example:6432,b.example:5432/x"),
            ("postgres://u@/x?host=/run/postgresql", "/run/postgresql/.s.PGSQL.5432/x"),
        ] {
            let url = DatabaseUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), name);
            assert!(!format!("{url:?}").contains("hunter2"));
        }
    }
}
