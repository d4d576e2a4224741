"""What is remembered of this machine: whole, private, and not taken from others."""

from __future__ import annotations

from pathlib import Path

from coop_perception.engines.remembered import place, read, remember


def test_what_was_remembered_is_read(tmp_path: Path) -> None:
    file = place(tmp_path / "cache", "int8", {"cpu": "one"})
    assert read(file) is None
    assert remember(file, {"cost": {"mask": 1.0}}) == f"remembered in {file}"
    assert read(file) == {"cost": {"mask": 1.0}}
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_others_can_write_to_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "cache/int8.json"
    remember(file, {"cost": {"mask": 1.0}})
    file.chmod(0o666)
    assert read(file) is None
    file.chmod(0o600)
    file.parent.chmod(0o777)
    assert read(file) is None


def test_what_is_no_mapping_is_not_taken(tmp_path: Path) -> None:
    for text in ("[1]", "{", ""):
        (tmp_path / "one.json").write_text(text)
        assert read(tmp_path / "one.json") is None
