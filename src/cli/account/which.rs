//! Which accounts a command means.

use clap::Args;

use crate::{
    cli::Failure,
    id::{AccountKey, ConnectorName, Principal, RoleName, TenantId, UserId},
    vault::Whole,
};

/// Which account is meant: by its name, or by its parts.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The account as `account list` names it, as in acme/github/role:researcher
    #[arg(required_unless_present = "tenant", conflicts_with_all = ["tenant", "connector", "role", "user", "tenant_wide", "developer"])]
    account: Option<AccountKey>,
    /// Whose account it is
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
    /// For which external system
    #[arg(long, value_name = "CONNECTOR", requires = "tenant")]
    connector: Option<ConnectorName>,
    /// The account of this role, or with --user, of the user in this role
    #[arg(long, value_name = "ROLE", requires = "tenant", conflicts_with_all = ["tenant_wide", "developer"])]
    role: Option<RoleName>,
    /// The account of this end user
    #[arg(long, value_name = "USER", requires = "tenant")]
    user: Option<UserId>,
    /// The account of the tenant as a whole
    #[arg(long, requires = "tenant", conflicts_with = "developer")]
    tenant_wide: bool,
    /// The account of the one who runs the agents
    #[arg(long, requires = "tenant")]
    developer: bool,
}

/// One account, or all of a tenant or user.
#[derive(Debug, Args)]
pub(super) struct WhichOrAll {
    #[command(flatten)]
    which: Which,
    /// Everything of --tenant, or with --user, of that user
    #[arg(long, requires = "tenant", conflicts_with_all = ["account", "connector", "role", "tenant_wide", "developer"])]
    all: bool,
}

/// What is meant.
pub(super) enum Meant {
    One(AccountKey),
    All(Whole),
}

impl WhichOrAll {
    pub(super) fn meant(self) -> Result<Meant, Failure> {
        match (self.all, self.which) {
            (true, Which { tenant: Some(tenant), user: Some(user), .. }) => {
                Ok(Meant::All(Whole::of_user(&tenant, &user)))
            }
            (true, Which { tenant: Some(tenant), .. }) => Ok(Meant::All(Whole::of_tenant(tenant))),
            (_, which @ Which { account: None, connector: None, .. }) => {
                which.key().map(Meant::One).map_err(|failure| failure.hint("or --all for everything of it"))
            }
            (_, which) => which.key().map(Meant::One),
        }
    }
}

impl Which {
    pub(super) fn key(self) -> Result<AccountKey, Failure> {
        if let Some(key) = self.account {
            return Ok(key);
        }
        if self.connector.is_none() {
            return Err(Failure::usage("for which external system?").hint("add --connector C"));
        }
        let principal = match (self.user, self.role) {
            (Some(user), Some(role)) => Principal::User { user, role },
            (None, Some(role)) => Principal::Role(role),
            (Some(_), None) => {
                return Err(
                    Failure::usage("in which role? a user's account is per role").hint("add --role R")
                );
            }
            _ if self.tenant_wide => Principal::Tenant,
            _ if self.developer => Principal::Developer,
            _ => {
                let failure = Failure::usage("whose account is it?");
                return Err(failure.hint("add --role R, --user U --role R, --tenant-wide or --developer"));
            }
        };
        match (self.tenant, self.connector) {
            (Some(tenant), Some(connector)) => Ok(AccountKey { tenant, connector, principal }),
            _ => Err(Failure::usage("name the account, or its --tenant and --connector")),
        }
    }
}
