"""`cinetune prepare`: choose the windows to train on. Reads `ingest` and the caption sidecars, writes `windows`, what
each of them measures, and for people `work/prepare/sheet.html` and `rights.csv`.

A window is a fixed number of frames at the model's own rate, picked from one shot *by time*: 24 fps film is never
played as 16. The picture inside the bars is centre-cropped to the model's shape. Scenes, never windows, are kept out
for validation, and no picture may be on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from cinetune.artifacts import FileRef, FootageClip, Measures, Shot, Window
from cinetune.catalogue import Release
from cinetune.config import Config
from cinetune.errors import ConfigError, FootageError
from cinetune.files import full_caption
from cinetune.footage.cut.framing import crop_notes, lost, shape_of
from cinetune.footage.cut.measure import find_copies, fingerprint, measure, sampled_pairs
from cinetune.footage.cut.selection import crowded, held_scenes, left_out, repeats, scene_table
from cinetune.footage.cut.windows import centre_crop, window_frames
from cinetune.footage.notes.sidecars import GENERATED, CaptionRow, captions_of, rights_csv, sidecar_files, unheard
from cinetune.footage.video import read_clip
from cinetune.outside import is_file
from cinetune.pages.sheet import WindowCard, render_sheet, start_label, strip
from cinetune.records import artifact
from cinetune.results import Ingested, Prepared
from cinetune.runtime import Reporter
from cinetune.stage import Made, Stage
from cinetune.store import Project, content_key, sha256_file

__all__ = ["STAGE", "inputs", "make", "run"]

NAME = "prepare"
_REVISION = 1  # raise when the same window would be measured otherwise
_LISTED = 8  # windows left out that are named one by one; the sheet shows them all


@artifact
class _Seen:
    """What was read from the pixels of one window: `prints` are fingerprints of three frames, `strip` shows them."""

    measures: Measures
    prints: tuple[tuple[str, ...], ...]
    strip: FileRef


def inputs(project: Project) -> dict[str, str]:
    """sha256 of the caption sidecars, and the model's geometry."""
    folder = project.root / project.config.footage.folder
    files = [*sidecar_files(folder), *filter(is_file, folder.glob(GENERATED))] if folder.is_dir() else []
    hashes = {Path(os.path.relpath(path, project.root)).as_posix(): sha256_file(path) for path in files}
    base = project.config.model.base()
    return hashes | {"geometry": f"{base.width}x{base.height}, {base.rate} fps, multiples of {base.multiple}"}


def make(project: Project, report: Reporter) -> Made[Prepared]:
    """Lay windows into shots, caption, measure, choose and split them.

    Raises `ConfigError` when captions are missing or do not fit, `FootageError` when no window is left, or when a
    training scene and a held-out one show the same picture.
    """
    config, film = project.config, project.store.need(Ingested)
    clips = film.by_id
    base = config.model.base()
    height, width = config.train_size(base)
    geometry = replace(base, height=height, width=width)
    candidates = _candidates(project, report, clips, film.shots, geometry)
    seen: list[_Seen] = []
    with report.progress(NAME, len(candidates)) as bar:
        for window in candidates:
            seen.append(_see(project, clips[window.clip], window))
            bar.advance(note=window.id)
    reasons = left_out(config.prepare, candidates, [one.measures for one in seen])
    kept = [place for place, reason in enumerate(reasons) if not reason]
    if not kept:
        raise FootageError(
            f"no window is left; the first one: {reasons[0]}",
            where=str(project.root),
            remedy="lower prepare.min_motion or prepare.min_sharpness",
        )
    copies = find_copies([seen[place].prints for place in kept], [candidates[place].shot for place in kept])
    same_as, copies = _repeated(config, candidates, reasons, kept, copies)
    kept = [place for place in kept if not reasons[place]]
    scenes = [candidates[place].scene for place in kept]
    measures = [
        replace(one.measures, window=window.id, left_out=reason, same_as=same_as.get(window.shot, ""))
        for window, one, reason in zip(candidates, seen, reasons, strict=True)
    ]
    held = held_scenes(config.prepare, scenes, [(scenes[one], scenes[other]) for one, other, _ in copies])
    for place in kept:
        candidates[place] = replace(candidates[place], split="held" if candidates[place].scene in held else "train")
    windows = [candidates[place] for place in kept]
    leaks = [
        (windows[one], windows[two], share) for one, two, share in copies if windows[one].split != windows[two].split
    ]
    _tell(report, config, geometry, clips, windows)
    _tell_left_out(report, config, windows, measures)
    _write_pages(project, report, clips, candidates, measures, [one.strip for one in seen], leaks=leaks)
    _check_leaks(report, config, clips, leaks)
    return Made(result=Prepared(windows=tuple(windows), measures=tuple(measures)))


STAGE = Stage(result=Prepared, make=make, inputs=inputs, parents=(Ingested,), sections=("prepare",))
run = STAGE.run


def _candidates(
    project: Project, report: Reporter, clips: dict[str, FootageClip], shots: tuple[Shot, ...], geometry: Release
) -> list[Window]:
    """Every window that the settings lay into the shots, captioned, all marked `train` so far. Raises as `run` does."""
    section = project.config.prepare
    if section.stride and section.windows != "slide":
        raise ConfigError(
            f'prepare.stride = {section.stride} means nothing for prepare.windows = "{section.windows}"',
            where=str(project.root),
            remedy='set prepare.windows = "slide", or leave prepare.stride out',
        )
    rows = _captions(project, clips, shots)
    if words := unheard(project.root, project.root / project.config.footage.folder, clips, shots):
        report.warn(f"{_some_of(len(words), 'row')} of captions no shot takes:\n  {_listed(words, 'more')}")
    windows: list[Window] = []
    short: list[str] = []
    for shot, row in zip(shots, rows, strict=True):
        spans = window_frames(
            shot.span, geometry.rate, section.frames,
            most=section.max_windows_per_shot, mode=section.windows, stride=section.stride,
        )  # fmt: skip
        if not spans:
            short.append(shot.id)
        for number, frames in enumerate(spans):
            windows.append(
                Window(
                    id=f"{shot.id}_w{number:02d}",
                    shot=shot.id,
                    clip=shot.clip,
                    scene=row.scene or shot.clip,
                    split="train",
                    source_frames=tuple(frames),
                    rate=geometry.rate,
                    crop=centre_crop(clips[shot.clip], geometry.width, geometry.height),
                    width=geometry.width,
                    height=geometry.height,
                    caption=row.text,
                    caption_source=row.source,
                )
            )
    seconds = float((section.frames - 1) / geometry.rate)
    if not windows:
        raise FootageError(
            f"no shot is long enough: {section.frames} frames at {geometry.rate} fps need {seconds:.2f} s",
            where=str(project.root),
            remedy="use longer shots, or lower prepare.frames",
        )
    if short:
        report.warn(
            f"{len(short)} of {len(shots)} shots are shorter than a window ({seconds:.2f} s), not used: {_some(short)}"
            f"{_shorter(section.frames, shots, short, geometry.rate)}"
        )
    return windows


def _shorter(frames: int, shots: Sequence[Shot], short: Sequence[str], rate: Fraction) -> str:
    """How many more shots a shorter window would take, in words; empty where none would."""
    for less in sorted({legal for legal in (25, 17, 9) if legal < frames}, reverse=True):
        gained = sum(bool(window_frames(shot.span, rate, less, most=1)) for shot in shots if shot.id in short)
        if gained:
            return f"; prepare.frames={less} ({float((less - 1) / rate):.2f} s) takes {gained} of them"
    return ""


def _see(project: Project, clip: FootageClip, window: Window) -> _Seen:
    """Six frames of a window, decoded once and kept by what decides their pixels. Raises `FootageError`."""
    size = (window.width, window.height)
    key = content_key(
        NAME,
        _REVISION,
        clip.sha256,
        clip.colour,
        clip.reading,
        window.source_frames,
        window.crop,
        size,
        str(window.rate),
    )

    def look() -> _Seen:
        picked = [window.source_frames[place] for place in sampled_pairs(len(window.source_frames))]
        pairs_THWC = read_clip(project.root, clip, picked, crop=window.crop, size=size)
        shown_THWC = pairs_THWC[[0, 2, 5]]
        with project.store.new_object(".webp") as (temporary, done):
            temporary.write_bytes(strip(shown_THWC))
        prints = tuple(fingerprint(frame) for frame in shown_THWC)
        return _Seen(measures=measure(pairs_THWC, window.rate, window=""), prints=prints, strip=done[0])

    return project.store.unit(NAME, key, _Seen, look)


def _repeated(
    config: Config,
    candidates: Sequence[Window],
    reasons: list[str],
    kept: Sequence[int],
    copies: Sequence[tuple[int, int, float]],
) -> tuple[dict[str, str], list[tuple[int, int, float]]]:
    """For every shot that shows the same picture as one before it, which, in words; and the `copies` between scenes
    with places among the windows that stay. Under `prepare.duplicates = "drop"` the windows of such a shot get a
    reason.
    """
    shots = [candidates[place].shot for place in kept]
    same_as = {shot: f"{first} ({share:.0%} of bits differ)" for shot, (first, share) in repeats(shots, copies).items()}
    if config.prepare.duplicates == "drop":
        for place in kept:
            if first := same_as.get(candidates[place].shot):
                reasons[place] = f'shows the same picture as {first}, prepare.duplicates is "drop"'
    stay = [index for index, place in enumerate(kept) if not reasons[place]]
    new = {index: number for number, index in enumerate(stay)}
    scenes = [candidates[place].scene for place in kept]
    return same_as, [
        (new[one], new[other], share)
        for one, other, share in copies
        if one in new and other in new and scenes[one] != scenes[other]
    ]


def _listed(lines: Sequence[str], rest: str = "more, on the sheet") -> str:
    more = f"\n  and {len(lines) - _LISTED} {rest}" if len(lines) > _LISTED else ""
    return "\n  ".join(lines[:_LISTED]) + more


def _cut_captions(config: Config, windows: Sequence[Window]) -> list[str]:
    """A line for each window whose caption the text encoder reads only the beginning of, trigger phrase included."""
    from cinetune.models.prompts import cut_notes

    captions = {window.id: full_caption(config.prepare.trigger, window.caption) for window in windows}
    return cut_notes(config.model, captions)


def _tell_left_out(report: Reporter, config: Config, windows: Sequence[Window], measures: Sequence[Measures]) -> None:
    """Name the windows that are left out and the shots that repeat another, the first few of each."""

    gone = [f"{one.window}: {one.left_out}" for one in measures if one.left_out]
    if gone:
        report.warn(f"{len(gone)} of {len(measures)} windows are left out:\n  {_listed(gone)}")
    shots = {window.id: window.shot for window in windows}
    same = {shots[one.window]: one.same_as for one in measures if one.same_as and one.window in shots}
    if same and config.prepare.duplicates == "keep":
        lines = _listed([f"{shot} as {first}" for shot, first in same.items()])
        report.warn(
            f"{len(same)} of {len(set(shots.values()))} shots "
            f"{'repeats an earlier one and counts' if len(same) == 1 else 'repeat earlier ones and count'} "
            f'double; prepare.duplicates = "drop" leaves them out:\n  {lines}'
        )


def _check_leaks(
    report: Reporter, config: Config, clips: dict[str, FootageClip], leaks: Sequence[tuple[Window, Window, float]]
) -> None:
    """Speak about, or refuse, pictures that are on both sides of the split. Raises `FootageError`."""
    if not leaks:
        return
    one, other, share = min(leaks, key=lambda leak: leak[2])
    names = " and ".join(f"{window.id} ({window.split}, scene {window.scene!r})" for window in (one, other))
    more = f"; {len(leaks) - 1} more such pairs" if len(leaks) > 1 else ""
    what = f"{names} show the same picture: their fingerprints differ in {share:.0%} of bits{more}"
    remedy = 'give both clips the same "scene" in metadata.jsonl, or set prepare.on_leak = "move"'
    if config.prepare.on_leak == "refuse":
        places = " and ".join(
            f"{clips[window.clip].path} at {start_label(clips[window.clip], window.source_frames[0])}"
            for window in (one, other)
        )
        raise FootageError(f"{what}; held-out numbers would be too good", where=places, remedy=remedy)
    report.warn(f"{what}. Held-out numbers will be too good: {remedy}")


def _captions(project: Project, clips: dict[str, FootageClip], shots: tuple[Shot, ...]) -> list[CaptionRow]:
    """One row per shot. Raises `ConfigError` listing every shot without a caption."""
    folder = project.root / project.config.footage.folder
    rows = captions_of(project.root, folder, clips, shots)
    missing = [
        f"{clips[shot.clip].path} ({shot.id}, from frame {shot.span.start})"
        for shot, row in zip(shots, rows, strict=True)
        if not row.text
    ]
    if missing and project.config.prepare.require_captions:
        listed = "\n  ".join(missing)
        raise ConfigError(
            f"{len(missing)} shots have no caption:\n  {listed}",
            where=str(folder),
            remedy="write clip.txt beside each clip, or a metadata.jsonl; or let a model do it: `cinetune caption`; "
            "or set prepare.require_captions = false",
        )
    return rows


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _some_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _tell(
    report: Reporter, config: Config, geometry: Release, clips: dict[str, FootageClip], windows: list[Window]
) -> None:
    for rate in sorted({clips[window.clip].rate for window in windows}):
        mine = next(window for window in windows if clips[window.clip].rate == rate)
        covered = mine.source_frames[-1] - mine.source_frames[0] + 1
        report.say(
            f"{rate} fps resampled by time to {geometry.rate}: "
            f"a window of {config.prepare.frames} frames spans {covered} source frames"
        )
    used = [clips[name] for name in dict.fromkeys(window.clip for window in windows)]
    for note in crop_notes(used, geometry, height=geometry.height, width=geometry.width):
        report.warn(note)
    small = sorted({window.clip for window in windows if window.crop[3] < geometry.height})
    if small:
        report.warn(
            f"{len(small)} clips are enlarged to the model's {geometry.width}x{geometry.height}: {_some(small)}"
        )
    without = sum(not window.caption for window in windows)
    if without:
        report.warn(f"{without} windows have no caption")
    if cut := _cut_captions(config, windows):
        report.warn(
            f"{len(cut)} captions are longer than the text encoder reads; the rest is dropped, so captions that differ "
            f"only there are one:\n  {_listed(cut)}"
        )
    generated = sum(window.caption_source.startswith("generated (") for window in windows)
    if generated:
        report.say(f"{generated} captions were written by a model; `cinetune caption --review` shows them")
    report.say(scene_table(windows))
    scenes = {
        split: sorted({window.scene for window in windows if window.split == split}) for split in ("train", "held")
    }
    counts = {split: sum(window.split == split for window in windows) for split in scenes}
    report.say(
        f"train: {_some_of(counts['train'], 'window')}, {_some_of(len(scenes['train']), 'scene')}; "
        f"held out: {_some_of(counts['held'], 'window')}, {_some_of(len(scenes['held']), 'scene')}"
        + (f" ({_some(scenes['held'])})" if scenes["held"] else "")
    )
    if crowd := crowded(windows):
        report.warn(crowd)
    if not scenes["held"] and config.prepare.held_fraction > 0:
        report.warn("fewer than three scenes: nothing is held out, so training cannot be validated")


def _whole(project: Project, clips: dict[str, FootageClip], windows: Sequence[Window]) -> dict[str, bytes]:
    """The full frame in the middle of the first window of every clip that loses something to the crop, by window."""
    firsts = {window.clip: window for window in reversed(windows)}
    found: dict[str, bytes] = {}
    for name, window in firsts.items():
        clip = clips[name]
        if lost(shape_of(clip), height=window.height, width=window.width)[1] <= 0 and window.crop == clip.bars:
            continue
        middle = window.source_frames[len(window.source_frames) // 2]
        key = content_key(NAME, "whole", _REVISION, clip.sha256, clip.colour, clip.reading, middle)

        def look(clip: FootageClip = clip, middle: int = middle) -> FileRef:
            with project.store.new_object(".webp") as (temporary, done):
                temporary.write_bytes(strip(read_clip(project.root, clip, [middle])))
            return done[0]

        found[window.id] = project.store.path(project.store.unit(NAME, key, FileRef, look)).read_bytes()
    return found


def _write_pages(
    project: Project,
    report: Reporter,
    clips: dict[str, FootageClip],
    windows: Sequence[Window],
    measures: Sequence[Measures],
    strips: Sequence[FileRef],
    *,
    leaks: Sequence[tuple[Window, Window, float]],
) -> None:
    """The contact sheet and the table of rights, for people."""
    folder = project.store.work / NAME
    twins: dict[str, str] = {}  # the nearest copy of each window comes last and stays
    for one, other, _ in sorted(leaks, key=lambda leak: -leak[2]):
        twins |= {one.id: other.id, other.id: one.id}
    whole = _whole(project, clips, windows)
    cards = [
        WindowCard(
            window=window,
            clip=clips[window.clip],
            measures=one,
            strip=project.store.path(ref).read_bytes(),
            copy_of=twins.get(window.id, one.same_as),
            whole=whole.get(window.id, b""),
        )
        for window, one, ref in zip(windows, measures, strips, strict=True)
    ]
    trigger = project.config.prepare.trigger
    facts = [f"Every caption is given to the model with “{trigger}, ” before it."] if trigger else []
    facts += [
        f"The caption of {line}: the text encoder reads no more." for line in _cut_captions(project.config, windows)
    ]
    project.store.write_text(folder / "sheet.html", render_sheet(project.config.name, cards, facts))
    used = [window for window, one in zip(windows, measures, strict=True) if not one.left_out]
    table, unstated = rights_csv(clips, used)
    project.store.write_text(folder / "rights.csv", table)
    report.say(f"sheet  {folder / 'sheet.html'}: look at every window before you train")
    report.say(
        f"rights {folder / 'rights.csv'}"
        + (f": owner or licence of {len(unstated)} clips is not stated ({_some(unstated)})" if unstated else "")
    )
