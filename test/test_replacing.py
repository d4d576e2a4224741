"""What takes another's place: whole or not at all, whenever the process is killed, and nobody else's is lost."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coop_perception.replacing import open_results, replacement, write_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from coop_perception.replacing import replacement

target, survived = Path(sys.argv[1]), int(sys.argv[2])
rename = Path.rename

def counted(self, other):
    global survived
    if survived == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    survived -= 1
    return rename(self, other)

Path.rename = counted
with replacement(target) as made:
    made.mkdir()
    (made / "content").write_text("new")
os.kill(os.getpid(), signal.SIGKILL)
"""


WRITE = """
import sys
from pathlib import Path
from coop_perception.replacing import write_whole

write_whole(Path(sys.argv[1]), b"new")
"""


def fill(target: Path, text: str) -> None:
    with replacement(target) as made:
        made.mkdir()
        (made / "content").write_text(text)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    fill(tmp_path / "replaced", "old")  # as what is put aside is called
    return tmp_path / "replaced"


@pytest.mark.parametrize(("renames", "left"), [(0, "old"), (1, "old"), (2, "new")])
def test_a_process_killed_at_any_rename_loses_nothing(target: Path, renames: int, left: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target), str(renames)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    if renames == 1:
        assert not target.exists()
    with replacement(target):  # nothing is written
        assert (target / "content").read_text() == left
    assert [path.name for path in target.parent.iterdir()] == ["replaced"]
    assert (target / "content").read_text() == left
    fill(target, "newest")
    assert (target / "content").read_text() == "newest"
    assert [path.name for path in target.parent.iterdir()] == ["replaced"]


def test_what_others_made_after_a_killed_process_is_not_taken_for_its_own(target: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(target), "1"], timeout=60)
    target.mkdir()
    (target / "content").write_text("of others")
    with pytest.raises(FileExistsError, match=r"what stood there before is .*\.partial/replaced: move it"):
        fill(target, "new")
    assert (target / "content").read_text() == "of others"
    assert (target.with_name(".replaced.partial") / "replaced/content").read_text() == "old"


def test_two_processes_do_not_write_the_same(target: Path) -> None:
    with replacement(target) as made:
        made.mkdir()
        (made / "content").write_text("of the first")
        with pytest.raises(FileExistsError, match="another process is writing it"):
            fill(target, "of the second")
    assert (target / "content").read_text() == "of the first"


def test_a_folder_that_somebody_else_has_is_not_emptied(target: Path) -> None:
    precious, partial = target.parent / "precious", target.with_name(".replaced.partial")
    precious.mkdir()
    (precious / "thesis").write_text("years")
    partial.symlink_to(precious)
    with pytest.raises(FileExistsError, match=r"\.replaced\.partial is no folder"):
        fill(target, "new")
    partial.unlink()
    precious.rename(partial)
    with pytest.raises(FileExistsError, match=r"\.replaced\.partial holds thesis, .* move that away"):
        fill(target, "new")
    assert (partial / "thesis").read_text() == "years"
    assert (target / "content").read_text() == "old"


def test_a_lock_on_a_folder_that_is_gone_is_none(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder was opened while another process wrote in it, which ended then, and a third one began."""
    real, third = fcntl.flock, replacement(target)
    partial = target.with_name(".replaced.partial")

    def meanwhile(file: int, how: int) -> None:
        monkeypatch.setattr("fcntl.flock", real)
        partial.rmdir()
        third.__enter__().mkdir()
        real(file, how)

    monkeypatch.setattr("fcntl.flock", meanwhile)
    with pytest.raises(FileExistsError, match="another process is writing it"):
        fill(target, "of the second")
    assert (partial / "new/replaced").is_dir()
    third.__exit__(None, None, None)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(path.parent / "precious"), os.mkfifo])
def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "precious").write_text("years")
    make(tmp_path / ".summary.json.partial")
    done = subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "summary.json")], timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "summary.json").read_text() == "new"
    assert (tmp_path / "precious").read_text() == "years"


def test_a_file_stays_where_another_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_on_the_disk_before_it_takes_its_place(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename, replace = Path.rename, Path.replace
    monkeypatch.setattr("os.fsync", lambda descriptor: done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name))
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append("rename"), rename(self, to))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), replace(self, to))[1])
    fill(target, "new")
    assert done == ["content", "replaced", "rename", "rename", target.parent.name]
    done.clear()
    write_whole(target / "file", b"new")
    assert done == [".file.partial", "rename", "replaced"]


def test_results_of_another_run(tmp_path: Path) -> None:
    out = tmp_path / "a/b"
    open_results(out, ["one", "two"], force=False)
    (out / "two").touch()
    with pytest.raises(FileExistsError, match=r"b holds two of another run; .*\(--force\)"):
        open_results(out, ["one", "two"], force=False)
    open_results(out, ["one", "two"], force=True)
    open_results(out, ["one"], force=False)
    assert [path.name for path in out.iterdir()] == ["two"]
