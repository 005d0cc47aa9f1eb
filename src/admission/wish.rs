//! What a pod says about itself, in labels and annotations.

use std::{fmt::Display, str::FromStr};

use serde_json::{Map, Value};

use super::{
    Refusal,
    config::{Config, Mode, Ports, Quantity, Resources},
};
use crate::id::{RoleName, Subject, TenantId, UserId};

const PREFIX: &str = "keybearer.dev/";
const INJECT: &str = "keybearer.dev/inject";
/// Set on a pod that has been injected; its value tells what with.
pub(super) const INJECTED: &str = "keybearer.dev/injected";
const TENANT: &str = "keybearer.dev/tenant";
const ROLE: &str = "keybearer.dev/role";
const USER: &str = "keybearer.dev/user";
const MODE: &str = "keybearer.dev/mode";
pub(super) const PROXY_PORT: &str = "keybearer.dev/proxy-port";
pub(super) const TRANSPARENT_PORT: &str = "keybearer.dev/transparent-port";
pub(super) const ADMIN_PORT: &str = "keybearer.dev/admin-port";
const CPU_REQUEST: &str = "keybearer.dev/cpu-request";
const MEMORY_REQUEST: &str = "keybearer.dev/memory-request";
const CPU_LIMIT: &str = "keybearer.dev/cpu-limit";
const MEMORY_LIMIT: &str = "keybearer.dev/memory-limit";

const KNOWN: [&str; 13] = [
    INJECT,
    INJECTED,
    TENANT,
    ROLE,
    USER,
    MODE,
    PROXY_PORT,
    TRANSPARENT_PORT,
    ADMIN_PORT,
    CPU_REQUEST,
    MEMORY_REQUEST,
    CPU_LIMIT,
    MEMORY_LIMIT,
];

/// What a pod wants injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) mode: Mode,
    pub(super) subject: Option<Subject>,
    pub(super) ports: Ports,
    pub(super) resources: Resources,
    /// Annotations that begin with our prefix and are none of ours: misspelt, most likely.
    pub(super) unknown: Vec<String>,
}

impl Wish {
    /// `None` for a pod that wants nothing.
    pub(super) fn of(pod: &Value, config: &Config) -> Result<Option<Self>, Refusal> {
        let (labels, said) = (Said::of(pod, "labels"), Said::of(pod, "annotations"));
        let answers = [labels.switch(INJECT)?, said.switch(INJECT)?];
        let wanted = answers.contains(&Some(true)) || !config.opt_in;
        if answers.contains(&Some(false)) || !wanted {
            return Ok(None);
        }
        Ok(Some(Self {
            mode: said.mode()?.unwrap_or(config.mode),
            subject: said.subject(config.identity_required)?,
            ports: said.ports(config.ports)?,
            resources: said.resources(&config.resources)?,
            unknown: said.unknown(),
        }))
    }
}

/// Labels or annotations.
struct Said<'a>(Option<&'a Map<String, Value>>);

impl<'a> Said<'a> {
    fn of(pod: &'a Value, which: &str) -> Self {
        Self(pod["metadata"][which].as_object())
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0?.get(name)?.as_str()
    }

    fn parsed<T>(&self, name: &str) -> Result<Option<T>, Refusal>
    where
        T: FromStr<Err: Display>,
    {
        let parse = |text: &str| text.parse().map_err(|why: T::Err| wrong(name, text, why));
        self.text(name).map(parse).transpose()
    }

    fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let read = |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(wrong(name, text, r#"must be "true" or "false""#)),
        };
        self.text(name).map(read).transpose()
    }

    fn mode(&self) -> Result<Option<Mode>, Refusal> {
        let read = |text| match text {
            "proxy" => Ok(Mode::Proxy),
            "transparent" => Ok(Mode::Transparent),
            _ => Err(wrong(MODE, text, "must be proxy or transparent")),
        };
        self.text(MODE).map(read).transpose()
    }

    fn subject(&self, is_required: bool) -> Result<Option<Subject>, Refusal> {
        let (tenant, role) = (self.parsed::<TenantId>(TENANT)?, self.parsed::<RoleName>(ROLE)?);
        let user = self.parsed::<UserId>(USER)?;
        match (tenant, role) {
            (Some(tenant), Some(role)) => Ok(Some(Subject { tenant, role, user })),
            (None, None) if user.is_none() && !is_required => Ok(None),
            (None, _) => Err(Refusal::Identity(TENANT)),
            (Some(_), None) => Err(Refusal::Identity(ROLE)),
        }
    }

    fn ports(&self, given: Ports) -> Result<Ports, Refusal> {
        let ports = Ports {
            proxy: self.port(PROXY_PORT)?.unwrap_or(given.proxy),
            transparent: self.port(TRANSPARENT_PORT)?.unwrap_or(given.transparent),
            admin: self.port(ADMIN_PORT)?.unwrap_or(given.admin),
        };
        let differ = ports.proxy != ports.admin
            && ports.transparent != ports.admin
            && ports.transparent != ports.proxy;
        if differ { Ok(ports) } else { Err(Refusal::SamePorts) }
    }

    /// Below 1024 a process without capabilities may not listen everywhere.
    fn port(&self, name: &str) -> Result<Option<u16>, Refusal> {
        let read = |text: &str| match text.parse() {
            Ok(port @ 1024..) => Ok(port),
            _ => Err(wrong(name, text, "must be a port from 1024 to 65535")),
        };
        self.text(name).map(read).transpose()
    }

    fn resources(&self, given: &Resources) -> Result<Resources, Refusal> {
        let read = |name, given: &Option<Quantity>| {
            self.parsed::<Quantity>(name).map(|said| said.or_else(|| given.clone()))
        };
        Ok(Resources {
            cpu_request: read(CPU_REQUEST, &given.cpu_request)?,
            memory_request: read(MEMORY_REQUEST, &given.memory_request)?,
            cpu_limit: read(CPU_LIMIT, &given.cpu_limit)?,
            memory_limit: read(MEMORY_LIMIT, &given.memory_limit)?,
        })
    }

    fn unknown(&self) -> Vec<String> {
        let names = self.0.into_iter().flat_map(Map::keys);
        names.filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(&&***name)).cloned().collect()
    }
}

fn wrong(name: &str, text: &str, why: impl Display) -> Refusal {
    Refusal::Annotation { name: name.to_owned(), text: text.to_owned(), why: why.to_string() }
}
