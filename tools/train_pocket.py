"""Pre-train the pocket model on the backlot and write its weights into the package.

    python tools/train_pocket.py --work build/pocket

Each part (clips, autoencoder, CLIP, latents, denoiser) is resumable: run the same command again after a stop.
Everything is seeded; with the same number of ranks on the same machine the result is the same, but for --minutes, where
the number of steps is what the machine does in that time.

On one GPU, everything within eight minutes (docs/extend/pocket.md says what to carry there):

    python tools/train_pocket.py --device cuda --minutes 7.5 --compiler inductor --batch 128 --vae-batch 16 \\
        --clips 16384 --clip-steps 0 --start START --work /tmp/pocket --out OUT
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from cinetune.backlot.scenes import vocabulary
from cinetune.models.wan import pocket
from pocket_training import autoencoder, bars, card, contrast, denoiser, film_set
from pocket_training.common import Run

# Words a film's trigger phrase is likely to use; they are never in a pre-training caption, so they mean nothing until
# a look gives them a meaning.
TRIGGER_WORDS = ("ember", "film", "gouache", "grade", "in", "look", "of", "silver", "style", "the")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="checkpoints, clips, logs")
    parser.add_argument("--out", type=Path, help="where weights, card and pictures go (default: into the package)")
    parser.add_argument("--start", type=Path, help="folder of trained weights to continue from (diffusers layout)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--minutes", type=float, help="time for all of it; with it, the steps below are upper bounds")
    parser.add_argument("--vae-share", type=float, default=0.25, help="share of --minutes for the autoencoder")
    parser.add_argument("--card-seconds", type=float, default=45, help="part of --minutes kept for measuring")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=2400)
    parser.add_argument("--held", type=int, default=40, help="held-out scenes that the card is measured on")
    parser.add_argument("--reader-clips", type=int, default=1600, help="true clips that teach the reader of the card")
    parser.add_argument("--reader-steps", type=int, default=bars.READER_STEPS)
    parser.add_argument("--vae-steps", type=int, default=1800, help="0 keeps the autoencoder of --start")
    parser.add_argument("--keep-encoder", action="store_true", help="of the autoencoder train the decoder alone")
    parser.add_argument("--clip-steps", type=int, default=600)
    parser.add_argument("--denoiser-steps", type=int, default=1200)
    parser.add_argument("--vae-batch", type=int, help="clips in each step of the autoencoder")
    parser.add_argument("--batch", type=int, default=4, help="clips in each step of the denoiser, for each rank")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the denoiser's learning rates")
    parser.add_argument("--compiler", default="", help="backend of torch.compile for the blocks, such as inductor")
    parser.add_argument("--ranks", type=int, help="training processes on the CPU (default: one a core)")
    parser.add_argument("--until", choices=("clips", "vae", "clip", "latents", "denoiser", "card"), default="card")
    return parser


def run_of(options: argparse.Namespace) -> Run:
    cores = os.cpu_count() or 1
    timed = options.minutes is not None
    ranks = options.ranks or (1 if timed or options.device != "cpu" else cores)
    if timed and ranks > 1:
        raise SystemExit("--minutes trains in one process: leave --ranks out")
    if options.keep_encoder and not options.start:
        raise SystemExit("--keep-encoder keeps the encoder of trained weights: name them by --start")
    package = options.out is None
    return Run(
        work=options.work,
        out=pocket.weights_folder() if package else options.out,
        images=card.IMAGES if package else options.out / "images",
        seed=options.seed,
        clips=options.clips,
        held=options.held,
        reader_clips=options.reader_clips,
        reader_steps=options.reader_steps,
        vae_steps=10**9 if timed else options.vae_steps,
        clip_steps=options.clip_steps,
        keep_encoder=options.keep_encoder,
        denoiser_steps=10**9 if timed else options.denoiser_steps,
        ranks=ranks,
        device=options.device,
        start=options.start,
        minutes=options.minutes,
        vae_share=options.vae_share,
        card_seconds=options.card_seconds,
        vae_batch=options.vae_batch,
        batch=options.batch,
        rate=options.rate,
        compiler=options.compiler,
        renderers=max(1, cores - 2),
    )


def _said(word: str) -> str:
    """A word of the command as the card shows it: where things lay on this machine is nobody's business."""
    return Path(word).name if Path(word).is_absolute() else word


def main() -> None:
    options = arguments().parse_args()
    run = run_of(options)
    run.work.mkdir(parents=True, exist_ok=True)
    words = sorted({*vocabulary(), *TRIGGER_WORDS} - {","})
    (run.work / "words.txt").write_text("\n".join(words), encoding="utf-8")
    parts = {
        "clips": lambda: film_set.render_all(run),
        "vae": lambda: autoencoder.train(run),
        "clip": lambda: contrast.train(run, words),
        "latents": lambda: denoiser.cache(run),
        "denoiser": lambda: denoiser.train(run),
        "card": lambda: card.write(run, command=" ".join(map(_said, sys.argv))),
    }
    names = list(parts)[: list(parts).index(options.until) + 1]
    if run.minutes is not None:
        names.remove("clips")  # other processes render them while the autoencoder trains
    for name in names:
        with film_set.rendering(run) if run.minutes is not None and name == "vae" else nullcontext():
            began = time.monotonic()
            parts[name]()
        print(f"{name}: {time.monotonic() - began:.0f} s, {time.monotonic() - run.began:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
