//! Why a pod is not admitted.

/// Why a pod is not admitted. Each sentence says what to change; it is what `kubectl` shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read as one.
    #[error("this is no pod: metadata and spec must be objects, and so must each container")]
    NoPod,
    /// There is no sidecar for it.
    #[error("pods on Windows cannot be injected; remove keybearer.dev/inject from this one")]
    Windows,
    /// Everybody on the node could use the sidecar, and redirecting would redirect the node.
    #[error(
        "a pod with hostNetwork: true cannot be injected, as it shares its loopback addresses with the node; remove hostNetwork, or keybearer.dev/inject"
    )]
    HostNetwork,
    /// Its connections would pass for the sidecar's, and it could read the sidecar's files.
    #[error(
        "container {container} runs as user {uid}, which is the sidecar's own; give it another securityContext.runAsUser"
    )]
    SharedUser {
        /// Whose user it is.
        container: String,
        /// Which user.
        uid: u32,
    },
    /// A part of the pod has the name of an injected one, and is not that one.
    #[error(
        "the pod has a {kind} {name} that is not what is injected under this name ({differs}); rename it, or remove it if it was copied from a running pod"
    )]
    Foreign {
        /// Container or volume.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The first field that differs.
        differs: String,
    },
    /// A container reaches into what is the sidecar's alone.
    #[error(
        "container {container} mounts the volume {volume}, which is the sidecar's alone; remove the mount"
    )]
    PrivateVolume {
        /// Whose mount it is.
        container: String,
        /// Which volume.
        volume: String,
    },
    /// Something lies where the trust bundle is to be.
    #[error(
        "container {container} mounts something at {path}, where the certificates to trust are mounted; mount it elsewhere"
    )]
    Occupied {
        /// Whose mount it is.
        container: String,
        /// Where.
        path: String,
    },
    /// The pod asks for the vault's key.
    #[error("{place} uses the Secret {name}, which is the sidecar's alone; remove it")]
    VaultSecret {
        /// Which volume or container.
        place: String,
        /// The Secret's name.
        name: String,
    },
    /// The pod asks for a token of the sidecar's.
    #[error("volume {volume} projects a token for {audience}, which is the sidecar's alone; remove it")]
    BrokerToken {
        /// Which volume.
        volume: String,
        /// Whom the token is for.
        audience: String,
    },
    /// A container listens where the sidecar does.
    #[error(
        "container {container} has the port {port}, where the sidecar listens; move one of them: annotation {annotation}"
    )]
    PortTaken {
        /// Whose port it is.
        container: String,
        /// Which.
        port: u16,
        /// What moves the sidecar's.
        annotation: &'static str,
    },
    /// Two ports of the sidecar are one.
    #[error(
        "the sidecar's ports must differ: keybearer.dev/proxy-port, keybearer.dev/transparent-port, keybearer.dev/admin-port"
    )]
    SamePorts,
    /// A service mesh redirects the pod already.
    #[error(
        "container {container} redirects the pod's connections already, and two cannot; use keybearer.dev/mode: proxy"
    )]
    RedirectedAlready {
        /// The mesh's container.
        container: String,
    },
    /// Nobody knows for whom the agents act.
    #[error("the pod does not say for whom its agents act; set the annotation {0}")]
    Identity(&'static str),
    /// An annotation cannot be read.
    #[error("{name}: {text:?} {why}")]
    Annotation {
        /// The annotation.
        name: String,
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}
