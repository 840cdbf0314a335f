"""Make the working copy importable: like `pip install -e .`, in a second and without a build.

Writes dynaflow.pth, which names python/, and the package's metadata (version, entry points) into
the environment that runs this. `pip uninstall dynaflow` takes both away.
"""

import os
import sysconfig
import tempfile
from pathlib import Path

from scikit_build_core import build

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Link this working copy into the environment of the running interpreter."""
    os.chdir(ROOT)
    site = Path(sysconfig.get_path("purelib"))
    for old in site.glob("dynaflow-*.dist-info"):
        for file in sorted(old.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        old.rmdir()
    with tempfile.TemporaryDirectory() as folder:
        name = build.prepare_metadata_for_build_editable(folder)
        wanted = {"METADATA", "entry_points.txt"}
        contents = {
            file.name: file.read_text()
            for file in Path(folder, name).iterdir()
            if file.name in wanted
        }
    contents["INSTALLER"] = "tools/link_package.py\n"
    info = site / name
    info.mkdir()
    for file, text in contents.items():
        (info / file).write_text(text)
    (site / "dynaflow.pth").write_text(f"{ROOT / 'python'}\n")
    recorded = ["dynaflow.pth", *(f"{name}/{file}" for file in [*contents, "RECORD"])]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in recorded))
    print(f"linked {name.removesuffix('.dist-info')} into {site}")


if __name__ == "__main__":
    main()
