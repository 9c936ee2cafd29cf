# The service. What training programs install is `pip install manifest-replay`, not this.
FROM python:3.13.7-slim-bookworm AS build
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY manifest manifest
COPY server server
COPY client client
COPY alembic alembic
COPY docs docs
RUN python -m venv /opt/manifest \
 && /opt/manifest/bin/pip install --no-cache-dir --constraint constraints.txt '.[server,postgres]'

FROM python:3.13.7-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home manifest \
 && install --directory --owner 10001 --mode 0700 /data
COPY --from=build /opt/manifest /opt/manifest
ENV PATH=/opt/manifest/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MANIFEST_SERVER_HOST=0.0.0.0 \
    MANIFEST_SERVER_PORT=8765 \
    MANIFEST_SERVER_AUTH=tokens \
    MANIFEST_SERVER_DATABASE_URL=sqlite:////data/manifest.db
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['MANIFEST_SERVER_PORT'] + '/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["manifest"]
CMD ["server"]
