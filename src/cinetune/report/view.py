"""What the page shows, gathered from the project's finished stages: plain values, text, SVG and data URIs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cinetune.artifacts import CopySheet, Keyframe, Look, PlannedShot, SceneMatch, SceneSubject, Scorecard
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.pages import charts, media, sheets
from cinetune.records import read_log
from cinetune.report import verdicts, visuals
from cinetune.results import Delivered, Expanded, Ingested, Keyframed, Prepared, Scored, Trained
from cinetune.runtime import Reporter
from cinetune.store import Project, StageRecord

__all__ = ["ARMS", "gather"]

ARMS = {
    "base": ("Base", "the model as it comes"),
    "trigger": ("Trigger", "the model as it comes, with the look's trigger phrase"),
    "look": ("Look", "with the trained look"),
    "plain": ("Plain", "control: trained without reference augmentation"),
}
_SHEET_STILLS = 30
_NEEDED = ("ingest", "prepare", "train", "keyframes", "expand", "score")
_OPTIONAL = ("cache", "deliver")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """The results that the page tells of."""

    ingested: Ingested
    prepared: Prepared
    trained: Trained
    keyframed: Keyframed
    expanded: Expanded
    scored: Scored
    delivered: Delivered

    @classmethod
    def read(cls, project: Project) -> _Story:
        store = project.store
        return cls(
            ingested=store.need(Ingested),
            prepared=store.need(Prepared),
            trained=store.need(Trained),
            keyframed=store.need(Keyframed),
            expanded=store.need(Expanded),
            scored=store.need(Scored),
            delivered=store.find(Delivered) or Delivered(),
        )


def gather(project: Project, report: Reporter) -> dict[str, Any]:
    """The template's context. Raises `StoreError` naming the verb of the first stage that has not run."""
    stages = {name: project.store.need_stage(name) for name in _NEEDED}
    stages |= {name: record for name in _OPTIONAL if (record := project.store.load_stage(name)) is not None}
    story = _Story.read(project)
    cards = story.scored.scorecards
    answers, training = verdicts.answers(cards), _training(project, story.trained.looks)
    gains = visuals.gains(cards)
    shots = _shots(project, story, report, gains)
    stills = _film_stills(project, story, report)
    home = [shot["plan"].id for shot in shots if shot["plan"].domain == "in"]
    middle = visuals.middle_shot(home or [shot["plan"].id for shot in shots], gains)
    return {
        "film": project.config.name.replace("-", " ").replace("_", " ").title(),
        "made": stages["score"].provenance.created_utc[:10],
        "facts": _facts(story, shots),
        "headline": verdicts.headline(answers),
        "answers": answers,
        "warnings": _warnings(cards, story),
        "alarms": _alarms(training),
        "vetoes": [veto.why for veto in story.scored.vetoes],
        "copies": [(sheet.said, _sheet(project, sheet)) for sheet in story.scored.copies],
        "design": story.scored.design[0] if story.scored.design else None,
        "claim_titles": {
            claim.metric: verdicts.title_of(claim.metric) for d in story.scored.design for claim in d.claims
        },
        "middle": next((_middle(shot, _versus(cards)) for shot in shots if shot["plan"].id == middle), None),
        "shots": shots,
        "colours": _colours(shots, stills, _versus(cards)),
        "curves": visuals.distance_curves(cards),
        "arms": {
            name: ARMS[name]
            for name in ARMS
            if any(player["arm"] == name for shot in shots for player in shot["players"])
        },
        "sheet": media.picture_uri(sheets.film_sheet(stills)) if stills else None,
        "training": training,
        "comparisons": [_comparison(card) for card in cards],
        "interaction": _interaction(cards),
        "pairs": _pairs(cards),
        "scenes": _scenes(story.expanded, story.scored),
        "subject_by": next((one.network or f"not measured: {one.why}" for one in story.scored.subjects), ""),
        "footage": _footage(story),
        "windows": Counter(window.split for window in story.prepared.windows),
        "stages": _stage_rows(stages),
        "settings": _settings(project),
        "looks": story.trained.looks,
        "deliveries": _deliveries(story),
        "pocket": _pocket(cards),
        "alpha": project.config.score.alpha,
        "trigger": project.config.prepare.trigger,
    }


def _facts(story: _Story, shots: Sequence[dict[str, Any]]) -> dict[str, int]:
    training = story.prepared.training
    return {
        "windows": len(training),
        "scenes": len({window.scene for window in training}),
        "inside": sum(shot["plan"].domain == "in" for shot in shots),
        "outside": sum(shot["plan"].domain == "out" for shot in shots),
        "seeds": len({sequence.seed for sequence in story.expanded.sequences}),
    }


def _pocket(cards: Sequence[Scorecard]) -> bool:
    return any(card.protocol.get("features", "").startswith("pocket") for card in cards)


def _warnings(cards: Sequence[Scorecard], story: _Story) -> list[str]:
    found = [warning for card in cards for warning in card.warnings]
    if _pocket(cards):
        found.append(
            "CLIP and perceptual figures come from the pocket model's small features: do not compare them with "
            "published figures."
        )
    rejected = len(story.ingested.rejected)
    if rejected:
        found.append(
            f"{rejected} footage file{'s' * (rejected != 1)} could not be used; the table under Footage says why."
        )
    return list(dict.fromkeys(found))


def _alarms(training: dict[str, Any]) -> list[str]:
    """What training warned of, to be repeated where the verdict is read."""
    return [f"Training, {end['look'].arm}: {alarm}" for end in training["ends"] for alarm in end["alarms"]]


def _sheet(project: Project, sheet: CopySheet) -> str:
    return media.picture_uri(media.open_picture(project.store.path(sheet.picture)))


def _deliveries(story: _Story) -> list[tuple[str, str, int, int]]:
    """(format, arm, shots, files) of what was delivered."""
    found: dict[tuple[str, str], list[int]] = {}
    for item in story.delivered.deliveries:
        found.setdefault((item.format, item.arm), []).append(len(item.files))
    return [(name, arm, len(files), sum(files)) for (name, arm), files in sorted(found.items())]


def _shots(project: Project, story: _Story, report: Reporter, gains: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every shot that was made, worst first."""
    plan = {shot.id: shot for shot in project.shots().shots}
    there = [shot for shot in plan if any(sequence.shot == shot for sequence in story.expanded.sequences)]
    made = []
    with report.progress("shots", len(there)) as bar:
        for shot in visuals.worst_first(there, gains):
            made.append(_shot(project, story, plan[shot]) | {"gain": gains.get(shot)})
            bar.advance(note=shot)
    return made


def _middle(shot: dict[str, Any], versus: str) -> dict[str, Any]:
    """Three pictures at mid-shot: without the look, with it, and what the film itself shows, or its nearest still."""
    arms = {player["arm"]: player["poster"] for player in shot["players"]}
    pictures = [(ARMS[arm][0], arms[arm]) for arm in (versus, "look") if arm in arms]
    if shot["truth_poster"] is not None:
        pictures.append(("As the film would show it", shot["truth_poster"]))
    elif shot["neighbours"]:
        pictures.append(("Nearest still of the film", shot["neighbours"][0]["uri"]))
    return {"shot": shot["plan"], "gain": shot["gain"], "pictures": pictures, "frame": shot["frames"] // 2}


def _colours(shots: Sequence[dict[str, Any]], stills: Sequence[sheets.Cell], versus: str) -> list[dict[str, Any]]:
    """Tone curves and palettes by domain: against the truth where every shot has one, else against the film."""
    found = []
    for domain, where in (("in", "in the film's own world"), ("out", "outside the film's world")):
        own = [shot["sampled"] for shot in shots if shot["plan"].domain == domain]
        if not own:
            continue
        truths = [picture for shot in own for picture in shot.get("truth", ())]
        pictures = {"film": [cell.picture for cell in stills if cell.picture]} if domain == "in" or not truths else {}
        pictures |= {"truth": truths} if truths else {}
        pictures |= {arm: [picture for shot in own for picture in shot.get(arm, ())] for arm in (versus, "look")}
        drawn = visuals.colours(pictures, where=where)
        if drawn is not None:
            found.append({"where": where} | drawn)
    return found


def _shot(project: Project, story: _Story, shot: PlannedShot) -> dict[str, Any]:
    sequences = story.expanded.sequences
    shown = {arm: found for arm in ARMS if (found := media.first_seed(sequences, shot.id, arm)) is not None}
    first = next(iter(shown.values()))
    columns = media.sampled(first.frames)
    reference = media.open_picture(project.root / shot.reference)
    sampled = {arm: media.master_frames(project, found.video, columns) for arm, found in shown.items()}
    rows = [(ARMS[arm][0], [reference, *pictures]) for arm, pictures in sampled.items()]
    truth = media.truth_film(project, shot, like=first)
    middle = first.frames // 2
    if truth is not None:
        rows.append(("Film", [None, *(truth[0][frame] if frame < len(truth[0]) else None for frame in columns)]))
    strip = sheets.shot_strip(rows, columns=["reference", *(f"frame {frame}" for frame in columns)])
    keyframes = [keyframe for keyframe in story.keyframed.keyframes if keyframe.shot == shot.id]
    return {
        "plan": shot,
        "rate": float(first.rate),
        "frames": first.frames,
        "aspect": f"{first.width} / {first.height}",
        "seeds": len({sequence.seed for sequence in sequences if sequence.shot == shot.id}),
        "methods": {keyframe.arm: keyframe.method for keyframe in keyframes},
        "candidates": _candidates(project, keyframes),
        "players": [_player(project, found) for found in shown.values()],
        "reference": media.picture_uri(reference, width=384),
        "truth": truth[1] if truth is not None else None,
        "truth_poster": media.picture_uri(truth[0][middle], width=384) if truth and middle < len(truth[0]) else None,
        "sampled": {arm: [picture for picture in pictures if picture] for arm, pictures in sampled.items()}
        | ({"truth": [truth[0][frame] for frame in columns if frame < len(truth[0])]} if truth else {}),
        "neighbours": _neighbours(project, story, shot),
        "strip": media.picture_uri(strip),
    }


def _player(project: Project, found: FilmSequence) -> dict[str, Any]:
    return {
        "arm": found.arm,
        "name": ARMS[found.arm][0],
        "what": ARMS[found.arm][1],
        "uri": media.video_uri(project.store.path(found.proxy)),
        "poster": media.picture_uri(
            next(picture for picture in media.master_frames(project, found.video, [found.frames // 2]) if picture),
            width=384,
        ),
        "drift": verdicts.number(found.drift),
        "seam": verdicts.number(found.seam_ratio) if found.seam_ratio is not None else "",
        "segments": len(found.segments),
        "seed": found.seed,
        "wall": f"{found.timing.wall_seconds:.1f} s",
    }


def _neighbours(project: Project, story: _Story, shot: PlannedShot) -> list[dict[str, str]]:
    training, clips = story.prepared.training, story.ingested.by_id
    chosen = media.nearest_windows(shot.prompt, training, 3)
    stills = [(window, media.film_still(project, clips[window.clip], window)) for window in chosen]
    return [{"uri": media.picture_uri(still, width=384), "caption": window.caption} for window, still in stills]


def _film_stills(project: Project, story: _Story, report: Reporter) -> list[sheets.Cell]:
    """Stills of training windows, spread evenly over the film when there are many."""
    training, clips = story.prepared.training, story.ingested.by_id
    step = max(1.0, len(training) / _SHEET_STILLS)
    shown = [training[int(index * step)] for index in range(min(len(training), _SHEET_STILLS))]
    cells = []
    with report.progress("film stills", len(shown)) as bar:
        for window in shown:
            cells.append(sheets.Cell(media.film_still(project, clips[window.clip], window), window.caption))
            bar.advance()
    return cells


def _candidates(project: Project, keyframes: Sequence[Keyframe]) -> str | None:
    """The ranked candidates of one shot's keyframes; None where there was nothing to choose from."""
    rows = []
    for keyframe in keyframes:
        if len(keyframe.candidates) < 2:
            continue
        pictures = [media.open_picture(project.store.path(ref)) for ref in keyframe.candidates]
        scores = [*keyframe.scores, *[None] * (len(pictures) - len(keyframe.scores))]
        cells = [
            sheets.Cell(
                picture,
                f"{index}: {verdicts.number(score)}{' · picked' * (index == keyframe.picked)}",
                index == keyframe.picked,
            )
            for index, (picture, score) in enumerate(zip(pictures, scores, strict=True))
        ]
        rows.append((f"{ARMS[keyframe.arm][0]}, seed {keyframe.seed}", cells))
    return media.picture_uri(sheets.candidates_sheet(rows)) if rows else None


def _log(project: Project, look: Look) -> list[dict[str, Any]]:
    return read_log(project.store.path(look.log))


def _series(log: Sequence[dict[str, Any]], kind: str, key: str) -> tuple[tuple[float, float], ...]:
    return tuple((line["step"], line[key]) for line in log if line.get("kind") == kind and line.get(key) is not None)


def _training(project: Project, looks: Sequence[Look]) -> dict[str, Any]:
    """Charts over the steps of every adapter, and how each ended."""
    titles = {
        "loss": "Training loss",
        "v_loss": "Loss on scenes it never saw",
        "v_loss_regraded": "The same, from re-graded first frames",
        "distance": "Perceptual distance to scenes it never saw",
        "motion": "Motion of samples (1 = as much as the film)",
    }
    curves: dict[str, list[charts.Curve]] = {name: [] for name in titles}
    ends: list[dict[str, Any]] = []
    for look in looks:
        log = _log(project, look)
        if loss := _series(log, "step", "loss"):
            curves["loss"] += [charts.Curve(loss, f"{look.arm} faint"), charts.Curve(charts.smooth(loss), look.arm)]
        for key in ("v_loss", "v_loss_regraded", "distance", "motion"):
            if points := _series(log, "evaluation", key):
                curves[key].append(charts.Curve(points, look.arm, marks=True))
        found = {key: value for line in log if line.get("kind") in ("start", "end") for key, value in line.items()}
        scale = found.get("validation", {})
        reach = [step for step, _ in _series(log, "step", "loss")] or [0, look.step]
        if look is looks[0] and "floor" in scale and "ceiling" in scale:
            anchors = (("floor", "floor: the film through the VAE"), ("ceiling", "ceiling: the first frame, frozen"))
            curves["distance"] += [
                charts.Curve(((0, scale[key]), (reach[-1], scale[key])), key, label) for key, label in anchors
            ]
        ends.append(
            {
                "look": look,
                "alarms": found.get("alarms", ()),
                "distance": scale.get("distance", ""),
                "evaluations": len(_series(log, "evaluation", "distance")),
            }
        )
    kept = [(float(look.step), look.arm) for look in looks]
    drawn = [
        (title, charts.line_chart(curves[key], title=f"{title}, over training steps", kept=kept))
        for key, title in titles.items()
    ]
    return {"charts": [(title, chart) for title, chart in drawn if chart], "ends": ends}


def _comparison(card: Scorecard) -> dict[str, Any]:
    """One score table; secondary measures that could not be taken are only listed, by reason."""
    found = verdicts.rows(card)
    missing: dict[str, list[str]] = {}
    for row in found:
        if row.score.value is None and not row.declared:
            missing.setdefault(row.score.why or "no reason was recorded", []).append(row.title)
    found = [row for row in found if row.score.value is not None or row.declared]
    plots = {
        row.score.metric: charts.interval_plot(
            charts.Interval("", row.score.value, row.score.low, row.score.high, row.tone), better=row.score.better
        )
        for row in found
        if row.score.value is not None
    }
    names = {"in": "In the film's own world", "out": "Outside the film's world", "both": "Inside against outside"}
    return {"card": card, "rows": found, "missing": missing, "plots": plots, "name": names[card.domain]}


def _declared(cards: Sequence[Scorecard]) -> list[str]:
    """The measures of all declared claims, in the order of the page."""
    found = [score.metric for kind in ("closer", "guard") for c in cards for score in c.effects if score.claim == kind]
    return list(dict.fromkeys(found))


def _interaction(cards: Sequence[Scorecard]) -> list[dict[str, Any]]:
    """For each declared measure: the effect inside, outside, and the difference of the two on one scale."""
    labels = {"in": "in the film's world", "out": "outside it", "both": "difference"}
    drawn = []
    for metric in _declared(cards):
        intervals, better = [], "none"
        for domain, label in labels.items():
            card = verdicts.find(cards, "look", _versus(cards), domain)
            for row in verdicts.rows(card) if card else ():
                if row.score.metric == metric and row.score.value is not None:
                    better = row.score.better
                    intervals.append(charts.Interval(label, row.score.value, row.score.low, row.score.high, row.tone))
        if len(intervals) > 1:
            title = verdicts.title_of(metric)
            plot = charts.intervals_plot(intervals, better=better, title=title)
            drawn.append({"title": title, "plot": plot, "better": better})
    return drawn


def _versus(cards: Sequence[Scorecard]) -> str:
    """What the look is held against: base with the trigger phrase where that was rendered."""
    return "trigger" if any(card.versus == "trigger" for card in cards) else "base"


def _pairs(cards: Sequence[Scorecard]) -> list[dict[str, Any]]:
    """For each declared measure and domain: every shot's own value in each arm."""
    drawn = []
    for metric in _declared(cards):
        for domain, where in (("in", "in the film's world"), ("out", "outside it")):
            values: dict[str, dict[str, float]] = {}
            for card in cards:
                if card.domain == domain:
                    for shot, by_arm in card.per_shot.get(metric, {}).items():
                        values.setdefault(shot, {}).update(by_arm)
            if values:
                title = f"{verdicts.title_of(metric)}, {where}"
                pairs = [charts.Pair(shot, by_arm) for shot, by_arm in sorted(values.items())]
                drawn.append({"title": title, "plot": charts.pairs_plot(pairs, title=title + ", shot by shot")})
    return drawn


def _scenes(expanded: Expanded, scored: Scored) -> list[dict[str, str]]:
    """How far the shots of each scene lie from each other, by arm, seeds averaged; the film's own scenes last."""
    subjects: dict[tuple[str, str], list[SceneSubject]] = {}
    for subject in scored.subjects:
        subjects.setdefault((subject.scene, subject.who), []).append(subject)
    found: dict[tuple[str, str], list[SceneMatch]] = {}
    for match in expanded.scenes:
        found.setdefault((match.scene, match.who), []).append(match)
    rows = []
    for (scene, who), matches in sorted(found.items(), key=lambda item: item[0][1] == "film"):
        row = {"scene": scene or "the film's own scenes", "arm": ARMS[who][0] if who in ARMS else "Film"}
        row["shots"] = str(max(match.shots for match in matches))
        for name in ("light", "palette", "keyframe_light", "keyframe_palette"):
            values = [getattr(match, name) for match in matches]
            row[name] = verdicts.number(sum(values) / len(values))
        for name in ("subject", "keyframe_subject"):
            alike = [getattr(subject, name) for subject in subjects.get((scene, who), ())]
            known = [value for value in alike if value is not None]
            row[name] = f"{sum(known) / len(known):.3f}" if known else "\N{EN DASH}"
        rows.append(row)
    return rows


def _footage(story: _Story) -> dict[str, Any]:
    film = story.ingested
    shots = Counter(shot.clip for shot in film.shots)
    windows = Counter(window.clip for window in story.prepared.windows)
    return {"clips": [(clip, shots[clip.id], windows[clip.id]) for clip in film.clips], "rejected": film.rejected}


def _stage_rows(stages: dict[str, StageRecord]) -> list[dict[str, Any]]:
    order = ("ingest", "prepare", "cache", "train", "keyframes", "expand", "deliver", "score")
    return [
        {
            "name": name,
            "made": stages[name].provenance,
            "output": stages[name].output_sha[:12],
            "input": stages[name].input_key[:12],
            "notes": stages[name].notes,
        }
        for name in order
        if name in stages
    ]


def _settings(project: Project) -> list[tuple[str, str, str]]:
    """Every setting as (key, value, where it came from), but for `[caption]`: the page is passed on, and need not
    name a server.
    """
    found: list[tuple[str, str, str]] = []

    def walk(table: dict[str, Any], prefix: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                found.append((prefix + key, json.dumps(value), project.origins.get(prefix + key, "default")))

    walk(project.config.model_dump(mode="json", exclude={"caption"}), "")
    return found
