//! Other people's sidecars: they are left as they are, and two cannot redirect one pod.

/// The containers that service meshes inject: our proxy variables would cut them off from their control planes.
pub(super) const CONTAINERS: [&str; 6] = [
    "istio-init",
    "istio-validation",
    "istio-proxy",
    "linkerd-init",
    "linkerd-network-validator",
    "linkerd-proxy",
];
