"""Which topics a camera is read from when its image topic has been remapped."""

from __future__ import annotations

from rclpy.node import Node

from coop_perception import topics


def camera_topics(node: Node, image: str, camera_info: str, compressed: bool) -> tuple[str, str]:
    """Resolved names of a camera's image and camera_info, as image_transport and image_pipeline have them.

    A remapped image takes the rest with it: `/compressed` is behind what it was remapped to, and camera_info beside
    that. What has been remapped itself stays where that is.

    Args:
        node: whose remappings hold.
        image: relative name of the raw image, likewise `camera_info`.
        compressed: whether the compressed image is read.
    """
    base = node.resolve_topic_name(image)
    if not compressed:
        source = base
    elif _remapped(node, image + topics.COMPRESSED):
        source = node.resolve_topic_name(image + topics.COMPRESSED)
        base = source.removesuffix(topics.COMPRESSED)
    else:
        source = base + topics.COMPRESSED
    if _remapped(node, camera_info) or base == node.resolve_topic_name(image, only_expand=True):
        return source, node.resolve_topic_name(camera_info)
    return source, f"{base.rpartition('/')[0]}/{camera_info.rpartition('/')[2]}"


def _remapped(node: Node, topic: str) -> bool:
    return bool(node.resolve_topic_name(topic, only_expand=True) != node.resolve_topic_name(topic))
