"""`cinetune ingest`: look at every film file once; say what it is, where its shots are, or why it cannot be used.

Reads the footage folder, writes `clips`, `shots` and `rejected`. A bad file never stops the others.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import av

from cinetune.artifacts import Colour, FootageClip, Rejected, Rights, Shot
from cinetune.errors import FootageError
from cinetune.footage.cut.burnins import find_burn_in, without
from cinetune.footage.cut.cuts import Piece, Signals, Watcher, find_pieces, shared_bars
from cinetune.footage.cut.slates import Samples
from cinetune.footage.edit.cutlists import CutPlan, cut_list_files, plan_cuts, spans_of
from cinetune.footage.edit.events import CutEvent
from cinetune.footage.notes.sidecars import (
    Notes,
    clip_stem,
    footage_files,
    is_sequence,
    members,
    rights_of,
    sidecar_files,
    source_sha256,
)
from cinetune.footage.read.spaces import in_project, rule_for
from cinetune.footage.video import Probe, probe
from cinetune.outside import escaped, toml_string
from cinetune.records import artifact
from cinetune.results import Ingested
from cinetune.runtime import Reporter, table
from cinetune.sections import ColourRule, FootageSection
from cinetune.stage import Made, Stage
from cinetune.store import Project, content_key, sha256_file
from cinetune.timecode import Span

__all__ = ["STAGE", "inputs", "make", "run"]

NAME = "ingest"
_READERS = ("OpenImageIO", "PyOpenColorIO")
"""Optional: what was refused without them is looked at again once they are there."""
_LISTED = 12  # rows that speak of no film
_STARTS = 12  # shots of a file whose beginnings are printed
_BURNT_IN = "use a copy without burn-ins, or raise footage.max_burn_in"
_NOTHING_MOVES = "use a longer clip with moving pictures"
_REVISION = 6  # raise when the same file would give another result


@artifact
class _Verdict:
    """What one file came to: a clip with its shots, or a rejection."""

    clip: FootageClip | None
    shots: tuple[Shot, ...]
    rejected: Rejected | None


def _folder(project: Project) -> Path:
    return project.root / project.config.footage.folder


def inputs(project: Project) -> dict[str, str]:
    """sha256 of every film file, edit list, caption table and LUT, by path; kept ones where nothing was written."""
    folder = _folder(project)
    return _hashes(project, footage_files(folder)) if folder.is_dir() else {}


def _hashes(project: Project, films: list[Path]) -> dict[str, str]:
    folder = _folder(project)
    luts = [project.root / rule.lut for rule in project.config.footage.colour if rule.lut]
    files = [*films, *cut_list_files(folder), *sidecar_files(folder)]
    files += [path for path in luts if path.is_file()]
    return {_relative(project.root, path): _sha(project, path) for path in files}


def _relative(root: Path, path: Path) -> str:
    """With the bytes of a name that is not UTF-8 spelled out, so that it can be kept and shown."""
    return _utf8(Path(os.path.relpath(path, root)).as_posix())


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _sources(path: Path) -> list[Path]:
    return sorted(members(path).values()) if is_sequence(path) else [path]


def _sha(project: Project, path: Path, *, fresh: bool = False) -> str:
    """sha256 of a file or sequence; "" for what cannot be read. Pipes are never opened: they would be waited for."""
    try:
        if not _is_readable(path):
            return ""
        return project.store.sha256(path, fresh=fresh, parts=_sources(path), of=source_sha256)
    except OSError:
        return ""


def _hashed_ahead(project: Project, files: list[Path]) -> Iterator[tuple[Path, list[tuple[int, ...]], str]]:
    """Each file with its stamp and, from then on, its sha256. A thread hashes one file while its predecessor is judged:
    when its own turn comes, the system still has its bytes in memory, so they come from the disk once.
    """

    def identify(path: Path) -> tuple[list[tuple[int, ...]], str]:
        return _stamp(path), _sha(project, path, fresh=True)

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(identify, files[0])
        for number, path in enumerate(files):
            stamp, sha = coming.result()
            if number + 1 < len(files):
                coming = reader.submit(identify, files[number + 1])
            yield path, stamp, sha


def _stamp(path: Path) -> list[tuple[int, ...]]:
    """What is different once somebody writes to a file, or puts another in its place; empty when it is gone."""
    try:
        found = [file.stat() for file in _sources(path)]
    except OSError:
        return []
    return [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found]


def _is_readable(path: Path) -> bool:
    try:
        return all(file.is_file() and os.access(file, os.R_OK) for file in _sources(path))
    except OSError:
        return False


def _unreadable(path: Path) -> FootageError:
    """Why there is no hash of a file."""
    for file in _sources(path):
        if not file.exists():
            if file.is_symlink():
                return FootageError("a link to a file that is not there", remedy="mount its disk, or remove the link")
            break
        if not file.is_file():
            return FootageError("a pipe or a device, no file", remedy="remove it from the footage folder")
        if not os.access(file, os.R_OK):
            return FootageError("its permissions forbid reading it", remedy=f"chmod u+r {file.name}")
    return FootageError("it changed while it was read", remedy="run `cinetune ingest` again")


def _clip_ids(folder: Path, files: list[Path]) -> dict[Path, str]:
    """A short unique name for each file: its stem; with its folders, then its suffix, where stems clash."""

    def plain(text: str) -> str:
        return re.sub(r"[^A-Za-z0-9._-]+", "_", text)

    makers = (
        lambda path: plain(clip_stem(path)),
        lambda path: plain("_".join(path.relative_to(folder).with_suffix("").parts)),
        lambda path: plain("_".join(path.relative_to(folder).parts)),
    )
    ids: dict[Path, str] = {}
    for make in makers:
        rest = [path for path in files if path not in ids]
        counts = Counter(make(path) for path in rest)
        ids |= {path: make(path) for path in rest if counts[make(path)] == 1 and make(path) not in ids.values()}
    for number, path in enumerate(path for path in files if path not in ids):
        ids[path] = f"clip_{number}_{plain(path.stem)}"
    return ids


def make(project: Project, report: Reporter) -> Made[Ingested]:
    """Probe every file and cut it into shots. Raises `FootageError` when there is no folder, no file, or no usable
    file.
    """
    folder = _folder(project)
    files = footage_files(folder) if folder.is_dir() else []
    if not files:
        state = "is empty" if folder.is_dir() else "does not exist"
        raise FootageError(
            f"the footage folder {state}", where=str(folder), remedy="put your clips there, or set footage.folder"
        )
    hashes = _hashes(project, [])
    ids = _clip_ids(folder, files)
    readable = [path for path in files if _is_readable(path)]
    plan = plan_cuts(folder, readable, time=project.config.footage.edit_list_time)
    notes = Notes(folder, files)
    verdicts: list[_Verdict] = []
    seen: dict[str, str] = {}
    with report.progress("ingest", len(files)) as bar:
        for path, stamp, sha in _hashed_ahead(project, files):
            name = _relative(project.root, path)
            hashes[name] = sha
            twin = seen.setdefault(hashes[name], name) if hashes[name] else name
            if twin != name:
                verdicts.append(_reject(name, f"the same bytes as {twin}", "remove one of them"))
            else:
                verdicts.append(_examine(project, path, ids[path], hashes, plan, notes=notes, stamp=stamp))
            bar.advance(note=escaped(path.name))
    lists = {_relative(project.root, path): _utf8(words) for path, words in plan.notes.items()}
    verdicts += [_reject(_relative(project.root, path), _utf8(e.what), e.remedy) for path, e in plan.refused.items()]
    report.say(_table(verdicts, lists))
    clips = [verdict.clip for verdict in verdicts if verdict.clip]
    if guess := _guessed(clips):
        report.warn(guess)
    if unheard := [*notes.strays(), *_idle_rules(project, files)]:
        more = f"\n  and {len(unheard) - _LISTED} more" if len(unheard) > _LISTED else ""
        report.warn("nothing in the footage folder answers to:\n  " + "\n  ".join(unheard[:_LISTED]) + more)
    rejected = [verdict.rejected for verdict in verdicts if verdict.rejected]
    if not clips:
        reasons = "\n  ".join(escaped(f"{row.path}: {row.reason}") for row in rejected)
        raise FootageError(f"no film file can be used:\n  {reasons}", where=str(folder), remedy=rejected[0].remedy)
    shots = [shot for verdict in verdicts for shot in verdict.shots]
    report.say(f"{len(clips)} clips, {len(shots)} shots, {len(rejected)} files refused")
    said = [f"{name}: {words}" for name, words in lists.items()]
    result = Ingested(clips=tuple(clips), shots=tuple(shots), rejected=tuple(rejected))
    return Made(result=result, notes=said, inputs=hashes)


STAGE = Stage(result=Ingested, make=make, inputs=inputs, sections=("footage",), hashes_late=True)
run = STAGE.run


def _idle_rules(project: Project, files: Sequence[Path]) -> list[str]:
    """The `[[footage.colour]]` rules that fit no file, in words."""
    folder, rules = _folder(project), project.config.footage.colour
    names = [path.relative_to(folder).as_posix() for path in files]
    idle = [rule for rule in rules if all(rule_for([rule], name) is None for name in names)]
    return [f"cinetune.toml, footage.colour: match = {toml_string(rule.match)} fits no file" for rule in idle]


def _examine(
    project: Project,
    path: Path,
    clip_id: str,
    hashes: dict[str, str],
    plan: CutPlan,
    *,
    notes: Notes,
    stamp: list[tuple[int, ...]],
) -> _Verdict:
    """The verdict on one file, kept by its content so that a second run need not decode it again."""
    settings = project.config.footage
    name = _relative(project.root, path)
    if not hashes[name]:
        return _reject(name, _unreadable(path).what, _unreadable(path).remedy)
    if _utf8(str(path)) != str(path):
        return _reject(name, "its name is not UTF-8", "rename it")
    rights = rights_of(notes.rows(path))
    if path in plan.broken and path not in plan.events:
        return _reject(name, plan.broken[path].what, plan.broken[path].remedy)
    events = plan.events.get(path, ())
    rule = rule_for(settings.colour, path.relative_to(_folder(project)).as_posix())
    key = content_key(
        NAME,
        _REVISION,
        clip_id,
        name,
        hashes[name],
        repr(events),
        rights,
        settings.model_dump(mode="json", exclude={"folder", "colour"}),
        [rule.model_dump(mode="json"), hashes.get(_relative(project.root, project.root / rule.lut))] if rule else None,
        [find_spec(name) is not None for name in _READERS],
    )

    def judge() -> _Verdict:
        verdict = _judge(
            project.root, path, clip_id, hashes[name], settings=settings, rights=rights, rule=rule, events=events
        )
        if _stamp(path) != stamp:  # the verdict is not on the bytes that were hashed, so it may not be kept for them
            raise FootageError("it changed while it was read", remedy="run `cinetune ingest` again")
        return verdict

    try:
        return project.store.unit(NAME, key, _Verdict, judge)
    except FootageError as error:
        return _reject(name, error.what, error.remedy)


def _reject(name: str, reason: str, remedy: str) -> _Verdict:
    return _Verdict(clip=None, shots=(), rejected=Rejected(path=name, reason=reason, remedy=remedy))


def _judge(
    root: Path,
    path: Path,
    clip_id: str,
    sha: str,
    *,
    settings: FootageSection,
    rights: Rights,
    rule: ColourRule | None,
    events: tuple[CutEvent, ...],
) -> _Verdict:
    name = _relative(root, path)
    watcher, samples = Watcher(detect=settings.detector == "adaptive" and not events), Samples()

    def see(index: int, frame: av.VideoFrame, colour: Colour) -> None:
        watcher.see(index, frame, colour)
        samples.see(index, frame, colour)

    try:
        if settings.strict_rights and not (rights.owner and rights.licence):
            raise FootageError(
                "its owner and licence are not stated", remedy='add "owner" and "licence" to its row in metadata.jsonl'
            )
        facts = probe(path, settings=settings, rule=in_project(rule, root), on_frame=see)
        spans, source, cut_notes = _spans(facts, events, settings)
    except FootageError as error:
        return _reject(name, error.what, error.remedy)
    pieces, bars, said, left_out = _usable_pieces(facts, watcher.signals(), samples, settings, spans)
    if not pieces:
        why = ", ".join([*left_out, *cut_notes])
        return _reject(name, f"no usable shot ({why})", _BURNT_IN if "burnt in" in why else _NOTHING_MOVES)
    clip = FootageClip(
        id=clip_id,
        path=name,
        sha256=sha,
        codec=facts.codec,
        rate=facts.rate,
        frames=facts.frames,
        width=facts.width,
        height=facts.height,
        pixel_aspect=facts.pixel_aspect,
        bars=bars,
        colour=_colour(root, facts.colour, rule),
        timecode=facts.timecode,
        timecode_base=facts.timecode_base,
        reading=facts.reading,
        rights=rights,
        notes=(*facts.notes, *said, *cut_notes, *(f"left out: {what}" for what in left_out)),
    )
    shots = tuple(
        Shot(
            id=f"{clip_id}_s{number:03d}",
            clip=clip_id,
            span=Span(start=piece.start, frames=piece.frames, rate=facts.rate),
            source=source,
            notes=piece.notes,
        )
        for number, piece in enumerate(pieces)
    )
    return _Verdict(clip=clip, shots=shots, rejected=None)


def _usable_pieces(
    facts: Probe,
    signals: Signals,
    samples: Samples,
    settings: FootageSection,
    spans: list[tuple[int, int]] | None,
) -> tuple[list[Piece], tuple[int, int, int, int], tuple[str, ...], list[str]]:
    """The shots that stay, the picture inside their bars, what there is to say of the bars, and what was left out."""
    pieces, left_out = find_pieces(
        signals,
        rate=facts.rate,
        min_seconds=settings.min_shot_seconds,
        spans=spans,
        steady_bars=settings.crop_bars,
        unfit=samples.slate if settings.slates == "drop" else None,
    )
    bars, said = (0, 0, facts.width, facts.height), ()
    if settings.crop_bars and pieces:
        bars, said = shared_bars(signals, pieces, turn=facts.reading.turn)
    burn_in = find_burn_in(samples.views(), turn=facts.reading.turn, size=(facts.width, facts.height), bars=bars)
    clean, covered = without(samples.noted(pieces), burn_in, most=settings.max_burn_in)
    return clean, bars, said, left_out + covered


def _colour(root: Path, found: Colour, rule: ColourRule | None) -> Colour:
    """With the LUT named as the project names it, and its bytes, so that later stages notice another LUT."""
    if rule is None or not rule.lut:
        return found
    return replace(found, lut=rule.lut, decided=f"{found.decided}, sha256 {sha256_file(root / rule.lut)[:8]}")


def _spans(
    facts: Probe, events: tuple[CutEvent, ...], settings: FootageSection
) -> tuple[list[tuple[int, int]] | None, str, list[str]]:
    """Spans that replace detected cuts (None = detect), the word for who made them, and what an edit list left out."""
    if events:
        spans, notes = spans_of(
            events, rate=facts.rate, frames=facts.frames, timecode=facts.timecode, base=facts.timecode_base
        )
        return spans, events[0].kind, notes
    if settings.detector == "none":
        return [(0, facts.frames)], "whole", []
    return None, "adaptive", []


def _table(verdicts: list[_Verdict], lists: dict[str, str]) -> str:
    """One row per file, what there is to say of it below; one line per edit list. Fits 80 columns."""
    rows = [("file", "size", "fps", "frames", "shots", "picture")]
    below: list[list[str]] = [[]]
    for verdict in verdicts:
        clip = verdict.clip
        if clip is None:
            assert verdict.rejected is not None
            rows.append((verdict.rejected.path, "", "", "", "0", ""))
            below.append([f"REFUSED: {verdict.rejected.reason}"])
            continue
        x, y, width, height = clip.bars
        picture = "whole" if (width, height) == (clip.width, clip.height) else f"{width}x{height}+{x}+{y}"
        size = f"{clip.width}x{clip.height}"
        rows.append((clip.path, size, str(clip.rate), str(clip.frames), str(len(verdict.shots)), picture))
        below.append([_starts(verdict.shots), clip.colour.decided])
        below[-1] += dict.fromkeys([*clip.notes, *(note for shot in verdict.shots for note in shot.notes)])
    lines: list[str] = []
    heads = table([tuple(map(escaped, row)) for row in rows], indent="", width=0).splitlines()
    for head, notes in zip(heads, below, strict=True):
        lines += [head, *(_note(note) for note in notes)]
    return "\n".join([*lines, *(f"{escaped(name)}\n{_note(words)}" for name, words in lists.items())])


def _guessed(clips: Sequence[FootageClip]) -> str:
    """What to write for clips that do not say their colour, in words; empty where all do."""
    untagged = [clip for clip in clips if clip.colour.decided.startswith("untagged")]
    if not untagged:
        return ""
    one = untagged[0]
    name, matrix = Path(one.path).name, one.colour.matrix
    return (
        f"{len(untagged)} of {len(clips)} clips do not say their colour, so it is guessed. If they look wrong on the "
        "sheet of `prepare`, say it in cinetune.toml:\n"
        f"  [[footage.colour]]\n  match = {toml_string(name)}\n  matrix = {toml_string(matrix)}   "
        '# bt601, bt709 or bt2020\n  levels = "limited"   # or full'
    )


def _starts(shots: Sequence[Shot]) -> str:
    """Where the shots begin: what a caption table's `start_frame` refers to."""
    named = ", ".join(f"{number} at {shot.span.start}" for number, shot in enumerate(shots[:_STARTS]))
    more = f" and {len(shots) - _STARTS} more" if len(shots) > _STARTS else ""
    return f"shots {named}{more}" if len(shots) > 1 else "one shot"


def _note(words: str) -> str:
    return textwrap.fill(escaped(words), 80, initial_indent="    ", subsequent_indent="    ")
