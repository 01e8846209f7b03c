"""The quick form of the simulations in `benchmarks/`: whole pages under a null, and what is planted is found."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from support import benchmark


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    return benchmark("null_pages")


def test_pages_of_a_look_that_does_nothing_call_nothing(pages: ModuleType) -> None:
    """1,000 pages call a word on 2 to 5 of 100 (docs/numerics.md); 40 pages may call it on 5 by chance (p = .05)."""
    rng = np.random.default_rng(11)
    called = 0
    for _ in range(40):
        scores = pages.page(rng, 8, 1, {}, draws=300)
        words = [score.verdict in pages.CALLED for score in scores]
        called += any(words)
        assert any(word in pages.HEADLINES for word in pages.headlines(scores)) <= any(words)
    assert called <= 5


def test_a_planted_grade_is_found_and_a_planted_blur_is_called_a_cost(pages: ModuleType) -> None:
    rng = np.random.default_rng(12)
    scores = pages.page(rng, 8, 1, {"tone_w1": -5.0, "colour_error": -5.0, "structure": -5.0})
    by_claim = {(s.claim, s.metric): s.verdict for s in scores[:10]}
    assert by_claim["closer", "tone_w1"] == by_claim["closer", "colour_error"] == "improved"
    assert by_claim["guard", "structure"] == "worse"
    assert {"improved", "worse"} <= set(pages.headlines(scores))
