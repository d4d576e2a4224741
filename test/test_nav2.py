"""What Nav2 and the diagnostics aggregator are given; keys as their sources declare them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from coop_perception import topics
from coop_perception.resources import share

MANAGER = {
    *("node_names", "autostart", "bond_timeout", "bond_respawn_max_duration", "attempt_respawn_reconnection"),
    *("service_timeout", "bond_heartbeat_period"),  # after Jazzy
}
AGGREGATOR = {"pub_rate", "path", "other_as_errors", "history_depth", "critical"}
ANALYZER = {
    *("type", "path", "find_and_remove_prefix", "remove_prefix", "startswith", "contains", "expected"),
    *("regex", "timeout", "num_items", "discard_stale"),
}


def parameters(file: str, node: str) -> dict[str, Any]:
    content = yaml.safe_load(share(f"config/{file}").read_text())
    assert list(content) == [node]
    assert list(content[node]) == ["ros__parameters"]
    return dict(content[node]["ros__parameters"])


def test_the_lifecycle_manager_expects_no_bond_of_the_node() -> None:
    given = parameters("nav2_lifecycle_manager.yaml", "lifecycle_manager_perception")
    assert given.keys() <= MANAGER
    assert given["node_names"] == [topics.NODE]
    for key in ("bond_timeout", "service_timeout"):
        assert type(given[key]) is float  # rclcpp takes no integer for a double
    assert given["bond_timeout"] == 0.0


@pytest.mark.parametrize("namespace", ["", "/car"])
def test_the_aggregator_takes_the_nodes_entries(namespace: str) -> None:
    given = parameters("diagnostic_aggregator.yaml", "analyzers")
    analyzers = {name: value for name, value in given.items() if isinstance(value, dict)}
    assert given.keys() - analyzers.keys() <= AGGREGATOR
    (analyzer,) = analyzers.values()
    assert analyzer.keys() <= ANALYZER
    assert isinstance(analyzer["contains"], list)  # a string would not be taken
    assert type(analyzer["timeout"]) is float
    name = f"{namespace}/{topics.NODE}: front"
    assert [part for part in analyzer["contains"] if part in name]
    assert not [part for part in analyzer["contains"] if part in "/other_coop_perception: front"]
