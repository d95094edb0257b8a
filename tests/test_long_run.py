"""A process that serves for long does not grow, and the script that says so can see growth."""

from __future__ import annotations

from pathlib import Path

import pytest
from long_run import Reading, growth, run


def test_growth_is_found_among_outliers() -> None:
    def readings(slope: float) -> list[Reading]:
        warm_up = [Reading(i, 30.0 + i, 9, 5) for i in range(20)]
        after = [
            Reading(i, 50 + slope * i + (7 if i % 9 == 0 else 0), 9, 5) for i in range(20, 100)
        ]
        return warm_up + after

    assert growth(readings(0.0), "rss_mb") == 0
    assert growth(readings(0.1), "rss_mb") == pytest.approx(7.9)
    assert growth(readings(0.1), "files") == 0


def test_little_work_leaks_nothing(demo_package: Path) -> None:
    facts = run(demo_package, (40, 5, 0))
    assert " 0 not freed" in facts["leak_check"]
    openings = facts["parts"][1]
    assert openings["growth"]["files"] == openings["growth"]["threads"] == 0


@pytest.mark.full
def test_thousands_of_generations_leave_the_process_as_it_was(
    demo_package: Path,
) -> None:
    facts = run(demo_package, (16000, 500, 0))  # the heaps of 8 threads grow for some 7,000
    assert facts["flat"], facts
