# The image of booksd: nothing but its programs, the libraries that they load
# and what describes them.  The same file system without an engine:
# deploy/image/build.
#
#	docker buildx build --platform linux/amd64,linux/arm64 .

ARG BASE=debian:bookworm
FROM --platform=$BUILDPLATFORM $BASE AS build
# Compiled for TARGETARCH by a compiler of the building machine, not emulated.
ARG TARGETARCH
COPY tests/packages.sh /src/tests/packages.sh
COPY deploy/image/packages /src/deploy/image/packages
RUN /src/deploy/image/packages $TARGETARCH
COPY . /src
RUN /src/deploy/image/build --root /image \
    --arch "${TARGETARCH:-$(dpkg --print-architecture)}"

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="booksd" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="ISC"
COPY --from=build /image/ /
# A volume takes the owner of what it covers; on Fargate it is root's otherwise.
COPY --from=build --chown=10001:10001 /image/run/booksd /run/booksd
VOLUME /run/booksd
ENV BOOKS_CONTROL_SOCKET=/run/booksd/control.sock \
    PGSSLROOTCERT=/etc/ssl/certs/rds.pem
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["/usr/bin/booksctl", "health", "--live"]
ENTRYPOINT ["/usr/sbin/booksd"]
