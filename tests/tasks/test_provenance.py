"""The commit that a number names is one of this project, and of its code alone."""

import subprocess

import pytest

from tasks.bench import provenance


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with code in it, as if it were ours."""

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "one.py").write_text("x = 1")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "one")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "_taken", None)
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def test_what_a_user_puts_into_a_clone_is_no_changed_code(clone):
    (clone / "my_suite.toml").write_text("")
    (clone / "my-adapter").mkdir()
    (clone / "my-adapter" / "adapter_config.json").write_text("{}")
    head, changed = provenance.commit()
    assert (len(head), changed) == (40, False)


@pytest.mark.parametrize("file", ["one.py", "two.py"])
def test_changed_code_and_new_code_are_told(clone, file):
    (clone / "tasks" / file).write_text("x = 2")
    assert provenance.commit()[1]


def test_a_repository_around_installed_packages_is_not_ours(clone, monkeypatch):
    inside = clone / ".venv" / "site-packages"
    inside.mkdir(parents=True)
    monkeypatch.setattr(provenance, "ROOT", inside)
    assert provenance.commit() == ("", None)
