# framewake on Ascend NPUs (Atlas 800T A2; for other chips, take the base with their name):
#   docker build -f docker/ascend.Dockerfile -t framewake:ascend .
#   docker run --device /dev/davinci0 --device /dev/davinci_manager --device /dev/devmm_svm --device /dev/hisi_hdc \
#     -v /usr/local/Ascend/driver:/usr/local/Ascend/driver:ro -v /etc/ascend_install.info:/etc/ascend_install.info:ro \
#     -e FRAMEWAKE_API_KEY -p 127.0.0.1:7860:7860 -v framewake:/data framewake:ascend
# The base's CANN must be the one that MindSpore 2.10 asks for and suit the driver of the machine. Its entry point sets
# CANN's environment and then runs the command. A C compiler and Python's headers are in the base.
FROM quay.io/ascend/cann:8.5.0-910b-ubuntu22.04-py3.11

# The devices belong to the group of the driver's user: give its number when it is not 1000.
ARG DRIVER_GROUP=1000
RUN (getent group "${DRIVER_GROUP}" || groupadd --gid "${DRIVER_GROUP}" driver) \
    && useradd --create-home --uid 10001 --gid "${DRIVER_GROUP}" framewake \
    && install -d -o framewake -g "${DRIVER_GROUP}" /data

# The source is looked at while it is installed and stays out of the image. CANN's own Python compiles operators with
# packages that it does not bring.
RUN --mount=type=bind,target=/source \
    pip install --no-cache-dir -c /source/constraints/mindspore.txt "/source[mindspore,web]" \
        attrs==25.4.0 cloudpickle==3.1.2 decorator==5.2.1 ml-dtypes==0.5.4 psutil==7.2.2 sympy==1.14.0 tornado==6.5.2

ENV PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 7860
# A step must end before its latents can be saved: docker stop --time 180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
# Another address than loopback needs a key, in FRAMEWAKE_API_KEY: without it the server refuses to start.
CMD ["framewake", "serve", "--host", "0.0.0.0", "--data", "/data", "--engine", "mindspore:ascend"]
