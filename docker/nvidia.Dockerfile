# NOT BUILT YET: written to the base image's documents and linted, never built, nor run on a GPU.
# ROS 2 Jazzy, CUDA 13 and TensorRT, for x86-64 with an NVIDIA GPU (driver 580 or later). For a Jetson: jetson.Dockerfile.
# The base image has Ubuntu 24.04, Python 3.12, CUDA 13 and TensorRT with its Python package; a newer one of the same
# kind: docker build --build-arg BASE=nvcr.io/nvidia/tensorrt:TAG.
ARG BASE=nvcr.io/nvidia/tensorrt:25.09-py3
# hadolint ignore=DL3006
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# ROS 2 Jazzy as its installation page has it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl gnupg \
    && curl -fsSL https://raw.githubusercontent.com/ros/rosdistro/master/ros.key -o /usr/share/keyrings/ros.gpg \
    && echo "deb [arch=$(dpkg --print-architecture) signed-by=/usr/share/keyrings/ros.gpg] http://packages.ros.org/ros2/ubuntu noble main" \
        > /etc/apt/sources.list.d/ros2.list \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ros-jazzy-ros-base python3-rosdep python3-venv \
        python3-colcon-common-extensions build-essential \
    && rosdep init \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ws
COPY . src/coop_perception

# rosdep goes on where it knows no package (-r), but ends with an error then; pip brings those below.
RUN apt-get update \
    && rosdep update --rosdistro jazzy \
    && (rosdep install --rosdistro jazzy -r --default-yes --ignore-src --dependency-types=exec --dependency-types=build \
        --dependency-types=buildtool --from-paths src src/coop_perception/coop_perception_msgs || true) \
    && rm -rf /var/lib/apt/lists/*

# An environment that sees ROS's packages and the image's TensorRT. NumPy stays ROS's; cuda-bindings of the image's CUDA.
RUN /usr/bin/python3 -m venv --system-site-packages /venv \
    && /venv/bin/pip install 'numpy<2' 'cuda-bindings>=13.0,<13.1' onnxruntime onnx pyarrow rosbags mcap zstandard lz4

# colcon by that Python, which so becomes the installed nodes'.
# hadolint ignore=SC1091
RUN . /opt/ros/jazzy/setup.bash \
    && /venv/bin/python -c 'import tensorrt' \
    && /venv/bin/python "$(command -v colcon)" build --base-paths src src/coop_perception/coop_perception_msgs \
        --cmake-args -DPython3_EXECUTABLE=/usr/bin/python3 -DBUILD_TESTING=OFF

ENV COOP_PERCEPTION_CACHE=/cache
VOLUME /cache
COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["cameras:=front"]
