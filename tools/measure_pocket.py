"""Measure a pocket model on held-out scenes: what can be read off its clips, how sharp and how true they are.

    python tools/measure_pocket.py                        the shipped weights, on the scenes of their card
    python tools/measure_pocket.py --weights OUT --sheet sheet.jpg

Scenes and readers depend on --seed alone: another seed is for choosing --steps and --guidance (several
of each are tried in pairs) without looking at the scenes of the card. Exit code 1 if a bar does not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from cinetune.models.wan import pocket
from cinetune.models.wan.wan21 import WanVideo
from pocket_training import bars, card, film_set, pictures
from pocket_training.common import Run, pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=pocket.weights_folder(), help="folder in diffusers layout")
    parser.add_argument("--work", type=Path, default=Path("build/measure"), help="rendered clips are kept here")
    parser.add_argument("--seed", type=int, default=0, help="of scenes and reader; 0 is the card's")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--reader-clips", type=int, default=1600, help="true clips that teach the reader")
    parser.add_argument("--steps", type=int, nargs="+", default=[card.STEPS])
    parser.add_argument("--guidance", type=float, nargs="+", default=[card.GUIDANCE])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sheet", type=Path, help="write the clips beside the true ones as a picture")
    options = parser.parse_args()
    work = options.work / f"{options.seed}-{options.scenes}-{options.reader_clips}"
    work.mkdir(parents=True, exist_ok=True)
    run = Run(
        work=work, out=options.weights, images=work, seed=options.seed, held=options.scenes,
        clips=options.reader_clips, reader_clips=options.reader_clips, reader_steps=bars.READER_STEPS,
        vae_steps=0, clip_steps=0, denoiser_steps=0, ranks=os.cpu_count() or 1, device=options.device,
    )  # fmt: skip
    film_set.render_all(run)
    held, captions = film_set.held_clips(run)
    readers = card.readers(run)
    device = "cuda:0" if options.device == "cuda" else "cpu"
    model = WanVideo.from_folder(options.weights, family="pocket", device=device)
    held_all = True
    for steps, guidance in zip(options.steps, options.guidance, strict=True):
        clips = card.generate(model, held[:, 0], captions, steps=steps, guidance=guidance)
        found = bars.figures(readers, clips, pixels(held), captions)
        print(f"\n{len(held)} scenes of seed {run.seed}, {steps} steps, guidance {guidance}\n")
        print(f"| what | value | bar | |\n|---|---|---|---|\n{card.measured(found)}", flush=True)
        for fact, what in bars.worst_classes(readers, clips, captions).items():
            print(f"worst read {fact}: {what}")
        held_all &= all(bar.holds(found[name]) for name, bar in bars.BARS.items())
        if options.sheet:
            count = min(card.PICTURED, len(held))
            pictures.sheet(clips[:count], pixels(held[:count]), captions[:count], options.sheet)
    sys.exit(0 if held_all else 1)


if __name__ == "__main__":
    main()
