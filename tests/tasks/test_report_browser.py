"""The page in a real browser: it sorts, unfolds, stays inside a phone, asks for nothing, and obeys no data."""

import json
from pathlib import Path

import pytest

from tasks.bench.report import report
from tasks.bench.suite import read as read_suite
from tests.tasks import browser
from tests.tasks.fabricated import broken, cell, squad_records, stored, suite, vtab_records

pytestmark = pytest.mark.skipif(browser.FOUND is None, reason="no chromium here: install Debian's package chromium")

HOSTILE = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>" onclick="document.title=3'


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Two tables of four methods, one with a name that means harm, with gates, losses, notes and a failed cell."""
    root = tmp_path_factory.mktemp("page")
    gates = [[step, {f"model.layers.{layer}.attn": [0.01 * step, -0.02 * step] for layer in (0, 1)}] for step in (1, 9)]
    cells = []
    for place, method in enumerate(("lora", "full", "zero_init", HOSTILE)):
        for seed in (0, 1):
            records = squad_records([0.1 * place + 0.05 * seed, 0.2 * place, 0.3])
            records[0]["prediction"] = HOSTILE
            facts = {"trainable_params": 10 ** (place + 2), "head_params": 0, "train_seconds": 2.0 + place}
            log = {"gates": gates} if method == "zero_init" else {}
            cells.append(
                cell(method, seed, records, fit=records, facts=facts, log=log, notes=[HOSTILE], name=f"{place}-{seed}")
            )
            kind = {"task": "vtab", "dataset": "dtd", "backbone": "vit", "name": f"v{place}-{seed}"}
            cells.append(cell(method, seed, vtab_records([place % 2, seed]), facts=facts, **kind))
    names = json.dumps(["lora", "full", "zero_init", HOSTILE, "bad"])
    grid = '[[grid]]\ntasks = ["{}"]\nbackbones = ["{}"]\nmethods = {}\nseeds = [0, 1]\n'
    text = 'tier = "mini"\n' + grid.format("squad", "roberta", names)
    text += grid.format("vtab", "vit", names).replace("seeds", 'datasets = ["dtd"]\nseeds')
    store = stored(root / "store", *cells, broken("bad", 0, error=HOSTILE, name="bad"))
    report(read_suite(str(suite(root / "x.toml", text))), store)
    return store.root / "report.html"


@pytest.fixture(scope="module")
def tab():
    with browser.browser() as opened:
        yield opened


SQUAD = "#squad-v1-1-mini-roberta-cpu"


def column(tab, place: int) -> list[str]:
    return tab.value(
        f"[...document.querySelectorAll('{SQUAD} > .scroll tbody tr')].map(r => r.cells[{place}].innerText)"
    )


def test_a_click_on_a_heading_sorts_by_it_and_another_one_turns_around(page, tab):
    tab.open(page, 1280, 900)
    before = column(tab, 0)
    tab.click(f"{SQUAD} > .scroll thead button", 0)
    names = column(tab, 0)
    assert sorted(names) == sorted(before)
    assert [name for name in names if name.isidentifier()] == ["full", "lora", "zero_init"]
    tab.click(f"{SQUAD} > .scroll thead button", 0)
    assert column(tab, 0) == names[::-1]
    tab.click(f"{SQUAD} > .scroll thead button", 2)
    numbers = [float(text.split()[0]) for text in column(tab, 2)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[-1]
    sorted_by = f"[...document.querySelectorAll('{SQUAD} thead th')].map(h => h.getAttribute('aria-sort'))"
    assert tab.value(sorted_by)[:4] == [None, None, "descending", None]
    assert tab.complaints() == []


def test_a_table_is_sorted_from_the_keyboard(page, tab):
    tab.open(page, 1280, 900)
    tab.value(f"document.querySelectorAll('{SQUAD} > .scroll thead button')[0].focus()")
    before = column(tab, 0)
    tab.press("Enter", 13, "\r")
    assert column(tab, 0) == sorted(before, key=str.casefold)
    tab.press("Tab", 9)
    assert tab.value("document.activeElement.innerText").startswith("exact_match")


def test_a_click_on_a_number_unfolds_its_cells(page, tab):
    tab.open(page, 1280, 900)
    link = f"{SQUAD} > .scroll tbody td a"
    wanted = tab.value(f"document.querySelector('{link}').hash.slice(1)")
    assert tab.value(f"document.getElementById('{wanted}').closest('details').open") is False
    tab.click(link)
    assert tab.value(f"document.getElementById('{wanted}').closest('details').open") is True
    top = tab.value(f"document.getElementById('{wanted}').getBoundingClientRect().top")
    assert -1 <= top < 900
    assert tab.complaints() == []


def test_nothing_is_asked_for_and_nothing_complains(page, tab):
    tab.open(page, 1280, 900)
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    tab.value("new Promise(done => setTimeout(done, 300))")
    assert tab.fetched() == [page.as_uri()]
    assert tab.complaints() == []


def test_names_that_mean_harm_are_words(page, tab):
    tab.open(page, 1280, 900)
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.value("document.title") == "x · report"
    assert tab.value("document.querySelectorAll('img, script:not(body > script:last-child)').length") == 0
    assert (
        tab.value(
            "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on/.test(a.name))).length"
        )
        == 0
    )
    assert any("onerror" in text for text in column(tab, 0))
    assert tab.value("document.querySelectorAll('svg text').length") > 20


def test_the_policy_stops_what_the_page_did_not_bring(page, tab):
    """The test would be worth nothing if the browser ran whatever is put in."""
    tab.open(page, 1280, 900)
    tab.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'document.title = 9';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(i); })()"
    )
    tab.value("new Promise(done => setTimeout(done, 300))")
    assert tab.value("document.title") == "x · report"
    assert len(tab.complaints()) >= 2


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_at_any_width(page, tab, width):
    tab.open(page, width, 844)
    for unfolded in ("false", "true"):
        tab.value(f"document.querySelectorAll('details').forEach(d => d.open = {unfolded})")
        assert tab.value("document.documentElement.scrollWidth") <= width
        boxes = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        assert (tab.value(boxes) > 0) or width > 700, "on a phone, wide tables scroll inside their box"


def test_without_scripts_all_of_it_is_there(page, tab):
    tab.open(page, 1280, 900, scripts=False)
    shown = tab.send("DOM.getDocument", depth=-1)
    text = json.dumps(shown)
    assert '"aria-sort"' not in text
    assert '"BUTTON"' not in text
    assert text.count('"TABLE"') > 10
    tab.send("Emulation.setScriptExecutionDisabled", value=False)


CONTRAST = """
(() => {
  const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parts(c).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (parts(c)[3] !== 0) return c; } return 'rgb(255, 255, 255)'; };
  const words = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const shown = e => words(e) && !e.closest('script, style, title');
  const found = [...document.querySelectorAll('body *')].filter(shown).map(e => {
    const color = e.closest('svg') ? getComputedStyle(e).fill : getComputedStyle(e).color;
    const [a, b] = [light(color), light(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName + '.' + e.className, color];
  });
  return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_word_stands_out_from_its_ground(page, tab, dark):
    """At least 4.5 to 1, as WCAG asks, by day and by night."""
    tab.open(page, 1280, 900, dark=dark)
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    worst = tab.value(CONTRAST)
    assert worst[0][0] >= 4.5, worst


def test_methods_differ_in_shape_and_not_in_color_alone(page, tab):
    """Each method's mark in the drawings has a path of its own."""
    tab.open(page, 1280, 900)
    shapes = tab.value(
        f"[...document.querySelectorAll('{SQUAD} .drawing svg')][0].querySelectorAll('a path, a use').length"
    )
    assert shapes >= 8, "four methods in two panels"
    paths = tab.value(
        f"[...new Set([...document.querySelectorAll('{SQUAD} .drawing svg')][0]"
        ".querySelectorAll('a path, defs path').values().map(p => p.getAttribute('d')))].length"
    )
    assert paths >= 4
