# NOT BUILT YET: written to the base image's documents and linted, never built.
# ROS 2 Jazzy on Ubuntu 24.04, x86-64 or arm64; the networks run on the CPU (OpenVINO or ONNX Runtime).
FROM ros:jazzy-ros-base

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /ws
COPY . src/coop_perception

# rosdep goes on where it knows no package (-r), but ends with an error then; pip brings those below.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && (rosdep install --rosdistro jazzy -r --default-yes --ignore-src --dependency-types=exec --dependency-types=build \
        --dependency-types=buildtool --from-paths src src/coop_perception/coop_perception_msgs || true) \
    && rm -rf /var/lib/apt/lists/*

# What apt has not, in an environment that sees ROS's packages: Ubuntu's Python is externally managed. NumPy stays ROS's.
RUN python3 -m venv --system-site-packages /venv \
    && /venv/bin/pip install 'numpy<2' onnxruntime openvino onnx pyarrow rosbags mcap zstandard lz4

# colcon by that Python, which so becomes the installed nodes'.
# hadolint ignore=SC1091
RUN . /opt/ros/jazzy/setup.bash \
    && /venv/bin/python "$(command -v colcon)" build --base-paths src src/coop_perception/coop_perception_msgs \
        --cmake-args -DPython3_EXECUTABLE=/usr/bin/python3 -DBUILD_TESTING=OFF

ENV COOP_PERCEPTION_CACHE=/cache
VOLUME /cache
COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["cameras:=front"]
