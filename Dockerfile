# The programs `projector` and `outbox` on Debian, with Debian's libraries. The base can be replaced:
#     docker build --build-arg BASE=debian:bookworm-slim -t projector .
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      gcc libc6-dev meson ninja-build pkg-config libmongoc-dev libmariadb-dev libmariadb-dev-compat \
      libjansson-dev libglib2.0-dev libmicrohttpd-dev libxxhash-dev
COPY . /source
RUN meson setup /build /source --buildtype=release --prefix=/usr -Dtests=false && \
    DESTDIR=/installed meson install -C /build --strip --tags runtime

FROM ${BASE}
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates libmongoc-1.0-0 libmariadb3 libjansson4 libglib2.0-0 libmicrohttpd12 libxxhash0 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*.log /var/log/apt && \
    groupadd --gid 10001 projector && \
    useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin projector && \
    # Volumes that are mounted here begin with this owner.
    install -d -o projector -g projector /run/passwords/projector /run/passwords/mysql_root
COPY --from=build /installed/usr/ /usr/
COPY packaging/healthcheck.sh /usr/lib/projector/healthcheck
USER projector:projector
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/lib/projector/healthcheck"]
ENTRYPOINT ["projector"]
CMD ["run", "-c", "/etc/projector/projector.json"]
