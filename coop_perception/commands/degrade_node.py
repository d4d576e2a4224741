"""The degrade node's executable."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coop_perception.arguments import command_parser
from coop_perception.ros import full_memory
from coop_perception.ros.shutdown_signals import ShutdownSignals


def main(args: Sequence[str] | None = None) -> int:
    """Entry point: spin until interrupted."""
    signals = ShutdownSignals()
    full_memory.prepare()
    # Here, for these take a second or more, in which a signal shall end the process as cleanly as later.
    from coop_perception.degrade.node import DegradationNode
    from coop_perception.degrade.parameters import parameters_help
    from coop_perception.ros.arguments import ArgumentError, own_arguments
    from coop_perception.ros.executable import run

    args = sys.argv if args is None else list(args)
    parser = command_parser(
        "degrade_node",
        "Reads each camera's clean images from <camera>/clean/image_raw and publishes them under an adverse\n"
        "condition as <camera>/image_raw, which perception_node reads, with the clean ones as\n"
        "<camera>/reference/image.",
        "degrade_node --ros-args -p condition:=fog -p level:=2",
        notes="parameters (--ros-args -p NAME:=VALUE):\n\n" + parameters_help(),
    )
    try:
        parser.parse_args(own_arguments(args))
    except ArgumentError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return run(DegradationNode, parser.prog, args, signals)


if __name__ == "__main__":
    sys.exit(main())
