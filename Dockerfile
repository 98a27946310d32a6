# For CPUs:
#   docker build -t cion .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" cion demo
# For NVIDIA GPUs, with the NVIDIA Container Toolkit on the host; CUDA itself comes with JAX:
#   docker build -t cion-cuda --build-arg EXTRAS=cuda13,video,onnx .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" cion-cuda pretrain small DATA
# What is written lies in the folder that is mounted, and belongs to whoever called.
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# The extras of setup.cfg to install.
ARG EXTRAS=video,onnx
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]"
# Any user may run it: compiled programs are kept beside what is written.
ENV HOME=/tmp XDG_CACHE_HOME=/work/.cache PYTHONUNBUFFERED=1
WORKDIR /work
ENTRYPOINT ["cion"]
CMD ["--help"]
