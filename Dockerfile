# One image for the code location, Dagster's webserver and daemon, and the cleanup page.
# The base is pinned by its exact version; who wants it pinned by its bytes passes --build-arg BASE=python@sha256:...
ARG BASE=python:3.12.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /build
COPY deployment/build.lock deployment/runtime.lock ./deployment/
# The environment has no pip of its own, and what builds the wheel stays in this stage. pip compiles the bytecode.
RUN python -m venv --without-pip /opt/cleanup \
 && pip --python /opt/cleanup/bin/python install --require-hashes -r deployment/runtime.lock \
 && pip install --require-hashes -r deployment/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY cleanup_dagster ./cleanup_dagster
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/cleanup/bin/python install --no-deps --no-index dist/*.whl \
 && /opt/cleanup/bin/cleanup-operations --version

FROM ${BASE}
ARG CLEANUP_UID=1000
ARG CLEANUP_GID=1000
LABEL org.opencontainers.image.title="cleanup_dagster" \
      org.opencontainers.image.description="Retention and garbage collection for data platforms built on Dagster" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/cleanup /opt/cleanup
ENV PATH=/opt/cleanup/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
# A new volume takes owner and mode of the directory that it is mounted on.
RUN mkdir -p /srv/cleanup /srv/config /srv/platform \
 && install -d -m 0700 -o ${CLEANUP_UID} -g ${CLEANUP_GID} /srv/dagster /srv/cleanup/state /srv/cleanup/backups
USER ${CLEANUP_UID}:${CLEANUP_GID}
WORKDIR /srv
# docker-compose.yml says how each part is started and looked after.
CMD ["cleanup-operations", "--help"]
