"""A file's name is its registration: every task and backbone that is there is whole."""

import pytest

from tasks.bench import discover
from tasks.bench import task as tasks


@pytest.mark.parametrize("name", discover.names("task"))
def test_every_task_is_whole(name):
    task = tasks.get(name)
    about = discover.load("task", name).__doc__
    assert task.version >= 1
    assert set(task.headline) == set(task.datasets)
    assert f"python -m tasks.{name} " in about
    assert "arxiv.org" in about
    task.fields()


@pytest.mark.parametrize("name", discover.names("backbone"))
def test_every_backbone_builds_known_outputs(name):
    assert set(discover.load("backbone", name).OUTPUTS) <= {"lm", "span", "class"}
