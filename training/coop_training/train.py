"""coop-train: the segmenter's own training and the three stages of Algorithm 1.

While it trains, the networks are scored on frames that are not trained on; each stage's result is the best of them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coop_perception.arguments import command_parser, positive
from coop_perception.exit_codes import CANNOT, DONE, INTERRUPTED
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError
from coop_perception.replacing import alone
from coop_training.config import ConfigError, StagesConfig, TrainConfig, load_config

PRECISIONS = ("bf16-mixed", "32-true")


def main() -> int:
    parser = command_parser(
        "coop-train", __doc__, "coop-train --config training/configs/street.yaml --set data.root=/data/camvid"
    )
    trained = parser.add_argument_group("what is trained")
    trained.add_argument("--config", metavar="FILE", type=Path, required=True, help="YAML configuration")
    trained.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        dest="overrides",
        help="set a field over the file's, as stages.joint.steps=100; may be given again",
    )
    trained.add_argument(
        "--stage",
        default="all",
        choices=["all", *StagesConfig.model_fields],
        help="this one alone, from what the one before left in --out (default: all that the configuration has)",
    )
    written = parser.add_argument_group("what is written")
    written.add_argument(
        "--out", metavar="DIR", type=Path, help="folder of checkpoints and logs (default: out/train/<name>)"
    )
    earlier = written.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    earlier.add_argument(
        "--force", action="store_true", help="begin anew; what --out holds of the stages is moved to earlier-N in it"
    )
    machine = parser.add_argument_group("on what")
    machine.add_argument(
        "--accelerator", default="auto", choices=["auto", "cpu", "gpu"], help="auto: a GPU where there is one (default)"
    )
    machine.add_argument(
        "--devices",
        metavar="N",
        type=positive,
        default=1,
        help="GPUs, or processes on a CPU, that share each batch (default: 1)",
    )
    machine.add_argument(
        "--precision",
        default=PRECISIONS[0],
        choices=PRECISIONS,
        help="32-true where a GPU lacks bfloat16 or mixed precision does not hold (default: %(default)s)",
    )
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, arguments.overrides)
        if arguments.stage not in ("all", *config.stages.present):
            raise ConfigError(f"{arguments.config}: has no stage {arguments.stage}, only {config.stages.present}")
    except (ConfigError, DatasetError) as error:
        complain(str(error))
        return CANNOT
    # Here, for these take seconds, which nobody shall wait for --help or a typing error.
    from coop_training.adapters import AdapterError
    from coop_training.checkpoint import CheckpointError
    from coop_training.record import ended
    from coop_training.run import TrainingError, TrainingInterrupted
    from coop_training.training import launch, train

    wanted = config.stages.present if arguments.stage == "all" else (arguments.stage,)
    out = arguments.out or Path("out/train") / config.name
    try:
        with only_one(out):
            fabric = launch(arguments.accelerator, arguments.devices, arguments.precision)
            train(fabric, arguments.precision, config, out, wanted, arguments.resume, arguments.force)
    except (DatasetError, TrainingError) as error:
        complain(str(error))
        # All processes end with these. One that fails makes Fabric kill the first, which still saves.
        return CANNOT if is_first_process() else DONE
    except (BundleError, CheckpointError, AdapterError, OSError) as error:
        complain(str(error))
        return CANNOT
    except (TrainingInterrupted, KeyboardInterrupt) as stop:
        again = [*(given for given in sys.argv[1:] if given not in ("--resume", "--force")), "--resume"]
        anew = ", or as before if no stage had begun" if arguments.force and not str(stop) else ""
        complain(f"{str(stop) or 'stopped'}; go on with: coop-train {shlex.join(again)}{anew}")
        return INTERRUPTED if is_first_process() else DONE
    if is_first_process():
        print(f"{ended(config, out, wanted[-1])}\nnext: {shlex.join(following(config, out, arguments, parser))}")
    return DONE


def following(
    config: TrainConfig, out: Path, arguments: argparse.Namespace, parser: argparse.ArgumentParser
) -> list[str]:
    """The command that goes on from here: the next stage, on the same machine, or the export."""
    stages = config.stages.present
    done = stages[-1] if arguments.stage == "all" else arguments.stage
    if done == stages[-1]:
        return ["coop-export", "--checkpoint", f"{out / done}.safetensors", "--out", f"models/{config.name}"]
    overrides = [word for override in arguments.overrides for word in ("--set", override)]
    command = ["coop-train", "--config", str(arguments.config), *overrides, "--out", str(out)]
    for name in ("accelerator", "devices", "precision"):
        if (value := getattr(arguments, name)) != parser.get_default(name):
            command += [f"--{name}", str(value)]
    return [*command, "--stage", stages[stages.index(done) + 1]]


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Two runs that write the same files would leave neither's. Raises OSError where another run has the folder."""
    if not is_first_process():  # the first has it for all
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with alone(out.resolve(), str(out)):
        yield


def is_first_process() -> bool:
    """Of those that Fabric starts for several devices; known before and after Fabric is there."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def complain(message: str) -> None:
    if is_first_process():
        print(f"coop-train: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
