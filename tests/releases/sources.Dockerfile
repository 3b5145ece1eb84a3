# The sources of releases from the package registry, each in a directory with its version's name.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS fetch
ARG PACKAGE
ARG VERSIONS
# Without isolation pip needs no download but the one.
RUN printf '%s\n' $VERSIONS | xargs -P 2 -I {} sh -ec '\
        pip download -q --no-deps --no-binary=:all: --no-build-isolation --disable-pip-version-check \
            -d /sdists/{} "$PACKAGE=={}"; \
        mkdir -p /out/{}; \
        tar -xf /sdists/{}/*.tar.gz --strip-components=1 -C /out/{}'

FROM scratch
COPY --from=fetch /out/ /
