"""The Dockerfile as far as no Docker is needed: its instructions, the files that it copies, its shell."""

from __future__ import annotations

import re
import shlex
import subprocess

from tests.cluster_configs.rules import CONFIGS, ROOT

TEXT = re.sub(r"^#.*\n", "", (CONFIGS / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
INSTRUCTIONS = [line.split(maxsplit=1) for line in TEXT.splitlines() if line.strip()]


def test_instructions_are_docker_s_and_the_base_comes_first() -> None:
    names = [name for name, _ in INSTRUCTIONS]
    assert set(names) <= {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN"}
    assert set(names[: names.index("FROM")]) == {"ARG"}


def test_what_is_copied_is_there() -> None:
    copies = [shlex.split(rest) for name, rest in INSTRUCTIONS if name == "COPY"]
    sources = [word for words in copies for word in words[:-1] if not word.startswith("--")]
    assert len(sources) >= 6
    assert [one for one in sources if not (ROOT / one).exists()] == []


def test_the_shell_parses_and_refuses_another_device() -> None:
    (script,) = [rest for name, rest in INSTRUCTIONS if name == "RUN"]
    subprocess.run(["sh", "-n", "-c", script], check=True)
    done = subprocess.run(["sh", "-c", script], env={"DEVICE": "tpu"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "DEVICE is tpu; expected cpu or gpu\n")


def test_make_names_the_image_as_the_overlays_do() -> None:
    shown = ["make", "-n", "image", "FAISS=gpu", "REGISTRY=quay.io/us"]
    done = subprocess.run(shown, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--build-arg DEVICE=gpu" in done.stdout
    assert re.search(r"-t quay\.io/us/distspectral-gpu:\d+\.\d+\.\d+ \.", done.stdout)
