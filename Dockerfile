# One image for every program of Sidelink: `authority up`, `gateway up` and `up` are its arguments.
# The root file system may be read-only; everything that is written goes to the volume.
# scripts/dockerfile_steps.py runs each step of this file in CI without an engine.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /build
COPY . .
RUN python -m venv /opt/sidelink
RUN /opt/sidelink/bin/python -m pip install --quiet --prefer-binary ./sdk .
RUN /opt/sidelink/bin/python -m pip uninstall --quiet --yes pip

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Sidelink" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/sidelink /opt/sidelink
ENV PATH=/opt/sidelink/bin:$PATH SIDELINK_STATE=/var/lib/sidelink
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN install -d -m 0700 -o 65532 -g 65532 /var/lib/sidelink
USER 65532:65532
WORKDIR /var/lib/sidelink
VOLUME /var/lib/sidelink
EXPOSE 7440/udp 7450/tcp 7451/tcp 7460/tcp 7461/tcp 7462/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["sidelink", "status", "--check"]
ENTRYPOINT ["sidelink"]
CMD ["--help"]
