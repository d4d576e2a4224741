"""Shared memory that the dead left, and none at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from node_harness import DEADLINE, DOMAIN, environment, executable

from coop_perception.ros import full_memory
from coop_perception.ros.shared_memory import remove_dead, without_where_full

ROOT = Path(__file__).resolve().parents[2]


def segment(folder: Path, number: int, age_s: float = 60.0) -> Path:
    """A segment with its lock, as a process leaves them."""
    made = folder / f"fastrtps_{number:016x}"
    lock = made.with_name(f"{made.name}_el")
    for file in (made, lock):
        file.write_bytes(b"")
        when = file.stat().st_mtime - age_s
        os.utime(file, (when, when))
    return made


def test_only_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    dead, living, starting = segment(tmp_path, 1), segment(tmp_path, 2), segment(tmp_path, 3, 0.0)
    strangers = segment(tmp_path, 4)
    if os.geteuid() == 0:
        os.chown(f"{strangers}_el", 12345, 12345)
    else:
        strangers.unlink()
    others = [tmp_path / name for name in ("fastrtps_port7411_el", "fastrtps_port7411", "other_el", "fastrtps_1_el")]
    for file in others:
        file.write_bytes(b"")
        os.utime(file, (0, 0))
    precious = tmp_path / "precious"
    precious.write_bytes(b"")
    (tmp_path / f"fastrtps_{5:016x}_el").symlink_to(precious)
    os.mkfifo(tmp_path / f"fastrtps_{6:016x}_el")
    with open(f"{living}_el") as lock:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert remove_dead(tmp_path) == 1
    assert not dead.exists()
    assert not Path(f"{dead}_el").exists()
    kept = [living, starting, *others, precious, *([strangers] if os.geteuid() == 0 else [])]
    assert all(file.exists() for file in kept)
    assert remove_dead(tmp_path / "nothing") == 0


def until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a degrade_node is ready."""
    deadline = time.monotonic() + DEADLINE
    while "level 2 of 3" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)


def segments(process: subprocess.Popen[bytes]) -> set[Path]:
    """Those of its own, and of whom it hears. As old as if it had not been started just now."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    found = {Path(path) for path in re.findall(r"/dev/shm/fastrtps_[0-9a-f]{16}\b", maps)}
    for path in found:
        os.utime(f"{path}_el", (0, 0))
    return found


def test_a_node_removes_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("killed", "living", "new")]
    with executable("degrade_node", DOMAIN, logs[0]) as killed:
        until_ready(killed, logs[0])
        left = segments(killed)
        killed.kill()
        killed.wait()
    assert left
    with executable("degrade_node", DOMAIN, logs[1]) as living:
        until_ready(living, logs[1])
        used = segments(living) - left
        with executable("degrade_node", DOMAIN, logs[2]) as new:
            until_ready(new, logs[2])
        assert used
        assert all(path.exists() and Path(f"{path}_el").exists() for path in used)
    assert not any(path.exists() or Path(f"{path}_el").exists() for path in left)


@pytest.mark.parametrize(
    ("profile", "uses"), [("fastdds.xml", True), ("fastdds_udp.xml", False), (None, True), ("no such file", True)]
)
def test_what_needs_no_shared_memory_is_left_alone(tmp_path: Path, profile: str | None, uses: bool) -> None:
    given = {} if profile is None else {"FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / profile)}
    variables, said = without_where_full(given, tmp_path / "nothing")
    assert bool(variables) == bool(said) == uses
    assert without_where_full({**given, "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, tmp_path / "nothing") == ({}, "")


def test_udp_when_it_is_wished() -> None:
    assert without_where_full({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, Path("/nothing")) == ({}, "")


def test_names_of_lttngs_files_are_taken_while_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, hollow = tmp_path / "lttng-ust-wait-6", tmp_path / "lttng-ust-wait-8"
    sound.write_bytes(bytes(4096))
    os.sync()  # until it has its block
    hollow.write_bytes(b"")
    with monkeypatch.context() as full:
        full.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1))
        for _ in range(2):
            full_memory.prepare(tmp_path)
            assert hollow.is_symlink()
            assert not hollow.exists()
    assert sound.read_bytes() == bytes(4096)
    full_memory.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == [sound]
    full_memory.prepare(tmp_path / "nothing")


def mounting() -> list[str] | None:
    """The command under which a process can mount file systems of its own: root's, or anybody's where the kernel lets
    everyone be root among themselves; None where neither can."""
    unshare = shutil.which("unshare")
    for how in (["--mount"], ["--user", "--map-root-user", "--mount"]) if unshare else ():
        command = [str(unshare), *how]
        tried = [*command, "mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/dev/shm"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return command
    return None


MOUNTING = mounting()


@pytest.mark.skipif(MOUNTING is None, reason="neither root nor a user's own namespace may mount /dev/shm anew here")
@pytest.mark.parametrize(
    ("size", "reach"), [("4k", "SUBNET"), ("640k", "SUBNET"), ("64k", "LOCALHOST"), ("640k", "LOCALHOST")]
)
def test_a_node_starts_where_shared_memory_is_full(tmp_path: Path, size: str, reach: str) -> None:
    """With the profile that asks for 64 MB; it says why images go over UDP, and ends as always."""
    node = f"exec {sys.executable} -m coop_perception.commands.degrade_node"
    script = f"mount -t tmpfs -o size={size} tmpfs /dev/shm && {node}"
    log = tmp_path / "log"
    given = {
        **environment(DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": reach,
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config/fastdds.xml"),
    }
    with log.open("w") as out:
        command = [*MOUNTING, "sh", "-c", script]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=given)
    try:
        until_ready(process, log)
        if size == "4k":  # LTTng tries again every 5 s
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(7)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "no shared memory in /dev/shm" in log.read_text()
