"""Does the real product claim only what is there? A finished project, its shots replaced by ones whose answer is known.

    python benchmarks/null_product.py demo build/null                     the null adapter is trained and shot: minutes
    python benchmarks/null_product.py demo build/null --only swapped grade blur

The project is copied; the original is only read. Each case is scored by `cinetune score` as it is:

- `null`: a real null adapter. The look is trained again for two steps at a learning rate of 1e-12, and its shots are
  made again. Nothing but `no worse` and `cannot tell` may be said of look against the base model.
- `swapped`: in every second shot of each domain the look's pictures and those it is held against change places. The
  same.
- `grade`: the look's pictures are the base model's, of which each colour is moved half-way to the truth's (or the
  film's) by its rank in its channel. Closer to the film must be called `improved` somewhere.
- `blur`: the look's pictures are the base model's, blurred. Structure must be called `worse` in one world at least, and
  good in none.

Prints a table and exits with 1 if a case is not answered so.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

from cinetune import pipeline
from cinetune.artifacts import Score, Scorecard
from cinetune.artifacts import Sequence as Shot
from cinetune.console import reporter
from cinetune.files import read_master
from cinetune.report.verdicts import answers, headline
from cinetune.results import Expanded, Ingested, Prepared, Scored
from cinetune.runtime import Reporter
from cinetune.scoring.clips import film_source, truth_source
from cinetune.stages import score
from cinetune.store import Project

QUIET = ("no worse", "cannot tell", "not valid here", "")
NULL = (
    "train.lr=1e-12",
    "train.steps=2",
    "train.validate_every=2",
    "train.checkpoint_every=2",
    "train.plain_arm=false",
)
Change = Callable[[Project, Shot, Shot], Shot]


def copy_of(root: Path, folder: Path) -> Path:
    """A copy to change, without what was delivered."""
    if not folder.exists():
        shutil.copytree(root, folder, ignore=shutil.ignore_patterns("deliveries", "report", ".lock"))
    return folder


def filmed(project: Project, like: Shot, film_THWC: np.ndarray) -> Shot:
    """The shot with other pictures, display R'G'B' in [0, 1]."""
    with project.store.new_object(".safetensors") as (path, done):
        save_file({"frames_THWC": np.rint(film_THWC.clip(0, 1) * 65535).astype(np.uint16)}, path)
    return replace(like, video=done[0])


def pictures(project: Project, shot: Shot) -> np.ndarray:
    return read_master(project.store.path(shot.video))


def matched(film_THWC: np.ndarray, to_NC: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Each channel moved towards the quantiles of `to_NC`."""
    made = np.empty_like(film_THWC)
    for channel in range(3):
        own, levels = film_THWC[..., channel], np.linspace(0, 1, 257)
        before, after = np.quantile(own, levels), np.quantile(to_NC[:, channel], levels)
        made[..., channel] = (1 - strength) * own + strength * np.interp(own, before, after)
    return made


def graded(project: Project, look: Shot, other: Shot) -> Shot:
    planned = next(shot for shot in project.shots().shots if shot.id == look.shot)
    truth = truth_source(project, planned, look)
    if truth is None:
        by_id, train = project.store.need(Ingested).by_id, project.store.need(Prepared).training
        frames = [film_source(project, by_id[window.clip], window).frames()[::8] for window in train]
        target = np.concatenate([film.reshape(-1, 3) for film in frames])
    else:
        target = truth.frames().reshape(-1, 3)
    return filmed(project, replace(look, drift=other.drift), matched(pictures(project, other), target))


def blurred(project: Project, look: Shot, other: Shot) -> Shot:
    radius = look.height / 40
    soft = gaussian_filter(pictures(project, other), (0, radius, radius, 0))
    return filmed(project, replace(look, drift=other.drift), soft)


def plant(project: Project, change: Change) -> None:
    """The look's shots put in place of others; `change` takes a look shot and the one it is held against."""
    shots = project.store.need(Expanded).sequences
    others = {(shot.shot, shot.seed): shot for shot in shots if shot.arm == project.config.claimed_against()}
    made = [change(project, shot, others[shot.shot, shot.seed]) if shot.arm == "look" else shot for shot in shots]
    write(project, made)


def swap(project: Project) -> None:
    """Look and base change places in every second shot of each domain."""
    shots = project.store.need(Expanded).sequences
    names = {domain: sorted({s.shot for s in shots if s.domain == domain})[::2] for domain in ("in", "out")}
    versus = project.config.claimed_against()
    arms = {"look": versus, versus: "look"}
    films = {(s.arm, s.shot, s.seed): s for s in shots}
    made = []
    for shot in shots:
        if shot.arm in arms and shot.shot in names[shot.domain]:
            other = films[arms[shot.arm], shot.shot, shot.seed]
            shot = replace(shot, video=other.video, proxy=other.proxy, drift=other.drift, seam_ratio=other.seam_ratio)
        made.append(shot)
    write(project, made)


def write(project: Project, shots: Sequence[Shot]) -> None:
    record = project.store.need_stage("expand")
    project.store.save_stage("expand", record.input_key, {"sequences": shots}, made=record.provenance)


def scored(project: Project, speaker: Reporter) -> tuple[Scorecard, ...]:
    score.run(project, speaker)
    return project.store.need(Scored).scorecards


def called(cards: Sequence[Scorecard], arm: str) -> list[tuple[Scorecard, Score]]:
    """The declared claims of look against `arm`."""
    return [
        (card, found) for card in cards if (card.arm, card.versus) == ("look", arm) for found in card.effects
        if found.claim
    ]  # fmt: skip


def right(case: str, claims: Sequence[tuple[Scorecard, Score]]) -> bool:
    """Whether the words are those that the case must get."""
    if case in ("null", "swapped"):
        return bool(claims) and all(found.verdict in QUIET for _, found in claims)
    if case == "grade":
        return any(found.claim == "closer" and found.verdict == "improved" for _, found in claims)
    guards = [found for _, found in claims if found.metric == "structure" and found.value is not None]
    words = {found.verdict for found in guards}
    return "worse" in words and not words & {"improved", "no worse"}


def run_case(case: str, root: Path, folder: Path, settings: Sequence[str], speaker: Reporter) -> bool:
    made = copy_of(root, folder / case)
    if case == "null":
        project = Project(made, overrides=(*settings, *NULL))
        pipeline.run(project, speaker, until="expand")
    else:
        project = Project(made, overrides=tuple(settings))
        if case == "swapped":
            swap(project)
        else:
            plant(project, graded if case == "grade" else blurred)
    cards = scored(project, speaker)
    claims = called(cards, project.config.claimed_against())
    good = right(case, claims)
    print(f"\n{case}: {'as it must be' if good else 'NOT as it must be'}. {headline(answers(cards))}")
    for card, found in claims:
        value = "" if found.value is None else f"{found.value:+.3g}"
        interval = "" if found.low is None else f"{found.low:+.3g} to {found.high:+.3g}"
        p = "" if found.adjusted is None else f"{found.adjusted:.3f}"
        word = found.verdict or "not measured"
        print(f"| {case} | {found.claim} | {found.metric} | {card.domain} | {value} | {interval} | {p} | {word} |")
    sys.stdout.flush()
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=["null", "swapped", "grade", "blur"], metavar="CASE")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    speaker = reporter(sys.stderr)
    good = [run_case(case, asked.project, asked.folder, asked.settings, speaker) for case in asked.only]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
