"""Prints an SROS 2 policy for both nodes: security_policy.py [CAMERA ...]; config/sros2_policy.xml is that for `front`.

`ros2 security create_permission KEYSTORE ENCLAVE POLICY` takes it. A node with a namespace, another name or remapped
topics needs it changed alike.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

from coop_perception import topics

PARAMETER_SERVICES = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "get_type_description",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
)
LIFECYCLE_SERVICES = (
    "change_state",
    "get_available_states",
    "get_available_transitions",
    "get_state",
    "get_transition_graph",
)
EVERY_NODES = ("/parameter_events", "/rosout")
CLOCK = "/clock"


def policy(cameras: Sequence[str]) -> str:
    """The policy's text, each node in an enclave of its own."""
    root = ElementTree.Element("policy", version="0.2.0")
    enclaves = ElementTree.SubElement(root, "enclaves")
    image = (topics.IMAGE, topics.IMAGE + topics.COMPRESSED, topics.CAMERA_INFO)
    outputs = (
        *(topics.MASK, topics.MASK_RAW, topics.CONFIDENCE, topics.RESTORED, topics.RESTORED + topics.COMPRESSED),
        *(topics.OVERLAY, topics.OUT_CAMERA_INFO, topics.LABEL_INFO, topics.CONDITION),
    )
    _add_node(
        enclaves,
        topics.NODE,
        publishes=[
            *_of(cameras, outputs),
            *(topics.MODEL_INFO, topics.STATUS, topics.DIAGNOSTICS, "~/transition_event", *EVERY_NODES),
        ],
        reads=[*_of(cameras, image), CLOCK, EVERY_NODES[0]],
        answers=[topics.LOAD_BUNDLE, topics.SET_STAGES, *_private((*PARAMETER_SERVICES, *LIFECYCLE_SERVICES))],
    )
    clean = (topics.CLEAN_IMAGE, topics.CLEAN_IMAGE + topics.COMPRESSED, topics.CLEAN_CAMERA_INFO, topics.DEPTH)
    _add_node(
        enclaves,
        "degrade",
        publishes=[*_of(cameras, (*image, topics.REFERENCE_IMAGE)), *EVERY_NODES],
        reads=[*_of(cameras, clean), CLOCK, EVERY_NODES[0]],
        answers=_private(PARAMETER_SERVICES),
    )
    ElementTree.indent(root)
    made = "<!-- Made by tools/security_policy.py from the topics and services that the nodes have. -->"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{made}\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _add_node(
    enclaves: ElementTree.Element, node: str, publishes: Iterable[str], reads: Iterable[str], answers: Iterable[str]
) -> None:
    enclave = ElementTree.SubElement(enclaves, "enclave", path=f"/coop_perception/{node}")
    profile = ElementTree.SubElement(ElementTree.SubElement(enclave, "profiles"), "profile", ns="/", node=node)
    for kind, action, names in (
        ("service", "reply", answers),
        ("topic", "subscribe", reads),
        ("topic", "publish", publishes),
    ):
        rules = ElementTree.SubElement(profile, f"{kind}s", {action: "ALLOW"})
        for name in sorted(names):
            ElementTree.SubElement(rules, kind).text = name


def _of(cameras: Iterable[str], names: Iterable[str]) -> list[str]:
    return [topics.of(camera, name) for camera in cameras for name in names]


def _private(names: Iterable[str]) -> list[str]:
    return [f"~/{name}" for name in names]


if __name__ == "__main__":
    print(policy(sys.argv[1:] or ["front"]), end="")
