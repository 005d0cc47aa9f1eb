# keybearer as a container: the static program, and nothing else.
#
#   make image
#   docker run --rm -v keybearer:/data -v "$PWD/keybearer.yaml:/etc/keybearer.yaml:ro" \
#     -v "$PWD/policies:/etc/policies:ro" keybearer proxy --config /etc/keybearer.yaml
#
# There is no shell in it, no user database and no root certificates: providers are checked by Mozilla's roots, which
# are built in. The data directory is /data; make it a volume, for the vault, its key, the CA and the audit log. What the
# program is made of is in /sbom.json (CycloneDX).

# Anything with cargo, rustc, gcc and a static libc: .ci/image puts another in its place where there is no registry.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm

FROM ${RUST_IMAGE} AS build
ENV CARGO_HOME=/cargo
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Not built; but cargo wants to see what Cargo.toml names.
COPY benches benches
COPY tests/canary.rs tests/
COPY .ci .ci
RUN program=$(.ci/release) \
    && mkdir -p /out/data /out/tmp \
    && cp "$program" /out/keybearer \
    && .ci/sbom "$(rustc --print host-tuple)" >/out/sbom.json

FROM scratch
COPY --from=build /out/keybearer /keybearer
COPY --from=build /out/sbom.json /sbom.json
# A numeric owner: Kubernetes can check runAsNonRoot by it.
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/tmp /tmp
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="keybearer" \
      org.opencontainers.image.description="A sidecar egress proxy that holds your agents' credentials" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      dev.keybearer.sbom="/sbom.json"
ENV KEYBEARER_DATA_DIR=/data
USER 65532:65532
EXPOSE 7080 7081 7090
VOLUME /data
ENTRYPOINT ["/keybearer"]
CMD ["proxy"]
