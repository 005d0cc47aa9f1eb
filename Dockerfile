# keybearer as a container: the static program, and nothing else.
#
#   make image
#   docker run --rm -v keybearer:/data -v "$PWD/keybearer.yaml:/etc/keybearer.yaml:ro" \
#     -v "$PWD/policies:/etc/policies:ro" keybearer proxy --config /etc/keybearer.yaml
#
# There is no shell in it, no user database and no root certificates: providers are checked by Mozilla's roots, which
# are built in. The data directory is /data; make it a volume, for the vault, its key, the CA and the audit log.

# Anything with cargo, rustc, gcc and a static libc: .ci/image puts another in its place where there is no registry.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm

FROM ${RUST_IMAGE} AS build
# The same in every base, since the paths of dependencies are in the program, in what a panic says.
ENV CARGO_HOME=/cargo
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Not built; but cargo wants to see what Cargo.toml names.
COPY benches benches
COPY tests/canary.rs tests/
# Naming the target keeps the flag away from build scripts and procedural macros, which are loaded and cannot be static.
RUN target=$(rustc --print host-tuple) \
    && RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --bin keybearer --target "$target" \
    && mkdir -p /out/data /out/tmp \
    && cp "target/$target/release/keybearer" /out/keybearer

FROM scratch
COPY --from=build /out/keybearer /keybearer
# A numeric owner: Kubernetes can check runAsNonRoot by it.
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/tmp /tmp
ENV KEYBEARER_DATA_DIR=/data
USER 65532:65532
EXPOSE 7080 7090
VOLUME /data
ENTRYPOINT ["/keybearer"]
CMD ["proxy"]
