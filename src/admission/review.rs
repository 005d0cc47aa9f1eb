//! `AdmissionReview` of `admission.k8s.io/v1`: what an API server asks, and what it is answered.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    config::Config,
    inject::{Mutation, inject, inject_ephemeral},
};

const VERSION: &str = "admission.k8s.io/v1";

/// What an API server sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    resource: Resource,
    #[serde(default)]
    sub_resource: String,
    operation: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    version: String,
    #[serde(rename = "resource")]
    name: String,
}

/// What became of a request, for the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Injected,
    Unchanged,
    Refused,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Answers an `AdmissionReview`.
///
/// # Errors
/// Why the body is none.
pub(super) fn answer(body: &[u8], config: &Config) -> Result<(Value, Outcome), String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("the body is no AdmissionReview: {error}"))?;
    if review.api_version != VERSION || review.kind != "AdmissionReview" {
        return Err(format!(
            "{} {} is not understood; set admissionReviewVersions: [v1]",
            review.api_version, review.kind
        ));
    }
    let (response, outcome) = respond(&review.request, config);
    Ok((json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response}), outcome))
}

fn respond(request: &Request, config: &Config) -> (Value, Outcome) {
    let mutation = match (request.sub_resource.as_str(), request.operation.as_str()) {
        _ if !is_pod(&request.resource) => Ok(misdirected(&request.resource)),
        ("", "CREATE") => inject(&request.object, config),
        ("ephemeralcontainers", "UPDATE") => inject_ephemeral(&request.object, &request.old_object, config),
        _ => Ok(Mutation::default()), // the rest of a pod cannot be changed once it is there
    };
    match mutation {
        Err(refusal) => {
            let status = json!({"code": 403, "reason": "Forbidden", "message": refusal.to_string()});
            (json!({"uid": request.uid, "allowed": false, "status": status}), Outcome::Refused)
        }
        Ok(Mutation { patch, warnings }) => {
            let mut response = json!({"uid": request.uid, "allowed": true});
            if !warnings.is_empty() {
                response["warnings"] = json!(warnings);
            }
            if patch.is_empty() {
                return (response, Outcome::Unchanged);
            }
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
            (response, Outcome::Injected)
        }
    }
}

fn is_pod(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.version == "v1" && resource.name == "pods"
}

/// A webhook that is registered for more than it can do does no harm, and says so.
fn misdirected(resource: &Resource) -> Mutation {
    let warning =
        format!("keybearer webhook injects into pods only; do not register it for {}", resource.name);
    Mutation { warnings: vec![warning], ..Mutation::default() }
}
