#!/usr/bin/env bash
# How much of the text readers the fuzzer's corpus reaches: `make fuzz-coverage`, after `make fuzz`.
# Fails when it is less than $1 % of their lines.
set -euo pipefail
cd "$(dirname "$0")/.."

cxx=$(bash tools/clang.sh)
tools=$(dirname "$("$cxx" -print-prog-name=llvm-cov)")
build=build/fuzz-coverage
cmake --preset asan -B "$build" -DCMAKE_CXX_COMPILER="$cxx" \
  -DDYNAFLOW_SANITIZE=none -DDYNAFLOW_BUILD_TESTS=OFF \
  -DCMAKE_CXX_FLAGS="-fprofile-instr-generate -fcoverage-mapping" >/dev/null
cmake --build "$build" --target dynaflow_fuzz --parallel "${JOBS:-1}"
LLVM_PROFILE_FILE="$build/fuzz.profraw" "$build/tests/fuzz/dynaflow_fuzz" -runs=0 -verbosity=0 \
  build/fuzz/corpus build/fuzz/seeds tests/cases
"$tools/llvm-profdata" merge -sparse "$build/fuzz.profraw" -o "$build/fuzz.profdata"
report=$("$tools/llvm-cov" report "$build/tests/fuzz/dynaflow_fuzz" -instr-profile="$build/fuzz.profdata" \
  -show-region-summary=false -show-branch-summary=false \
  src/base/text_*.cc src/graph/graph_text.cc src/graph/size_text.cc src/graph/size_expr.cc src/graph/graph.cc \
  src/partition/partition.cc src/schedule/schedule_text.cc src/schedule/schedule.cc \
  src/plan/plan_text.cc src/plan/check.cc)
echo "$report"
echo "$report" | awk -v least="$1" '
  /^TOTAL/ { reached = $NF + 0 }
  END { if (reached < least) { print "less than " least " % of the lines"; exit 1 } }' 
