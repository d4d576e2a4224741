#!/usr/bin/env bash
# Pins every requirements file anew: tools/lock.sh [options of "uv pip compile", such as --upgrade].
set -euo pipefail
cd "$(dirname "$0")/.."

lock() {  # lock OUTPUT INPUT CONSTRAINING_LOCK...: the locks are installed together, so each keeps to the ones before
    local output=$1 input=$2
    shift 2
    uv pip compile --universal --python-version 3.10 --no-header --no-annotate --quiet \
        --no-emit-package coop-perception "${@/#/--constraint=}" "${options[@]}" "$input" --output-file "$output"
    # Linux only; and CUDA's libraries are for the PyTorch wheel that pip finds to bring or not to bring.
    sed -i -E "/sys_platform == 'win32'/d; /^(nvidia|cuda)-/{/^(${kept:-none})==/!d}; /^triton==/d; s/ (and|;) sys_platform (==|!=) '(linux|win32)'//" "$output"
}

options=("$@")
lock requirements/ros.lock requirements/ros.in
lock requirements/vehicle.lock requirements/vehicle.in requirements/ros.lock
lock training/requirements.lock training/pyproject.toml requirements/{ros,vehicle}.lock
kept='cuda-bindings|cuda-pathfinder' lock requirements/dev.lock requirements/dev.in requirements/{ros,vehicle}.lock training/requirements.lock
