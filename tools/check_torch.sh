#!/usr/bin/env bash
# Compiles the adapter against another PyTorch: `check_torch.sh 2.11`. Downloads its wheel without
# dependencies (a large file where no CPU wheel is configured), and installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
folder=build/torch-$version
mkdir -p "$folder"

if [ ! -f "$folder/torch/version.py" ]; then
  if ! ls "$folder"/torch-"$version"*.whl >/dev/null 2>&1; then
    echo "downloading torch $version"
    .venv/bin/python -m pip download -qq --no-deps --only-binary :all: \
      --dest "$folder" "torch==$version.*" </dev/null
  fi
  # version.py comes last: it is the sign that the rest is whole.
  .venv/bin/python - "$folder" <<'PYTHON'
import pathlib
import sys
import zipfile

folder = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("torch-*.whl"))) as wheel:
    wanted = ("torch/include/", "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so")
    for name in wheel.namelist():
        if name.startswith(wanted):
            wheel.extract(name, folder)
    wheel.extract("torch/version.py", folder)
PYTHON
fi

.venv/bin/cmake -S . -B "$folder/build" -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/.venv/bin/ninja" \
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE="-O0 -DNDEBUG" \
  -DDYNAFLOW_BUILD_TORCH=ON -DDYNAFLOW_BUILD_TESTS=OFF -DDYNAFLOW_BUILD_CLI=OFF \
  -DPython_EXECUTABLE="$PWD/.venv/bin/python" -DDYNAFLOW_TORCH_ROOT="$PWD/$folder/torch"
.venv/bin/cmake --build "$folder/build" --target dynaflow_torch --parallel "${JOBS:-2}"
echo "libdynaflow_torch.so compiles and links against torch $version"
