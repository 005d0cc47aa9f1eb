//! Where files are that were not named, and what relative paths are relative to.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{Config, Error, FILE};
use crate::{
    identity::JwksSource,
    oauth::{AppConfig, SecretSource},
    ruleset::Origin,
    tls::Roots,
    vault::{Backend, KeySource},
};

/// The configuration file that is there: in the working directory, or in the XDG configuration directory.
pub(super) fn found() -> Option<PathBuf> {
    let here = PathBuf::from(FILE);
    if here.is_file() {
        return Some(here);
    }
    let of_user = xdg("XDG_CONFIG_HOME", ".config")?.join("keybearer").join(FILE);
    of_user.is_file().then_some(of_user)
}

impl Config {
    /// Every path absolute or as the working directory needs it, and none left out.
    pub(super) fn placed(mut self, base: &Path) -> Result<Self, Error> {
        let place = |path: &mut PathBuf| *path = base.join(&path);
        if self.data_dir.as_os_str().is_empty() {
            self.data_dir = xdg("XDG_DATA_HOME", ".local/share")
                .ok_or_else(|| Error::Invalid("there is no home directory; set data_dir".to_owned()))?
                .join("keybearer");
        } else {
            place(&mut self.data_dir);
        }
        // A broker has the rules, too.
        if self.policies.is_empty() && self.vault.backend != Backend::Broker {
            self.policies.push(PathBuf::from("policies").into());
        }
        self.policies.iter_mut().flat_map(Origin::paths_mut).for_each(place);
        if let Some(JwksSource::File(path)) = &mut self.identity.jwks {
            place(path);
        }
        if let Roots::File(path) = &mut self.egress.roots {
            place(path);
        }
        for source in [&mut self.vault.key, &mut self.vault.next_key] {
            if let Some(KeySource::File(path)) = source {
                place(path);
            }
        }
        for source in self.oauth.apps.values_mut().flat_map(AppConfig::secrets_mut) {
            if let SecretSource::File(path) = source {
                place(path);
            }
        }
        for path in [&mut self.vault.password_file, &mut self.vault.token_file].into_iter().flatten() {
            place(path);
        }
        if let Roots::File(path) = &mut self.vault.roots {
            place(path);
        }
        if let Some(path) = &mut self.admin.token_file {
            place(path);
        }
        if let Some(path) = &mut self.webhook.certificate {
            place(path);
        }
        place(&mut self.webhook.key);
        place(&mut self.webhook.self_managed.service_account);
        if let Some(path) = self.webhook.broker.as_mut().and_then(|broker| broker.roots_file.as_mut()) {
            place(path);
        }
        if let Some(path) = &mut self.ca.bundle {
            place(path);
        }
        self.lifecycle.files_mut().for_each(place);
        self.broker.files_mut().for_each(place);
        self.audit.file = Some(match self.audit.file.take() {
            Some(path) => base.join(path),
            None => self.data_dir.join("audit.jsonl"),
        });
        self.ca.dir = Some(match self.ca.dir.take() {
            Some(path) => base.join(path),
            None => self.data_dir.join("ca"),
        });
        Ok(self)
    }
}

/// A directory of the XDG base directory specification: relative values are to be ignored.
#[expect(clippy::disallowed_methods, reason = "this is the configuration")]
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = std::env::var(variable).ok().map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| {
        let home = std::env::var_os("HOME").filter(|home: &OsString| !home.is_empty())?;
        Some(PathBuf::from(home).join(below_home))
    })
}
