"""Statistics against scipy, statsmodels, closed forms and published values; and what must hold of any scores."""

import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as contingency
from statsmodels.stats.multitest import multipletests

from tasks.bench import ranks, resample, significance, stats

RNG = np.random.default_rng(3)
DEMSAR = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975
0.957 0.978 0.946 0.970
"""
"""Demsar 2006, table 6: the AUC of four variants of C4.5 on 14 data sets (two that are printed alike rank 2 and 3)."""


def scores(seeds=3, examples=200, shift=0.0, seed_sd=0.3, shared=None):
    part = RNG.normal(0, 1, examples) if shared is None else shared
    return shift + part + RNG.normal(0, seed_sd, (seeds, 1)) + RNG.normal(0, 0.5, (seeds, examples))


# --- spread, standard errors, intervals


def test_seeds_are_summed_up():
    assert stats.spread([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(np.std([1, 2, 4], ddof=1)), 3)
    assert stats.spread([5.0]) == (5.0, None, 1)


def test_the_standard_error_of_a_mean_is_scipys():
    values = RNG.random(50)
    assert stats.standard_error(values) == pytest.approx(scipy.stats.sem(values))
    assert stats.standard_error([1.0]) is None
    assert stats.standard_error([2.0, 2.0]) == 0


def test_the_standard_error_of_a_weighted_mean_is_that_of_scipys_bootstrap():
    tokens, nats = np.ceil(RNG.lognormal(3, 1, 400)), RNG.gamma(2, 1, 400)
    drawn = scipy.stats.bootstrap(
        (tokens * nats, tokens),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
    )
    assert stats.standard_error(nats, tokens) == pytest.approx(drawn.standard_error, rel=0.05)


def test_an_error_of_zero_is_right_only_where_examples_agree():
    stats.check(0.0, [1.0, 1.0, 1.0])
    stats.check(0.0, [1.0, 1.0, 0.0], [1, 1, 0])
    stats.check(None, [1.0, 0.0])
    with pytest.raises(ValueError, match="a standard error of 0 over 3 examples that differ"):
        stats.check(0.0, [1.0, 1.0, 0.0])


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_an_interval_is_near_scipys_bootstrap_where_there_are_many_examples(method):
    values = RNG.beta(2, 1, 1500)
    other = scipy.stats.bootstrap((values,), np.mean, method=method, n_resamples=5000, rng=np.random.default_rng(1))
    found = stats.interval(values)
    assert found.mean == pytest.approx(values.mean())
    width = other.confidence_interval.high - other.confidence_interval.low
    assert (found.low, found.high) == pytest.approx(other.confidence_interval, abs=0.06 * width)


def test_the_variance_over_seeds_and_examples_is_that_of_the_analysis_of_variance():
    table = scores(4, 30)
    rows = pd.DataFrame([(s, e, table[s, e]) for s in range(4) for e in range(30)], columns=["seed", "example", "y"])
    squares = anova_lm(ols("y ~ C(seed) + C(example)", rows).fit())["mean_sq"]
    # The variance of the mean of a crossed random design (Searle, Casella and McCulloch 1992, chapter 4).
    wanted = (squares["C(seed)"] + squares["C(example)"] - squares["Residual"]) / table.size
    assert resample.measure([(1.0, table)]).variance == pytest.approx(wanted)


def test_one_system_of_normal_seeds_on_which_all_depends_has_students_interval():
    table = RNG.normal(0, 1, (5, 1)) + RNG.normal(0, 1e-4, (5, 40))
    found, wanted = (
        stats.interval(table, draws=20_000),
        scipy.stats.t.interval(0.95, 4, table.mean(), scipy.stats.sem(table.mean(1))),
    )
    assert (found.low, found.high) == pytest.approx(wanted, rel=0.03)


def test_a_mean_over_tasks_counts_them_alike():
    tasks = [scores(3, 50, shift=1), scores(2, 80, shift=2), scores(1, 20)[0]]
    found = stats.suite_interval(tasks)
    assert found.mean == pytest.approx(np.mean([each.mean() for each in tasks]))
    error = sum(resample.measure([(1.0, each)]).variance for each in tasks) ** 0.5 / 3
    assert 1.9 * error < found.high - found.mean < 4.5 * error
    against_nothing = stats.suite_paired(tasks, [np.zeros(np.shape(each)[-1]) for each in tasks])
    assert against_nothing[:3] == pytest.approx(tuple(found))


@pytest.mark.parametrize("same", [[1.0, 1.0, 1.0], [[0.0, 0.0], [0.0, 0.0]], [4.0]])
def test_where_nothing_varies_no_interval_is_told(same):
    assert stats.interval(same)[1:] == (None, None)
    assert stats.detectable_alone(same) is None
    assert stats.paired(same, same) == (0.0, None, None, 1.0)


def test_a_difference_that_never_varies_is_judged_by_its_sign_alone():
    found = stats.paired([1.0] * 5, [0.0] * 5)
    assert found == (1.0, None, None, scipy.stats.binomtest(5, 5).pvalue)
    assert stats.paired([1.0] * 40, [0.0] * 40, draws=999).p == 1 / 1000  # as small as so many draws could tell


def test_a_counted_p_is_a_share_of_the_draws_and_fits_the_interval():
    assert stats.paired([1.0, -1.0, 2.0, -2.0], [0.0] * 4).p == 1.0
    one, other = RNG.random((2, 30))
    one += other.mean() - one.mean() + 0.1  # on the side on which it stays
    low = stats.paired(one, other, draws=999).low
    inside = stats.paired(one - low - 1e-6, other, draws=999).p
    assert inside == pytest.approx(51 / 1000)
    assert stats.paired(one - low + 1e-6, other, draws=999).p == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "weights"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], None),
        ([1.0, 2.0], [1.0, 2.0], [1.0]),
        ([], [], None),
        ([1.0, np.nan], [1.0, 2.0], None),
        ([1.0, 2.0], [1.0, 2.0], [0.0, 0.0]),
        ([1.0, 2.0], [1.0, 2.0], [2.0, -1.0]),
    ],
)
def test_what_cannot_be_compared_is_refused(one, other, weights):
    with pytest.raises(ValueError, match="must be"):
        stats.paired(one, other, weights)


# --- comparisons


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2, 0.5])
def test_the_p_of_normal_differences_is_the_paired_t_tests(shift):
    one, other = RNG.normal(shift, 1, 150), RNG.normal(0, 1, 150)
    wanted = scipy.stats.ttest_rel(one, other).pvalue
    found = stats.paired(one, other, draws=10_000)
    assert found.p == pytest.approx(wanted, rel=0.5, abs=0.015)
    assert found.p > 0


def test_a_weighted_comparison_is_that_of_the_ratios():
    tokens = RNG.integers(1, 90, 300)
    one, other = RNG.random((2, 300))
    found = stats.paired(one, other, tokens)
    assert found.difference == pytest.approx(np.average(one, weights=tokens) - np.average(other, weights=tokens))
    assert stats.paired(one, other, np.full(300, 7.0)) == pytest.approx(stats.paired(one, other))


def test_what_weighs_nothing_is_not_there():
    one, other = RNG.random((2, 60))
    weights = np.r_[np.ones(40), np.zeros(20)]
    assert stats.paired(one, other, weights) == stats.paired(one[:40], other[:40])
    assert stats.paired(one, other, weights, draws=499) == stats.paired(one[:40], other[:40], draws=499)
    assert stats.paired(one, other, draws=499) != stats.paired(one, other)
    assert stats.interval(one, weights) == stats.interval(one[:40]) != stats.interval(one)
    assert stats.suite_interval([one, other], [weights, weights]) == stats.suite_interval([one[:40], other[:40]])
    assert stats.detectable(one, other, weights) == stats.detectable(one[:40], other[:40])
    assert stats.detectable_alone(one, weights) == stats.detectable_alone(one[:40])
    binary = [one > 0.5, other > 0.4]
    assert significance.difference(*binary, weights) == significance.mcnemar(*(each[:40] for each in binary))


def test_a_comparison_leaves_the_global_generator_alone_and_depends_on_its_seed():
    one, other = scores(), scores()
    np.random.seed(1)
    first, state = stats.paired(one, other), np.random.get_state()[1].copy()
    np.random.seed(2)
    assert stats.paired(one, other) == first
    assert stats.paired(one, other, seed=1) != first
    assert stats.interval(one) == stats.interval(one, seed=0) != stats.interval(one, seed=1)
    np.random.seed(1)
    assert (np.random.get_state()[1] == state).all()


def test_ten_thousand_examples_of_three_seeds_take_little_memory():
    shared = RNG.normal(0, 1, 10_000)
    one, other = scores(3, 10_000, shared=shared), scores(3, 10_000, shared=shared + RNG.normal(0, 1, 10_000))
    resample._counts.cache_clear()
    tracemalloc.start()
    stats.paired(one, other)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


tables = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        *[
            st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=n, max_size=n), min_size=1, max_size=3)
            for _ in range(2)
        ],
        st.lists(st.integers(1, 5), min_size=n, max_size=n),
        st.permutations(range(n)),
    )
)


@settings(max_examples=30, deadline=None)
@given(tables)
def test_comparisons_are_antisymmetric_and_blind_to_the_order_and_the_unit(table):
    one, other, weights = (np.array(each, float) for each in table[:3])
    order = list(table[3])
    found = stats.paired(one, other, weights, draws=199)
    back = stats.paired(other, one, weights, draws=199)
    shuffled = stats.paired(one[:, order], other[:, order], weights[order], draws=199)
    scaled = stats.paired(100 * one + 7, 100 * other + 7, 3 * weights, draws=199)
    assert (found.low is None) == (back.low is None)
    if abs(found.difference) > 1e-9:  # of none at all the side is not known
        assert found.p == pytest.approx(back.p) == pytest.approx(shuffled.p) == pytest.approx(scaled.p)
    if found.low is None:
        return
    assert found.low <= found.difference <= found.high
    assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)
    if abs(found.difference) > 1e-9:
        assert (found.low, found.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
        assert tuple(found)[:3] == pytest.approx(tuple(shuffled)[:3], abs=1e-9)
        assert tuple(found)[:3] == pytest.approx(tuple(each / 100 for each in scaled[:3]), abs=1e-9)


# --- what a task can show


def test_the_detectable_difference_is_the_textbooks():
    one, other = RNG.random((2, 5000))
    wanted = (1.959964 + 0.841621) * np.std(one - other, ddof=1) / 5000**0.5
    assert stats.detectable(one, other) == pytest.approx(wanted, rel=1e-3)
    assert stats.detectable_alone(one, correlation=0.0) == pytest.approx(wanted, rel=0.05)
    assert stats.detectable_alone(one) == pytest.approx(2.801585 * scipy.stats.sem(one), rel=1e-3)


def test_it_is_detected_in_four_of_five_studies():
    found = 0
    for study in range(500):
        one, other = RNG.normal(0, 1, (2, 80))
        one += stats.detectable(RNG.normal(0, 1, 80), RNG.normal(0, 1, 80))
        found += stats.paired(one, other, seed=study // 100, draws=500).p <= 0.05
    assert 0.74 < found / 500 < 0.86


# --- exact tests and many tests


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemars_test_is_that_of_statsmodels(answers):
    one, other = np.array(answers).T
    table = [[sum(one & other), sum(one & ~other)], [sum(~one & other), sum(~one & ~other)]]
    if table[0][1] + table[1][0]:
        assert significance.mcnemar(one, other) == pytest.approx(contingency(table, exact=True).pvalue)
    else:
        assert significance.mcnemar(one, other) == 1


@pytest.mark.parametrize("ps", [[0.3], [0.01, 0.04, 0.03], [0.5, 0.5], [0.0, 1.0, 0.2, 0.02, 0.02], RNG.random(20) / 9])
def test_holms_correction_is_that_of_statsmodels(ps):
    assert significance.holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 5))
def test_holms_correction_keeps_the_order_and_only_raises(ps, further):
    found = significance.holm(ps)
    assert all(raw <= corrected <= 1 for raw, corrected in zip(ps, found, strict=True))
    by_raw = [corrected for _, corrected in sorted(zip(ps, found, strict=True))]
    assert by_raw == sorted(by_raw)
    strict = significance.holm(ps, len(ps) + further)
    assert all(a <= b + 1e-12 for a, b in zip(found, strict, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.data())
def test_a_part_of_a_family_is_judged_no_milder_than_in_the_whole(ps, data):
    part = data.draw(st.lists(st.sampled_from(range(len(ps))), unique=True, min_size=1))
    whole, alone = significance.holm(ps), significance.holm([ps[place] for place in part], len(ps))
    assert all(own >= whole[place] - 1e-12 for own, place in zip(alone, part, strict=True))


def test_who_is_not_worse_than_the_best():
    shared = RNG.normal(0, 1, 300)
    good, alike, bad = (scores(1, 300, shift, shared=shared, seed_sd=0)[0] for shift in (1.0, 0.99, 0.5))
    assert significance.not_worse([bad, good, alike]) == [False, True, True]
    assert significance.not_worse([good]) == [True]
    assert significance.not_worse([good, good, good]) == [True] * 3
    halves = [[1] * 20 + [0] * 20, [0] * 20 + [1] * 20]
    assert significance.not_worse(halves) == [True, True]
    assert significance.not_worse(halves, [1.0] * 20 + [0.01] * 20) == [True, False]
    # One against nine has p 0.021, which counts among two pairs and not among the three that three systems make.
    best, rival = [1] * 9 + [0] * 10, [0] * 9 + [1] + [0] * 9
    assert significance.not_worse([best, rival, rival]) == [True] * 3
    assert significance.not_worse([best, rival]) == [True, False]


def test_degrees_of_freedom_are_satterthwaites():
    two = resample.measure([(1.0, RNG.normal(0, 1, (2, 30)))])
    (seeds,) = two.seeds
    limit = seeds.variance / scipy.stats.chi2.ppf(resample.CAUTION, seeds.freedom)
    assert seeds.freedom == 1
    assert resample.freedom([two]) == pytest.approx((two.resting + limit) ** 2 / limit**2)
    unsure = limit**2 + two.resting**2 / 29
    assert resample.freedom([two], examples=True) == pytest.approx((two.resting + limit) ** 2 / unsure)
    one = resample.measure([(1.0, RNG.normal(0, 1, 30))])
    assert resample.freedom([one]) == np.inf
    assert resample.freedom([one], examples=True) == pytest.approx(29)
    three = resample.measure([(1.0, RNG.normal(0, 1, (3, 30)))])
    limit = 2 * three.seeds[0].variance / scipy.stats.chi2.ppf(resample.CAUTION, 2)
    assert resample.freedom([three]) == pytest.approx((three.resting + limit) ** 2 / (limit**2 / 2))
    assert stats.spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5), 2)


def test_weights_decide_what_is_exact_and_what_differs():
    one, other = [1, 0, 1, 0.5], [0, 0, 1, 1]
    assert not significance.is_exact(one, other)  # three levels
    assert significance.is_exact(one, other, [2, 2, 2, 0])
    assert not significance.is_exact(one, other, [2, 2, 1, 0])
    first, second = RNG.normal(0, 1, (2, 60))
    weights = RNG.uniform(0.5, 2, 60)
    found = {significance.difference(first, second, each, seed=seed) for each in (None, weights) for seed in (0, 5)}
    assert len(found) == 4
    assert significance.difference(first, second, weights, seed=5) == stats.paired(first, second, weights, seed=5).p
    right, wrong = RNG.random((2, 60)) < 0.5
    assert significance.difference(right, wrong, weights) == stats.paired(right, wrong, weights).p
    with pytest.raises(ValueError, match="3 examples are not paired with 2"):
        significance.mcnemar([1, 0, 1], [1, 0])


def test_accuracies_of_one_seed_are_compared_by_mcnemars_test():
    one, other = RNG.random((2, 80)) < [[0.8], [0.6]]
    assert significance.difference(100 * one, 100 * other) == significance.mcnemar(one, other)
    assert significance.difference(100 * one, 100 * other) != stats.paired(100 * one, 100 * other).p
    three = RNG.random((3, 80)) < 0.6
    assert significance.difference(one, three) == stats.paired(one, three).p


def test_more_seeds_that_agree_say_less_than_one_that_is_taken_as_it_is():
    """Three seeds far apart: on these examples one is better, but another training might not be."""
    shared = RNG.normal(0, 1, 500)
    one = shared + RNG.normal(0, 0.1, 500) + np.array([[0.5], [0.0], [-0.2]])
    assert stats.paired(one[0], shared).p < 1e-6
    assert stats.paired(one, shared).p > 0.3


# --- ranks


def test_demsars_example_comes_out_as_printed():
    table = np.array([line.split() for line in DEMSAR.strip().splitlines()], float)
    found = ranks.mean_ranks(table)
    assert found == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    assert ranks.cliques(found, 1.25) == [(3, 1, 2, 0)]
    assert ranks.cliques(found, 1.0) == [(3, 1, 2), (2, 0)]


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_the_critical_values_are_demsars(methods, q):
    """His table 5(a), whose 2.343 is 2.3437 cut short."""
    assert ranks.critical_difference(methods, 20) == pytest.approx(q * (methods * (methods + 1) / 120) ** 0.5, rel=5e-4)


def test_friedmans_statistic_is_that_of_the_mean_ranks():
    table = RNG.random((9, 5))
    mean, found = ranks.mean_ranks(table), ranks.friedman(table)
    wanted = 12 * 9 / (5 * 6) * (sum(rank**2 for rank in mean) - 5 * 6**2 / 4)
    assert found == pytest.approx((wanted, scipy.stats.chi2.sf(wanted, 4)))
    assert ranks.friedman(np.ones((6, 3))) == (0.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(2, 12), min_size=1, max_size=7), st.integers(0, 8))
def test_cliques_are_the_largest_groups_that_are_not_separated(halves, gap):
    mean = [half / 2 for half in halves]
    places = range(len(mean))
    together = [
        frozenset(group)
        for size in range(2, len(mean) + 1)
        for group in itertools.combinations(places, size)
        if max(mean[k] for k in group) - min(mean[k] for k in group) <= gap / 2
    ]
    largest = {group for group in together if not any(group < other for other in together)}
    found = ranks.cliques(mean, gap / 2)
    assert {frozenset(group) for group in found} == largest
    assert len(found) == len(largest)
