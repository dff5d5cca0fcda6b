# framewake on NVIDIA cards:
#   docker build -f docker/cuda.Dockerfile -t framewake:cuda .
#   docker run --gpus all -e FRAMEWAKE_API_KEY -p 127.0.0.1:7860:7860 -v framewake:/data framewake:cuda
# A checkpoint: -v /models/HunyuanVideo-I2V:/model:ro and, after the image's name, the command with --checkpoint /model.
# torch brings CUDA's libraries with it, so the smallest base does.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

# torch.compile builds a small C library on the machine that it runs on, with a compiler and Python's headers.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 framewake \
    && install -d -o framewake -g framewake /data

ARG TORCH=torch==2.13.0
# The source is looked at while it is installed and stays out of the image. The versions are those that the tests ran
# with; for another torch, --build-arg CONSTRAINTS= leaves the choice to pip.
ARG CONSTRAINTS="-c /source/constraints/torch.txt"
RUN --mount=type=bind,target=/source \
    python3 -m venv /opt/framewake \
    && /opt/framewake/bin/pip install --no-cache-dir ${CONSTRAINTS} "/source[torch,web]" "${TORCH}"

ENV PATH=/opt/framewake/bin:${PATH} PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 7860
# A step must end before its latents can be saved: docker stop --time 180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
# Another address than loopback needs a key, in FRAMEWAKE_API_KEY: without it the server refuses to start.
CMD ["framewake", "serve", "--host", "0.0.0.0", "--data", "/data", "--engine", "torch:cuda"]
