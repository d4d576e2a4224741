"""Draws gains over parameters from a results.json of each of the suites published and realistic of one bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from coop_training.results import read_results

PANELS = {
    "blur": ("gaussian_blur", "motion_blur", "defocus", "anisotropic_blur"),
    "noise": ("gaussian_noise", "noise_poisson", "noise_bayer", "noise_grey"),
    "chromatic aberration": ("chromatic_aberration", "aberration_radial", "aberration_shift"),
    "fog": ("fog", "haze", "glare"),
}
"""Conditions and families side by side; a panel's first is the published one."""
CAP = 15.0
"""dB, above which a gain is drawn at the edge."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("--realistic", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/gains.png"))
    arguments = parser.parse_args()
    found = [read_results(path) for path in (arguments.published, arguments.realistic)]
    conditions = found[0].conditions | found[1].conditions
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.4), sharey=True, constrained_layout=True)
    for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
        for number, name in enumerate(names):
            levels = conditions[name].levels
            inputs = [level.degraded.psnr for level in levels]
            gains = [min(level.restored.psnr - level.degraded.psnr, CAP) for level in levels]
            axis.plot(inputs, gains, marker="o" if number else "s", ls="" if number else "--", label=name)
        axis.axhline(0, color="0.6", lw=0.8)
        axis.set(title=title, xlabel="PSNR of the input, dB")
        axis.invert_xaxis()  # the harder the further to the right
        axis.legend(fontsize=7)
    axes[0].set_ylabel(f"gain, dB (at most {CAP:g} drawn)")
    figure.savefig(arguments.out, dpi=110)
    print(arguments.out)


if __name__ == "__main__":
    main()
