"""coop-adapt: a bundle fitted to one's own camera, from clear frames of recordings, which need no labels.

What is fitted is the estimate's notion of clear and of familiar and, with --restoration, the restoration of this
camera's frames. The last quarter of each recording is held out; the new bundle is compared with the old one on it and
on sample drives, and is not written where anything became worse there by more than is stated.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor, nn

from coop_perception.arguments import command_parser, positive
from coop_perception.contracts import Bundle
from coop_perception.documents import DocumentError, read_yaml
from coop_perception.engines import Engine, EngineError
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.exit_codes import CANNOT, DONE, INCOMPLETE, interrupted
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import MANIFEST, BundleError, load_bundle, sha256
from coop_perception.recordings.recording import RecordingError
from coop_perception.shown import LONGEST_MESSAGE, plain
from coop_training.adaptation import adapt
from coop_training.adaptation_check import MARGIN_DB, MARGIN_POINTS, Measured, measure, table, worse
from coop_training.bundle_weights import load_bundle_weights, put_weights
from coop_training.bundle_writing import check_replaceable, new_bundle, write_manifest
from coop_training.camera_frames import CameraError, CameraFrames, read_camera
from coop_training.checkpoint import CheckpointError
from coop_training.config import TrainConfig
from coop_training.export_check import ExportError
from coop_training.model import Cooperative
from coop_training.observed import NoEstimateError
from coop_training.onnx_graphs import save_graph
from coop_training.problems import problems

FRAMES = 96
FAILURES = (
    BundleError,
    CameraError,
    CheckpointError,
    DatasetError,
    DocumentError,
    EngineError,
    ExportError,
    NoEstimateError,
    OSError,
    RecordingError,
)
"""What ends the command with one line."""


def main() -> int:
    parser = command_parser(
        "coop-adapt", __doc__, "coop-adapt --bundle models/street --bag drives/monday drives/tuesday --out models/mine"
    )
    camera = parser.add_argument_group("the camera")
    bundles = parser.add_argument_group("the bundle")
    bundles.add_argument(
        "--bundle", metavar="DIR", type=Path, required=True, help="the bundle to begin with; it stays as it is"
    )
    camera.add_argument(
        "--bag",
        metavar="BAG",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="recordings of the camera in clear weather",
    )
    camera.add_argument(
        "--topic", metavar="NAME", help="of the camera's images (default: the only one that a recording has)"
    )
    camera.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="folders of clear images of the camera, named in the order in which they were taken",
    )
    bundles.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="the new bundle's directory; never an existing one"
    )
    bundles.add_argument(
        "--restoration",
        type=positive,
        metavar="STEPS",
        help="also train restoration, for so many steps, on the camera's frames put under adverse conditions",
    )
    camera.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="exit status 0 also where less than 90 %% of a recording's chosen frames can be read",
    )
    camera.add_argument(
        "--frames",
        metavar="N",
        type=positive,
        default=FRAMES,
        help="of the camera, evenly spread (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not arguments.bag and not arguments.images:
        parser.error("nothing to adapt to: give recordings of the camera (--bag), or folders of its images (--images)")
    console = Console(stderr=True, markup=False)
    try:
        check_replaceable(arguments.out, force=False)
        frames = read_camera(arguments.bag, arguments.images, arguments.topic, arguments.frames, console.print)
        print(adapt_bundle(arguments.bundle, frames, arguments.out.resolve(), arguments.restoration or 0, console))
    except FAILURES as error:
        print(f"coop-adapt: {plain(error, LONGEST_MESSAGE)}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        return interrupted("coop-adapt", "no bundle was written")
    if frames.incomplete and not arguments.allow_incomplete:
        print(f"coop-adapt: incomplete: {frames.incomplete[0]}; --allow-incomplete takes that", file=sys.stderr)
        return INCOMPLETE
    return DONE


def adapt_bundle(source: Path, camera: CameraFrames, out: Path, restoration_steps: int, console: Console) -> str:
    """Write the bundle `out`: `source` fitted to a camera. Returns the table of what changed.

    Raises:
        ExportError: `out` exists, `source` holds nothing to train on, or the fitted bundle is worse by more than the
            margins; then the message has the figures.
        BundleError, CheckpointError, NoEstimateError: `source` cannot be used, or not be trained on.
        EngineError: a network failed.
        OSError: the bundle cannot be written.
    """
    bundle = load_bundle(source)
    config = _config(bundle)
    model = Cooperative(config)
    segmenter: Any = BundleSegmenter(OnnxRuntimeEngine(bundle.networks["segmenter"].path))
    model.segmenter = segmenter
    load_bundle_weights(source, model, config)
    fitted = {"refinement": "refinement.estimator", **({"restoration": "restoration"} if restoration_steps else {})}
    for name, part in fitted.items():  # now, for to fit them takes minutes
        _with_weights(bundle.networks[name].path, part, model)
    before = measure(bundle, camera.held, config, console)
    adapt(model.eval(), config, camera.fitted, restoration_steps, console)
    with new_bundle(out, False, console) as made:
        _write(source, bundle, model, made, fitted)
        after = measure(load_bundle(made), camera.held, config, console)
        shown = table(before, after)
        if found := worse(before, after):
            raise ExportError(
                f"{out}: not written, for it would be worse than {source}: {'; '.join(found)}; give clear frames "
                "only, and more of them, of other places and hours"
            )
        manifest = read_yaml(made / MANIFEST)
        manifest |= {"name": out.name, "figures": _figures(before, after)}
        manifest["training"]["adapted"] = {
            "from": bundle.name,
            "networks": list(fitted.values()),
            "frames": len(camera.fitted),
            "held_out": len(camera.held),
            "restoration_steps": restoration_steps,
        }
        write_manifest(made, manifest)
    return (
        f"{shown}\n\nNothing is worse on sample drives by more than {MARGIN_DB} dB or {MARGIN_POINTS} points of mIoU."
    )


class BundleSegmenter(nn.Module):
    """The segmenter of a bundle, whosever it is; it has no weights here.

    Input: image [N,3,H,W] in 0..1. Output: scores whose softmax its probabilities are.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, image: Tensor) -> Tensor:
        pixels = (255 * image).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        found = self.engine.run({"image": pixels.numpy()}, ["probabilities"])
        return torch.from_numpy(found["probabilities"]).clamp(min=1e-12).log()


def _config(bundle: Bundle) -> TrainConfig:
    """What the bundle was trained with, its segmenter aside."""
    try:
        raw: Any = dict(bundle.facts["training"]["config"])
        return TrainConfig.model_validate(raw | {"segmenter": None})
    except (KeyError, TypeError) as error:
        raise ExportError(
            f"{bundle.directory / MANIFEST}: says nothing of the training, so its networks cannot be trained on; take "
            "a bundle that coop-export wrote"
        ) from error
    except ValidationError as error:
        raise ExportError(
            f"{bundle.directory / MANIFEST}: its configuration is of another version: {problems(error)}"
        ) from error


def _with_weights(path: Path, part: str, model: Cooperative) -> onnx.ModelProto:
    """A graph with the model's weights of a part of it."""
    return put_weights(path, f"model.{part}.", model.get_submodule(part))


def _write(source: Path, bundle: Bundle, model: Cooperative, made: Path, fitted: Mapping[str, str]) -> None:
    """The old bundle's files, with the model's weights in the graphs of what was fitted, by network."""
    manifest = read_yaml(source / MANIFEST)
    for file in bundle.files:
        shutil.copyfile(file, made / file.name)
    for name, part in fitted.items():
        path = made / bundle.networks[name].path.name
        save_graph(_with_weights(path, part, model), path)
        manifest["networks"][name]["sha256"] = sha256(path)
    write_manifest(made, manifest)


def _figures(before: Measured, after: Measured) -> dict[str, Any]:
    return {"camera": {"before": before.camera_figures(), "after": after.camera_figures()}}


if __name__ == "__main__":
    sys.exit(main())
