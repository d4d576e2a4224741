"""Why nothing arrives on a topic, and what helps: from who publishes it, as what type, and with which QoS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

SILENT_S = 3.0
"""A camera that has sent nothing for this long is silent."""
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_TRANSPORT = dict(zip(IMAGE_TYPES, ("raw", "compressed"), strict=True))
_NAMED = 3
"""So many other topics or publishers are named."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a camera's topics bring nothing, with the remedy; empty for one that does."""

    image: str = ""
    camera_info: str = ""
    info_published: bool = False
    """Whether anybody publishes the camera_info that does not come, as not every camera's driver does."""


def why_silent(
    topic: str,
    kind: str,
    requested: QoSProfile,
    publishers: Sequence[TopicEndpointInfo],
    published: Mapping[str, Sequence[str]],
) -> str:
    """The cause and the remedy in one line. The same as long as the cause is.

    Args:
        topic: fully resolved, that the node subscribes to.
        kind: its type there, one of IMAGE_TYPES or INFO_TYPE.
        requested: QoS of that subscription.
        publishers: of that topic, of whatever type and QoS.
        published: types by name of the topics of these types that others than the node publish, this one or not.
    """
    if not publishers:
        elsewhere = _info_elsewhere if kind == INFO_TYPE else _elsewhere
        return f"nothing publishes {topic}; {elsewhere(topic, kind, published)}"
    of_type = [publisher for publisher in publishers if publisher.topic_type == kind]
    if not of_type:
        types = ", ".join(sorted({publisher.topic_type for publisher in publishers}))
        others = [_TRANSPORT[p.topic_type] for p in publishers if p.topic_type in _TRANSPORT]
        other = others[0] if others and kind in _TRANSPORT else ""
        remedy = f"remap, or set parameter image_transport to {other}" if other else "remap, or rename that topic"
        return f"{_names(publishers)} publishes {topic} as {types}, expected {kind}; {remedy}"
    fitting = [publisher for publisher in of_type if not _mismatch(publisher.qos_profile, requested)]
    if not fitting:
        offered = of_type[0].qos_profile
        return (
            f"{_names(of_type)} publishes {topic} as {_words(offered)}, which does not go with the node's "
            f"{_words(requested)} ({_mismatch(offered, requested)}); {_override(topic, offered, requested)}"
        )
    what = "camera_info" if kind == INFO_TYPE else "image"
    silent = f"{_names(fitting)} publishes {topic}, but no {what} comes"
    latched = all(publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for publisher in fitting)
    if kind == INFO_TYPE and latched and requested.durability == DurabilityPolicy.VOLATILE:
        return f"{silent}; if it was sent once, latched, set {_to(topic, 'durability: transient_local')}"
    return f"{silent}; check the camera, its driver and the network"


def _mismatch(offered: QoSProfile, requested: QoSProfile) -> str:
    """The middleware's own word on it; empty where the two go together."""
    compatibility, reason = qos_check_compatible(offered, requested)
    return str(reason).strip().rstrip(";") if compatibility == QoSCompatibility.ERROR else ""


def _override(topic: str, offered: QoSProfile, requested: QoSProfile) -> str:
    wanted = []
    if (offered.reliability, requested.reliability) == (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE):
        wanted.append("reliability: best_effort")
    if (offered.durability, requested.durability) == (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL):
        wanted.append("durability: volatile")
    if not wanted:
        return "change the publisher's"
    return "set " + ", ".join(_to(topic, override) for override in wanted)


def _to(topic: str, override: str) -> str:
    return f"qos_overrides.{topic}.subscription.{override}"


def _words(profile: QoSProfile) -> str:
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"


def _names(publishers: Sequence[TopicEndpointInfo]) -> str:
    names = sorted({f"{p.node_namespace.rstrip('/')}/{p.node_name}" for p in publishers})
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _elsewhere(topic: str, kind: str, published: Mapping[str, Sequence[str]]) -> str:
    raw = topic.removesuffix("/compressed")
    twin, transport = (raw, "raw") if raw != topic else (f"{topic}/compressed", "compressed")
    if set(published.get(twin, ())) & set(IMAGE_TYPES):
        return f"{twin} is published: set parameter image_transport to {transport}"
    others = _others(topic, kind, published)
    if others:
        return f"images are on {others}: set parameter cameras, or remap"
    return "start the camera's driver, or check its namespace and ROS_DOMAIN_ID"


def _info_elsewhere(topic: str, kind: str, published: Mapping[str, Sequence[str]]) -> str:
    others = _others(topic, kind, published)
    if others:
        return f"there is {others}: if that is this camera's, remap"
    return "where somebody needs it, have the camera's driver publish it"


def _others(topic: str, kind: str, published: Mapping[str, Sequence[str]]) -> str:
    names = sorted(name for name, types in published.items() if name != topic and kind in types)
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
