"""Names of the topics and services, each defined once. All are relative: a namespace or remapping applies."""

from __future__ import annotations

IMAGE = "image_raw"
CAMERA_INFO = "camera_info"
COMPRESSED = "/compressed"
CLEAN_IMAGE = "clean/image_raw"
CLEAN_CAMERA_INFO = "clean/camera_info"
DEPTH = "depth/image_raw"
"""What degrade_node reads, to publish the adverse image under the camera's own names."""
REFERENCE_IMAGE = "reference/image"
REFERENCE_MASK = "reference/mask"
REFERENCE_CONDITION = "reference/condition"
"""In recordings: each frame's clear image and true mask, and what was made of the clear image."""

MASK = "coop/mask"
MASK_RAW = "coop/mask_raw"
CONFIDENCE = "coop/confidence"
RESTORED = "coop/image_restored"
OVERLAY = "coop/overlay"
OUT_CAMERA_INFO = "coop/camera_info"
LABEL_INFO = "coop/label_info"
CONDITION = "coop/condition"

MODEL_INFO = "~/model_info"
STATUS = "~/status"
DIAGNOSTICS = "/diagnostics"

LOAD_BUNDLE = "~/load_bundle"
SET_STAGES = "~/set_stages"

NODE = "coop_perception"
"""The node's default name, which `~` stands for."""


def of(camera: str, topic: str) -> str:
    """A camera's topic, e.g. of("front", MASK) = "front/coop/mask"."""
    return f"{camera}/{topic}"


def several_nodes(count: int, node_name: str) -> str:
    """What is said where so many nodes have one name: what is sent to one, all of them answer."""
    return f"{count} nodes are called {node_name}; stop one (ros2 node list), or set another ROS_DOMAIN_ID"
