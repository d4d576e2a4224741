#!/usr/bin/env bash
# Pins every requirements file anew, with the checksums of all files of each release, as the package index has them:
# tools/lock.sh [options of "uv pip compile", such as --upgrade, or --upgrade-package NAME]. Needs uv (pip install uv).
set -euo pipefail
cd "$(dirname "$0")/.."

# torch stands in training/torch.lock, without checksums: its builds for CUDA and for the CPU have one version.
lock() {  # lock OUTPUT INPUT CONSTRAINING_LOCK...: the locks are installed together, so each keeps to the ones before
    local output=$1 input=$2
    shift 2
    uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-annotate --quiet \
        --no-emit-package coop-perception --no-emit-package torch "${@/#/--constraint=}" "${options[@]}" "$input" \
        --output-file "$output"
    # A requirement with its checksums is one line for sed. Linux only; and CUDA's libraries are for the PyTorch wheel that
    # pip finds to bring or not to bring.
    sed -E ':a; /\\$/{N; s/\\\n +//; ta}' "$output" \
        | sed -E "/sys_platform == 'win32'/d; /^(nvidia|cuda)-/{/^(${kept:-none})==/!d}; /^triton==/d
                  s/ (and|;) sys_platform (==|!=) '(linux|win32)'//; s/ *--hash=/ \\\\\n    --hash=/g" > "$output.new"
    mv "$output.new" "$output"
}

options=("$@")
for bindings in requirements/tensorrt_bindings/*.lock; do
    lock "$bindings" "$bindings"  # each is of one version, for good
done
lock requirements/ros.lock requirements/ros.in
lock requirements/vehicle.lock requirements/vehicle.in requirements/ros.lock
lock training/requirements.lock training/pyproject.toml requirements/{ros,vehicle}.lock training/torch.lock
kept='cuda-bindings|cuda-pathfinder' lock requirements/dev.lock requirements/dev.in requirements/{ros,vehicle}.lock training/{requirements,torch}.lock
