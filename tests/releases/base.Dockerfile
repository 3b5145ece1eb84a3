# Debian with Python and uv, as a company keeps its base: with the certificates that its machines trust, so that uv reaches
# the package registry through whatever is between.
FROM scratch
ADD rootfs.tar /
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV PATH=/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    VIRTUAL_ENV=/venv \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
# What PyPI itself says of its files; mirrors often leave it out, and then uv would keep nothing.
COPY <<END /etc/uv/uv.toml
[[index]]
url = "https://pypi.org/simple"
default = true
cache-control = { api = "max-age=600", files = "max-age=365000000, immutable" }
END
RUN pip install -q --no-cache-dir --disable-pip-version-check --root-user-action=ignore --break-system-packages uv==0.9.5
CMD ["/bin/bash"]
