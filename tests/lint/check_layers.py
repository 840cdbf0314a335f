"""Fails on an include that the layer table of docs/architecture.md forbids."""

import re
import sys
from pathlib import Path

import tree

# A layer may include itself, what is named here, and what those may include.
TABLE = {
    "base": [],
    "graph": ["base"],
    "partition": ["graph"],
    "schedule": ["partition"],
    "strategy": ["schedule"],
    "plan": ["schedule"],
    "device": ["base"],
    "kernels": ["plan", "device"],
    "executor": ["plan", "device", "kernels"],
    "cost": ["plan"],
    "simulator": ["plan", "cost"],
    "explain": ["plan", "cost", "simulator"],
    "tuner": ["strategy", "plan", "cost", "simulator"],
    "torch": ["base", "graph", "plan", "device", "kernels", "executor"],
}

# Public headers not named after their layer.
PUBLIC = {"text": "base", "name": "base", "size_expr": "base", "layout": "graph", "verify": "plan"}

# A layer's concrete implementations: only they themselves, and tests, may include their headers.
CONCRETE = ("device/cpu", "device/fake", "kernels/test")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
MARK = re.compile(r"//+\s*layer:\s*(\w+)")
TORCH = re.compile(r"(torch|ATen|c10|caffe2)/")
PYTHON = re.compile(r"(nanobind|pybind11)/|Python\.h$")


def allowed(layer: str) -> set[str]:
    """All layers that a layer may include, itself among them."""
    found = {layer}
    for dependency in TABLE[layer]:
        found |= allowed(dependency)
    return found


def public_layer(root: Path, name: str) -> str | None:
    """The layer of the public header dynaflow/<name>; None if nothing says it."""
    stem = Path(name).with_suffix("").parts[0]
    if stem in PUBLIC:
        return PUBLIC[stem]
    for layer in TABLE:
        if layer != "torch" and (stem == layer or stem.startswith(layer + "_")):
            return layer
    header = root / "include" / "dynaflow" / name
    if header.is_file():
        mark = MARK.search("\n".join(header.read_text().splitlines()[:5]))
        if mark and mark[1] in TABLE:
            return mark[1]
    return None


def concrete(name: str) -> str | None:
    """The concrete implementation that a path belongs to."""
    return next((c for c in CONCRETE if name.startswith(c + "/")), None)


def check_foreign(layer: str, bracket: str, name: str) -> str | None:
    """The complaint about an include from outside the project."""
    ours = bracket == '"' and name.startswith("torch/")
    if TORCH.match(name) and not ours and layer != "torch":
        return f"only src/torch may include torch's headers, not {layer}: {name}"
    if PYTHON.match(name) and layer != "bindings":
        return f"only src/bindings may include Python's headers, not {layer}: {name}"
    return None


def check_private(layer: str, place: str, name: str) -> str | None:
    """The complaint about a quoted include of "<layer>/x.h" from the file at `place`."""
    target = name.split("/")[0]
    if target not in TABLE:
        return None
    if place.startswith("include/"):
        return f"a public header includes a private one: {name}"
    impl = concrete(name)
    if layer == "tests":
        return None if target != "torch" else f"tests may not include src/torch: {name}"
    if target != layer and (layer not in TABLE or layer == "torch"):
        return f"{layer} may include only public headers: {name}"
    if target not in allowed(layer):
        return f"layer {layer} may not include layer {target}: {name}"
    if impl and (target != layer or (concrete(place.removeprefix("src/")) or impl) != impl):
        return f"{impl} is a concrete implementation that only itself may include: {name}"
    return None


def check_public(root: Path, layer: str, name: str) -> str | None:
    """The complaint about an include of "dynaflow/<name>"."""
    target = public_layer(root, name)
    if layer not in TABLE:
        return None  # bindings, cli, tests, benchmarks and examples see the whole public API
    if target is None:
        return f"no layer known for dynaflow/{name}: put `// layer: NAME` in its first 5 lines"
    reach = set(TABLE["torch"]) if layer == "torch" else allowed(layer)
    if target not in reach:
        return f"layer {layer} may not include layer {target}: dynaflow/{name}"
    return None


def layer_of(root: Path, path: Path) -> str | None:
    """The layer a source file belongs to; None if nothing says it."""
    parts = path.relative_to(root).parts
    if parts[0] == "include":
        return public_layer(root, "/".join(parts[2:]))
    if parts[0] == "src":
        return parts[1] if parts[1] in TABLE or parts[1] == "bindings" else None
    return parts[0]


def check_file(root: Path, path: Path) -> list[str]:
    """All complaints about one file."""
    place = path.relative_to(root).as_posix()
    layer = layer_of(root, path)
    if layer is None:
        return [f"{place}:1: belongs to no layer of the table in tests/lint/check_layers.py"]
    problems = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        include = INCLUDE.match(line)
        if not include:
            continue
        bracket, name = include.groups()
        if ".." in name.split("/"):
            complaint = f"relative include: {name}"
        elif name.startswith("dynaflow/"):
            complaint = check_public(root, layer, name.removeprefix("dynaflow/"))
        else:
            complaint = check_foreign(layer, bracket, name)
            if complaint is None and bracket == '"':
                complaint = check_private(layer, place, name)
        if complaint:
            problems.append(f"{place}:{number}: {complaint}")
    return problems


def check(root: Path) -> list[str]:
    """All complaints about a tree."""
    folders = ("include", "src", "cli", "tests", "benchmarks", "examples")
    sources = tree.files(root, folders, (".h", ".cc"))
    return [problem for path in sources for problem in check_file(root, path)]


if __name__ == "__main__":
    sys.exit(tree.main(check))
