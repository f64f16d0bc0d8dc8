#!/usr/bin/env bash
# Install fastvae into a folder, for an interpreter whose own packages are used as they are and stay as they are:
#
#     benchmarks/gpu/install.sh PYTHON FOLDER       then PYTHONPATH=FOLDER PYTHON ...
#
# No registry is asked. What the interpreter lacks can lie as wheels in .gpu/, which git ignores.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1 folder=$2
rm -rf "$folder"
pip=("$python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps --no-compile --target "$folder")
shopt -s nullglob
wheels=(.gpu/*.whl)
if ((${#wheels[@]})); then
  "${pip[@]}" "${wheels[@]}"
fi
fastvae=("${pip[@]}" --no-build-isolation --upgrade .)
# A build folder of its own: that of .venv knows another interpreter.
"${fastvae[@]}" --config-settings=build-dir=build/gpu-native && exit
echo "The C++ extension does not build here, which a GPU does not need: installing without it."
CXX=/nonexistent/c++ "${fastvae[@]}" --config-settings=build-dir=build/gpu-without-native
