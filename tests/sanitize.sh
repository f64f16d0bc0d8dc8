#!/usr/bin/env bash
# The native operators under AddressSanitizer and UndefinedBehaviorSanitizer; for `make sanitize`, with its Python as $1.
# A report of either ends the process, and with it the run.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD python=$root/$1 build=$root/build/sanitized

# A whole package of its own, beside the environment's.
PATH=$(dirname "$python"):$PATH
cmake -S . -B "$build/cmake" -G Ninja -DFASTVAE_SANITIZE=ON -DPython_EXECUTABLE="$python" >/dev/null
cmake --build "$build/cmake"
rm -rf "$build/install"
cmake --install "$build/cmake" --prefix "$build/install" >/dev/null
cp -R fastvae/. "$build/install/fastvae"
cp -R kernels "$build/install/fastvae/kernels"

# Python itself is not instrumented, so the runtimes come first by LD_PRELOAD; libstdc++ among them, or a C++ exception
# finds no __cxa_throw. It does not free all it owns at its end: no leak check.
runtimes=
for library in libasan.so libubsan.so libstdc++.so.6; do runtimes+=" $(g++ -print-file-name=$library)"; done
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export FASTVAE_REQUIRE_BACKENDS=native OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=1
# -S leaves out the .pth files, and so the editable install, which would come before the package in this folder.
PYTHONPATH=$("$python" -c 'import sys; print(":".join(filter(None, sys.path)))')
export PYTHONPATH
cd "$build/install"
sanitized() { LD_PRELOAD=$runtimes "$python" -S "$@"; }

check() {
  export FASTVAE_CPU_CAPABILITY=$1
  local chosen
  chosen=$(sanitized -c 'from fastvae.ops import _library; print(_library.__file__, _library.capability())')
  case $chosen in
    "$build"*" $1") ;;
    "$build"*"lacks it"*) echo "skipped: ${chosen#* }" && return ;;
    *) echo "not the sanitized extension for $1: $chosen" && return 1 ;;
  esac
  # pytest must leave the file descriptors alone, or a report is lost with it. What compiles or exports runs the same
  # kernels on the same inputs, and takes minutes. Entry points are the same for all: the other two run what is left,
  # blocks and their ends.
  local only="native and not (compile or graph or export)"
  local ends="accura or large or strides or ends or empty or every or unaligned or many or any_ or binariz or extreme"
  [ "$1" = avx512 ] || only+=" and ($ends)"
  echo "sanitized, $1:"
  sanitized -m pytest -q -x --capture=sys -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$root" "$root/tests/ops" \
    -m "not slow" -k "$only" \
    --ignore "$root/tests/ops/test_compile.py" --ignore "$root/tests/ops/test_isa.py"
}

# Side by side, each told of when it has ended.
declare -A running
for isa in default avx2 avx512; do
  check "$isa" >"$build/$isa.log" 2>&1 &
  running[$isa]=$!
done
failed=0
for isa in default avx2 avx512; do
  wait "${running[$isa]}" || failed=1
  cat "$build/$isa.log"
done
exit $failed
