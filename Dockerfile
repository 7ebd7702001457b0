# For amd64 and arm64, Docker, Podman and buildah. BASE is any Debian, or image made from it, with Python 3.11 or newer
# and its venv module. What runs in the end is copied out of it: the interpreter, the libraries it loads, the exporter.
ARG BASE=docker.io/library/python:3.11.15-slim-bookworm

FROM ${BASE} AS build
# For networks with an index or a certificate authority of their own; the hashes in requirements.lock hold for any.
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /tools \
 && python3 -m venv --without-pip /opt/venv \
 && /tools/bin/pip --python=/opt/venv/bin/python install --quiet --no-cache-dir --no-compile \
    --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --requirement requirements.lock
COPY exporter ./exporter
COPY LICENSE deploy/image/rootfs.py ./
RUN /opt/venv/bin/python rootfs.py /rootfs \
 && chroot /rootfs /opt/venv/bin/ai-energy-exporter --config.check

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ai-energy-exporter" \
      org.opencontainers.image.description="Prometheus exporter that says which model, container or process uses how many joules, and why" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /rootfs /
# A container's own 127.0.0.1 is reached by nobody. The bytecode is there already, and the root may be read-only.
# The NVIDIA variables are for its container runtime: all cards, and of the driver only NVML.
ENV PATH=/opt/venv/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AI_ENERGY_WEB_LISTEN_ADDRESS=:9400 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility
USER 65532:65532
EXPOSE 9400
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/opt/venv/bin/python", "-m", "exporter", "healthcheck"]
ENTRYPOINT ["/opt/venv/bin/ai-energy-exporter"]
