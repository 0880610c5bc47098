"""The files of a report: the same bytes again, data that does nothing, and a snapshot that stands alone."""

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from tasks.__main__ import app
from tasks.bench import commandline, plain
from tasks.bench.config import Choice, resolve, settle
from tasks.bench.errors import InputError
from tasks.bench.report import belonging, latex, markdown, publish, published, report, tables, wide
from tasks.bench.report.details import CELLS
from tasks.bench.report.found import read
from tasks.bench.report.gathered import gather
from tasks.bench.report.sheet import Column, Figure, Sheet, number, word
from tasks.bench.report.tables import build
from tasks.bench.store import Store
from tasks.bench.suite import read as read_suite
from tasks.bench.verify import discrepancies
from tests.tasks.fabricated import broken, cell, squad_records, stored, suite, vtab_records

HOSTILE = '=cmd|" /C calc"!A1</script><img src=x onerror=alert(1)>\x1b[31m\u202e$\\alpha$&`*_[x](javascript:alert(1))'
"""A name that means something to spreadsheets, browsers, terminals, TeX and Markdown."""


def command(*arguments: object) -> int:
    return commandline.guarded(app, [str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    return line


@pytest.fixture
def three(tmp_path) -> tuple[Store, str]:
    """A store of two methods and three seeds, and its suite."""
    cells = [cell(method, seed) for method in ("lora", "full") for seed in (0, 1, 2)]
    return stored(tmp_path / "store", *cells), str(suite(tmp_path / "three.toml"))


# What is written


def test_a_report_writes_its_files_and_the_same_bytes_again(three, capsys):
    store, name = three
    assert command("report", name, "--results", store.root) == 0
    printed = capsys.readouterr().out
    files = {path.name: path.read_bytes() for path in store.root.iterdir() if path.is_file()}
    assert sorted(files) == ["report.html", "results.csv", "three.html", "three.md", "three.tex", "three_wide.csv"]
    assert files["report.html"] == files["three.html"]
    assert files["three.md"].decode().startswith(printed)
    assert "6 cells: 6 done. 9 of the suite's cells are missing." in printed
    assert command("report", name, "--results", store.root) == 0
    assert files == {path.name: path.read_bytes() for path in store.root.iterdir() if path.is_file()}


def test_what_is_printed_fits_the_terminal(tmp_path, capsys):
    names = [f"a_method_with_a_long_name_{n}" for n in range(3)]
    store = stored(
        tmp_path / "s",
        *(cell(name, 0, fit=squad_records([1.0]), facts={"dirty": n == 1}) for n, name in enumerate(names)),
    )
    print(tables(store, store.names()))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("| method") for line in lines) == 2, "the first column is repeated"


def test_nothing_is_there_yet(tmp_path, capsys):
    assert command("report", suite(tmp_path / "x.toml"), "--results", tmp_path / "none") == 0
    assert "There is no finished cell yet." in capsys.readouterr().out


def test_a_mix_is_refused_by_the_command_and_nothing_is_written(tmp_path, capsys):
    cells = [cell("lora", config={"limit": 3}), cell("full")]
    store = stored(tmp_path / "s", *cells)
    arguments = ["report", suite(tmp_path / "x.toml"), "--results", store.root]
    sentence = refused(capsys, command(*arguments))
    assert "which differ in limit (3, null): a table does not mix them" in sentence
    assert [path.name for path in store.root.iterdir()] == ["cells"]
    assert command(*arguments, "--allow-mixed") == 0
    assert "MIXED PROTOCOLS" in capsys.readouterr().out
    page = (store.root / "report.html").read_text()
    assert page.count("<sup>a</sup>") == page.count("<sup>b</sup>") == 2
    assert (store.root / "x.tex").read_text().count(r"\textsuperscript{a}") == 2


def test_a_damaged_cell_is_one_sentence(three, capsys):
    store, name = three
    (store.cells / store.names()[0] / "config.json").write_text("{")
    assert "remove" in refused(capsys, command("report", name, "--results", store.root))


@pytest.mark.parametrize("file", ["report.jsonl.gz", "log.json"])
@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"\xff[["])
def test_damaged_records_and_logs_are_one_sentence(file, damage, three, capsys):
    store, name = three
    path = store.cells / cell("lora").name / file
    path.write_bytes(damage(path.read_bytes()))
    told = refused(capsys, command("report", name, "--results", store.root))
    assert f"{path} cannot be read (" in told
    assert "remove its folder, and the cell runs again" in told


def test_records_that_are_not_there_are_one_sentence(three, capsys):
    store, name = three
    path = store.cells / cell("lora").name / "report.jsonl.gz"
    path.unlink()
    told = refused(capsys, command("report", name, "--results", store.root))
    assert f"{path} cannot be read (No such file or directory)" in told


# Which cells are a suite's


def kept(store, path) -> belonging.Belonging:
    return belonging.of(read_suite(str(path)), read(store))


def test_other_axes_and_single_commands_are_no_part_of_a_suite(tmp_path):
    foreign = [
        cell("bitfit"),
        cell("lora", 7),
        cell("lora", config={"adapter": "a#1"}),
        cell("lora", config={"tier": "pocket"}),
    ]
    store = stored(tmp_path / "s", cell("lora"), *foreign, cell("full", config={"checkpoint": "mine#2"}))
    found = kept(store, suite(tmp_path / "x.toml"))
    assert [each.config["method"] for each in found.cells] == ["lora"]
    assert (found.missing, found.others) == (14, 2)


def test_cells_of_a_study_beside_planned_ones_are_left_out_and_counted(tmp_path):
    study = [cell("lora", training={"fit_limit": 100}), cell("lora", own={"rank": 2}, training={"steps": 9})]
    store = stored(tmp_path / "s", cell("lora"), *study)
    found = kept(store, suite(tmp_path / "x.toml"))
    assert [each.config["settings"]["training"]["steps"] for each in found.cells] == [200]
    assert found.others == 2


def test_a_suite_run_with_set_is_still_the_suite(tmp_path):
    changed = [cell(method, training={"steps": 20}) for method in ("lora", "full")]
    assert len(kept(stored(tmp_path / "s", *changed), suite(tmp_path / "x.toml")).cells) == 2


def test_what_a_study_varies_is_planned(tmp_path):
    grid = (
        '[[grid]]\ntasks = ["squad"]\nbackbones = ["roberta"]\nmethods = ["lora"]\n'
        "settings = [{ steps = 5 }, { method.rank = 2, steps = 9 }]\n"
    )
    text = (
        f"{grid}[[set]]\nmax_length = 384\ndoc_stride = 128\nlearning_rate = 1e-3\nbatch_size = 16\nfit_sample = 200\n"
    )
    both = [cell("lora", training={"steps": 5}), cell("lora", own={"rank": 2}, training={"steps": 9})]
    store = stored(tmp_path / "s", *both, cell("lora", own={"rank": 3}, training={"steps": 9}))
    found = kept(store, suite(tmp_path / "x.toml", text))
    assert sorted(each.name for each in found.cells) == sorted(each.name for each in both)
    assert (found.missing, found.others) == (0, 1)
    first = kept(stored(tmp_path / "first", both[0]), suite(tmp_path / "x.toml", text))
    assert (len(first.cells), first.missing) == (1, 1)
    twice = suite(tmp_path / "twice.toml", grid + text)
    other = kept(stored(tmp_path / "other", cell("lora", training={"steps": 7})), twice)
    assert (len(other.cells), other.missing) == (1, 0), "its axis is filled, by a run with --set"
    assert kept(Store(tmp_path / "none"), twice).missing == 2


def test_of_a_study_every_cell_is_counted_as_missing(tmp_path):
    assert belonging.of(read_suite("study_layers"), read(Store(tmp_path))).missing == 36


# CSV


def test_the_wide_table_has_a_line_a_method_and_columns_for_each_metric(tmp_path):
    pictures = cell("lora", 0, vtab_records([1, 0]), task="vtab", dataset="dtd", backbone="vit")
    seeds = [cell("lora", seed, squad_records([0.1 * seed])) for seed in range(3)]
    store = stored(tmp_path, *seeds, cell("full"), pictures)
    rows = {row["method"]: row for row in csv.DictReader(wide.text(build(read(store))).splitlines())}
    assert sorted(rows) == ["full", "lora"]
    assert float(rows["lora"]["squad/v1.1/f1"]) == pytest.approx(10.0)
    assert float(rows["lora"]["squad/v1.1/f1 sd"]) == pytest.approx(10.0)
    assert rows["lora"]["squad/v1.1/f1 seeds"] == "3"
    assert rows["lora"]["vtab/dtd/accuracy"] == "50.0"
    assert (rows["full"]["vtab/dtd/accuracy"], rows["full"]["squad/v1.1/f1 sd"]) == ("", "")
    assert rows["full"]["squad/v1.1/marks"] == "one seed"


def test_two_backbones_have_columns_of_their_own(tmp_path):
    store = stored(tmp_path, cell("lora"), cell("lora", backbone="other"))
    (row,) = csv.DictReader(wide.text(build(read(store))).splitlines())
    assert {"squad/v1.1@roberta/f1", "squad/v1.1@other/f1"} <= set(row)


def test_a_carriage_return_ends_no_line_of_a_table(tmp_path):
    store = stored(tmp_path, cell("one\rtwo\nthree"))
    for text in (wide.text(build(read(store))), store.export().read_text()):
        (first, *_) = csv.DictReader(io.StringIO(text))
        assert first["method"] == "one two\nthree"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *(("=1+1", "'=1+1"), ("+cmd", "'+cmd"), ("@x", "'@x"), ("-x", "'-x"), ("\t=1", "'\t=1"), (" =1", "' =1")),
        *(("-0.5", "-0.5"), ("+3e2", "+3e2"), (-0.5, -0.5), ("lora", "lora"), ("", ""), (None, None)),
    ],
)
def test_no_field_is_a_formula(value, written):
    assert plain.inert(value) == written


# Nothing that came with data does anything


@pytest.fixture
def hostile(tmp_path) -> tuple[Store, str]:
    """A method, an answer, an error and notes that mean harm; the gates and losses of a run are real ones."""
    records = squad_records([1.0, 0.0])
    records[0] |= {"prediction": HOSTILE, "id": HOSTILE}
    gates = [[step, {"model.layers.0.self_attn": [0.1 * step, -0.1], HOSTILE: [0.0, 0.2]}] for step in (1, 2)]
    bad = cell(
        HOSTILE,
        0,
        records,
        notes=[HOSTILE],
        facts={"protocol": HOSTILE, "checkpoint": HOSTILE},
        log={"gates": gates},
        name="a",
    )
    store = stored(
        tmp_path / "s",
        bad,
        cell("lora", notes=[HOSTILE], name="b"),
        broken(HOSTILE, 1, error=HOSTILE, name="c\x1b[31m<b>"),
    )
    text = suite(tmp_path / "x.toml").read_text().replace('"lora"', f'"lora", {json.dumps(HOSTILE)}')
    return store, str(suite(tmp_path / "x.toml", text))


def test_a_terminal_gets_no_escapes(hostile):
    store, name = hostile
    printed = report(read_suite(name), store)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", printed)
    assert "=cmd" in printed


def test_markdown_shows_a_hostile_name_as_words(hostile):
    """Rendered by a real Markdown parser that lets HTML through."""
    store, name = hostile
    report(read_suite(name), store)
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render((store.root / "x.md").read_text())
    tags = Tags(page).tags
    assert {tag for tag, _ in tags} <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "em"}
    assert "em" not in {tag for tag, _ in tags}
    assert "onerror" in page


class Tags(HTMLParser):
    """The tags of a page with their attributes, and what is in its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value or "" for name, value in attrs if name == "id"]


def test_the_page_fetches_nothing_runs_one_script_and_escapes_the_rest(hostile):
    store, name = hostile
    report(read_suite(name), store)
    text = (store.root / "report.html").read_text()
    page = Tags(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "link", "form", "base"} == set()
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for key in ("href", "xlink:href", "src", "action"):
            target = attributes.get(key) or "#"
            assert re.match(r"#|cells/[\w%.-]+/$|data:image/(png|jpeg);base64,", target), target
    assert len(page.ids) == len(set(page.ids))
    assert {f"#{name}" for name in page.ids} >= {a["href"] for t, a in page.tags if t == "a" and a["href"][:1] == "#"}
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "default-src 'none'" in text


def test_latex_escapes_what_it_would_obey():
    sheet = Sheet(
        "k", HOSTILE, HOSTILE, [Column("a_b", words=True), Column("5%↑")], [[word(HOSTILE), number(1, "1 ± 2")]]
    )
    text = latex.document([sheet])
    bare = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]", "", text
    )
    body = bare[bare.index(r"\midrule") : bare.index(r"\bottomrule")]
    assert body.count("&") == 1
    assert not re.search(r"[#%_~^]|\\alpha", body)
    assert r"$\pm$" in body


def test_a_row_is_no_argument_of_the_end_of_the_row_before():
    sheet = Sheet("", "t", "", [Column("a")], [[Figure(text)] for text in ("x", "[1em]", "*")], [])
    assert [line for line in latex.document([sheet]).splitlines() if line.endswith("\\\\")][2:] == [
        r"{[}1em{]} \\",
        r"{*} \\",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: the tables are checked as text alone")
def test_latex_is_set_by_latex(hostile, tmp_path):
    store, name = hostile
    report(read_suite(name), store)
    shutil.copy(store.root / "x.tex", tmp_path)
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{x.tex}\end{document}"
    (tmp_path / "paper.tex").write_text(document)
    done = subprocess.run(["pdflatex", "-halt-on-error", "paper.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")


# The page


def test_a_number_leads_to_its_configuration_and_records(three):
    store, name = three
    report(read_suite(name), store)
    text = (store.root / "report.html").read_text()
    links = [attributes["href"] for tag, attributes in Tags(text).tags if tag == "a"]
    assert set(links) >= {f"cells/{each}/" for each in store.names()}
    assert all((store.root / link).is_dir() for link in links if link.startswith("cells/"))
    part = text[text.index('<div id="cells-0">') :]
    part = part[: part.index("</details>", part.index("<pre"))]
    assert "&#34;max_length&#34;: 384" in part
    assert part.count("<h3>Seed ") == 3
    assert "<td>q0</td>" in part


def test_what_is_embedded_of_many_cells_is_bounded_and_says_so(tmp_path):
    cells = [cell("lora", seed, squad_records([0.5])) for seed in range(CELLS + 30)]
    text = (
        'tier = "mini"\n[[grid]]\ntasks = ["squad"]\nbackbones = ["roberta"]\nmethods = ["lora"]\n'
        f"seeds = {list(range(CELLS + 30))}\n"
    )
    store = stored(tmp_path / "s", *cells)
    report(read_suite(str(suite(tmp_path / "x.toml", text))), store)
    page = (store.root / "report.html").read_text()
    assert page.count("<td>q0</td>") == CELLS
    assert f"Scores and records of {CELLS} of the {CELLS + 30} cells are in this page" in page
    assert page.count("<h3>Seed ") == CELLS + 30


def captioned(method: str, seed: int = 0, **changes):
    from tasks.metrics import caption_rules as rules

    measured = dict.fromkeys(rules.Measured._fields, 0)
    whole = cell(method, seed, [], **changes)
    records = [{"id": str(n), "prediction": f"a {method} of {n}", "tokens": [], **measured} for n in range(61, 81)]
    whole.records["report"].extend(records)
    return whole


def test_pictures_of_the_generated_world_are_shown_and_never_published(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    from tests.tasks import fabricated

    monkeypatch.setattr(fabricated, "_part", lambda *_: {"n": 20, "n_expected": 20, "scores": {"bleu4": [1.0, None]}})
    made = resolve(settle(Choice("coco_caption", "llama", "frozen"))).identity["sources"]
    assert made
    kind = {"task": "coco_caption", "dataset": "coco", "backbone": "llama", "config": {"sources": made}}
    store = stored(tmp_path / "s", captioned("lora", **kind), captioned("zero_init", **kind))
    text = 'tier = "mini"\n[[grid]]\ntasks = ["coco_caption"]\nbackbones = ["llama"]\nmethods = ["lora", "zero_init"]\n'
    name = str(suite(tmp_path / "x.toml", text))
    assert command("report", name, "--results", store.root) == 0
    page = (store.root / "report.html").read_text()
    assert page.count("<img ") == 8
    assert page.count("data:image/png;base64,") == 8
    assert "<dd>a zero_init of 61</dd>" in page
    assert command("report", name, "--results", store.root, "--publish") == 0
    assert "<img " not in (tmp_path / "results/x/report.html").read_text()


def test_inputs_are_embedded_when_it_is_asked_for_alone(tmp_path, capsys, three):
    store, name = three
    for flags in (["--embed-inputs"], ["--data", tmp_path]):
        assert "go together" in refused(capsys, command("report", name, "--results", store.root, *flags))
    both = ["--embed-inputs", "--data", tmp_path]
    assert "never holds inputs" in refused(capsys, command("report", name, "--results", store.root, "--publish", *both))
    assert command("report", name, "--results", store.root, *both) == 0


# Published numbers


def test_numbers_of_others_stand_beside_ours_with_what_differs(tmp_path):
    ours = cell("lora", 0, vtab_records([1, 0]), task="vtab", dataset="dtd", backbone="vit")
    paper = {"config": {"tier": "paper"}, "facts": {"checkpoint": "vit_base_patch16_224.orig_in21k"}}
    same = cell("full", 0, vtab_records([1, 0]), task="vtab", dataset="dtd", backbone="vit", **paper)
    store = stored(tmp_path, ours, same)
    by_tier = {table.shared["tier"]: table for table in build(read(store))}
    numbers = published.read()
    rows = {}
    for tier, table in by_tier.items():
        sheet = numbers.beside(table)
        assert sheet is not None
        rows[tier] = {line[0].text: [figure.text for figure in line] for line in sheet.lines}
    assert len(rows["mini"]) == 25
    assert rows["mini"]["FacT"][2] == "weights (orig_in21k), examples (ours are generated)"
    assert rows["paper"]["FacT"][2] == ""
    assert rows["paper"]["SSF"][2] == "weights (augreg_in21k), normalisation (inception)"
    assert rows["paper"]["Zero-init (LLaMA-Adapter)"][2] == "weights (unknown), normalisation (unknown)"
    assert "only a bias can learn" in rows["paper"]["Adapter (VPT code, broken init)"][-1]
    assert rows["paper"]["FacT"][3].startswith("best of every 10 epochs on the test set")


def test_numbers_of_others_never_enter_ours(three):
    store, name = three
    report(read_suite(name), store)
    assert "Prompt tuning (Lester et al.)" in (store.root / "three.md").read_text()
    assert "Lester" not in (store.root / "three_wide.csv").read_text()
    assert "Lester" not in (store.root / "results.csv").read_text()
    found = gather(read(store), store)
    assert {line.label for table in found.tables for line in table.lines} == {"lora", "full"}


def test_without_a_clone_there_is_no_section(tmp_path):
    assert published.read(tmp_path / "absent.csv").rows == {}
    bad = tmp_path / "bad.csv"
    bad.write_text("task,dataset,metric,value,method,source,weights,normalisation,selection,note\na,b,c,high,,,,,,\n")
    with pytest.raises(InputError, match=r"line 2: 'high' is no number"):
        published.read(bad)


# The committed snapshot


def test_a_snapshot_has_what_it_needs_to_be_derived_again(three, tmp_path, monkeypatch, capsys):
    store, name = three
    monkeypatch.chdir(tmp_path)
    adapter = store.cells / store.names()[0] / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_text("weights")
    stored(store.root, cell("bitfit"))
    assert command("report", name, "--results", store.root, "--publish") == 0
    target = tmp_path / "results/three"
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert {path for path in files if "/" not in path} == {
        *("report.html", "results.csv", "three.md", "three.tex", "three_wide.csv"),
    }
    assert {path.split("/")[1] for path in files if "/" in path} == {n for n in store.names() if "bitfit" not in n}
    assert {path.split("/")[-1] for path in files if "/" in path} == {
        *("config.json", "result.json", "log.json", "report.jsonl.gz"),
    }
    before = {path: (target / path).read_bytes() for path in files}
    capsys.readouterr()
    assert command("report", name, "--results", target) == 0
    assert {path: (target / path).read_bytes() for path in files} == before
    assert command("report", name, "--results", store.root, "--publish") == 0
    assert {path: (target / path).read_bytes() for path in files} == before
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["three"]
    capsys.readouterr()
    assert "is the snapshot itself" in refused(capsys, command("report", name, "--results", target, "--publish"))


@pytest.mark.parametrize("dataset", ["v1.1", "v2.0"])
def test_a_snapshot_quotes_no_real_data(dataset, tmp_path):
    records = squad_records([1.0, 0.5])
    if dataset == "v2.0":
        records = [
            one | {"span": "of it", "span_exact": one["exact"], "span_f1": one["f1"], "null_score": 0.0}
            for one in records
        ]
    made = resolve(settle(Choice("squad", "roberta", "frozen", dataset=dataset))).identity["sources"]
    kinds = {
        "none": {"sources": {}},
        "made": {"sources": made},
        "own": {"sources": {"train": "mine.csv#1"}},
        "pocket": {"tier": "pocket", "sources": made},
    }
    cells = {kind: cell("lora", records=records, dataset=dataset, config=config) for kind, config in kinds.items()}
    store, copy = stored(tmp_path / "s", *cells.values()), Store(tmp_path / "copy")
    for kind, one in cells.items():
        shutil.copytree(store.cells / one.name, copy.cells / one.name)
        publish.unquoted(copy.cells / one.name, one.config)
        before, after = (each.records(one.name, "report") for each in (store, copy))
        words = [key for key in ("prediction", "span") if key in records[0]]
        for record, other in zip(before, after, strict=True):
            hashed = {key: other[key] for key in words if kind in ("own", "pocket")}
            assert all(value.startswith("sha256 ") or not record[key] for key, value in hashed.items())
            assert other == record | hashed
        assert any(record[key] for record in before for key in words)
    assert list(discrepancies(copy)) == list(discrepancies(store)) == []


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (broken("full"), "1 of 2 cells of x are without numbers (squad-v1.1-roberta-full-s0-"),
        (
            cell("full", facts={"dirty": True}),
            "1 of 2 cells of x are made by changed code (squad-v1.1-roberta-full-s0-",
        ),
        (cell("full", facts={"commit": "", "dirty": None}), "1 of 2 cells of x are of no commit ("),
    ],
)
def test_what_nobody_could_make_again_is_not_published(other, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = stored(tmp_path / "s", cell("lora"), other)
    code = command("report", suite(tmp_path / "x.toml"), "--results", store.root, "--publish")
    assert sentence in refused(capsys, code)
    assert not (tmp_path / "results/x").exists()


def test_a_mixed_or_empty_or_large_snapshot_is_refused(three, tmp_path, monkeypatch, capsys):
    store, name = three
    monkeypatch.chdir(tmp_path)
    assert command("report", name, "--results", store.root, "--publish") == 0
    whole = (tmp_path / "results/three/report.html").read_bytes()
    capsys.readouterr()
    empty = suite(tmp_path / "empty.toml")
    assert "there is no cell of empty to publish" in refused(
        capsys, command("report", empty, "--results", tmp_path / "none", "--publish")
    )
    monkeypatch.setattr(publish, "LIMIT", 10_000)
    sentence = refused(capsys, command("report", name, "--results", store.root, "--publish"))
    assert "the largest file, " in sentence
    assert (tmp_path / "results/three/report.html").read_bytes() == whole, "the earlier snapshot stays"
    stored(store.root, cell("head", fields={"n_best": 3}))
    assert "a table does not mix them" in refused(capsys, command("report", name, "--results", store.root, "--publish"))


def test_what_is_no_snapshot_is_never_replaced(three, tmp_path, monkeypatch, capsys):
    store, _ = three
    monkeypatch.chdir(tmp_path)
    local = stored(tmp_path / "results/local", cell("lora"))
    local.export()
    mine = tmp_path / "results/mine"
    mine.mkdir()
    for other in ("local", "mine"):
        of_that_name = suite(tmp_path / f"{other}.toml")
        told = refused(capsys, command("report", of_that_name, "--results", store.root, "--publish"))
        assert f"{other} is there and no snapshot of {other}" in told
    assert command("report", tmp_path / "local.toml", "--results", local.root) == 0  # now it has a page
    capsys.readouterr()
    code = command("report", tmp_path / "local.toml", "--results", store.root, "--publish")
    assert "no snapshot of local" in refused(capsys, code)
    assert local.names()
    assert mine.exists()


def test_what_a_cell_links_to_is_not_published(three, tmp_path, monkeypatch):
    store, name = three
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("mine")
    first = store.names()[0]
    (store.cells / first / "fit.jsonl.gz").symlink_to(tmp_path / "secret")
    assert command("report", name, "--results", store.root, "--publish") == 0
    assert not (tmp_path / "results/three/cells" / first / "fit.jsonl.gz").exists()


def test_an_earlier_snapshot_comes_back_where_the_new_one_does_not_arrive(three, tmp_path, monkeypatch):
    from pathlib import Path

    store, name = three
    monkeypatch.chdir(tmp_path)
    assert command("report", name, "--results", store.root, "--publish") == 0
    rename = Path.rename

    def moved(path, target):
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", moved)
    assert command("report", name, "--results", store.root, "--publish") == commandline.INTERRUPTED
    assert (tmp_path / "results/three/report.html").is_file()
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["three"]


def test_a_stale_cell_is_not_published(tmp_path):
    import dataclasses

    (found,) = read(stored(tmp_path, cell("lora")))
    with pytest.raises(InputError, match="1 of 1 cells of x are stale"):
        publish.refuse([dataclasses.replace(found, state="stale")], "x")


# Markdown by itself


def test_a_table_wider_than_asked_is_cut_into_parts_of_whole_columns():
    columns = [Column("m", words=True), *(Column(f"c{n}") for n in range(6))]
    sheet = Sheet("k", "t", "w", columns, [[word("x"), *(number(n, "1" * 10) for n in range(6))]])
    text = markdown.text(sheet, 40)
    assert max(map(len, text.splitlines())) <= 40
    assert re.findall(r"c\d", text) == [f"c{n}" for n in range(6)]
    assert len(MarkdownIt("commonmark").enable("table").parse(text)) > 0
    assert MarkdownIt("commonmark").enable("table").render(text).count("<table>") == 3


def test_a_mark_is_seen_in_every_format():
    sheet = Sheet("k", "t", "", [Column("m", words=True), Column("c")], [[word("x"), Figure("1", 1.0, mark="b")]])
    assert "1ᵇ" in markdown.text(sheet)
    assert r"1\textsuperscript{b}" in latex.document([sheet])
