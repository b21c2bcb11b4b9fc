FROM python:3.11-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /app/.venv
# The image brings no Postgres along: compose.yaml, or whoever runs it, does.
COPY requirements-image.lock ./
RUN .venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md ./
COPY reos reos
COPY migrations migrations
RUN .venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
    .venv/bin/python -m compileall -q reos

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 reos && \
    useradd --system --uid 10001 --gid reos --home-dir /app --no-create-home reos && \
    install -d -o reos -g reos -m 0700 /var/lib/reos
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 PORT=8000 DATA_DIR=/var/lib/reos LOG_FORMAT=json
# By number, so that Kubernetes sees that it is not root.
USER 10001:10001
VOLUME /var/lib/reos
EXPOSE 8000
# SIGTERM drains; the whole service is gone after 15 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/ready', timeout=4)"]
CMD ["reos", "serve"]
