# The server alone: no load generator, no checker.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin haus

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/haus --create-home haus
COPY --from=build /src/target/release/haus /usr/local/bin/haus
USER 10001
ENV HAUS_LISTEN=0.0.0.0:8080 \
    HAUS_OPS_LISTEN=0.0.0.0:9090 \
    HAUS_DATA_DIR=/var/lib/haus \
    HAUS_ENV=production
EXPOSE 8080 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["curl", "-fsS", "http://127.0.0.1:8080/readyz"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["haus"]
CMD ["serve"]
