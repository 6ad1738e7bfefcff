# atm_net on the CPU, as a user without rights; docs/install.md says how to use it
FROM python:3.11-slim

# the number of the user: that of the owner of a mounted folder, so that the files are theirs
ARG UID=1000
RUN useradd --create-home --uid "${UID}" reader
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    HF_HUB_OFFLINE=1 \
    MPLBACKEND=agg

# the libraries change less often than the kit: a layer of their own
WORKDIR /opt/atm_net
COPY requirements.lock ./
RUN pip install "$(grep '^torch==' requirements.lock)" \
    && pip install -r requirements.lock

COPY setup.py settings.ini README.md LICENSE ./
COPY atm_net ./atm_net
COPY nbs ./nbs
RUN pip install --no-deps --no-build-isolation . \
    && mkdir /data \
    && chown -R reader:reader nbs /data

USER reader
WORKDIR /data
EXPOSE 8888
CMD ["python", "-c", "from atm_net.cli import COMMANDS; print('Run one of these, each with --help:', *COMMANDS, sep='\\n')"]
