//! Package registries: what anybody may fetch without a credential, by host and path.

use std::{collections::BTreeMap, path::Path, process::Command};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Request, StatusCode, header};
use serde::Deserialize;

/// The files of some hosts. A provider that has none is no registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registries(BTreeMap<String, BTreeMap<String, File>>);

#[derive(Clone, Debug, Deserialize)]
struct File {
    host: String,
    path: String,
    r#type: String,
    body: String,
}

impl Registries {
    /// Those of `tests/clients/registry.py`, with a package each.
    pub(crate) fn tiny() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/registry.py");
        let output = Command::new("python3").arg(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut hosts: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for file in serde_json::from_slice::<Vec<File>>(&output.stdout).unwrap() {
            hosts.entry(file.host.clone()).or_default().insert(file.path.clone(), file);
        }
        Self(hosts)
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What a registry answers; `None` if the request is for none.
    pub(super) fn answer(&self, request: &Request<Body>) -> Option<Response> {
        let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = request.uri().host().or(named)?;
        let file = self.0.get(host)?.get(request.uri().path());
        Some(file.map_or_else(|| StatusCode::NOT_FOUND.into_response(), File::answer))
    }
}

impl File {
    fn answer(&self) -> Response {
        let body = BASE64_STANDARD.decode(&self.body).unwrap();
        ([(header::CONTENT_TYPE, &self.r#type)], body).into_response()
    }
}
