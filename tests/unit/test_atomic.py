"""Files that are whole or absent."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen, run

import pytest

from karyon.io.atomic import ABANDONED_S, atomic_path, remove_leftovers


def write_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")


def test_block_that_fails_leaves_neither_file_nor_temporary(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk full"):
        write_half(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_block_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        write_half(tmp_path / "a.txt")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a long old text")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "a long old text"
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.txt", "new")]


def test_folder_is_made_and_the_suffix_kept(tmp_path: Path) -> None:
    path = tmp_path / "b" / "c" / "a.parquet"
    with atomic_path(path) as temporary:
        assert (temporary.suffix, temporary.parent) == (".parquet", path.parent)
        temporary.touch()
    assert path.exists()


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass


def test_killed_process_leaves_only_a_hidden_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from karyon.io.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary: temporary.write_text('half'); os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert run([sys.executable, "-c", code, str(tmp_path / "a.txt")], env=environment).returncode == 9
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]


@pytest.mark.parametrize(("age", "left"), [(ABANDONED_S - 60, True), (ABANDONED_S + 60, False)])
@pytest.mark.parametrize("host", ["node-17", "node-17.1.cluster"])
def test_a_file_of_another_machine_stays_while_its_writer_may_live(
    tmp_path: Path, host: str, age: float, left: bool
) -> None:
    theirs = tmp_path / f".{host}@{2**22 + 1}.a.txt"  # no process of this number runs here
    theirs.write_text("half")
    then = time.time() - age
    os.utime(theirs, (then, then))
    remove_leftovers([tmp_path / "a.txt"])
    assert theirs.exists() == left


def test_a_file_of_a_process_here_stays_until_the_process_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    code = (
        "import sys; from pathlib import Path; from karyon.io.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print(temporary, flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(path)]
    writer = Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment)
    assert writer.stdout is not None
    temporary = Path(writer.stdout.readline().strip())
    remove_leftovers([path])
    assert temporary.exists()
    writer.kill()
    writer.communicate()
    remove_leftovers([path])
    assert not list(tmp_path.iterdir())
