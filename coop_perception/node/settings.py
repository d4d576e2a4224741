"""The node's parameters as ROS has them: declared, checked, frozen while in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from coop_perception.node.parameters import PARAMETERS
from coop_perception.ros.declaring import descriptor, ros_value
from coop_perception.ros.definition import refusal

QOS = "qos_overrides."
SIM_TIME = "use_sim_time"
_FROZEN = "parameter {} is read when the node is configured; clean it up first"
_DEFINITIONS = {definition.name: definition for definition in PARAMETERS}


class NodeParameters:
    """Declares the parameters on a node and answers what they are.

    `frozen` is for the node to set: while it is, parameters that are not dynamic are refused.

    Raises:
        InvalidParameterTypeException, InvalidParameterValueException: the node was started with a value of the wrong
            type or out of range; the message names the parameter and the reason.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.frozen = False
        self._warned: set[str] = set()
        self._values: Mapping[str, Any] = MappingProxyType({})
        node.add_on_set_parameters_callback(self._take)
        for definition in PARAMETERS:
            node.declare_parameter(definition.name, ros_value(definition), descriptor(definition))
        self._warn_of_unknown(
            (name for name in node._parameter_overrides if not name.startswith(QOS)), [*_DEFINITIONS, SIM_TIME]
        )

    def snapshot(self) -> Mapping[str, Any]:
        """All present values by name, for good: what is set together is in it together. Any thread may ask."""
        return self._values

    def value(self, name: str) -> Any:
        """The parameter's present value. Any thread may ask."""
        return self._values[name]

    def set(self, values: dict[str, Any]) -> str:
        """Set parameters together, as the node's own services do, frozen or not; returns why not, empty if done."""
        frozen, self.frozen = self.frozen, False
        try:
            result = self._node.set_parameters_atomically([Parameter(name, value=v) for name, v in values.items()])
        finally:
            self.frozen = frozen
        return "" if result.successful else str(result.reason)

    def warn_of_unknown_qos(self) -> None:
        """Say which QoS overrides belong to no topic of the node. To be called once its topics exist."""
        given = (name for name in self._node._parameter_overrides if name.startswith(QOS))
        self._warn_of_unknown(given, [QOS + name for name in self._node.get_parameters_by_prefix(QOS.rstrip("."))])

    def _warn_of_unknown(self, given: Iterable[str], known: list[str]) -> None:
        for name in given:
            if self._node.has_parameter(name) or name in self._warned:
                continue
            self._warned.add(name)
            nearest = get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            self._node.get_logger().warning(f"parameter {name} is none of this node's and has no effect{hint}")

    def _take(self, changed: list[Parameter]) -> SetParametersResult:
        """Refuse what is changed, or take all of it over in one assignment, as rclpy, which goes on to write one value
        after the other, does not.

        Humble has no callback for afterwards. None is needed: rclpy has checked types and ranges before, and the
        callbacks behind this one, of rclpy's own parameters, refuse nothing else. One of those is use_sim_time: what is
        being served has ages and waiting times by the clock that it began with.
        """
        for parameter in changed:
            definition = _DEFINITIONS.get(parameter.name)
            if (
                parameter.name == SIM_TIME
                and self.frozen
                and parameter.value != self._node.get_parameter(SIM_TIME).value
            ):
                return SetParametersResult(successful=False, reason=_FROZEN.format(SIM_TIME))
            if definition is None:
                continue
            reason = refusal(definition, parameter.value)
            if self.frozen and not definition.dynamic:
                reason = _FROZEN.format(definition.name)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        known = {parameter.name: parameter.value for parameter in changed if parameter.name in _DEFINITIONS}
        self._values = MappingProxyType({**self._values, **known})
        return SetParametersResult(successful=True)
