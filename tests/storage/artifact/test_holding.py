from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from distspectral.errors import DirectoryHeldError, OutputNotWritableError
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.holding import HOLDERS, LEASE_S, Hold, Lease
from tests.storage.outputs import output
from tests.storage.s3 import S3Server

ROUNDS = 5
ELSEWHERE = {"host": "elsewhere", "place": "elsewhere"}


@pytest.fixture(params=["local", "s3"])
def artifact(request: pytest.FixtureRequest, tmp_path: Path) -> Artifact:
    if request.param == "local":
        return Artifact(str(tmp_path / "run"))
    server: S3Server = request.getfixturevalue("s3")
    return Artifact(server.uri(f"{tmp_path.name}/run"))


def put(artifact: Artifact, lease: Lease) -> None:
    artifact.write_bytes(f"{HOLDERS}/{lease.id}.json", lease.model_dump_json().encode())


def leases(artifact: Artifact) -> list[str]:
    return [entry.base_name for entry in artifact.entries(HOLDERS)]


CONTENDER = """
import sys
from pathlib import Path
from distspectral.errors import DirectoryHeldError
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.holding import Hold
uri, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for number in range(rounds):
    while not (folder / f"go-{number}").exists():
        pass
    try:
        with Hold(Artifact(f"{uri}-{number}" if "?" not in uri else uri.replace("?", f"-{number}?")), "run `a`"):
            print("held", flush=True)
            input()  # until both have said what came of it
    except DirectoryHeldError as error:
        print(error, flush=True)
"""


def test_of_two_that_start_at_the_same_moment_one_holds(artifact: Artifact, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONTENDER, artifact.uri, str(tmp_path), str(ROUNDS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    said: list[list[str]] = []
    for number in range(ROUNDS):
        (tmp_path / f"go-{number}").touch()
        said.append([process.stdout.readline().strip() for process in both])
        for process, word in zip(both, said[-1], strict=True):
            if word == "held":
                process.stdin.write("\n")
                process.stdin.flush()
    for process in both:
        process.communicate()
    for words in said:
        assert sorted(word == "held" for word in words) == [False, True], words
        (refused,) = [word for word in words if word != "held"]
        assert "is held by run `a` (process " in refused


def test_who_is_refused_hears_who_holds_it(artifact: Artifact) -> None:
    with Hold(artifact, "run `a`"), pytest.raises(DirectoryHeldError) as refused, Hold(artifact, "run `b`"):
        pass
    me = psutil.Process()
    assert f"{artifact.uri}: is held by run `a` (process {me.pid} of {me.username()} on " in str(refused.value)
    assert leases(artifact) == []
    with Hold(artifact, "run `b`"):
        assert len(leases(artifact)) == 1


def test_a_dead_process_of_this_machine_holds_nothing(artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = psutil.Process(process.pid).create_time()
    lease = Lease.mine("run `a`").model_copy(update={"pid": process.pid, "began": began, "holds": True})
    put(artifact, lease)
    with pytest.raises(DirectoryHeldError, match=f"process {process.pid} "), Hold(artifact, "run `b`"):
        pass
    process.communicate()
    began_waiting = time.monotonic()
    with caplog.at_level(logging.WARNING), Hold(artifact, "run `b`"):
        assert time.monotonic() - began_waiting < LEASE_S
    assert "which has died; taken over" in caplog.text
    put(artifact, lease.model_copy(update={"pid": psutil.Process().pid, "began": began - 100}))
    with Hold(artifact, "another process has its number by now"):
        pass


def test_a_process_elsewhere_that_does_not_beat_is_waited_for(
    artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    put(artifact, Lease.mine("run `a`").model_copy(update={"holds": True, **ELSEWHERE}))
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), Hold(artifact, "run `b`", lease_s=1):
        assert 1 <= time.monotonic() - began < LEASE_S
    assert caplog.text.count("waiting up to 1 s for a sign of life") == 1
    assert "on elsewhere" in caplog.text
    assert leases(artifact) == []


def test_a_process_elsewhere_that_beats_is_not_disturbed(artifact: Artifact) -> None:
    lease = Lease.mine("run `a`").model_copy(update={"holds": True, **ELSEWHERE})
    put(artifact, lease)
    is_over = threading.Event()

    def beat() -> None:
        number = 0
        while f"{lease.id}.json" in leases(artifact) and not is_over.wait(0.1):
            number += 1
            put(artifact, lease.model_copy(update={"beat": number}))

    beats = threading.Thread(target=beat)
    beats.start()
    try:
        with pytest.raises(DirectoryHeldError, match="on elsewhere"), Hold(artifact, "run `b`", lease_s=30):
            pass
    finally:
        is_over.set()
        beats.join()
    assert leases(artifact) == [f"{lease.id}.json"]


def test_who_asks_waits_for_one_that_asked_after_it_and_may_hold_already(artifact: Artifact) -> None:
    """That one had looked before this one's lease was there; whoever goes on without it makes two."""
    lease = Lease.mine("run `a`").model_copy(update={"id": "z" * 32})
    put(artifact, lease)
    holds = threading.Timer(0.7, lambda: put(artifact, lease.model_copy(update={"holds": True})))
    holds.start()
    with pytest.raises(DirectoryHeldError, match="run `a`"), Hold(artifact, "run `b`"):
        pass
    holds.join()


def test_a_lease_that_is_being_written_tells_nothing(artifact: Artifact) -> None:
    lease = Lease.mine("run `a`").model_copy(update={"id": "z" * 32, **ELSEWHERE})
    put(artifact, lease)

    def write_badly_and_let_go() -> None:
        artifact.write_bytes(f"{HOLDERS}/{lease.id}.json", b"")
        time.sleep(0.7)
        artifact.delete_file(f"{HOLDERS}/{lease.id}.json")

    writer = threading.Timer(0.7, write_badly_and_let_go)
    writer.start()
    with Hold(artifact, "run `b`"):
        writer.join()


def wait_until_lost(hold: Hold, again: Callable[[], None]) -> None:
    for _ in range(300):
        again()
        time.sleep(0.1)
        hold.require()


def test_a_holder_that_was_taken_for_dead_learns_of_it(artifact: Artifact) -> None:
    def take() -> None:
        for lease in leases(artifact):
            artifact.delete_file(f"{HOLDERS}/{lease}")

    with Hold(artifact, "run `a`", beat_s=0.05) as hold:
        hold.require()
        with pytest.raises(DirectoryHeldError, match="was taken by another process"):
            wait_until_lost(hold, take)


def test_a_holder_that_was_silent_gives_way_to_one_that_asks(artifact: Artifact) -> None:
    with Hold(artifact, "run `a`", beat_s=0.05, lease_s=0) as hold:
        hold.require()
        put(artifact, Lease.mine("run `b`").model_copy(update=ELSEWHERE))
        with pytest.raises(DirectoryHeldError, match="was taken by another process"):
            wait_until_lost(hold, lambda: None)


def test_a_holder_beats(artifact: Artifact) -> None:
    with Hold(artifact, "run `a`", beat_s=0.05):
        (name,) = leases(artifact)
        deadline = time.monotonic() + LEASE_S
        while artifact.read_json(f"{HOLDERS}/{name}")["beat"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_those_that_share_hold_it_together_and_against_others(artifact: Artifact) -> None:
    whole, parts = Hold(artifact, "run `a`"), [Hold(artifact, f"part {part}", shared=True) for part in (1, 2)]
    with parts[0], parts[1], pytest.raises(DirectoryHeldError, match="by part"), whole:
        pass
    with whole, pytest.raises(DirectoryHeldError, match="by run `a`"), parts[0]:
        pass


def test_a_hold_may_be_entered_again_within_itself(artifact: Artifact) -> None:
    hold = Hold(artifact, "run `a`")
    with hold:
        with hold:
            pass
        assert len(leases(artifact)) == 1
    assert leases(artifact) == []


def test_a_lease_that_cannot_be_read_is_waited_for_and_removed(artifact: Artifact) -> None:
    artifact.write_bytes(f"{HOLDERS}/{'0' * 32}.json", b"{")
    with Hold(artifact, "run `a`", lease_s=0.5):
        assert len(leases(artifact)) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritableError, match="file/run: cannot be written"):
        Hold(Artifact(str(tmp_path / "file" / "run")), "run `a`").__enter__()


def test_a_local_directory_is_left_as_it_was(tmp_path: Path) -> None:
    with Hold(Artifact(str(tmp_path)), "run `a`"):
        assert [path.name for path in tmp_path.iterdir()] == [HOLDERS]
    assert list(tmp_path.iterdir()) == []
    with Hold(Artifact(str(tmp_path / "new")), "a run that is refused before it writes"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_opened_beside_the_lease_of_who_holds_it(tmp_path: Path) -> None:
    out = output(tmp_path / "run")
    with Hold(out.artifact, "embedding") as hold:
        out.begin()
        out.commit([], {}, {})
        other = output(tmp_path / "run", 1)
        other.begin()
        assert len(leases(other.artifact)) == 1
        hold.require()
