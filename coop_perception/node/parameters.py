"""The perception node's parameters: each one's name, default, range, unit and meaning stand here and nowhere else."""

from __future__ import annotations

from coop_perception.contracts import LARGEST_SIDE
from coop_perception.encoded_images import CAMERAS, FORMATS
from coop_perception.engines.backends import AUTO, BACKENDS, PRECISIONS
from coop_perception.model.clear_weather import BEGIN, END
from coop_perception.model.over_time import DEFAULT
from coop_perception.ros.definition import Definition, constraints, default_text

PARAMETERS: tuple[Definition, ...] = (
    Definition("cameras", ("front",), "Cameras to serve; camera `front` is read from `front/image_raw`."),
    Definition("bundle", "", "Directory of the model bundle; empty: the one that is installed with the package."),
    Definition(
        "bundle_roots",
        ("",),
        "Folders that bundles are loaded from, with what is below them; empty: the folder of the installed bundles. "
        "What the node was started with as `bundle` is always one.",
        read_only=True,
    ),
    Definition(
        "load_timeout",
        120.0,
        "How long `~/load_bundle` may take before it is answered with a refusal.",
        unit="s",
        low=1.0,
        high=3600.0,
        dynamic=True,
    ),
    Definition(
        "configure_timeout",
        1800.0,
        "How long configuring may take, engines that have to be built included, before it fails.",
        unit="s",
        low=1.0,
        high=86400.0,
        dynamic=True,
    ),
    Definition(
        "image_transport",
        "raw",
        "Which image topic to read: `raw` is `<camera>/image_raw`, `compressed` is `<camera>/image_raw/compressed`.",
        choices=("raw", "compressed"),
    ),
    Definition(
        "image_formats",
        CAMERAS.formats,
        "What compressed images may be, by their bytes; others are dropped as `malformed`.",
        choices=FORMATS,
        dynamic=True,
    ),
    Definition(
        "max_image_pixels",
        CAMERAS.max_pixels,
        "Images that claim more are dropped as `malformed`, before memory is taken for them.",
        unit="pixels",
        low=1,
        high=10**9,  # OpenCV decodes little more
        dynamic=True,
    ),
    Definition(
        "backend",
        AUTO,
        "What runs the networks; `auto`: TensorRT where it works, else ONNX Runtime on a GPU, else the faster of "
        "OpenVINO and ONNX Runtime on the CPU.",
        choices=(AUTO, *BACKENDS),
    ),
    Definition(
        "precision",
        AUTO,
        "Of the networks' arithmetic; `auto`: OpenVINO's int8 where it is built, costs little and is faster, else the "
        "backend's first: "
        + "; ".join(f"{backend} {', '.join(precisions)}" for backend, precisions in BACKENDS.items())
        + ".",
        choices=(AUTO, *PRECISIONS),
    ),
    Definition(
        "engine_cache",
        "",
        "Directory of what is built or measured once per machine; empty: `$COOP_PERCEPTION_CACHE`, else "
        "`~/.cache/coop_perception`.",
        read_only=True,
    ),
    Definition("threads", 0, "CPU threads of the networks; 0: one per core.", low=0, high=256),
    Definition(
        "network_height",
        0,
        "Height of the image that masks and conditions are computed from, rounded to a multiple of 32 that the bundle "
        "takes; its width follows from the frame's. 0: the bundle's own.",
        unit="pixels",
        low=0,
        high=LARGEST_SIDE,
        dynamic=True,
    ),
    Definition("refinement", True, "Whether the refinement stage is on.", dynamic=True),
    Definition(
        "restoration",
        True,
        "Whether the restoration stage is on; it needs refinement, which estimates what there is to restore.",
        dynamic=True,
    ),
    Definition(
        "skip_when_clear",
        DEFAULT.skip_when_clear,
        "Whether frames that show no condition go out as they came, without the restoration network: it begins where "
        f"any presence over time is at least {BEGIN:g}, and ends where all are below {END:g}.",
        dynamic=True,
    ),
    Definition(
        "condition_time_constant",
        DEFAULT.time_constant_s,
        "Over how long the conditions are averaged that restoration is conditioned on: after so long 63 % of a change "
        "has been followed, at any frame rate. 0: each frame's own.",
        unit="s",
        low=0.0,
        high=60.0,
        dynamic=True,
    ),
    Definition(
        "batch_window_ms",
        0.0,
        "How long a frame waits for the other cameras' to be processed in one batch with it; 0: not at all, whatever "
        "waits is one batch.",
        unit="ms",
        low=0.0,
        high=1000.0,
        dynamic=True,
    ),
    Definition(
        "max_age",
        0.0,
        "Frames whose stamp is older than this by the node's clock when their turn comes are dropped; 0: none is.",
        unit="s",
        low=0.0,
        high=3600.0,
        dynamic=True,
    ),
    Definition(
        "exit_on_gpu_loss",
        True,
        "Whether the process ends with status 1 when it has lost the GPU, after an illegal access say: only a new one, "
        "which `respawn` starts, can use it again. Otherwise frames are dropped as `failed`.",
        dynamic=True,
    ),
    Definition("overlay_opacity", 0.5, "Share of the class colours in the overlay.", low=0.0, high=1.0, dynamic=True),
    Definition("jpeg_quality", 90, "Quality of `image_restored/compressed`.", low=1, high=100, dynamic=True),
    Definition("status_period", 1.0, "Time between two messages on `~/status`.", unit="s", low=0.05, high=60.0),
)


def parameters_yaml() -> str:
    """A parameters file with every default and, above it, what it means: `config/pipeline.yaml` is this text."""
    lines = [
        "# The perception node's parameters: defaults and meaning. Made from coop_perception/node/parameters.py.",
        "/**:",
    ]
    lines.append("  ros__parameters:")
    for p in PARAMETERS:
        lines += [f"    # {p.description}", f"    # ({constraints(p)})", f"    {p.name}: {default_text(p)}"]
    return "\n".join(lines) + "\n"


def parameters_table() -> str:
    """The same as a Markdown table, as docs/reference/parameters.md has it."""
    lines = ["| parameter | default | unit | range | dynamic | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for p in PARAMETERS:
        limits = ", ".join(p.choices) if p.low is None else f"{p.low:g} to {p.high:g}"
        dynamic = "yes" if p.dynamic else ""
        lines.append(f"| `{p.name}` | `{default_text(p)}` | {p.unit} | {limits} | {dynamic} | {p.description} |")
    return "\n".join(lines) + "\n"
