"""The page of a training run, `work/train/index.html`: while it goes on, and as it ended.

It is made of files alone (each arm's log, the times beside it, the sample films), so that whoever trains need not know
of it: this process, a worker, or a job on another machine that shares the disk.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from cinetune.errors import StoreError
from cinetune.pages import charts
from cinetune.pages.kit import render
from cinetune.records import read_log
from cinetune.runtime import duration
from cinetune.sections import NOT_RECIPE
from cinetune.store import Project

__all__ = ["ArmRun", "folder_of", "page", "read_arms", "watching", "write_page"]

ARMS = {"look": "Look", "plain": "Plain"}
_POLL = 2.0
_SIGMAS = ("s0", "s1", "s2", "s3")
_OF_THE_RUN = NOT_RECIPE | {"augment"}
"""What may change in the middle of a run, or differs between its arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRun:
    """One arm as its files tell it: `log` and `speed` are their lines, `samples` the sample films by step."""

    arm: str
    log: list[dict[str, Any]]
    speed: list[dict[str, Any]]
    samples: dict[int, str]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["kind"] in kinds]

    def series(self, kind: str, key: str) -> tuple[tuple[float, float], ...]:
        return tuple((line["step"], line[key]) for line in self.of(kind) if line.get(key) is not None)

    @property
    def start(self) -> dict[str, Any]:
        """The line that says what is asked for: the first, or that of the last time the run was forced on."""
        return self.of("start", "forced")[-1]

    @property
    def end(self) -> dict[str, Any] | None:
        return next(iter(self.of("end")), None)

    @property
    def step(self) -> int:
        return max(line["step"] for line in self.log)


def folder_of(project: Project) -> Path:
    """Where the runs of a project and their page lie."""
    return project.store.work / "train"


def read_arms(project: Project) -> list[ArmRun]:
    """The arms of today's settings that have begun."""
    recipe = project.config.train.model_dump(mode="json", exclude=_OF_THE_RUN)
    arms = ("look", "plain") if project.config.train.plain_arm else ("look",)
    found: list[ArmRun] = []
    for arm in arms:
        folder = folder_of(project) / arm
        log = read_log(folder / "log.jsonl")
        if not log or log[0]["kind"] != "start":
            continue
        asked = [line["recipe"] for line in log if line["kind"] in ("start", "forced")][-1]
        if {key: value for key, value in asked.items() if key not in _OF_THE_RUN} != recipe:
            continue  # what is left of a run with other settings
        films = {int(path.stem[5:]): f"{arm}/samples/{path.name}" for path in folder.glob("samples/step_*.mp4")}
        judged = {line["step"] for line in log if line["kind"] == "evaluation"}
        shown = {step: films[step] for step in sorted(films.keys() & judged)}
        found.append(ArmRun(arm=arm, log=log, speed=read_log(folder / "speed.jsonl"), samples=shown))
    return found


def page(project: Project) -> str:
    """The page as it stands now. Raises `StoreError` for a log that training did not write."""
    with _read_well(project):
        return render(_context(project, read_arms(project)), "live.html.j2")


@contextmanager
def _read_well(project: Project) -> Iterator[None]:
    """The lines of a log are whole; what stands in them is taken as training writes it, and this is where it shows if
    somebody else wrote them.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, TemplateError) as error:
        raise StoreError(
            f"a training log holds what training does not write ({type(error).__name__}: {error})"[:200],
            where=str(folder_of(project)),
            remedy="delete the folder and train again",
        ) from error


def _context(project: Project, arms: Sequence[ArmRun]) -> dict[str, Any]:
    return {
        "film": project.config.name.replace("-", " ").replace("_", " ").title(),
        "ended": bool(arms) and all(one.end for one in arms),
        "arms": [_arm(one) for one in arms],
        "charts": [(title, help_, chart) for title, help_, chart in _charts(arms) if chart],
        "names": ARMS,
        "steps": project.config.train.steps,
        "poll": round(_POLL * 1000),
    }


def write_page(project: Project) -> Path:
    """Write the page beside the runs, with the films by relative path; where it lies."""
    path = folder_of(project) / "index.html"
    project.store.write_text(path, page(project))
    return path


@contextmanager
def watching(project: Project) -> Iterator[None]:
    """Write the page anew after every evaluation inside the `with` block, and at its end, however that comes."""
    over = threading.Event()

    def seen() -> tuple[tuple[str, int], ...]:
        with _read_well(project):
            return tuple((one.arm, len(one.of("evaluation", "alarm", "end"))) for one in read_arms(project))

    def look() -> None:
        before: tuple[tuple[str, int], ...] = ()
        while not over.wait(_POLL):
            with suppress(StoreError):  # training itself finds what is wrong, and says so
                now = seen()
                if now != before:
                    write_page(project)
                    before = now

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        with suppress(StoreError):
            if seen():
                write_page(project)


def _arm(run: ArmRun) -> dict[str, Any]:
    recipe = run.start["recipe"]
    return {
        "arm": run.arm,
        "name": ARMS[run.arm],
        "step": run.step,
        "steps": recipe["steps"],
        "share": round(100 * run.step / recipe["steps"], 1),
        "word": _word(run),
        "facts": _facts(run),
        "alarms": _alarms(run),
        "ranking": _ranking(run),
        "samples": [{"step": step, "path": path, "said": _said(run, step)} for step, path in run.samples.items()],
        "columns": ["the film", "from its own first frame"]
        + ["from a re-graded first frame"] * bool(run.start["validation"]["regraded"]),
        "validation": run.start["validation"],
    }


def _word(run: ArmRun) -> dict[str, str]:
    """Does it learn? A word, its tone and a sentence, from the distance against A/A noise."""
    rows = run.of("evaluation")
    judged = [row for row in rows if row["step"]]
    if any(line["name"] == "not finite" for line in run.of("alarm")) and run.end is None:
        return {"word": "stopped", "tone": "bad", "sentence": run.of("alarm")[-1]["what"] + "."}
    if not judged:
        return {"word": "too early to tell", "tone": "none", "sentence": "Nothing was evaluated yet but the start."}
    first, best = rows[0], min(judged, key=lambda row: row["distance"])
    gain, noise = first["distance"] - best["distance"], first.get("noise")
    figures = f"{first['distance']:.4f} → {best['distance']:.4f} at step {best['step']}"
    if noise is None:
        sentence = f"Distance to the film {figures}. A/A noise was not measured."
        return {"word": "closer" if gain > 0 else "no closer", "tone": "unsure", "sentence": sentence}
    against = f"Distance to the film {figures}; another sampling seed alone moves it by {noise:.4f}."
    if gain > 2 * noise:
        return {"word": "it learns", "tone": "good", "sentence": against}
    if gain > noise:
        return {"word": "probably", "tone": "unsure", "sentence": against}
    return {"word": "cannot tell" if run.end is None else "no", "tone": "unsure" if run.end is None else "bad",
            "sentence": against}  # fmt: skip


def _facts(run: ArmRun) -> list[tuple[str, str]]:
    """Speed, time left and memory, from the marks beside the log."""
    recipe, end = run.start["recipe"], run.end
    steps = [mark["seconds"] for mark in run.speed if mark["kind"] == "step"]
    looks = [mark["seconds"] for mark in run.speed if mark["kind"] == "evaluation"]
    found: list[tuple[str, str]] = []
    if steps:
        each = statistics.median(steps[-50:])
        found.append(("a step", duration(each)))
        if end is None:
            left = recipe["steps"] - run.step
            often = -(-left // recipe["validate_every"])
            found.append(("left, at most", duration(left * each + often * (looks[-1] if looks else 0.0))))
    if looks:
        found.append(("an evaluation", duration(statistics.median(looks[1:] or looks))))
    if run.speed:
        last = run.speed[-1]
        found.append(("memory, peak", f"{last['host_gib']:.2f} GiB"))
        if last["device_gib"] is not None:
            found.append(("GPU memory, peak", f"{last['device_gib']:.2f} GiB"))
    if end is not None:
        found.append(("ended", end["stopped"]))
    return found


def _alarms(run: ArmRun) -> list[dict[str, Any]]:
    """Every alarm with the step it came at and, where it did, went."""
    found: list[dict[str, Any]] = []
    for line in run.of("alarm", "alarm over"):
        if line["kind"] == "alarm":
            found.append({**line, "over": None})
        else:
            for alarm in found:
                if alarm["name"] == line["name"] and alarm["over"] is None:
                    alarm["over"] = line["step"]
    # Figures as they were when it came; at the end, those of the step that is kept.
    for said in run.end["alarms"] if run.end else []:
        name, _, rest = said.partition(": ")
        for alarm in found:
            if alarm["name"] == name and alarm["over"] is None:
                alarm["what"] = rest.partition(". What to do: ")[0]
    return found


def _ranking(run: ArmRun) -> dict[str, Any]:
    """The evaluations, best first, the untrained model last; which is kept (so far) and why."""
    rows = run.of("evaluation")
    noise = rows[0].get("noise") if rows else None
    order = sorted((row for row in rows if row["step"]), key=lambda row: (row["distance"], row["step"]))
    best = order[0] if order else None
    norms = dict(run.series("evaluation", "adapter_norm"))
    listed = [
        row | {"rank": place, "norm": norms[row["step"]],
               "note": _note(row, best, noise, kept=run.end is not None) if best else ""}
        for place, row in enumerate(order, 1)
    ]  # fmt: skip
    untrained = [row | {"rank": None, "norm": 0.0, "note": "the untrained model; does not compete"} for row in rows[:1]]
    return {"rows": listed + untrained, "why": run.end["why"] if run.end else ""}


def _note(row: dict[str, Any], best: dict[str, Any], noise: float | None, *, kept: bool) -> str:
    if row is best:
        return "kept" if kept else "kept if training ended now"
    if noise and row["distance"] - best["distance"] < noise:
        return "as good as the best within A/A noise"
    return ""


def _said(run: ArmRun, step: int) -> str:
    row = next(row for row in run.of("evaluation") if row["step"] == step)
    return f"distance {row['distance']:.4f}, colour error {row['colour']:.1f} ΔE2000"


def _charts(arms: Sequence[ArmRun]) -> Iterator[tuple[str, str, charts.Markup]]:
    """Title, what it shows in words, and the chart."""
    kept = [(float(one.end["best_step"]), one.arm) for one in arms if one.end]

    def drawn(kind: str, key: str, *, marks: bool = False) -> list[charts.Curve]:
        lines = ((one, one.series(kind, key)) for one in arms)
        return [charts.Curve(points, one.arm, marks=marks) for one, points in lines if points]

    def chart(title: str, lines: Sequence[charts.Curve], **more: Any) -> charts.Markup:
        return charts.line_chart(lines, title=f"{title}, over training steps", kept=kept, **more)

    title = "Distance to scenes it never saw"
    yield (title, "Should fall, by more than the band: that is the A/A noise.",
           chart(title, drawn("evaluation", "distance", marks=True), bands=_noise(arms)))  # fmt: skip
    title = "The same, on its scale"
    yield (title, "Between the floor (the film through the VAE and back) and the ceiling (a frozen first frame).",
           chart(title, [*drawn("evaluation", "distance", marks=True), *_anchors(arms)]))  # fmt: skip
    title = "Colour error of samples, ΔE2000"
    yield (title, "Samples from re-graded first frames against the film: falls as the look is learned.",
           chart(title, drawn("evaluation", "colour", marks=True)))  # fmt: skip
    title = "Training loss"
    lines: list[charts.Curve] = []
    for one in arms:
        if loss := one.series("step", "loss"):
            lines += [charts.Curve(loss, f"{one.arm} faint"), charts.Curve(charts.smooth(loss, share=0.2), one.arm)]
    yield (
        title,
        "Each step sees other noise, so the raw line is rough; the smooth one is what to read.",
        chart(title, lines),
    )
    title = "Loss on scenes it never saw"
    lines = drawn("evaluation", "v_loss_regraded", marks=True) or drawn("evaluation", "v_loss", marks=True)
    yield (
        title,
        "Same windows, same noise every time. From re-graded first frames where there are such.",
        chart(title, lines),
    )
    title = "Seen against never seen"
    yield (title, "Solid: scenes it never saw. Dashed: scenes it trains on. They part when it overfits.",
           chart(title, _overfitting(arms)))  # fmt: skip
    for one in arms:
        title = f"{ARMS[one.arm]}: change of the loss by noise level, %"
        yield (title, "From low noise (light) to high (dark). Looks live at high noise, textures at low.",
               charts.line_chart(_by_level(one), title=f"{title}, over training steps"))  # fmt: skip
    title = "Motion of samples (1 = as much as the film)"
    yield title, "Near 0 the shots freeze.", chart(title, drawn("evaluation", "motion", marks=True))
    title = "How far the adapter moves the model"
    yield (
        title,
        "Change of velocity relative to its length; 0 before training.",
        chart(title, drawn("evaluation", "effect", marks=True)),
    )
    title = "Length of the adapter"
    yield title, "Levels off as the learning rate falls.", chart(title, drawn("evaluation", "adapter_norm", marks=True))
    title = "Gradient norm before clipping"
    yield title, "Rough is normal; ten times the usual is an alarm.", chart(title, drawn("step", "grad_norm"))
    title = "Learning rate"
    yield title, "Warm-up, then a half cosine.", chart(title, drawn("step", "lr"))


def _noise(arms: Sequence[ArmRun]) -> list[charts.Band]:
    for one in arms:
        for row in one.of("evaluation")[:1]:
            if row.get("noise"):
                low, high = row["distance"] - row["noise"], row["distance"] + row["noise"]
                return [charts.Band(low, high, "noise", "A/A noise: the untrained model with other sampling seeds")]
    return []


def _anchors(arms: Sequence[ArmRun]) -> list[charts.Curve]:
    if not arms or not arms[0].of("evaluation"):
        return []
    scale, last = arms[0].start["validation"], max(one.step for one in arms)
    return [charts.Curve(((0, scale[key]), (last, scale[key])), key, key) for key in ("floor", "ceiling")]


def _overfitting(arms: Sequence[ArmRun]) -> list[charts.Curve]:
    lines: list[charts.Curve] = []
    for one in arms:
        rows = [row for row in one.of("evaluation") if row.get("v_loss_seen") is not None]
        if rows:
            held = tuple((row["step"], statistics.fmean(row["v_loss_windows"])) for row in rows)
            seen = tuple((row["step"], row["v_loss_seen"]) for row in rows)
            lines += [charts.Curve(held, one.arm, marks=True), charts.Curve(seen, f"{one.arm} seen")]
    return lines


def _by_level(run: ArmRun) -> list[charts.Curve]:
    rows = run.of("evaluation")
    if not rows:
        return []
    key = "v_loss_regraded_at" if rows[0].get("v_loss_regraded_at") else "v_loss_at"
    first = rows[0][key]
    return [
        charts.Curve(
            tuple((row["step"], 100 * (row[key][level] / first[level] - 1)) for row in rows),
            kind,
            f"σ {float(level):.2f}",
            marks=True,
        )
        for level, kind in zip(first, _SIGMAS, strict=False)
    ]
