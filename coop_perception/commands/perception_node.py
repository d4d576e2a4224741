"""The perception node's executable."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coop_perception import topics
from coop_perception.arguments import command_parser
from coop_perception.node.parameters import parameters_yaml
from coop_perception.ros import full_memory
from coop_perception.ros.shutdown_signals import ShutdownSignals


def main(args: Sequence[str] | None = None) -> int:
    """Entry point: spin until interrupted."""
    signals = ShutdownSignals()
    full_memory.prepare()
    # Here, for these take a second or more, in which a signal shall end the process as cleanly as later.
    from coop_perception.node.lifecycle import PerceptionNode
    from coop_perception.node.transitions import autostart
    from coop_perception.ros.arguments import ArgumentError, own_arguments
    from coop_perception.ros.executable import run

    args = sys.argv if args is None else list(args)
    parser = command_parser(
        "perception_node",
        f"The {topics.NODE} lifecycle node. It starts unconfigured and waits to be brought up.",
        'perception_node --autostart --ros-args -p cameras:="[front]" -r front/image_raw:=/camera/image_raw',
        notes="parameters (--ros-args -p NAME:=VALUE):\n\n" + parameters_yaml(),
    )
    parser.add_argument(
        "--autostart", action="store_true", help="let the node configure and activate itself, or end with status 1"
    )
    parser.add_argument("--stay", action="store_true", help="with --autostart: wait for others where that fails")
    try:
        options = parser.parse_args(own_arguments(args))
    except ArgumentError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1

    def make_node() -> PerceptionNode:
        node = PerceptionNode()
        if options.autostart:
            autostart(node, options.stay)
        return node

    return run(make_node, parser.prog, args, signals)


if __name__ == "__main__":
    sys.exit(main())
