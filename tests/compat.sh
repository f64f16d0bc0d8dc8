#!/usr/bin/env bash
# The lowest versions that pyproject.toml allows and the newest there are; for `make compat`, with a Python as $1.
# Each builds a wheel and tests it installed, then takes the wheel that the other has built.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD python=$1 work=$root/build/compat
export FASTVAE_REQUIRE_BACKENDS=native,triton OMP_WAIT_POLICY=passive
minutes() { echo "$name: $1 after $((SECONDS / 60)) min $((SECONDS % 60)) s"; }

installed() { "$env/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

# Away from the checkout, whose fastvae would come before the wheel's.
tested() {
  (cd "$work/$name" && "$env/bin/python" - "$root" "$env" "$@") <<'END'
import importlib.metadata, os, pathlib, platform, sys

import torch

import fastvae
from fastvae import backends

root, env, wheel, lowest = sys.argv[1:]
versions = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "triton", "numpy")}
print("Python", platform.python_version(), *(f"{name} {version}" for name, version in versions.items()))
print(os.path.basename(wheel), "in", os.path.relpath(fastvae.__file__, root), "runs", backends.capability())
assert pathlib.Path(fastvae.__file__).is_relative_to(env), fastvae.__file__
assert torch.__version__.split("+")[0] == versions["torch"].split("+")[0], torch.__file__
for line in pathlib.Path(lowest).read_text().splitlines() if lowest else ():
    name, _, version = line.partition("==")
    if version:
        assert importlib.metadata.version(name).split("+")[0] == version, (line, importlib.metadata.version(name))
END
}

quick() {
  (cd "$work/$name" && "$env/bin/pytest" -q -n 1 --max-worker-restart 0 -p no:cacheprovider \
    -c "$root/pyproject.toml" --rootdir "$root" -m "not slow" "$@")
}

use() {
  name=$1 env=$root/.venv-$1 lowest=
  constraints=(--upgrade --upgrade-strategy eager)
  if [ "$name" = oldest ]; then
    lowest=$root/constraints-oldest.txt
    constraints=(-c "$lowest" --only-binary :all:)
  fi
}

whole() {
  use "$1"
  mkdir -p "$work/$name"
  rm -rf "$work/$name"/*.whl "$work/$name/run"
  [ -x "$env/bin/python" ] || "$python" -m venv "$env"
  installed --upgrade "pip>=25.1"
  # No package of the lowest versions is compiled here: what has no wheel for this Python is said, in a line.
  installed "${constraints[@]}" torch torchvision --group build --group dev || {
    echo "make compat: the $name versions do not install on $("$python" --version): make compat PYTHON=/path/to/python3.11"
    return 1
  }
  "$env/bin/python" -m pip wheel -qq --no-build-isolation --no-deps \
    -C build-dir="$work/$name/cmake" -w "$work/$name" .
  local wheel
  wheel=$(echo "$work/$name"/fastvae-*-cp310-abi3-*.whl)
  [ -f "$wheel" ] || { echo "make compat: no cp310-abi3 wheel, but $(ls "$work/$name")"; return 1; }
  installed "${constraints[@]}" "$wheel"
  installed --force-reinstall --no-deps "$wheel"
  tested "$wheel" "$lowest"
  minutes "installed and built"
  quick "$root"/tests/{ops,nn,models,kernels,data}
  minutes "tested"
  (cd "$work/$name" && "$env/bin/fastvae" train --nproc 2 --epochs 2 --out "$work/$name/run")
  minutes "trained with two processes"
}

# The extension is what two versions of torch could take differently: native operators alone.
other() {
  use "$1"
  local wheel
  wheel=$(echo "$work/$2"/fastvae-*-cp310-abi3-*.whl)
  installed --force-reinstall --no-deps "$wheel"
  echo "$name, with the wheel built by the $2:"
  tested "$wheel" "$lowest"
  quick "$root/tests/ops" -k native
  minutes "took the other's wheel"
}

# Side by side, each told of when it has ended: one waits for the network or the compiler while the other computes.
both() {
  local failed=0 first second
  "$1" oldest newest >"$work/oldest.log" 2>&1 & first=$!
  "$1" newest oldest >"$work/newest.log" 2>&1 & second=$!
  wait "$first" || failed=1
  cat "$work/oldest.log"
  wait "$second" || failed=1
  cat "$work/newest.log"
  return $failed
}

mkdir -p "$work"
both whole
both other
