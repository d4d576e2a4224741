# NOT BUILT YET: written to the documents of the base image and of JetPack, never built, nor run on a Jetson.
# ROS 2 Jazzy, CUDA 13 and JetPack's own TensorRT, for a Jetson with JetPack 7 (Ubuntu 24.04); build it there.
# CUDA and TensorRT come from NVIDIA's repository for Jetson: L4T's base images, as far as we found, end with JetPack 6.
# L4T and CUDA are your JetPack's: 7.1 has r38.4 and 13-0. For 7.2: --build-arg L4T=r39.2 --build-arg CUDA=13-2.
FROM ros:jazzy-ros-base

ARG L4T=r38.4
ARG CUDA=13-0

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Read by --runtime=nvidia, which brings devices and driver into the container.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && curl -fsSL https://repo.download.nvidia.com/jetson/jetson-ota-public.asc -o /usr/share/keyrings/jetson.asc \
    && for part in common som; do \
        echo "deb [signed-by=/usr/share/keyrings/jetson.asc] https://repo.download.nvidia.com/jetson/$part $L4T main"; \
    done > /etc/apt/sources.list.d/jetson.list \
    && apt-get update \
    && apt-get install --yes --no-install-recommends "cuda-libraries-$CUDA" tensorrt-libs python3-libnvinfer python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ws
COPY . src/coop_perception

# rosdep goes on where it knows no package (-r), but ends with an error then; pip brings those below.
RUN apt-get update \
    && (rosdep install --rosdistro jazzy -r --default-yes --ignore-src --dependency-types=exec --dependency-types=build \
        --dependency-types=buildtool --from-paths src src/coop_perception/coop_perception_msgs || true) \
    && rm -rf /var/lib/apt/lists/*

# An environment that sees ROS's packages and TensorRT. NumPy stays ROS's; CUDA 13.0's bindings work with later drivers.
RUN python3 -m venv --system-site-packages /venv \
    && /venv/bin/pip install 'numpy<2' 'cuda-bindings>=13.0,<13.1' onnxruntime onnx pyarrow rosbags mcap zstandard lz4

# colcon by that Python, which so becomes the installed nodes'. TensorRT is found, not imported: the driver is the host's.
# hadolint ignore=SC1091
RUN . /opt/ros/jazzy/setup.bash \
    && /venv/bin/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("tensorrt"))' \
    && /venv/bin/python "$(command -v colcon)" build --base-paths src src/coop_perception/coop_perception_msgs \
        --cmake-args -DPython3_EXECUTABLE=/usr/bin/python3 -DBUILD_TESTING=OFF

ENV COOP_PERCEPTION_CACHE=/cache
VOLUME /cache
COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["cameras:=front"]
