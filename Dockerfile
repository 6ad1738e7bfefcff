# atm_net on the CPU: `docker build -t atm_net .`, then `docker run --rm atm_net`
FROM python:3.11-slim

# a user without rights, whose number can be chosen so that files on a mounted folder are yours
ARG UID=1000
RUN useradd --create-home --uid ${UID} reader
ENV PATH=/home/reader/.local/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HF_HUB_OFFLINE=1 \
    MPLBACKEND=agg

# what is installed changes less often than the kit: its own layer
WORKDIR /opt/atm_net
COPY requirements.lock ./
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.lock)" \
 && pip install --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.lock

COPY setup.py settings.ini README.md LICENSE ./
COPY atm_net ./atm_net
COPY nbs ./nbs
RUN pip install --no-deps --no-build-isolation . \
 && chown -R reader:reader /opt/atm_net

USER reader
WORKDIR /work
EXPOSE 8888
# without a command: what there is to type
CMD ["python", "-m", "atm_net.cli"]
