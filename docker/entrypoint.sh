#!/bin/bash
# Arguments are launch arguments: docker run ... coop_perception:cpu cameras:=front,rear
set -e
. /opt/ros/jazzy/setup.bash
. /ws/install/setup.bash
exec ros2 launch coop_perception pipeline.launch.py "$@"
