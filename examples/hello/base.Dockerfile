FROM scratch
COPY rootfs/ /
ENV PATH=/bin
CMD ["/bin/sh"]
