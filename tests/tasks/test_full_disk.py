"""A disk that is full, cannot be written or is a file: one sentence, and what is there stays as it was."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.bench.attempt import attempt
from tasks.bench.errors import InputError
from tasks.bench.store import Store
from tests.tasks.test_commands import refused, squad_command, tasks_command
from tests.tasks.test_store import cell


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def read_only(disk: Path) -> Path:
    """A disk with one finished cell that can only be read."""
    Store(disk / "r").write(cell("a"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return disk / "r"


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_full_disk_takes_no_cell_and_harms_none(disk):
    store = Store(disk / "r")
    store.write(cell("a"))
    store.export()
    before = contents(store.root)
    fill(disk)
    for write in (lambda: store.write(cell("b")), store.export, store.probe):
        with pytest.raises(InputError, match=r"cannot be written \(No space left on device\): make room there"):
            write()
        assert contents(store.root) == before
    (disk / "ballast").unlink()
    store.write(cell("b"))
    assert store.names() == ["a", "b"]


def test_a_cell_that_does_not_fit_fails_alone(disk, small_run):
    store, config = Store(disk / "r"), small_run("full")  # its adapter is 400 kB
    store.write(cell("a"))
    (disk / "ballast").write_bytes(bytes(200_000))
    before = contents(store.root)
    end = attempt(config, store, None)
    assert end.status == "failed"
    assert "No space left on device" in end.told
    assert "make room there" in end.told
    after = contents(store.root)
    assert before.items() <= after.items()
    assert store.status(config.cell) == "failed"  # so much there was room for
    assert not list(store.root.glob(".unfinished-*"))


def test_commands_say_so_before_anything_is_computed(disk, capsys, squad_file):
    fill(disk)
    for command in (
        lambda: squad_command("--eval", squad_file, "--results", disk / "r"),
        lambda: tasks_command("run", "mini", "--device", "cpu", "--results", disk / "r"),
    ):
        assert f"{disk / 'r'} cannot be written (No space left on device)" in refused(capsys, command())


def test_a_store_that_can_only_be_read_is_read(read_only, capsys, squad_file):
    before = contents(read_only)
    assert tasks_command("plan", "mini", "--device", "cpu", "--results", read_only) == 0
    assert "119 missing" in capsys.readouterr().out
    assert tasks_command("verify", read_only) == 1  # that cell has a made-up name
    capsys.readouterr()
    for command in (
        lambda: squad_command("--eval", squad_file, "--results", read_only),
        lambda: tasks_command("run", "mini", "--device", "cpu", "--results", read_only),
        lambda: tasks_command("merge", read_only, read_only.parent / "r"),
    ):
        assert f"{read_only} cannot be written (Read-only file system)" in refused(capsys, command())
    assert contents(read_only) == before
    assert not Store(read_only).running("a")


def test_a_file_for_a_store_is_refused(tmp_path, capsys, squad_file):
    path = tmp_path / "r"
    path.write_text("mine")
    for command in (
        lambda: squad_command("--eval", squad_file, "--results", path),
        lambda: tasks_command("run", "mini", "--device", "cpu", "--results", path),
    ):
        assert f"{path} is a file, where a folder for results belongs" in refused(capsys, command())
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Not a directory"):
        Store(tmp_path / "file" / "r").probe()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
