"""What scoring costs: set metrics against a matrix-root FID on the same features, and every measure of a shot.

    python benchmarks/score_cost.py                          10,000 x 1,024 features, and two 720p shots of 33 frames
    python benchmarks/score_cost.py --rows 2000 --shots 1    smaller
    python benchmarks/score_cost.py --rows 0 --stage 40      `cinetune score` on 40 shots x 3 arms

The second part times each row of the table on synthetic pans with grain, with a CLIP ViT-B/32 of random weights. The
third (`--stage N`) runs `cinetune score` itself twice on a project of N shots in three arms without truths: the second
run reads what the first has kept. 40 shots x 3 arms = 120 clips; a sample scales by its number of clips.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.linalg import sqrtm
from transformers import CLIPConfig, CLIPModel

from cinetune import pipeline
from cinetune.artifacts import FileRef, Segment, Sequence, Timing
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import write_video
from cinetune.metrics import ClipMaps, frechet, kid, nearest_scenes
from cinetune.metrics.networks import wrap_clip
from cinetune.metrics.suite import METRICS, ClipReading, Evidence, Semantics, cloud, picked, signed
from cinetune.models.wan import pocket
from cinetune.runtime import Quiet
from cinetune.scoring.clips import Source, kept_cloud, kept_features
from cinetune.scoring.nets import Net
from cinetune.stages import score
from cinetune.store import Project


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = what()
    return time.perf_counter() - started, found


def matrix_root_fid(x_ND: np.ndarray, y_ND: np.ndarray) -> float:
    """FID as it is usually computed: `scipy.linalg.sqrtm` of the product of the covariances."""
    s_x, s_y = np.cov(x_ND, rowvar=False), np.cov(y_ND, rowvar=False)
    root = sqrtm(s_x @ s_y)
    shift = x_ND.mean(0) - y_ND.mean(0)
    return float(shift @ shift + np.trace(s_x) + np.trace(s_y) - 2 * np.trace(root).real)


def distances(rows: int, width: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    scale = (1 / np.arange(1, width + 1)) ** 0.5
    x, y = rng.normal(size=(rows, width)) * scale, rng.normal(size=(rows, width)) * scale + 0.01
    root_s, root = timed(lambda: matrix_root_fid(x, y))
    ours_s, ours = timed(lambda: frechet(x, y))
    kid_s, kid_value = timed(lambda: kid(x, y))
    return {
        "rows": rows, "width": width, "matrix_root_s": root_s, "frechet_s": ours_s, "kid_s": kid_s,
        "matrix_root": root, "frechet": ours, "relative_difference": abs(ours - root) / abs(root), "kid": kid_value,
        "frechet_times_faster": root_s / ours_s, "kid_times_faster": root_s / kid_s,
    }  # fmt: skip


def pan(frames: int, height: int, width: int, *, seed: int) -> np.ndarray:
    """A textured picture that pans by two pixels a frame, with grain."""
    rng = np.random.default_rng(seed)
    small = rng.random((height // 16 + 2, (width + 2 * frames) // 16 + 2, 3)).astype(np.float32)
    wide = np.kron(small, np.ones((16, 16, 1), np.float32))[:height]
    film = np.stack([wide[:, 2 * t : 2 * t + width] for t in range(frames)])
    film += rng.standard_normal(film.shape, dtype=np.float32) * 0.02
    return film.clip(0, 1)


def clip_b32() -> CLIPModel:
    """CLIP ViT-B/32 at its published size, random weights."""
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
              "image_size": 224, "patch_size": 32}  # fmt: skip
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
    torch.manual_seed(0)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)).eval()


def shots(count: int, frames: int, height: int, width: int) -> dict[str, Any]:
    """Seconds a shot by measure, and of features and Lab pixels the first and the second time."""
    features = wrap_clip(clip_b32(), tokenizer=None, sha256="random", title="CLIP ViT-B/32, random weights")
    net = Net(name="clip-b", per="frame", identity="random", label="", knows_words=False, _load=lambda: features)
    first = second = 0.0
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "cinetune.toml").write_text('preset = "pocket"\n', encoding="utf-8")
        project = Project(root)
        for number in range(count):
            film, truth = (pan(frames, height, width, seed=seed) for seed in (number, number + 1000))
            source = Source(f"shot {number}", "", lambda film=film: film)
            first += timed(lambda source=source: (kept_features(project, source, net), kept_cloud(project, source)))[0]
            second += timed(lambda source=source: (kept_features(project, source, net), kept_cloud(project, source)))[0]
            found = kept_features(project, source, net)
            evidence = Evidence(
                shot=ClipReading(film), cloud_N3=kept_cloud(project, source), truth=ClipReading(truth),
                net=ClipMaps(features.model), twin_THWC=truth,
                film_N3=nearest_scenes(cloud(truth), [cloud(truth)] * 8), drift=1.0, seam_ratio=1.0,
                clip=Semantics(
                    frames_TD=found, text_D=found[0], film_ND=found, truth_TD=features.frames(signed(picked(truth)))
                ),
            )  # fmt: skip
            for row in METRICS:
                rows[row.name] = rows.get(row.name, 0.0) + timed(lambda row=row, e=evidence: row.measure(e))[0]
    return {
        "shots": count, "frames": frames, "height": height, "width": width,
        "features_and_pixels_first_s": first / count, "features_and_pixels_kept_s": second / count,
        "seconds_a_shot": {name: value / count for name, value in sorted(rows.items(), key=lambda item: -item[1])},
        "sum_of_rows_s": sum(rows.values()) / count,
    }  # fmt: skip


def project_of(root: Path, count: int, frames: int, height: int, width: int) -> Project:
    """A film of eight small clips through `ingest` and `prepare`, and `count` shots of pans in base, trigger, look."""
    (root / "footage").mkdir()
    for number in range(8):
        write_video(root / "footage" / f"c{number}.mp4", pan(40, 64, 96, seed=500 + number), rate=Fraction(16))
        (root / "footage" / f"c{number}.txt").write_text(f"scene {number}", encoding="utf-8")
    write_png16(root / "r.png", pan(1, 64, 96, seed=1)[0])
    (root / "cinetune.toml").write_text(
        'preset = "pocket"\n[prepare]\ntrigger = "a look"\n[score]\nfeatures = ["clip-b"]\n', encoding="utf-8"
    )
    shot = '[[shot]]\nid = "s{0}"\nprompt = "a pan"\ndomain = "{1}"\nreference = "r.png"\nseed = 0\n'
    listed = "".join(shot.format(number, ("in", "out")[number % 2]) for number in range(count))
    (root / "shots.toml").write_text(listed, encoding="utf-8")
    clip_b32().save_pretrained(root / "networks" / "clip-b")
    pocket.load_clip()[1].save_pretrained(root / "networks" / "clip-b")
    project = Project(root)
    pipeline.run(project, Quiet(), until="prepare")
    made = project.store.need_stage("prepare").provenance
    shots = []
    for number, (arm, gain) in itertools.product(range(count), (("base", 1.0), ("trigger", 0.98), ("look", 0.9))):
        film = pan(frames, height, width, seed=number) * gain
        with project.store.new_object(".safetensors") as (path, done):
            save_file({"frames_THWC": np.rint(film * 65535).astype(np.uint16)}, path)
        shots.append(
            Sequence(
                shot=f"s{number}", arm=arm, seed=0, domain=("in", "out")[number % 2], rate=Fraction(16), frames=frames,  # type: ignore[arg-type]
                width=width, height=height, segments=(Segment(first_frame=0, frames=frames, seed=0),), seam_ratio=None,
                drift=1.0, video=done[0], proxy=FileRef(path="none", sha256=""), keyframe="", provenance=made,
                timing=Timing(devices=1, wall_seconds=0, peak_gib=None),
            )
        )  # fmt: skip
    project.store.save_stage("expand", "benchmark", {"sequences": shots}, made=made)
    return project


def stage_twice(count: int, frames: int, height: int, width: int) -> dict[str, float]:
    """Seconds of `cinetune score`, and of the same once more from what it kept."""
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder), count, frames, height, width)
        first, second = (timed(lambda: score.run(Project(project.root), Quiet()))[0] for _ in range(2))
    return {"clips": 3.0 * count, "first_s": first, "second_s": second, "second_over_first": second / first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--shots", type=int, default=2)
    parser.add_argument("--stage", type=int, default=0, metavar="N", help="shots of a project for the stage itself")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    if arguments.rows:
        found["distances"] = distances(arguments.rows, arguments.width)
    if arguments.shots:
        found["shots"] = shots(arguments.shots, arguments.frames, *arguments.size)
    if arguments.stage:
        found["stage"] = stage_twice(arguments.stage, arguments.frames, *arguments.size)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
