"""Every reader of what comes from outside, on damaged and on oversized input: it reads, or says so in a typed error.

Seeds are fixed, so that a failure comes back. Times and memory are limits of the system on a process of its own, and
not measured.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save

from cinetune.config import load_config
from cinetune.cost.shape import denoiser_of
from cinetune.errors import CinetuneError
from cinetune.footage.edit.edl import parse_edl
from cinetune.footage.edit.markers import otio_markers
from cinetune.footage.edit.otiojson import parse_otio
from cinetune.footage.edit.xmeml import parse_xmeml
from cinetune.footage.notes.datasets import read_dataset
from cinetune.footage.notes.shotlists import import_shots
from cinetune.footage.notes.sidecars import Notes, read_generated, table_rows
from cinetune.footage.read.boxes import read_boxes
from cinetune.footage.read.color import decide_colour
from cinetune.footage.read.spaces import to_display
from cinetune.metrics import networks
from cinetune.models.adapters.foreign import read_adapter
from cinetune.models.captioning.chat import ChatCaptioner
from cinetune.models.files import download
from cinetune.models.files.weights import built_from, read_config
from cinetune.outside import safetensors_header
from cinetune.records import log_line, read_log
from cinetune.report import vbench
from cinetune.sections import ColourRule
from cinetune.shotlist import load_shots

EDL = """TITLE: R1
FCM: NON-DROP FRAME
001  A001     V     C        01:00:02:02 01:00:04:00 01:00:00:00 01:00:01:22
* FROM CLIP NAME:  CASTLE.NEW.01
* FROM CLIP: /mnt/show/castle.mov
004  A002     V     C        01:00:05:00 01:00:05:00 01:00:04:22 01:00:04:22
004  A003     V     D    012 02:00:00:00 02:00:02:00 01:00:04:22 01:00:06:22
* TO CLIP NAME:  INCOMING
M2   A003       048.0                01:00:00:00
FINAL CUT PRO REEL: a long name REPLACED BY: A003
"""
CLIP = (
    "<clipitem><name>a</name><rate><timebase>24</timebase><ntsc>TRUE</ntsc></rate><start>0</start><end>48</end>"
    "<in>10</in><out>58</out><file id='f'><name>a.mov</name><pathurl>file://localhost/x/a%20b.mov</pathurl>"
    "<timecode><rate><timebase>30</timebase></rate><string>01:00:00:15</string><displayformat>DF</displayformat>"
    "</timecode></file></clipitem><transitionitem><start>40</start><end>60</end></transitionitem>"
)
XML = (
    "<?xml version='1.0' encoding='UTF-8'?><!DOCTYPE xmeml><xmeml version='4'><sequence><rate><timebase>24</timebase>"
    f"<ntsc>TRUE</ntsc></rate><media><video><track>{CLIP}</track></video></media></sequence></xmeml>"
)
TIME = {"OTIO_SCHEMA": "RationalTime.1", "rate": 24.0, "value": 86400.0}
SPAN = {"OTIO_SCHEMA": "TimeRange.1", "start_time": TIME, "duration": {**TIME, "value": 48.0}}
MARKED: dict[str, Any] = {
    "OTIO_SCHEMA": "Clip.2", "name": "a", "source_range": SPAN, "effects": [], "enabled": True,
    "markers": [{"OTIO_SCHEMA": "Marker.2", "name": "m", "marked_range": SPAN, "comment": "a rider"}],
    "media_references": {"DEFAULT_MEDIA": {
        "OTIO_SCHEMA": "ExternalReference.1", "target_url": "a.mov", "available_range": SPAN}},
}  # fmt: skip
TRACK = {"OTIO_SCHEMA": "Sequence.1", "kind": "Video", "children": [MARKED]}
OTIO = json.dumps({
    "OTIO_SCHEMA": "Timeline.1", "global_start_time": TIME, "tracks": {"OTIO_SCHEMA": "Stack.1", "children": [TRACK]}
})  # fmt: skip
JSONL = "\n".join(
    json.dumps({"file_name": f"a{k}.mov", "text": "a rider \u2028 crosses", "shot": k, "scene": "s", "owner": "me"})
    for k in range(3)
)
GENERATED = json.dumps({
    "file_name": "a.mov", "clip_sha256": "0" * 64, "start_frame": 3, "frames": 9, "text": "x", "model": "m",
    "prompt_sha256": "1", "text_sha256": "2",
})  # fmt: skip
CSV = 'file_name,text,shot\r\na.mov,"a ""rider""\r\n crosses",0\r\nb.mov,plain,1\r\n'
TOML = """preset = "pocket"
name = 'film'
[prepare]
trigger = \"\"\"an old "film\"\"\"
frames = 17
[train]
betas = [0.9, 0.999]
augment = {probability = 0.5, blur = 1.0}
[[footage.colour]]
match = "*.mov"
"""
SHOTS = """[[shot]]
id = "s1"
prompt = "a rider"
domain = "in"
reference = "ref.png"
seconds = 4.0
[[shot.prompts]]
at = 1.5
prompt = 'he stops'
"""
DATASET = """[general]
resolution = [960, 544]
caption_extension = ".txt"
[[datasets]]
video_directory = "clips"
target_frames = [1, 25]
frame_extraction = "head"
[[datasets]]
video_jsonl_file = "a.jsonl"
"""
CUBE = 'TITLE "look"\nLUT_3D_SIZE 2\nDOMAIN_MIN 0 0 0\n' + "".join(
    f"{r} {g} {b}\n" for b in (0, 1) for g in (0, 1) for r in (0, 1)
)
Q = "blocks.0.attn2.to_q"
ADAPTER = save(
    {f"{Q}.lora_A.weight": torch.ones(2, 3), f"{Q}.lora_B.weight": torch.ones(3, 2), f"{Q}.alpha": torch.tensor(2.0)},
    metadata={"lora_adapter_metadata": json.dumps({"transformer.r": 2, "transformer.lora_alpha": 4})},
)
ANSWER = json.dumps({"choices": [{"message": {"content": "a rider \ud83d\ude00"}, "finish_reason": "stop"}]})
LISTED = json.dumps([
    {"type": "file", "path": "transformer/a.safetensors", "size": 9, "oid": "x", "lfs": {"oid": "0" * 64, "size": 9}}
])  # fmt: skip
CHAT = ChatCaptioner("http://127.0.0.1:9/v1", "m", key="secret")


def saved(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def reader(folder: Path, data: bytes) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return reader


def text_of(read: Callable[[str], object]) -> Callable[[Path, bytes], object]:
    return lambda _, data: read(data.decode("utf-8", "replace"))


def lut(path: Path) -> object:
    import numpy as np

    rule = ColourRule(match="", lut=str(path))
    colour = decide_colour(matrix=0, primaries=1, transfer=1, code_range=2, height=8, rgb=True, rule=rule)
    return to_display(np.zeros((1, 2, 3), np.float32), colour)


def table(path: Path) -> object:
    return [*table_rows(path), Notes(path.parent, [path.with_name("a.mov")]).rows(path.with_name("a.mov"))]


def beside(path: Path) -> object:
    return Notes(path.parent, [path.with_name("a.mov")]).rows(path.with_name("a.mov"))


def generated(path: Path) -> object:
    return read_generated(path.parent)


def shot_table(path: Path) -> object:
    (path.parent / "shots.toml").unlink(missing_ok=True)
    return import_shots(path.parent, path)


MADE: Any = (SimpleNamespace(arm="look", shot="s1", seed=0), SimpleNamespace(arm="look", shot="s2", seed=0))
VBENCH = json.dumps({"motion": [0.5, [{"video_path": f"x/s{k}-0.mp4", "video_results": 0.5} for k in (1, 2)]]})
SHAPE = json.dumps(dict.fromkeys(
    ("num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim", "in_channels", "out_channels", "text_dim",
     "image_dim", "freq_dim"), 8))  # fmt: skip
SHOT_TABLE = 'id,prompt,domain,reference,seconds,seed\ns1,"a rider, ""alone""",in,ref.png,2.5,7\ns2,b,out,ref.png,,\n'


def shape(path: Path) -> object:
    with built_from(path.parent):
        return denoiser_of(read_config(path.parent, path.name), image_tokens=4, multiple=8)


def listed(text: str) -> object:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None  # what is no JSON is refused before
    return download._files("hub", iter(found), lambda _: True) if isinstance(found, list) else None


def published() -> bytes:
    """A network as its makers publish it: what `torch.save` writes."""
    out = io.BytesIO()
    torch.save({"conv.weight": torch.ones(2, 3), "conv.bias": torch.zeros(2)}, out)
    return out.getvalue()


READERS: dict[str, tuple[str | bytes, Callable[[Path, bytes], object]]] = {
    "edl": (EDL, text_of(lambda text: parse_edl(text, edit="e"))),
    "xml": (XML, lambda _, data: parse_xmeml(data, edit="e")),
    "otio": (OTIO, text_of(lambda text: parse_otio(text, edit="e"))),
    "markers": (OTIO, text_of(otio_markers)),
    "jsonl": (JSONL, saved("metadata.jsonl", table)),
    "csv": (CSV, saved("metadata.csv", table)),
    "captions": ("a rider \u2028 crosses", saved("a.txt", beside)),
    "generated": (GENERATED, saved("captions.generated.jsonl", generated)),
    "settings": (TOML, saved("cinetune.toml", load_config)),
    "shots": (SHOTS, saved("shots.toml", load_shots)),
    "dataset": (DATASET, saved("set.toml", read_dataset)),
    "lut": (CUBE, saved("a.cube", lut)),
    "adapter": (ADAPTER, saved("a.safetensors", read_adapter)),
    "weights": (ADAPTER, saved("w.safetensors", lambda path: safetensors_header(path, refuse=CinetuneError))),
    "answer": (ANSWER, text_of(CHAT._answer)),
    "refusal": (json.dumps({"error": {"message": "no"}}), text_of(CHAT._plain)),
    "hub": (LISTED, text_of(listed)),
    "shot table": (SHOT_TABLE, saved("list.csv", shot_table)),
    "vbench": (VBENCH, saved("a_eval_results.json", lambda path: vbench._levels(path.parent, MADE, "look"))),
    "configuration": (SHAPE, saved("config.json", shape)),
    "network": (published(), saved("net.pth", networks._state_dict)),
    "log": (log_line({"kind": "step", "step": 1, "loss": 0.5}) * 3, saved("log.jsonl", read_log)),
    "boxes": (b"\0\0\0\x20moov\0\0\0\x18trak\0\0\0\x10mdia\0\0\0\x08hdlr", saved("a.mov", read_boxes)),
}  # fmt: skip
ROUNDS = {"lut": 60, "adapter": 200, "settings": 150, "dataset": 150, "shots": 150}
PIECES = (
    b"", b"-1", b"9" * 30, b"1e999", b"NaN", b"null", b"[", b"]", b"{", b"}", b'"', b"'", b"\\", b"\\ud83d", b"\n",
    b"\r", "\u2028".encode(), b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"<a>", b"</a>", b"&", b"=", b",", b";",
    b":", b"[[", b"..", b"/", b"x" * 300, b"\xe2", b"\t", b"inf", b"true", b"0x", b"99:99:99:99",
)  # fmt: skip


def damaged(rng: random.Random, whole: bytes) -> bytes:
    data = whole
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 2:
                end = min(len(data), at + rng.randint(1, 40))
                data = data[:at] + data[at:end] * rng.randint(2, 4) + data[end:]
            case 3:
                data = data[:at] + data[at + rng.randint(1, 20) :]
            case _:
                data = data[:at] + rng.choice(PIECES) + data[at + rng.randint(0, 6) :]
    return data


@pytest.mark.parametrize("name", READERS)
def test_damaged_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    good, read = READERS[name]
    whole = good.encode("utf-8", "surrogatepass") if isinstance(good, str) else good
    (tmp_path / "ref.png").write_bytes(b"png")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "c.mp4").write_bytes(b"film")
    (tmp_path / "a.jsonl").write_text('{"video_path": "clips/c.mp4"}\n')
    read(tmp_path, whole)  # undamaged, it is read
    rng = random.Random(f"{name} 11")
    with at_most(gib=1):
        for _ in range(ROUNDS.get(name, 300)):
            with suppress(CinetuneError), each_at_most(seconds=5):
                read(tmp_path, damaged(rng, whole))


@contextmanager
def at_most(*, gib: int) -> Iterator[None]:
    """This process may take so much more memory than it has; more is a `MemoryError`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (gib << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def each_at_most(*, seconds: float) -> Iterator[None]:
    """So much time of the processor, not of the clock: others work on this machine too."""

    def late(*_: object) -> None:
        raise TimeoutError(f"one input took more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


NAMED = {"path": "a", "type": "file", "size": 1, "oid": "0" * 40}


@pytest.mark.parametrize(
    "entry",
    [
        None, 3, "x", [], {"path": 1}, {"path": "a", "type": "file"}, NAMED | {"size": None},
        NAMED | {"oid": "../../x"}, NAMED | {"size": 1.5}, NAMED | {"size": 10**30}, NAMED | {"size": -5},
        NAMED | {"lfs": {"oid": "0" * 40}},
    ],
)  # fmt: skip
def test_answers_of_a_hub_are_checked_part_by_part(entry: object) -> None:
    whole = json.loads(LISTED)
    assert len(download._files("hub", iter(whole), lambda _: True)) == 1
    with pytest.raises(CinetuneError):
        download._files("hub", iter([*whole, entry]), lambda _: True)


LARGEST = {
    "json": 'parse_json("[" + "[]," * 999_990 + "0]", where="", refuse=E)',
    "deep json": 'parse_json("[" * 10_000_000, where="", refuse=E)',
    "json lines": "list(json_lines('{\"a\":1}\\n' * 199_990, where=''))",
    "csv": 'list(csv_rows("a,b\\n" + "c,d\\n" * 199_990, where="", needs="a"))',
    "xml": 'parse_xml(b"<r>" + b"<a/>" * 999_990 + b"</r>")',
    "toml": 'parse_toml("".join(f"[a{k}.b.c]\\n" for k in range(80_000)), where="")',
    "edl": "parse_edl(EVENT * 49_990, edit='e')",
    "edl comments": "parse_edl(EVENT + ('* FROM CLIP NAME: ' + 'x ' * 900 + '\\n') * 30_000, edit='e')",
    "otio": "parse_otio(OTIO % ('{\"OTIO_SCHEMA\":\"Clip.1\"},' * 400_000), edit='e')",
    "patterns": "[Pattern(f'(.*.*.*)*{k}!', taken=TAKEN).matches('a' * 200) for k in range(5000)]",
    "xmeml": (
        "parse_xmeml(b'<xmeml><sequence><media><video><track>' + b'<clipitem/>' * 400_000 + "
        "b'</track></video></media></sequence></xmeml>', edit='e')"
    ),
}  # fmt: skip


LIMITED = """
EVENT = "001  A V C 01:00:00:00 01:00:02:00 01:00:00:00 01:00:02:00\\n"
OTIO = (
    '{"OTIO_SCHEMA":"Timeline.1","tracks":{"OTIO_SCHEMA":"Stack.1","children":[{"OTIO_SCHEMA":"Track.1",'
    '"kind":"Video","children":[%s{}]}]}}'
)
import os, resource
from cinetune.errors import CinetuneError
from cinetune.footage.edit.edl import parse_edl
from cinetune.footage.edit.otiojson import parse_otio
from cinetune.footage.edit.xmeml import parse_xmeml
from cinetune.outside import *
from cinetune.patterns import Pattern, PatternError
TAKEN = [0]
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, taken + 2**30))
used = resource.getrusage(resource.RUSAGE_SELF)
resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 6,) * 2)
try:
    CALL
except (CinetuneError, PatternError):
    pass
"""


@pytest.mark.parametrize("name", LARGEST)
def test_no_input_takes_five_seconds_or_a_gibibyte(name: str) -> None:
    """In a process that the system ends after 5 s of computing, and refuses more than a gibibyte."""
    code = LIMITED.replace("CALL", LARGEST[name].replace("refuse=E", "refuse=CinetuneError"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
