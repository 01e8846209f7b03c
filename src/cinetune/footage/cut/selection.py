"""Which of the candidate windows are trained on, and which scenes are kept out to judge the result."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from cinetune.artifacts import Measures, Window
from cinetune.config import PrepareSection
from cinetune.runtime import table

__all__ = ["connected", "crowded", "fair_share", "held_scenes", "left_out", "repeats", "scene_table"]

_CROWDED = 0.5  # share of the training windows above which one scene makes the look


def left_out(section: PrepareSection, windows: Sequence[Window], measures: Sequence[Measures]) -> list[str]:
    """Why each window is not used; empty if it is. What is too still or too soft goes first, then what a scene has too
    many of."""
    reasons: list[str] = []
    for one in measures:
        if one.motion < section.min_motion:
            reasons.append(f"motion {one.motion:.2f} is under prepare.min_motion {section.min_motion:g}")
        elif one.sharpness < section.min_sharpness:
            reasons.append(f"sharpness {one.sharpness:.3f} is under prepare.min_sharpness {section.min_sharpness:g}")
        else:
            reasons.append("")
    most = section.max_windows_per_scene
    for scene in {window.scene for window in windows} if most else ():
        mine = [place for place, window in enumerate(windows) if window.scene == scene and not reasons[place]]
        kept = {mine[index] for index in fair_share([windows[place].shot for place in mine], most)}
        for place in set(mine) - kept:
            reasons[place] = f"its scene has {len(mine)} windows, prepare.max_windows_per_scene is {most}"
    return reasons


def held_scenes(section: PrepareSection, scenes: Sequence[str], links: Sequence[tuple[str, str]]) -> set[str]:
    """The scenes held out. With `on_leak = "move"`, scenes that show the same picture go to one side together."""
    leaders = connected(scenes, links if section.on_leak == "move" else ())
    chosen = _first(set(leaders.values()), section.held_fraction)
    return {scene for scene, leader in leaders.items() if leader in chosen}


def _first(scenes: set[str], fraction: float) -> set[str]:
    """The scenes kept for validation: the first by sha256 of their names, so that adding a scene moves few others. One
    at least of three or more.
    """
    order = sorted(scenes, key=lambda scene: hashlib.sha256(scene.encode()).hexdigest())
    count = min(round(fraction * len(order)), len(order) - 1)
    if fraction > 0 and len(order) >= 3:
        count = max(1, count)
    return set(order[:count])


def fair_share(shots: Sequence[str], most: int) -> list[int]:
    """Positions of at most `most` windows, in order, taken in turn from every shot: its first, then its second, and so
    on. `shots` names the shot of each window."""
    turns: dict[str, int] = {}
    order: list[tuple[int, int]] = []
    for position, shot in enumerate(shots):
        turns[shot] = turns.get(shot, -1) + 1
        order.append((turns[shot], position))
    return sorted(position for _, position in sorted(order)[:most])


def repeats(shots: Sequence[str], copies: Iterable[tuple[int, int, float]]) -> dict[str, tuple[str, float]]:
    """For each shot that shows the same picture as an earlier one: the nearest such shot and the share of bits that
    differ. `shots` names the shot of each window in order, `copies` are pairs of windows as `find_copies` gives them.
    An earlier shot that is itself a repeat does not count, so that small differences do not add up.
    """
    order = {shot: place for place, shot in enumerate(dict.fromkeys(shots))}
    earlier: dict[str, dict[str, float]] = {shot: {} for shot in order}
    for one, other, share in copies:
        first, later = sorted((shots[one], shots[other]), key=order.__getitem__)
        earlier[later][first] = min(share, earlier[later].get(first, 1.0))
    found: dict[str, tuple[str, float]] = {}
    for shot, before in earlier.items():
        near = sorted((share, order[first], first) for first, share in before.items() if first not in found)
        if near:
            found[shot] = near[0][2], near[0][0]
    return found


def connected(names: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each name the first, by the alphabet, of all names it is linked to, directly or through others."""
    leader = {name: name for name in names}
    for one, other in links:
        first, second = sorted((leader[one], leader[other]))
        leader = {name: first if old == second else old for name, old in leader.items()}
    return leader


def scene_table(windows: Sequence[Window]) -> str:
    """The windows of each scene as a table, in the order of the film."""
    counts = Counter(window.scene for window in windows)
    splits = {window.scene: "held out" if window.split == "held" else "train" for window in windows}
    seconds = float(len(windows[0].source_frames) / windows[0].rate)
    rows = [("scene", "windows", "length", "split")]
    rows += [(scene, str(count), f"{count * seconds:.1f} s", splits[scene]) for scene, count in counts.items()]
    return table(rows, indent="", width=0)


def crowded(windows: Sequence[Window]) -> str:
    """In words, the scene that has more than half of the training windows; empty if none has, or there is only one."""
    training = Counter(window.scene for window in windows if window.split == "train")
    scene, most = training.most_common(1)[0]
    if len(training) < 2 or most <= _CROWDED * training.total():
        return ""
    even = max(1, (training.total() - most) // (len(training) - 1))
    return (
        f"scene {scene!r} has {most} of {training.total()} training windows, so the look will mostly be its look; "
        f"prepare.max_windows_per_scene = {even} evens it out"
    )
