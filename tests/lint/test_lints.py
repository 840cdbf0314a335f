"""The lints pass on this tree, and fail on planted faults: a lint that cannot fail is worthless."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

PUBLIC = "#pragma once\n"
LONG = "  x += 1;\n" * 49

HOST = "python/dynaflow/integrations/vllm.py"
# lint, file, content, what the complaint must say ("" = none)
PLANTED = [
    ("integrations", HOST, "import vllm.x\nvllm.x.y = 1\n", "vllm.py:2: assigns to what is vllm's"),
    ("integrations", HOST, "from vllm import A\nA.f.g = 1\n", "vllm.py:2: assigns to what"),
    ("integrations", HOST, "from vllm import A as B\nsetattr(B, 'f', 1)\n", "vllm.py:2: assigns"),
    ("integrations", HOST, "from vllm import A\nA.f += 1\n", "vllm.py:2: assigns to what is"),
    ("integrations", HOST, "from vllm import A\na = A()\na.f = 1\n", ""),
    ("integrations", HOST, "x = 1  # vllm\n" * 201, "has 201 lines, at most 200"),
    ("layers", "src/plan/a.cc", '#include "dynaflow/strategy.h"', "a.cc:1: layer plan may not"),
    ("layers", "src/plan/a.cc", '#include "dynaflow/graph.h"', ""),
    ("layers", "src/plan/a.cc", '#include "strategy/x.h"', "may not include layer strategy"),
    ("layers", "src/graph/a.cc", '\n#include "plan/x.h"', "a.cc:2: layer graph may not"),
    ("layers", "src/kernels/a.cc", '#include "dynaflow/plan.h"\n#include "dynaflow/device.h"', ""),
    ("layers", "src/device/a.cc", '#include "dynaflow/graph.h"', "may not include layer graph"),
    ("layers", "src/tuner/a.cc", '#include "dynaflow/executor.h"', "layer executor"),
    ("layers", "src/executor/a.cc", '#include "device/cpu/x.h"', "concrete implementation"),
    ("layers", "src/device/fake/a.cc", '#include "device/cpu/x.h"', "concrete implementation"),
    ("layers", "src/device/cpu/a.cc", '#include "device/cpu/x.h"', ""),
    ("layers", "src/device/make.cc", '#include "device/cpu/x.h"', ""),
    ("layers", "src/graph/a.cc", "#include <ATen/ATen.h>", "only src/torch"),
    ("layers", "src/graph/a.cc", "#include <torch/library.h>", "only src/torch"),
    ("layers", "src/graph/a.cc", '#include "torch/x.h"', "may not include layer torch"),
    ("layers", "src/bindings/a.cc", "#include <c10/core/Device.h>", "only src/torch"),
    ("layers", "src/torch/a.cc", '#include <torch/library.h>\n#include "torch/mine.h"', ""),
    ("layers", "src/torch/a.cc", '#include "dynaflow/schedule.h"', "layer schedule"),
    ("layers", "src/torch/a.cc", '#include "plan/x.h"', "only public headers"),
    ("layers", "src/bindings/a.cc", '#include "plan/x.h"', "only public headers"),
    ("layers", "src/bindings/a.cc", '#include <nanobind/nanobind.h>\n#include "bindings/b.h"', ""),
    ("layers", "src/plan/a.cc", "#include <nanobind/nanobind.h>", "only src/bindings"),
    ("layers", "include/dynaflow/plan.h", '#include "plan/x.h"', "public header includes"),
    ("layers", "include/dynaflow/graph.h", '#include "dynaflow/plan.h"', "layer graph may not"),
    ("layers", "include/dynaflow/odd.h", PUBLIC, "belongs to no layer"),
    ("layers", "include/dynaflow/odd.h", "// layer: plan\n" + PUBLIC, ""),
    ("layers", "src/odd/a.cc", "", "belongs to no layer"),
    ("layers", "src/plan/a.cc", '#include "../graph/x.h"', "relative include"),
    ("layers", "cli/a.cc", '#include "plan/x.h"', "only public headers"),
    ("words", "src/plan/a.cc", "int a;  // TODO: b", "a.cc:1: TODO"),
    ("words", "python/dynaflow/a.py", "x = 1  # FIXME", "FIXME left"),
    ("words", "include/dynaflow/a.h", PUBLIC + "// XXX", "a.h:2: XXX"),
    ("words", "tests/cpp/a.cc", "// TODO is fine in a test", ""),
    ("words", "docs/a.md", "see /home/me/notes", "a path of one machine"),
    ("words", "Makefile", "X = /root/x", "a path of one machine"),
    ("words", "docs/a.md", "see shared/home/x and ~/src/x", ""),
    ("words", "src/plan/a.h", PUBLIC + "using namespace std;", "a.h:2: `using namespace`"),
    ("words", "src/plan/a.cc", "using namespace std::literals;", ""),
    ("words", "src/plan/a.h", "int x;", "no `#pragma once`"),
    ("sizes", "src/plan/a.cc", "int a;\n" * 401, "401 lines"),
    ("sizes", "src/plan/a.cc", "int a;\n" * 400, ""),
    ("sizes", "python/a.py", "def f():\n" + "    x = 1\n" * 50, "a.py:1: function f has 51"),
    ("sizes", "python/a.py", "def f():\n" + "    x = 1\n" * 49, ""),
    ("sizes", "src/plan/a.cc", "void f() {\n" + LONG + "}", "a.cc:1: function f has 51"),
    ("sizes", "src/plan/a.cc", "void f() {\n" + LONG[10:] + "}", ""),
    ("sizes", "src/plan/a.cc", "A::A(int b)\n    : a_{b}, c_(1) {\n" + LONG + "}", "A::A has 52"),
    ("sizes", "src/plan/a.cc", "int x;\nbool operator==(A b) {\n" + LONG + "}", "a.cc:2: function"),
    (
        "sizes",
        "src/plan/a.cc",
        "namespace a {\n/// }\nclass B : public C {\n int d() const {\n" + LONG + "}\n};\n}",
        "a.cc:4: function d has 51",
    ),
    (
        "sizes",
        "src/plan/a.cc",
        "namespace {\nstruct A {\n  int b{1};\n" + "  int c = 0;\n" * 60 + "};\n}",
        "",
    ),
    (
        "sizes",
        "src/plan/a.cc",
        'void f() {\n  g("}", \'}\', R"(})");  // }\n' + LONG + "}",
        "function f has 52",
    ),
    ("sizes", "src/plan/a.cc", "const int kX[] = {\n" + "  1'000,\n" * 60 + "};", ""),
]


def run(lint: str, root: Path) -> subprocess.CompletedProcess[str]:
    """The outcome of one lint, run as a person would."""
    command = [sys.executable, str(HERE / f"check_{lint}.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("lint", ["layers", "sizes", "words", "integrations"])
def test_tree_is_clean(lint: str) -> None:
    """This repository itself."""
    done = run(lint, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("lint", "name", "content", "complaint"), PLANTED)
def test_planted(lint: str, name: str, content: str, complaint: str, tmp_path: Path) -> None:
    """One file in an otherwise empty tree."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    done = run(lint, tmp_path)
    assert not done.stderr
    assert complaint in done.stdout
    assert done.returncode == (1 if complaint else 0), done.stdout
