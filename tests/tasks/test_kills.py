"""`kill -9` at random moments: no cell is lost, none is there twice, and the tables are those of a quiet run."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_suite_that_is_killed_and_run_again_comes_to_the_same(kills, tmp_path):
    command = [sys.executable, "-m", "tests.tasks.kills", tmp_path, str(kills), "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    assert "Traceback" not in logs
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert sum(told["kills"].values()) == kills
    assert set(told["kills"]) == {"suite and cells", "suite alone", "one cell"}
