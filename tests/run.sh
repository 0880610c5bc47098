#!/usr/bin/env bash
# Set up and run every check: format, lint, types and tests. `--slow` adds the full sweeps.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -x .venv/bin/python ] || { echo "run.sh: making .venv"; python3 -m venv .venv; }
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi
if ! python -c 'import hypothesis, lm_eval, pytest, xdist, pathlib, zeroinit; assert pathlib.Path(zeroinit.__file__).parents[1] == pathlib.Path.cwd()' 2>/dev/null; then
    echo "run.sh: installing zeroinit and its test tools into $VIRTUAL_ENV (torch and torchvision: a few GB)"
    python -m pip install --quiet --editable '.[dev]'
fi

export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
echo "run.sh: ruff"
ruff format --check .
ruff check .
echo "run.sh: pyright and pytest, side by side"
said=$(mktemp)
pyright >"$said" 2>&1 &
pyright=$!
trap 'kill "$pyright" 2>/dev/null || true; rm -f "$said"' EXIT
python -m pytest -q --numprocesses auto --dist worksteal --durations 12 "$@" && tests=0 || tests=$?
wait "$pyright" && types=0 || types=$?
cat "$said"
exit $((tests > types ? tests : types))
