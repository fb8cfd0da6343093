"""The README's first line: where pip sees PyTorch with and without CUDA, the pins take the one without."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text("utf-8")
LINE = re.search(
    r"^pip install --constraint constraints\.txt --extra-index-url (https://\S+/whl/cpu) torch$", README, re.M
)
(PINNED,) = re.findall(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.M)


def offer(index: Path, name: str, version: str, requires: str = "") -> None:
    """Put an empty wheel into an index of one page per project."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for path, text in files.items()}
    record = [f"{path},sha256={hashes[path].decode().rstrip('=')},{len(text)}" for path, text in files.items()]
    wheel = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]))
    (folder / "index.html").write_text("".join(f'<a href="{one.name}">{one.name}</a>' for one in folder.glob("*.whl")))


def taken(*arguments: str) -> dict[str, str]:
    """Return the version by project that pip would install; it asks nobody outside."""
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--dry-run", "--ignore-installed", "--quiet"]
    variables = {**os.environ, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [*command, "--report", "-", *arguments], env=variables, capture_output=True, text=True, check=True
    )
    return {one["metadata"]["name"]: one["metadata"]["version"] for one in json.loads(done.stdout)["install"]}


def test_the_readmes_first_line_brings_no_cuda(tmp_path: Path) -> None:
    assert LINE is not None
    assert f"TORCH_INDEX ?= {LINE[1]}\n" in (ROOT / "Makefile").read_text()
    newest = "99.0"
    for version in (PINNED, newest):
        offer(tmp_path / "pypi", "torch", version, "Requires-Dist: nvidia-cuda-runtime\n")
        offer(tmp_path / "cpu", "torch", f"{version}+cpu")
    offer(tmp_path / "pypi", "nvidia-cuda-runtime", "13.0")
    pypi = ("--index-url", (tmp_path / "pypi").as_uri())
    pins = ("--constraint", str(ROOT / "constraints.txt"))
    assert taken(*pypi, *pins, "torch") == {"torch": PINNED, "nvidia-cuda-runtime": "13.0"}, "what the line is against"
    line = (*pins, "--extra-index-url", (tmp_path / "cpu").as_uri(), "torch")
    assert taken(*pypi, *line) == {"torch": f"{PINNED}+cpu"}
