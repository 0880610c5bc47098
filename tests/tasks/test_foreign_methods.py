"""Methods that live elsewhere: in a package with an entry point, and in a file named on the command line."""

import pickle
import sys
import textwrap

import pytest

import zeroinit
from tasks.bench.errors import InputError
from tasks.bench.run import run
from tasks.bench.store import Store
from tests.zeroinit.opened import batch_for, logits, roberta
from zeroinit import methods
from zeroinit.checkpoint import saved_method

METHOD = textwrap.dedent(
    '''
    """Scale the outputs of the topmost block's last map."""

    from dataclasses import dataclass

    import torch
    from torch import nn

    from zeroinit.methods import Method


    def _scale(module, args, output):
        return output * module.tiny_scale


    @dataclass(frozen=True)
    class Tiny(Method):
        """One factor a feature, 1 at the start."""

        start: float = 1.0

        def plant(self, host, name):
            end = host.model.get_submodule(host.seam.sublayers(host.seam.sites()[-1]).feed_forward)
            end.tiny_scale = nn.Parameter(torch.full((end.out_features,), self.start))
            end.register_forward_hook(_scale)

        def planted(self, host, name):
            return {"scale": p for key, p in host.model.named_parameters() if key.endswith("tiny_scale")}

        def switch(self, host, name, on):
            pass

        def uproot(self, host, name):
            for module in host.model.modules():
                if "tiny_scale" in module._parameters:
                    del module.tiny_scale
                    for key in [k for k, hook in module._forward_hooks.items() if hook is _scale]:
                        del module._forward_hooks[key]
    '''
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installed, as far as importlib.metadata can tell."""
    info = tmp_path / "tiny_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zeroinit.methods]\ntiny = tiny_package:Tiny\n")
    (tmp_path / "tiny_package.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("tiny_package", None)


def test_a_package_brings_its_method(package, tmp_path):
    assert "tiny" in methods.names()
    model = roberta().eval()
    before = logits(model, batch_for(model))
    zeroinit.attach(model, methods.get("tiny")(start=2.0))
    changed = logits(model, batch_for(model))
    assert not before.equal(changed)
    zeroinit.save(model, tmp_path / "saved")
    zeroinit.detach(model)
    assert before.equal(logits(model, batch_for(model)))
    assert changed.equal(logits(zeroinit.load(model, tmp_path / "saved"), batch_for(model)))


def test_a_file_is_a_method(small_run, tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(METHOD)
    config = small_run(str(file))
    assert pickle.loads(pickle.dumps(config)).method == config.method
    cell = run(config, Store(tmp_path / "store"))
    assert "-tiny-" in cell.name
    assert cell.config["method"].startswith("tiny.py#")
    assert cell.result["facts"]["step0_distance"] == 0.0
    file.write_text(METHOD.replace("1 at the start", "one at the start"))
    assert small_run(str(file)).cell != cell.name


def test_an_adapter_of_a_file_is_read_where_the_file_was_given(small_run, squad_file, tmp_path, monkeypatch):
    data = {"eval": None, "train": squad_file}
    monkeypatch.setattr(methods, "_FROM_FILES", {})
    methods._loaded.cache_clear()
    file = tmp_path / "lora.py"  # named as one of ours, which it is not
    file.write_text(METHOD)
    store = Store(tmp_path / "store")
    trained = run(small_run(str(file), {"start": 2.0}, **data), store)
    adapter = tmp_path / "store" / "cells" / trained.name / "adapter"
    judged = run(small_run(str(file), adapter=adapter, **data), store)
    assert judged.config["settings"]["method"] == {"start": 2.0}
    assert judged.records["report"] == trained.records["report"]

    monkeypatch.setattr(methods, "_FROM_FILES", {})  # another process, which has not run it
    with pytest.raises(InputError, match=r"lora\.py is a method's own file: give it to .*, or to --method"):
        small_run(adapter=adapter)
    methods._loaded.cache_clear()
    methods.from_file(file)
    assert vars(saved_method(adapter)) == {"start": 2.0}
    other = tmp_path / "other.py"
    other.write_text(METHOD)
    for method in ("zero_init", str(other)):  # whose file it may have been is not looked for
        with pytest.raises(InputError, match=r"was trained by lora\.py, not by .*: give that as --method"):
            small_run(method, adapter=adapter)


def test_of_two_files_of_one_name_the_one_that_was_given_last_counts(tmp_path):
    one, two = (tmp_path / name / "tiny.py" for name in ("one", "two"))
    for path in (one, two):
        path.parent.mkdir()
        path.write_text(METHOD)
    for path in (one, two, one):
        assert methods.from_file(path) is methods.get("tiny.py")
        assert methods.get("tiny.py").source == path.resolve()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "No such file"),
        ("x = 1", "defines 0 methods"),
        ("def", "invalid syntax"),
        ("import nothing_here", "No module"),
    ],
)
def test_a_file_that_is_no_method_is_refused(small_run, tmp_path, text, sentence):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=sentence):
        small_run(str(file))
