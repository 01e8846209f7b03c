"""Patterns mean what `re` says they mean, and no pattern takes long."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinetune import patterns
from cinetune.patterns import Pattern, PatternError

ATOMS = st.sampled_from(["a", "b", ".", r"\.", r"\d", r"\W", "[ab]", "[^a]", "[a-c.]", r"[\d_-]", "[]a]", "0", "_"])
TEXTS = st.text(alphabet="ab0._c-", max_size=8)


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeats = st.sampled_from(["*", "+", "?", "{2}", "{1,}", "{0,2}", "{2,3}", "*?", "+?", "??"])
    return st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map(lambda one: f"({one})"),
        st.tuples(inner, repeats).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        inner.map(lambda one: f"^{one}$"),
    )


@settings(max_examples=500, deadline=None)
@given(st.recursive(ATOMS, combined, max_leaves=6), TEXTS)
def test_it_matches_what_re_matches(pattern: str, text: str) -> None:
    assert Pattern(pattern).matches(text) == bool(re.fullmatch(pattern, text, re.ASCII | re.DOTALL))


@pytest.mark.parametrize("pattern", [
    r"blocks\.\d+\.attn2\.(to_k|to_v)", r"blocks\.(?:[0-9]|1[0-9])\.ffn\.net\.(0\.proj|2)", r".*attn[12].*",
    "^blocks.3.attn1.to_out.0$", "(|a)+", "(a*)*b", "", "()", "a|", "[a-]", r"[\]\-x]", "a{0}", "x{3,3}",
])  # fmt: skip
def test_patterns_that_people_write(pattern: str) -> None:
    names = ["", "a", "b", "aab", "]", "-", "x", "xxx", "attn2", "blocks.3.attn1.to_out.0", "blocks.12.ffn.net.2",
             "blocks.12.attn2.to_k", "blocks.12.attn2.to_kx", "blocks.9.ffn.net.0.proj"]  # fmt: skip
    for name in names:
        assert Pattern(pattern).matches(name) == bool(re.fullmatch(pattern, name, re.ASCII | re.DOTALL)), name


def test_a_suffix_is_matched_from_where_it_starts() -> None:
    assert Pattern("attn2.to_q").matches("blocks.0.attn2.to_q", start=9)
    assert not Pattern("^attn2.to_q").matches("blocks.0.attn2.to_q", start=9)


HANGS = [
    "(.*)*" * 8 + "X",
    "(a+)+$",
    "(a|a)*b",
    "(a|aa)+b",
    "(.*a){20}",
    "(?:a?){500}a{500}",
    "((((a*)*)*)*)*b",
    "(.*.*.*.*)*!",
]


@pytest.mark.parametrize("pattern", HANGS)
def test_no_pattern_takes_long(pattern: str) -> None:
    assert not Pattern(pattern).matches("a" * 80 + "c")


REFUSED = {
    "(?=a)": r"\(\?:", "(?P<a>b)": r"\(\?:", "(?i)a": r"\(\?:", r"(a)\1": r"\\1 is not taken", r"\bx": r"\\b is not",
    "(": "ends in the middle", "(a": "ends in the middle", "a)": "without its", "[a": "ends in the middle",
    "\\": "ends in the middle", "*a": "nothing to repeat", "a**": "repetition of a repetition",
    "a*+": "repetition of a repetition", "a{2}{3}": "repetition of a repetition", "a{": "a { that",
    "a{,3}": "a { that", "a{x}": "a { that", "a{3,2}": "cannot repeat", "a{5000}": "cannot repeat",
    "(a{900}){900}": "repeats too much", "[b-a]": "runs backwards", r"[a-\d]": "ends in a class",
    "(" * 51 + ")" * 51: "nested more than 50", "a" * 2001: "more than 2000 letters",
    "(a{100}|b{100}|c{100}){20}": "repeats too much",
}  # fmt: skip


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_is_not_taken_is_said(pattern: str) -> None:
    with pytest.raises(PatternError, match=REFUSED[pattern]):
        Pattern(pattern)


def test_many_questions_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_MOST_STEPS", 100_000)
    pattern = Pattern("(.*.*.*.*)*!" * 50)
    with pytest.raises(PatternError, match="too long"):
        for _ in range(10_000):
            pattern.matches("a" * 200)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=r"ab.*+?{}()[]|^$\0,-:d", max_size=30))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    with contextlib.suppress(PatternError):
        Pattern(text).matches("ab.0")
