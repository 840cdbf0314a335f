#!/usr/bin/env bash
# Prints the newest clang++ that is here; installs one first when there is none and we are root.
# Fuzzing needs its libFuzzer.
set -euo pipefail

newest() { compgen -c clang++ | grep -E "^clang\+\+(-[0-9]+)?$" | sort -V | tail -1 | grep .; }

if ! newest >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq </dev/null >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq clang </dev/null >&2
fi
newest || {
  echo "fuzzing needs clang with libFuzzer: sudo apt-get install clang" >&2
  exit 1
}
