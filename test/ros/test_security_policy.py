"""The SROS 2 policy that is shipped: as SROS 2's schema has it, and of what the nodes really have."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from node_harness import DOMAIN, Client, client, executable

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "config/sros2_policy.xml"
CHILDREN = {
    "policy": {"enclaves"},
    "enclaves": {"enclave"},
    "enclave": {"profiles"},
    "profiles": {"profile"},
    "profile": {"topics", "services"},
    "topics": {"topic"},
    "services": {"service"},
    "topic": set(),
    "service": set(),
}
ATTRIBUTES = {
    "policy": {"version"},
    "enclave": {"path"},
    "profile": {"ns", "node"},
    "topics": {"publish", "subscribe"},
    "services": {"reply", "request"},
}
"""Of SROS 2's policy.xsd, what a policy without actions and metadata takes."""
SOMETIMES = {
    "front/coop/label_info",  # where vision_msgs is installed
    "front/image_raw/compressed",
    "front/clean/image_raw/compressed",
    "front/depth/image_raw",
    "/clock",
    "/parameter_events",  # read with use_sim_time, as /clock is
    "~/get_type_description",  # since Jazzy, where it is on
}


def rules(node: str, kind: str, action: str) -> set[str]:
    root = ElementTree.parse(POLICY).getroot()
    (profile,) = (one for one in root.iter("profile") if one.get("node") == node)
    (found,) = (one for one in profile.iter(f"{kind}s") if one.get(action) == "ALLOW")
    return {str(one.text) for one in found}


def test_it_is_the_generated_one() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools/security_policy.py")], capture_output=True, text=True, check=True
    ).stdout
    assert POLICY.read_text() == made, "run: python tools/security_policy.py > config/sros2_policy.xml"


def test_it_is_as_the_schema_has_it() -> None:
    for element in ElementTree.parse(POLICY).getroot().iter():
        assert {child.tag for child in element} <= CHILDREN[element.tag]
        assert len(element) or not CHILDREN[element.tag], f"<{element.tag}> is empty"
        assert set(element.attrib) <= ATTRIBUTES.get(element.tag, set())
        assert element.tag not in ("policy", "enclave", "profile") or set(element.attrib) == ATTRIBUTES[element.tag]
        if element.tag in ("topics", "services"):
            assert set(element.attrib.values()) == {"ALLOW"}
        if element.tag in ("topic", "service"):
            assert (element.text or "").strip("/~") == (element.text or "").lstrip("~/")


def named(ours: Client, node: str) -> list[set[str]]:
    """What it publishes, reads and answers, as policies name it."""
    ask = (
        ours.node.get_publisher_names_and_types_by_node,
        ours.node.get_subscriber_names_and_types_by_node,
        ours.node.get_service_names_and_types_by_node,
    )
    everyones = ("/rosout", "/parameter_events", "/diagnostics", "/clock")

    def name(full: str) -> str:
        if full in everyones:
            return full
        return f"~/{full.removeprefix(f'/{node}/')}" if full.startswith(f"/{node}/") else full[1:]

    return [{name(full) for full, _ in one(node, "/")} for one in ask]


def check(ours: Client, node: str) -> None:
    kinds = (("topic", "publish"), ("topic", "subscribe"), ("service", "reply"))
    allowed = [rules(node, *kind) for kind in kinds]

    def fits() -> bool:
        """Discovery gives one after the other."""
        try:
            found = named(ours, node)
        except Exception:  # the node is not there yet
            return False
        return all(there <= may <= there | SOMETIMES for there, may in zip(found, allowed, strict=True))

    try:
        ours.wait(fits, "the graph is what the policy says")
    except AssertionError:
        different = [there ^ may for there, may in zip(named(ours, node), allowed, strict=True)]
        raise AssertionError(f"{node}: {different}") from None


def test_it_names_what_the_perception_node_has(active: Callable[..., Client]) -> None:
    check(active(backend="onnxruntime"), "coop_perception")


def test_it_names_what_the_degrade_node_has(tmp_path: Path) -> None:
    with client(DOMAIN) as ours, executable("degrade_node", DOMAIN, tmp_path / "log"):
        ours.spin()
        check(ours, "degrade")
