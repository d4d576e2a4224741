"""A parameter's definition as rclpy declares it."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from coop_perception.ros.definition import Definition, constraints


def ros_value(definition: Definition) -> Any:
    """A parameter's default as rclpy declares it."""
    return list(definition.default) if isinstance(definition.default, tuple) else definition.default


def descriptor(definition: Definition) -> ParameterDescriptor:
    """What ROS's tools show of a parameter, and the range to which ROS itself holds it."""
    described = ParameterDescriptor(
        description=definition.description,
        additional_constraints=constraints(definition),
        read_only=definition.read_only,
    )
    if definition.low is not None and definition.high is not None:
        if isinstance(definition.default, int):
            described.integer_range = [IntegerRange(from_value=int(definition.low), to_value=int(definition.high))]
        else:
            described.floating_point_range = [FloatingPointRange(from_value=definition.low, to_value=definition.high)]
    return described
