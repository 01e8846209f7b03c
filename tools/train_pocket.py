"""Pre-train the pocket model on the backlot and write its weights into the package.

    python tools/train_pocket.py --work build/pocket

Each part (clips, autoencoder, CLIP, latents, denoiser) is resumable: run the same command again after a stop.
Everything is seeded; with the same number of ranks on the same machine the result is the same.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from cinetune.backlot.scenes import vocabulary
from pocket_training import autoencoder, card, contrast, denoiser, film_set
from pocket_training.common import Run

# Words a film's trigger phrase is likely to use; they are never in a pre-training caption, so they mean nothing until
# a look gives them a meaning.
TRIGGER_WORDS = ("ember", "film", "gouache", "grade", "in", "look", "of", "silver", "style", "the")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="checkpoints, clips, logs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=2400)
    parser.add_argument("--vae-steps", type=int, default=1800)
    parser.add_argument("--clip-steps", type=int, default=600)
    parser.add_argument("--denoiser-steps", type=int, default=1200)
    parser.add_argument("--start", type=Path, help="folder of trained weights to continue from (diffusers layout)")
    parser.add_argument("--ranks", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--until", choices=("clips", "vae", "clip", "latents", "denoiser", "card"), default="card")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    run = Run(
        work=options.work,
        seed=options.seed,
        clips=options.clips,
        held=40,
        vae_steps=options.vae_steps,
        clip_steps=options.clip_steps,
        denoiser_steps=options.denoiser_steps,
        ranks=options.ranks,
        device="cpu",
        start=options.start,
    )
    words = sorted({*vocabulary(), *TRIGGER_WORDS} - {","})
    (run.work / "words.txt").write_text("\n".join(words), encoding="utf-8")
    parts = {
        "clips": lambda: film_set.render_all(run),
        "vae": lambda: autoencoder.train(run),
        "clip": lambda: contrast.train(run, words),
        "latents": lambda: denoiser.cache(run),
        "denoiser": lambda: denoiser.train(run),
        "card": lambda: card.write(run, words, command=" ".join(sys.argv)),
    }
    for name, work in parts.items():
        work()
        if name == options.until:
            break


if __name__ == "__main__":
    main()
