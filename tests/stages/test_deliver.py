"""Deliver: the right files with the right counts, versions that are never overwritten, and nothing made twice."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import opentimelineio as otio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import load_file, save_file

from cinetune.artifacts import Arm, Colour, FootageClip, Provenance, Sequence, Timing
from cinetune.errors import ConfigError, FootageError
from cinetune.footage.edit.cutlists import plan_cuts, spans_of
from cinetune.footage.read.stills import read_image
from cinetune.footage.video import probe
from cinetune.footage.write.signing import read_manifest
from cinetune.runtime import Quiet
from cinetune.stages import deliver
from cinetune.store import Project, sha256_file
from films import drift
from signer import make_signer

FRAMES = 5
TIMES = (("01:00:00:00", "01:00:00:08"), ("01:00:00:08", "01:00:00:16"))
"""Start and end of the first and second shot of the edit: 8 frames each at 24 fps."""


def footage_clip(name, rate, frames):
    colour = Colour(matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, decided="tagged bt709")
    return FootageClip(
        id=name, path=f"footage/{name}.mov", sha256="0" * 64, codec="prores", rate=rate, frames=frames, width=64,
        height=48, pixel_aspect=Fraction(1), bars=(0, 0, 64, 48), colour=colour, timecode=None,
    )  # fmt: skip


def sequence(
    project: Project, made: Provenance, *, shot: str = "SH0010", arm: Arm = "look", seed: int = 0, number: int = 1
) -> Sequence:
    master = np.rint(drift(number, FRAMES, 48, 64) * 65535).astype(np.uint16)
    with project.store.new_object(".safetensors") as (path, done):
        save_file({"frames_THWC": master}, path)
    return Sequence(
        shot=shot, arm=arm, seed=seed, domain="in", rate=Fraction(16), frames=FRAMES, width=64, height=48, segments=(),
        seam_ratio=None, drift=0.0, video=done[0], proxy=done[0], keyframe="k",
        timing=Timing(devices=1, wall_seconds=1.0, peak_gib=None),
        provenance=made,
    )  # fmt: skip


@pytest.fixture
def shot_film(project, made):
    """Two shots in two arms, generated."""
    arms: tuple[Arm, ...] = ("base", "look")
    items = [
        sequence(project, made, shot=shot, arm=arm, number=k)
        for k, (shot, arm) in enumerate(product(("SH0010", "SH0020"), arms))
    ]
    project.store.save_stage("expand", "key", {"sequences": items}, made=made)
    return project


def names(project):
    return {path.name for path in (project.root / "deliveries").iterdir()}


def opened(project, *formats, arms=("base", "look")):
    """The project with the given settings (TOML arrays are JSON arrays)."""
    overrides = (f"deliver.formats={json.dumps(formats or ('prores_hq',))}", f"deliver.arms={json.dumps(arms)}")
    return Project(project.root, overrides=overrides)


def test_every_shot_arm_and_format_arrives(shot_film, report):
    record = deliver.run(opened(shot_film, "proxy", "prores_hq", "png16", arms=("base",)), report)
    deliveries = record.groups["deliveries"]
    assert [(d.shot, d.arm, d.format, d.version) for d in deliveries] == [
        (shot, "base", name, 1) for shot in ("SH0010", "SH0020") for name in ("proxy", "prores_hq", "png16")
    ]
    for item in deliveries:
        assert (item.rate, item.frames, item.conform) == (Fraction(24), 8, "hold")
        assert len(item.files) == (8 if item.format == "png16" else 1)
        for ref in item.files:
            assert sha256_file(shot_film.root / ref.path) == ref.sha256
    facts = probe(shot_film.root / deliveries[1].files[0].path)
    assert (facts.path.name, facts.frames, facts.rate) == ("SQ010_SH0010_base_v001.mov", 8, Fraction(24))
    assert (facts.colour.decided, facts.timecode) == ("tagged bt709, limited range", "01:00:00:00")
    assert probe(shot_film.root / deliveries[0].files[0].path).frames == 8 + 24
    assert "film_base_v001.otio" in names(shot_film)


def test_the_rate_is_that_of_most_of_the_film(shot_film, report, made):
    """23.976 in, 24000/1001 out; a short clip at 25 does not decide. Another film makes the deliveries stale."""

    def ingested(*clips):
        items = [footage_clip(f"c{k}", rate, frames) for k, (rate, frames) in enumerate(clips)]
        shot_film.store.save_stage("ingest", "key", {"clips": items, "shots": [], "rejected": []}, made=made)

    ingested((Fraction(24000, 1001), 240), (Fraction(25), 30))
    (first, *_) = deliver.run(opened(shot_film, arms=("base",)), report).groups["deliveries"]
    assert first.rate == Fraction(24000, 1001)
    assert probe(shot_film.root / first.files[0].path).rate == Fraction(24000, 1001)
    assert any("24000/1001 frames per second, as the film runs" in line for line in report.lines)
    before = deliver.inputs(shot_film)
    ingested((Fraction(25), 240))
    assert deliver.inputs(shot_film) != before
    (first, *_) = deliver.run(opened(shot_film, arms=("base",)), report).groups["deliveries"]
    assert (first.rate, first.version) == (Fraction(25), 2)


def test_a_rate_that_is_asked_for_is_kept(shot_film, report):
    overrides = ('deliver.formats=["prores_hq"]', 'deliver.rate="25"')
    (first, *_) = deliver.run(Project(shot_film.root, overrides=overrides), report).groups["deliveries"]
    assert first.rate == Fraction(25) and deliver.inputs(Project(shot_film.root, overrides=overrides)) == {}


def test_the_note_beside_a_delivery_says_how_it_was_made(shot_film, report):
    deliver.run(opened(shot_film), report)
    note = json.loads((shot_film.root / "deliveries" / "SQ010_SH0020_look_v001.prores_hq.json").read_text())
    assert note["generated"] is True
    assert note["sequence"]["provenance"]["tool"].startswith("cinetune")
    assert note["delivery"]["files"][0]["path"] == "deliveries/SQ010_SH0020_look_v001.mov"


def test_the_timeline_plays_the_look(shot_film, report):
    deliver.run(opened(shot_film), report)
    folder = shot_film.root / "deliveries"
    clips = list(otio.adapters.read_from_file(str(folder / "film_look_v001.otio")).find_clips())
    assert [clip.media_reference.target_url for clip in clips] == [
        "SQ010_SH0010_look_v001.mov",
        "SQ010_SH0020_look_v001.mov",
    ]
    for clip in clips:
        assert (folder / clip.media_reference.target_url).is_file()
        assert clip.duration().to_frames() == 8
        assert clip.source_range.start_time.to_timecode() == "01:00:00:00"


@pytest.mark.parametrize("formats", [("prores_hq",), ("proxy",), ("png16",)])
def test_timeline_and_edl_find_the_pictures_of_the_delivered_files(shot_film, report, formats):
    """Every reference resolves beside the timeline, and its time begins at the first picture, after any slate."""
    deliver.run(opened(shot_film, *formats), report)
    folder = shot_film.root / "deliveries"
    for clip in otio.adapters.read_from_file(str(folder / "film_look_v001.otio")).find_clips():
        media = clip.media_reference
        if isinstance(media, otio.schema.ImageSequenceReference):
            names = [media.target_url_for_image_number(k) for k in range(media.number_of_images_in_sequence())]
            assert len(names) == 8 and all((folder / name).is_file() for name in names)
            continue
        facts = probe(folder / media.target_url)
        available = media.available_range
        assert (available.start_time.to_timecode(), available.duration.to_frames()) == (facts.timecode, facts.frames)
    if formats == ("png16",):
        return
    lines = (folder / "film_look_v001.edl").read_text().splitlines()
    assert lines[1] == "FCM: NON-DROP FRAME"
    assert lines[3].split() == ["001", "SH0010", "V", "C", *TIMES[0], *TIMES[0]]
    assert lines[7].split() == ["002", "SH0020", "V", "C", *TIMES[0], *TIMES[1]]
    plan = plan_cuts(folder, [path for path in folder.iterdir() if path.suffix in (".mov", ".mp4")])
    assert [path.stem for path in plan.events] == ["SQ010_SH0010_look_v001", "SQ010_SH0020_look_v001"]
    for path, events in plan.events.items():
        facts = probe(path)
        spans, _ = spans_of(events, rate=facts.rate, frames=facts.frames, timecode=facts.timecode)
        assert spans == [(facts.frames - 8, facts.frames)]


def test_a_rate_without_timecode_has_a_timeline_and_no_edl(shot_film, report):
    overrides = ('deliver.formats=["prores_hq"]', 'deliver.conform="none"')
    deliver.run(Project(shot_film.root, overrides=overrides), report)
    assert "film_look_v001.otio" in names(shot_film) and "film_look_v001.edl" not in names(shot_film)
    assert any("no EDL is written" in line and "16 fps" in line for line in report.warnings)


def test_a_second_run_makes_nothing_new(shot_film, report):
    project = opened(shot_film, "prores_hq", "png16")
    first = deliver.run(project, report)
    before = {path: path.stat().st_mtime_ns for path in (shot_film.root / "deliveries").rglob("*")}
    again = deliver.run(project, report)
    assert again.output_sha == first.output_sha
    assert {path: path.stat().st_mtime_ns for path in (shot_film.root / "deliveries").rglob("*")} == before
    assert "0 deliveries written, 8 unchanged" in report.lines[-1]


def test_a_changed_shot_gets_the_next_version_and_the_others_keep_theirs(shot_film, made):
    project = opened(shot_film)
    deliver.run(project, Quiet())
    old = {name: sha256_file(project.root / "deliveries" / name) for name in names(project)}
    items = list(project.store.need_stage("expand").groups["sequences"])
    items[3] = sequence(project, made, shot="SH0020", arm="look", number=9)
    project.store.save_stage("expand", "key2", {"sequences": items}, made=made)
    versions = [(d.shot, d.arm, d.version) for d in deliver.run(project, Quiet()).groups["deliveries"]]
    assert versions == [("SH0010", "base", 1), ("SH0010", "look", 1), ("SH0020", "base", 1), ("SH0020", "look", 2)]
    assert all(sha256_file(project.root / "deliveries" / name) == sha for name, sha in old.items())
    assert names(project) - set(old) == {
        "SQ010_SH0020_look_v002.mov", "SQ010_SH0020_look_v002.prores_hq.json", "film_look_v002.otio",
        "film_look_v002.edl",
    }  # fmt: skip


def test_a_file_someone_changed_is_left_alone(shot_film):
    project = opened(shot_film, arms=("look",))
    deliver.run(project, Quiet())
    touched = project.root / "deliveries" / "SQ010_SH0010_look_v001.mov"
    touched.write_bytes(b"regraded by hand")
    versions = {d.shot: d.version for d in deliver.run(project, Quiet()).groups["deliveries"]}
    assert versions == {"SH0010": 2, "SH0020": 1}
    assert touched.read_bytes() == b"regraded by hand"


def test_a_new_format_joins_the_same_version(shot_film):
    for formats in (("prores_hq",), ("prores_hq", "png16")):
        record = deliver.run(opened(shot_film, *formats, arms=("look",)), Quiet())
    assert {(d.format, d.version) for d in record.groups["deliveries"]} == {("prores_hq", 1), ("png16", 1)}


def test_numbers_of_foreign_files_are_skipped(shot_film):
    (shot_film.root / "deliveries").mkdir()
    (shot_film.root / "deliveries" / "SQ010_SH0010_look_v007.mov").write_bytes(b"from elsewhere")
    project = opened(shot_film, arms=("look",))
    assert [d.version for d in deliver.run(project, Quiet()).groups["deliveries"]] == [8, 1]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{shot}_{task}", "one name"),
        ("{seq}_{task}_v{version:03d}", "one name"),
        ("{seq}_v{version:03d}", "one name"),
        ("{shto}_v{version}", "none of its fields"),
        ("../{shot}_{task}_{version}", "safe"),
        ("{shot.arm}_{task}_{version}", "none of its fields"),
        ("{shot[0]}_{task}_{version}", "none of its fields"),
        ("{shot!r}_{task}_{version}", "none of its fields"),
        ("{shot:>99}_{task}_{version}", "none of its fields"),
        ("{shot}_{task}_{version:0999999999d}", "none of its fields"),
        ("{shot}_{task}_{version:{seq}}", "none of its fields"),
        ("{shot}_{task}_{}", "none of its fields"),
        ("{shot}_{task}_{version", "expected '}'"),
        ("{shot}_{task}_{version}" + "x" * 200, "safe"),
        ("", "safe"),
    ],
)
def test_name_templates_that_cannot_work(shot_film, report, template, words):
    """And before anything is shot: the project is not even opened, but for two shots of one name."""
    overrides = (f'deliver.name="{template}"',)
    with pytest.raises(ConfigError, match=words):
        opened_with = Project(shot_film.root, overrides=overrides)
        assert template == "{seq}_{task}_v{version:03d}", "refused too late"
        deliver.run(opened_with, report)


def test_arms_that_were_not_shot(shot_film, report):
    with pytest.raises(FootageError, match="plain"):
        deliver.run(Project(shot_film.root, overrides=('deliver.arms=["plain"]',)), report)
    assert len(deliver.run(opened(shot_film, arms=("look", "plain")), report).groups["deliveries"]) == 2
    assert any("'plain'" in line for line in report.warnings)


def test_seeds_have_names_of_their_own(shot_film, made):
    items = list(shot_film.store.need_stage("expand").groups["sequences"])
    items = [items[1], replace(items[1], seed=1)]
    shot_film.store.save_stage("expand", "seeds", {"sequences": items}, made=made)
    deliver.run(opened(shot_film), Quiet())
    assert {"SQ010_SH0010_look_v001.mov", "SQ010_SH0010_look1_v001.mov"} <= names(shot_film)


def test_every_way_to_conform_has_its_count(shot_film):
    counts = {"none": 5, "retime": 5, "hold": 8, "blend": 8, "minterpolate": 8}
    for number, (conform, frames) in enumerate(counts.items(), start=1):
        overrides = (f'deliver.conform="{conform}"', 'deliver.formats=["prores_hq"]', 'deliver.arms=["look"]')
        (item, _) = deliver.run(Project(shot_film.root, overrides=overrides), Quiet()).groups["deliveries"]
        assert (item.frames, item.version, item.conform) == (frames, number, conform), "pixels changed: a new version"
        assert probe(shot_film.root / item.files[0].path).frames == frames


def test_bars_are_drawn_and_make_a_new_version(shot_film):
    deliver.run(opened(shot_film, "png16", arms=("look",)), Quiet())
    overrides = ('deliver.bars="2.39"', 'deliver.formats=["png16"]', 'deliver.arms=["look"]')
    (item, _) = deliver.run(Project(shot_film.root, overrides=overrides), Quiet()).groups["deliveries"]
    assert item.version == 2
    frame = read_image(shot_film.root / item.files[0].path)
    assert frame[:10].max() == 0 and frame[-10:].max() == 0 and frame[12:-12].min() > 0.1


@pytest.mark.parametrize("bars", ["0", "2.39.1", "wide", "16:0", "-1"])
def test_impossible_bars(shot_film, bars):
    with pytest.raises(ConfigError, match="bars"):
        Project(shot_film.root, overrides=(f'deliver.bars="{bars}"',))


def test_files_without_a_note_are_not_overwritten(shot_film):
    """A run killed between a file and its note, or a hand that put one there."""
    deliver.run(opened(shot_film, arms=("look",)), Quiet())
    folder = shot_film.root / "deliveries"
    (folder / "SQ010_SH0010_look_v001_png16").mkdir()
    (folder / "SQ010_SH0020_look_v001.mp4").write_bytes(b"not ours")
    record = deliver.run(opened(shot_film, "prores_hq", "png16", "proxy", arms=("look",)), Quiet())
    assert {(d.shot, d.version) for d in record.groups["deliveries"]} == {("SH0010", 2), ("SH0020", 2)}
    assert (folder / "SQ010_SH0020_look_v001.mp4").read_bytes() == b"not ours"
    assert list((folder / "SQ010_SH0010_look_v001_png16").iterdir()) == []


@pytest.mark.parametrize("at", ["before the note", "before the file"])
def test_a_run_that_is_stopped_goes_on_with_its_own_version(shot_film, report, monkeypatch, at):
    """A file without its note is ours where its run left a mark; nobody gets a second version of the same shot."""
    project = opened(shot_film, "prores_hq", "png16", arms=("look",))
    writes = deliver.DELIVERIES["png16"]

    def stopped(*_):
        raise KeyboardInterrupt

    if at == "before the note":
        monkeypatch.setattr(deliver, "_write_note", stopped)
    else:
        monkeypatch.setitem(deliver.DELIVERIES, "png16", replace(writes, write=stopped))
    with pytest.raises(KeyboardInterrupt):
        deliver.run(project, report)
    monkeypatch.undo()
    left = names(project)
    assert left and not any("_v002" in name for name in left)
    assert list((project.store.work / "deliver").iterdir())
    record = deliver.run(project, report)
    assert {item.version for item in record.groups["deliveries"]} == {1}
    assert not any("_v002" in name for name in names(project))
    assert list((project.store.work / "deliver").iterdir()) == []
    before = names(project)
    deliver.run(project, report)
    assert names(project) == before


def test_a_mark_of_another_source_takes_nothing_over(shot_film, report, made):
    project = opened(shot_film, "prores_hq", arms=("look",))
    deliver.run(project, report)
    (note,) = (project.root / "deliveries").glob("*SH0010*.json")
    note.unlink()
    mark = project.store.work / "deliver" / note.name
    mark.write_text("of something else", encoding="utf-8")
    record = deliver.run(project, report)
    assert {item.version for item in record.groups["deliveries"] if item.shot == "SH0010"} == {2}
    assert any("SH0010" in name and "_v001" in name for name in names(project))


def test_every_suffix_counts_as_a_version(shot_film):
    folder = shot_film.root / "deliveries"
    folder.mkdir()
    (folder / "SQ010_SH0010_look_v004_exr_linear").mkdir()
    (folder / "SQ010_SH0020_look_v008_prores4444.mov").write_bytes(b"")
    record = deliver.run(opened(shot_film, arms=("look",)), Quiet())
    assert [d.version for d in record.groups["deliveries"]] == [5, 9]


def test_the_note_says_what_the_values_mean_and_keeps_the_key_to_itself(shot_film):
    deliver.run(opened(shot_film, "exr_linear", arms=("look",)), Quiet())
    note = json.loads((shot_film.root / "deliveries" / "SQ010_SH0010_look_v001.exr_linear.json").read_text())
    assert note["colour"].startswith("linear light") and note["delivery"]["frames"] == 8
    assert "c2pa_key" not in note["settings"] and note["settings"]["conform"] == "hold"


def test_a_signed_delivery(shot_film, tmp_path):
    make_signer(tmp_path, ec.SECP256R1())
    settings = {"c2pa_certificate": "chain.pem", "c2pa_key": "key.pem"}
    overrides = tuple(f'deliver.{name}="{tmp_path / file}"' for name, file in settings.items())
    overrides += ('deliver.formats=["prores_hq", "png16"]', 'deliver.arms=["look"]')
    project = Project(shot_film.root, overrides=overrides)
    movie, stills, *_ = deliver.run(project, Quiet()).groups["deliveries"]
    manifest = read_manifest(shot_film.root / movie.files[0].path)
    assert manifest["validation_state"] == "Valid"
    assert manifest["manifests"][manifest["active_manifest"]]["title"] == "SQ010_SH0010_look_v001.mov"
    assert movie.files[0].sha256 == sha256_file(shot_film.root / movie.files[0].path), "of the signed file"
    assert len(stills.files) == 8
    again = deliver.run(project, Quiet()).groups["deliveries"]
    assert [item.version for item in again] == [1] * 4


def test_an_unusable_signer_is_said_before_anything_is_written(shot_film):
    project = Project(shot_film.root, overrides=('deliver.c2pa_certificate="none.pem"',))
    with pytest.raises(ConfigError, match="cannot sign"):
        deliver.run(project, Quiet())
    assert not (shot_film.root / "deliveries").exists()


def test_masters_are_read_one_frame_at_a_time(shot_film):
    sequence_ = shot_film.store.need_stage("expand").groups["sequences"][0]
    path = shot_film.store.path(sequence_.video)
    master, whole = deliver._StoredMaster(path), load_file(path)["frames_THWC"]
    assert master.shape == whole.shape
    for index in range(FRAMES):
        assert master[index].shape == whole.shape[1:] and np.array_equal(master[index], whole[index])


@pytest.mark.parametrize(
    ("name", "slate", "first"),
    [("tiff16", "second", 3600 * 24), ("proxy", "frame", 3600 * 24 - 1), ("proxy_hevc", "none", 3600 * 24)],
)
def test_the_timeline_points_at_whatever_is_delivered(shot_film, report, name: str, slate: str, first: int):
    overrides = (f'deliver.formats=["{name}"]', 'deliver.arms=["look"]', f"deliver.slate={slate}")
    deliver.run(Project(shot_film.root, overrides=overrides), report)
    timeline = otio.adapters.read_from_file(str(shot_film.root / "deliveries" / "film_look_v001.otio"))
    clips = list(timeline.find_clips())
    assert len(clips) == 2
    for clip in clips:
        assert clip.media_reference.available_range.start_time.to_frames() == first
        assert clip.source_range.start_time.to_frames() == 3600 * 24


def test_every_format_has_its_place_in_the_edit():
    assert set(deliver._FOR_THE_EDIT) == set(deliver.DELIVERIES)
