"""Tables: means over seeds, parts said to be parts, bold only where a test allows it, and two protocols never mixed."""

import itertools

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tasks._vtab_sets import DATASETS
from tasks.bench import task as tasks
from tasks.bench.errors import InputError
from tasks.bench.report import compare, compared, mixing, overall, terminal
from tasks.bench.report.found import read
from tasks.bench.report.gathered import gather
from tasks.bench.report.markdown import document
from tasks.bench.report.tables import build
from tasks.bench.task import Term
from tests.tasks.fabricated import broken, cell, squad_records, stored, vtab_records


def text_of(store, **options) -> str:
    return document(gather(read(store), store, **options).sheets, width=None)


def lines(text: str) -> list[list[str]]:
    """The cells of every table line, the rules between head and body left out."""
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in rows if set(row[0]) != {"-"}]


@pytest.fixture(autouse=True)
def terms(monkeypatch):
    """Means over examples, whatever the tasks themselves say of theirs."""

    def of(unit: float, *names: str):
        def terms(self, records, metric):
            field = {"exact_match": "exact", "accuracy": "correct"}.get(metric, metric)
            return [Term(unit * record[field]) for record in records] if metric in names else None

        return terms

    monkeypatch.setattr(type(tasks.get("squad")), "terms", of(100, "exact_match", "f1"))
    monkeypatch.setattr(type(tasks.get("vtab")), "terms", of(100, "accuracy"))


def test_the_best_comes_first_with_all_its_numbers(tmp_path):
    weak = cell("lora", records=squad_records([0.1, 0.3]), fit=squad_records([1.0]))
    strong = cell(
        "full",
        records=squad_records([1.0, 0.5]),
        facts={"trainable_params": 9000, "head_params": 0, "train_seconds": 12.4},
    )
    head, *table = lines(text_of(stored(tmp_path, weak, strong)))
    assert head == ["method", "exact_match ↑", "f1 ↑", "fit f1", "gap", "trainable", "train s", "n"]
    assert table[0] == ["full", "**50.0 (1)**", "**75.0 (1)**", "", "", "9,000", "12", "2"]
    assert table[1] == ["lora", "**0.0 (1)**", "**20.0 (1)**", "100.0", "+80.0", "1,200 + 34", "2.0", "2"]


def test_seeds_become_a_mean_a_standard_deviation_and_their_number(tmp_path):
    values = ([0.1, 0.2], [0.3, 0.5], [0.6, 0.9])
    store = stored(tmp_path, *(cell("lora", seed, squad_records(each)) for seed, each in enumerate(values)))
    means = [100 * np.mean(each) for each in values]
    assert lines(text_of(store))[1][2] == f"{np.mean(means):.1f} ± {scipy.stats.tstd(means):.1f} (3)"
    assert "Mean ± standard deviation (seeds)." in text_of(store)


def test_what_a_reader_should_know_is_said_beside_a_line_or_below_where_it_is_so_of_all(tmp_path):
    selected = "TEST-SELECTED: best of every 10 epochs on the report split"
    store = stored(
        tmp_path,
        cell("lora", facts={"dirty": True}),
        cell("full", facts={"status": "partial", "dirty": True, "selection": selected}, parts={"n_expected": 10}),
    )
    table = {row[0]: row for row in lines(text_of(store))}
    assert table["lora"][-1] == "one seed; changed code"
    assert table["full"][-1] == "one seed; partial; changed code; test-selected"
    assert "4/10" in table["full"]
    alike = text_of(
        stored(tmp_path / "alike", cell("lora", facts={"dirty": True}), cell("full", facts={"dirty": True}))
    )
    assert "Every line: one seed; changed code." in alike
    assert "marks" not in lines(alike)[0]


def test_faults_are_shown_where_there_are_any(tmp_path):
    faulty = cell("full", parts={"extract_fail": 1, "truncated": 0, "empty": 0})
    store = stored(tmp_path, cell("lora", parts={"extract_fail": 0, "truncated": 0, "empty": 0}), faulty)
    head, *table = lines(text_of(store))
    assert head[-1] == "unread"
    assert "truncated" not in head
    assert {row[0]: row[-1] for row in table} == {"lora": "0.0", "full": "25.0"}


def test_one_method_with_two_settings_is_two_lines_that_say_so(tmp_path):
    store = stored(tmp_path, cell("lora", own={"rank": 4}), cell("lora", own={"rank": 8}), cell("full"))
    assert {row[0] for row in lines(text_of(store))[1:4]} == {"lora (rank=4)", "lora (rank=8)", "full"}


def test_a_method_that_was_shown_no_pictures_stands_apart(tmp_path):
    blind = cell("lora", facts={"blind": True, "fingerprint": "other"})
    text = text_of(stored(tmp_path, cell("full"), blind))
    assert text.count("| method") == 2
    assert "squad v1.1 (the text alone)" in text


def test_a_shift_split_has_a_column(tmp_path):
    shifted = cell("lora")
    shifted.result["splits"]["shift"] = {**shifted.result["splits"]["report"], "scores": {"f1": [12.5, None]}}
    head, line = lines(text_of(stored(tmp_path, shifted)))
    assert line[head.index("shift f1")] == "12.5"


def test_the_order_of_cells_changes_nothing(tmp_path):
    cells = [cell(method, seed) for method in ("lora", "full") for seed in (0, 1)]
    texts = {text_of(stored(tmp_path / str(n), *order)) for n, order in enumerate(itertools.permutations(cells))}
    assert len(texts) == 1


def test_where_less_is_better_the_least_comes_first(tmp_path, monkeypatch):
    task = type(tasks.get("squad"))
    monkeypatch.setattr(task, "lower", frozenset({"exact_match", "f1"}))
    monkeypatch.setattr(task, "digits", {"f1": 3})
    many = np.append(np.random.default_rng(0).uniform(0.5, 0.9, 60), 1.0)
    store = stored(tmp_path, cell("lora", records=squad_records(many / 3)), cell("full", records=squad_records(many)))
    head, first, second = lines(text_of(store))
    assert head[:3] == ["method", "exact_match ↓", "f1 ↓"]
    assert (first[0], first[2]) == ("lora", f"**{100 * many.mean() / 3:.3f} (1)**")
    assert (second[0], second[2]) == ("full", f"{100 * many.mean():.3f} (1)")


def test_a_metric_that_says_neither_good_nor_bad_is_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tasks.get("squad")), "neutral", frozenset({"exact_match", "f1"}))
    found = gather(read(store := stored(tmp_path, cell("lora"), cell("full"))), store)
    (table,) = found.tables
    assert table.first is None
    assert found.ranking is None
    assert not any(verdict.held for verdict in found.verdicts[table].values())
    assert lines(text_of(store))[0][1] == "exact_match"


# Who is not significantly worse


def accuracy(method: str, hits, seed: int = 0):
    return cell(method, seed, vtab_records(hits), task="vtab", dataset="dtd", backbone="vit")


def judged(store) -> tuple[dict[str, bool], compare.Verdict]:
    found = gather(read(store), store)
    (table,) = found.tables
    verdict = found.verdicts[table][table.metrics[0]]
    return {line.label: line in verdict.held for line in table.lines}, verdict


def test_right_and_wrong_of_one_seed_is_mcnemars_exact_test_with_holms_correction(tmp_path):
    """Four methods of 100 pictures; the p of each against the best are those of statsmodels."""
    best = np.ones(100, int)
    best[:10] = 0
    rivals = {}
    for name, (lost, won) in {"near": (8, 4), "edge": (13, 3), "far": (30, 0)}.items():
        rivals[name] = best.copy()
        rivals[name][:won] = 1
        rivals[name][50 : 50 + lost] = 0
    ps = [
        mcnemar([[0, sum((best == 1) & (hits == 0))], [sum((best == 0) & (hits == 1)), 0]], exact=True).pvalue
        for hits in rivals.values()
    ]
    # Of the six pairs of four methods three are tested; the others count, since the best was seen in the same scores.
    rejected = multipletests([*ps, 1, 1, 1], alpha=0.05, method="holm")[0][:3]
    assert list(rejected) == [False, False, True]
    store = stored(tmp_path, accuracy("best", best), *(accuracy(name, hits) for name, hits in rivals.items()))
    held, verdict = judged(store)
    assert held == {"best": True} | {name: not out for name, out in zip(rivals, rejected, strict=True)}
    assert verdict.test == compare.MCNEMAR
    assert verdict.examples == 100


def test_holm_corrects_over_all_columns_of_the_table(tmp_path):
    """A p of 0.04 in one column is enough alone, and not beside a p of 1 in the other."""
    rng = np.random.default_rng(1)
    base, shift = rng.uniform(0.3, 0.6, 40), rng.normal(0.0, 0.1, 40)
    shift += 2.12 * shift.std(ddof=1) / 40**0.5 - shift.mean()
    hit = int(shift.argmax())
    base[hit] = 1 - shift[hit]
    best = base + shift
    best[hit] = 1.0
    assert 0.025 < scipy.stats.ttest_rel(best, base).pvalue < 0.05
    store = stored(tmp_path, cell("best", records=squad_records(best)), cell("next", records=squad_records(base)))
    found = gather(read(store), store)
    (table,) = found.tables

    def held(known) -> list[str]:
        verdict = compare.judge(table, known)["f1"]
        return [line.label for line in table.lines if line in verdict.held]

    assert held(found.known[table]) == ["best", "next"]
    assert held({"f1": found.known[table]["f1"]}) == ["best"]


def test_several_seeds_are_tested_together(tmp_path):
    rng = np.random.default_rng(2)
    hits = {name: rng.random((3, 200)) < share for name, share in {"best": 0.8, "worse": 0.5}.items()}
    store = stored(
        tmp_path,
        *(accuracy(name, row.astype(int), seed) for name, rows in hits.items() for seed, row in enumerate(rows)),
    )
    held, verdict = judged(store)
    assert held == {"best": True, "worse": False}
    assert verdict.test == compare.PAIRED


def test_only_examples_that_all_have_are_compared(tmp_path):
    few = squad_records([1.0] * 12)[4:]
    store = stored(tmp_path, cell("lora", records=squad_records([0.5] * 12)), cell("full", records=few))
    known = compare.examples(build(read(store))[0], store)["f1"]
    assert {line.label: scores.shape for line, scores in known.scores.items()} == {"lora": (1, 8), "full": (1, 8)}
    assert {line.label: scores.mean() for line, scores in known.scores.items()} == {"lora": 50.0, "full": 100.0}


def test_what_is_no_mean_is_not_tested_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tasks.get("squad")), "terms", lambda self, records, metric: None)
    text = text_of(stored(tmp_path, cell("lora"), cell("full", records=squad_records([0.1] * 4))))
    assert "exact_match, f1: not a mean over the same examples, so no paired test; bold is the best." in text
    assert "Smallest difference" not in text


def test_the_smallest_difference_that_could_be_found_is_told(tmp_path):
    """2.8 standard errors of the paired difference."""
    rng = np.random.default_rng(3)
    one, other = rng.uniform(0, 0.9, (2, 400))
    store = stored(tmp_path, cell("lora", records=squad_records(one)), cell("full", records=squad_records(other)))
    told = 2.8016 * 100 * np.std(one - other, ddof=1) / 400**0.5
    assert f"Smallest difference that 400 examples show with 80% power: {told:.1f} in f1" in (text_of(store))


# Two protocols


def mixed(root):
    return stored(
        root, cell("lora", fields={"max_length": 128}), cell("full"), cell("head", fields={"max_length": 128})
    )


def test_a_table_with_two_protocols_is_refused_with_what_differs(tmp_path):
    with pytest.raises(InputError, match="a table does not mix them") as refused:
        text_of(mixed(tmp_path))
    sentence = str(refused.value)
    assert "squad v1.1 on roberta has cells of 2 protocols" in sentence
    assert "which differ in task.max_length (128, 384)" in sentence
    assert "squad-v1.1-roberta-full-s0-" in sentence
    assert "squad-v1.1-roberta-head-s0-" in sentence
    assert "--allow-mixed" in sentence


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config": {"sources": {"eval": "dev.json#12"}}}, 'sources.eval ("dev.json#12", null)'),
        ({"config": {"limit": 5}}, "limit (5, null)"),
        ({"config": {"versions": {"bench": 1, "task": 2}}}, "versions.task (1, 2)"),
        ({"facts": {"weights_sha256": "other"}}, 'weights ("other", "w")'),
        ({"facts": {"fingerprint": "x"}}, "what looks at the pictures"),
    ],
)
def test_whatever_makes_the_protocol_is_named(change, told, tmp_path):
    store = stored(tmp_path, cell("lora"), cell("full", **change))
    with pytest.raises(InputError) as refused:
        mixing.refuse(build(read(store)))
    assert told in str(refused.value)


def test_other_tasks_backbones_and_devices_are_no_mix(tmp_path):
    store = stored(
        tmp_path,
        *(cell("lora"), accuracy("lora", [1, 0]), cell("full", dataset="v1.1", backbone="other", fields={"n_best": 3})),
        cell("full", config={"device": "cuda"}, fields={"n_best": 2}),
    )
    assert len(build(read(store))) == 4
    mixing.refuse(build(read(store)))


def test_allowed_by_name_every_number_is_marked_and_none_is_bold(tmp_path):
    text = text_of(mixed(tmp_path), allow_mixed=True)
    head, *table = lines(text)
    places = [head.index(name) for name in ("exact_match ↑", "f1 ↑")]
    marks = {row[0].split()[0]: {row[place][-1] for place in places} for row in table}
    assert marks["lora"] == marks["head"] != marks["full"]
    assert set.union(*marks.values()) == {"ᵃ", "ᵇ"}
    assert "**" not in "".join(cell for row in table for cell in row)
    assert "MIXED PROTOCOLS, no test was made: a = " in text
    assert "They differ in task.max_length (128, 384)." in text


def test_a_method_of_two_protocols_is_never_averaged_over_them(tmp_path):
    store = stored(tmp_path, cell("lora", 0), cell("lora", 1, config={"limit": 4}))
    rows = lines(text_of(store, allow_mixed=True))[1:]
    assert [row[1][:8] for row in rows] == ["25.0 (1)", "25.0 (1)"]


# Over several tables


def vtab(dataset: str, value: float, method: str = "lora", seed: int = 0, **changes):
    whole = cell(method, seed, vtab_records([1]), task="vtab", dataset=dataset, backbone="vit", **changes)
    whole.result["splits"]["report"]["scores"]["accuracy"] = [value, None]
    return whole


def test_many_sets_are_summed_up_by_both_means_and_parts_never_are(tmp_path):
    def summed(name: str, *cells) -> list[str]:
        store = stored(tmp_path / name, *cells)
        found = gather(read(store), store).summaries
        return [figure.text for figure in found[0].sheet.lines[0]] if found else []

    whole = [vtab(name, float(number)) for number, name in enumerate(DATASETS)]
    assert summed("whole", *whole) == ["lora", "3.00", "8.50", "14.50", "8.67", "9.00", "19/19"]
    seeds = [vtab(name, number + 2.0, seed=1) for number, name in enumerate(DATASETS)]
    assert summed("seeds", *whole, *seeds)[-2] == "10.00"
    part = [*whole[:-1], vtab("smallnorb_ele", 18.0, facts={"status": "partial"})]
    assert summed("part", *part) == ["lora", "3.00", "8.50", "", "", "", "18/19"]
    assert summed("one", vtab("dtd", 1.0)) == []
    assert summed("own", *whole, vtab("own", 99.0)) == summed("whole again", *whole)
    chosen = [vtab("cifar", 1.0, facts={"selection": "TEST-SELECTED: best"}), *whole[1:]]
    assert summed("chosen", *chosen) == ["lora", "", "8.50", "14.50", "", "", "18/19"]


def test_ranks_are_friedmans_and_methods_that_do_not_differ_are_joined(tmp_path):
    """Demsar's rule: with 4 methods in 14 tables the critical difference is 2.569 * sqrt(4 * 5 / (6 * 14))."""
    rng = np.random.default_rng(4)
    names = list(DATASETS)[:14]
    scores = np.sort(rng.uniform(20, 80, (14, 4)), axis=1)
    methods = ("d", "c", "b", "a")
    cells = [vtab(n, scores[i, j], m) for i, n in enumerate(names) for j, m in enumerate(methods)]
    store = stored(tmp_path, *cells, vtab(names[0], 10.0, "extra"))
    ranking = gather(read(store), store).ranking
    assert ranking is not None
    assert ranking.labels == ["a", "b", "c", "d"]
    assert ranking.ranks == [1, 2, 3, 4]
    assert ranking.difference == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, abs=1e-3)
    assert ranking.p == pytest.approx(scipy.stats.friedmanchisquare(*scores.T).pvalue)
    assert ranking.groups == [(0, 1), (1, 2), (2, 3)]
    assert ranking.left_out == ["extra"]


def test_the_largest_complete_comparison_is_ranked(tmp_path):
    cells = [vtab(name, 50.0, method) for name in ("dtd", "cifar", "svhn") for method in ("a", "b", "c")]
    cells += [vtab("kitti", 50.0, "a"), vtab("dmlab", 1.0, "a"), vtab("dmlab", 2.0, "b")]
    store = stored(tmp_path, *cells)
    ranking = gather(read(store), store).ranking
    assert ranking is not None
    assert (ranking.labels, len(ranking.tables)) == (["a", "b", "c"], 3)
    assert [ranking.p, *ranking.ranks] == [1.0, 2.0, 2.0, 2.0]


def test_means_and_differences_stand_beside_the_frozen_and_the_full_model(tmp_path):
    rng = np.random.default_rng(5)
    shares = {"frozen": 0.1, "lora": 0.5, "full": 0.6}
    hits = {(m, d): (rng.random(300) < s).astype(int) for m, s in shares.items() for d in ("dtd", "svhn")}
    cells = [cell(m, 0, vtab_records(h), task="vtab", dataset=d, backbone="vit") for (m, d), h in hits.items()]
    store = stored(tmp_path, *cells)
    found = gather(read(store), store)
    assert found.ranked is not None
    head = [column.name for column in found.ranked.columns]
    rows = {line[0].text: {n: f.text for n, f in zip(head, line, strict=True)} for line in found.ranked.lines}
    mean = {m: np.mean([100 * hits[m, d].mean() for d in ("dtd", "svhn")]) for m in shares}
    assert rows["lora"]["mean ↑"] == f"{mean['lora']:.1f}"
    assert rows["lora"]["above frozen"] == f"{mean['lora'] - mean['frozen']:+.1f}"
    assert rows["lora"]["above full"] == f"{mean['lora'] - mean['full']:+.1f}"
    assert rows["frozen"]["above frozen"] == ""
    low, high = map(float, rows["lora"]["95% interval"].split(" to "))
    error = np.sqrt(sum(hits["lora", d].var(ddof=1) / 300 for d in ("dtd", "svhn"))) * 100 / 2
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_there_is_no_ranking_of_one_table_or_of_one_method(tmp_path):
    assert overall.rank(build([])) is None
    store = stored(tmp_path, *(vtab(name, 1.0, "a") for name in ("dtd", "svhn")))
    assert overall.rank(build(read(store))) is None


def test_what_failed_or_was_stopped_has_no_line(tmp_path):
    stopped = broken("head", error="stopped after 1 s")
    stopped.result["facts"]["status"] = "cancelled"
    store = stored(tmp_path, cell("lora"), broken("full"), stopped)
    found = gather(read(store), store)
    assert [each.config["method"] for each in found.unmeasured] == ["full", "head"]
    assert f"Without numbers, not in the tables:\n- {broken('full').name}: the loss" in terminal(found)
    assert [line.label for line in found.tables[0].lines] == ["lora"]


def test_a_letter_of_a_spread_is_not_shown_for_one_seed():
    from tasks.bench.stats import spread

    assert compared.shown(spread([1.25]), 1) == "1.2 (1)"
    assert compared.shown(spread([1.0, 2.0]), 2) == "1.50 ± 0.71 (2)"
