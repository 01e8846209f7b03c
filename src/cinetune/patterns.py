"""Patterns from outside (an adapter file, a project file) matched in time that is bounded by their length.

Python's `re` tries one way after another and can take longer than the sun lasts on thirty letters. This is the part of
its language that describes names, matched all ways at once (K. Thompson, Regular Expression Search Algorithm, 1968):

    letters   .   [abc] [a-z] [^.]   \\d \\w \\s \\D \\W \\S   \\. and other signs
    (...) (?:...)   |   * + ? {2} {2,} {2,5}, each also with a ? behind it   ^ $

A pattern in it matches a whole text exactly when `re.fullmatch` with `re.ASCII` and `re.DOTALL` matches it. The rest
(look-around, back references, flags) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Pattern", "PatternError"]

_MOST_LETTERS = 2000
_MOST_STATES = 5000
_MOST_DEPTH = 50
_MOST_REPEATS = 1000
_MOST_STEPS = 2_000_000
_DIGITS = frozenset("0123456789")
_WORD = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACE = frozenset(" \t\n\r\f\v")
_SETS = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}

Test = Callable[[str], bool]


class PatternError(ValueError):
    """A pattern that is not of this language, or takes too long."""


@dataclass(frozen=True, slots=True)
class _State:
    """One step of the machine: a letter to be tested, a choice between two states, or a place to stand at."""

    test: Test | None = None
    choice: tuple[int, int] | None = None
    stand: str = ""


class Pattern:
    """A compiled pattern. Patterns that have one list `taken` share their steps. Raises `PatternError` for what it
    cannot take.
    """

    def __init__(self, text: str, *, taken: list[int] | None = None) -> None:
        if len(text) > _MOST_LETTERS:
            raise PatternError(f"the pattern has more than {_MOST_LETTERS} letters")
        self.text = text
        self._taken = [0] if taken is None else taken
        self._states = _Compiler(text).compiled()
        plain = all(state.choice is None and not state.stand for state in self._states[:-1])
        self._length = len(self._states) - 1 if plain else None  # of every text it matches, where there is one

    def matches(self, text: str, start: int = 0) -> bool:
        """Whether it matches `text` from `start` to its end. Raises `PatternError` when all texts together that were
        asked for took more than two million steps.
        """
        if self._length is not None and len(text) - start != self._length:
            return False
        now = self._reach([0], text, start)
        for place in range(start, len(text)):
            if not now:
                return False
            letter = text[place]
            ahead = [number + 1 for number in now if (test := self._states[number].test) is not None and test(letter)]
            now = self._reach(ahead, text, place + 1)
        return len(self._states) - 1 in now

    def _reach(self, waiting: list[int], text: str, place: int) -> set[int]:
        """The states that can be stood in at `place` without another letter."""
        found: set[int] = set()
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            found.add(number)
            state = self._states[number]
            if state.choice is not None:
                waiting += state.choice
            elif (state.stand == "^" and place == 0) or (state.stand == "$" and place == len(text)):
                waiting.append(number + 1)
        self._taken[0] += len(found) + 1
        if self._taken[0] > _MOST_STEPS:
            raise PatternError("the pattern takes too long")
        return found


class _Compiler:
    """Reads a pattern from left to right; each part is a list of states whose choices are relative to it."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0

    def compiled(self) -> list[_State]:
        part = self._either()
        if self._at < len(self._text):
            raise PatternError(f"a ) without its ( at letter {self._at}")
        return [*_placed(part), _State()]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._peek()
        if not letter:
            raise PatternError("the pattern ends in the middle")
        self._at += 1
        return letter

    def _either(self) -> list[_State]:
        part = self._row()
        while self._peek() == "|":
            self._at += 1
            other = self._row()
            # choice, part, jump over the other, other
            jump = len(other) + 1
            part = [_State(choice=(1, len(part) + 2)), *part, _State(choice=(jump, jump)), *other]
            _check_size(part)
        return part

    def _row(self) -> list[_State]:
        row: list[_State] = []
        while self._peek() not in ("", "|", ")"):
            row += self._repeated(self._one())
            _check_size(row)
        return row

    def _one(self) -> list[_State]:
        letter = self._next()
        match letter:
            case "(":
                return self._group()
            case "[":
                return [_State(test=self._set())]
            case ".":
                return [_State(test=lambda _: True)]
            case "^" | "$":
                return [_State(stand=letter)]
            case "\\":
                return [_State(test=_member(*self._escape()))]
            case "*" | "+" | "?" | "{":
                raise PatternError(f"nothing to repeat before {letter!r}")
            case _:
                return [_State(test=letter.__eq__)]

    def _group(self) -> list[_State]:
        if self._text.startswith("?:", self._at):
            self._at += 2
        elif self._peek() == "?":
            raise PatternError("(?...) other than (?:...) is not taken")
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise PatternError(f"it is nested more than {_MOST_DEPTH} deep")
        part = self._either()
        self._depth -= 1
        if self._next() != ")":
            raise PatternError("a ( without its )")
        return part

    def _escape(self) -> tuple[frozenset[str], bool]:
        """(letters, whether they are those that do not match) of what follows a backslash."""
        letter = self._next()
        if letter.lower() in _SETS:
            return _SETS[letter.lower()], letter.isupper()
        if letter in _SIGNS:
            return frozenset(_SIGNS[letter]), False
        if letter.isalnum():
            raise PatternError(f"\\{letter} is not taken")
        return frozenset(letter), False

    def _set(self) -> Test:
        negated = self._peek() == "^"
        self._at += negated
        tests: list[Test] = []
        while (letter := self._next()) != "]" or not tests:
            if letter == "\\":
                letters, other = self._escape()
                if len(letters) > 1 or other:
                    tests.append(_member(letters, other))
                    continue
                (letter,) = letters
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._next()
                if last == "\\":
                    letters, other = self._escape()
                    if len(letters) > 1 or other:
                        raise PatternError("a range that ends in a class")
                    (last,) = letters
                if last < letter:
                    raise PatternError(f"the range {letter}-{last} runs backwards")
                tests.append(lambda one, low=letter, high=last: low <= one <= high)
            else:
                tests.append(letter.__eq__)
        return lambda one: any(test(one) for test in tests) != negated

    def _repeated(self, part: list[_State]) -> list[_State]:
        bounds = self._bounds()
        if bounds is None:
            return part
        if self._peek() == "?":  # as few as possible: of a whole text that makes no difference
            self._at += 1
        if self._peek() in ("*", "+") or self._bounds() is not None:
            raise PatternError("a repetition of a repetition: put the first into (?:...)")
        least, most = bounds
        if (len(part) + 1) * max(least, most or 0, 1) > _MOST_STATES:
            raise PatternError("it repeats too much")
        whole = part * least
        if most is None:
            # choice, part, jump back to the choice
            return [*whole, _State(choice=(1, len(part) + 2)), *part, _State(choice=(-len(part) - 1, -len(part) - 1))]
        for left in range(most - least, 0, -1):  # each further one may be left out, and all after it with it
            whole += [_State(choice=(1, left * (len(part) + 1))), *part]
        return whole

    def _bounds(self) -> tuple[int, int | None] | None:
        letter = self._peek()
        if letter in ("*", "+", "?") and letter:
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[letter]
        if letter != "{":
            return None
        end = self._text.find("}", self._at)
        low, comma, high = self._text[self._at + 1 : end if end > 0 else None].partition(",")
        numbers = [low, high] if comma else [low]
        if end < 0 or not all(set(number) <= _DIGITS and len(number) <= 4 for number in numbers) or not low:
            raise PatternError("a { that is no {2}, {2,} or {2,5}: write \\{")
        self._at = end + 1
        least, most = int(low), int(low) if not comma else int(high) if high else None
        if max(least, most or 0) > _MOST_REPEATS or (most is not None and most < least):
            raise PatternError(f"it cannot repeat {{{low}{comma}{high}}} times")
        return least, most


def _member(letters: frozenset[str], negated: bool) -> Test:
    return lambda one: (one in letters) != negated


def _check_size(part: list[_State]) -> None:
    if len(part) > _MOST_STATES:
        raise PatternError(f"it needs more than {_MOST_STATES} states")


def _placed(part: list[_State]) -> Iterator[_State]:
    """Choices by number of state in place of distance."""
    for number, state in enumerate(part):
        if state.choice is None:
            yield state
        else:
            yield _State(choice=(number + state.choice[0], number + state.choice[1]))
