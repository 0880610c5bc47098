"""What every test may ask for: the development data, and the slow sweeps' switch."""

import gc
import os
from pathlib import Path

import pytest

gc.disable()  # until all is imported, and stays: to look through it again and again for what to free takes a fifth
SHARED = Path(os.environ.get("ZEROINIT_SHARED", Path(__file__).parents[1].parent / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the full sweeps too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs absent data; leave out what was not asked for."""
    absent = pytest.mark.skip(reason=f"development data not found at {SHARED} (set ZEROINIT_SHARED)")
    for item in items:
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(absent)
    if not config.getoption("--slow"):
        config.hook.pytest_deselected(items=[item for item in items if "slow" in item.keywords])
        items[:] = [item for item in items if "slow" not in item.keywords]  # to skip thousands takes a while, too


def pytest_collection_finish() -> None:
    """From here on, what a test leaves behind is freed."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data."""
    return SHARED
