# What the cache mount is good for: the same dependencies again, without a network.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
COPY requirements.txt /
RUN --network=none --mount=type=cache,target=/root/.cache/uv \
    uv venv -q /again && VIRTUAL_ENV=/again uv pip install --offline -r /requirements.txt
