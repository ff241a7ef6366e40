# One image for every service; compose.yaml chooses which runs. Built from Debian's and Python's
# packages only. `docker build -t intertie .` It has never been built by a test: that needs an engine.
FROM debian:12.11-slim

RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
      python3 python3-venv python3-dev gcc pkg-config libvirt-dev \
      libvirt-clients qemu-utils iproute2 nftables \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/intertie
COPY requirements.txt pyproject.toml README.md ./
RUN python3 -m venv .venv \
 && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY services services
COPY clients clients
COPY testbed testbed
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation -e .

ENV PATH=/opt/intertie/.venv/bin:$PATH
# Every service ends in order at this; `intertie-health --config FILE` says whether one serves.
STOPSIGNAL SIGTERM
