# The service's image: a virtual environment of locked versions with our wheel in it; nothing to build with, and not root.
#
# The tag names the patch release of Python and the release of Debian. A tag can still be moved; a digest cannot. To pin it,
# ask for the digest once and put it behind the tag, where a bot can renew both:
#   docker buildx imagetools inspect python:3.12.14-slim-trixie --format '{{.Manifest.Digest}}'
#   ARG PYTHON_IMAGE=python:3.12.14-slim-trixie@sha256:...
ARG PYTHON_IMAGE=python:3.12.14-slim-trixie

# ---------------------------------------------------------------- build

FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build

# What is installed stands in the locks, by version and hash: pip resolves nothing, and compiles nothing.
# Before our own code, so that this layer is made anew only when a lock changes.
COPY requirements-build.lock requirements-runtime.lock ./
RUN python -m venv /opt/tools \
 && python -m venv --without-pip /opt/metering \
 && /opt/tools/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements-build.lock \
 && pip --python /opt/metering/bin/python install --no-deps --require-hashes --only-binary :all: -r requirements-runtime.lock

# What .dockerignore lets through: the packages, and what their wheel is made with.
COPY . .
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/metering/bin/python install --no-deps dist/metering-*.whl

# ---------------------------------------------------------------- run

FROM ${PYTHON_IMAGE}

# By number, so that whoever forbids root can see that this is not root.
RUN groupadd --gid 10001 metering \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin metering

COPY --from=build /opt/metering /opt/metering

ENV PATH="/opt/metering/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001
WORKDIR /opt/metering
EXPOSE 8000
STOPSIGNAL SIGTERM

# Past any proxy that the container engine sets for outgoing requests.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as http; http.build_opener(http.ProxyHandler({})).open('http://127.0.0.1:' + (os.environ.get('METERING_PORT') or '8000') + '/readyz', timeout=4)"]

ENTRYPOINT ["metering"]
CMD ["serve", "--host", "0.0.0.0"]
