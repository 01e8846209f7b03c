"""The recipes are sound shell and YAML, and what they ask of torchrun and cinetune exists."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from cinetune.config import load_config
from cinetune.pipeline import STAGES

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
SLURM, SKY = LAUNCH / "slurm.sbatch", LAUNCH / "skypilot.yaml"


def _script(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text if path == SLURM else yaml.safe_load(text)["run"]


@pytest.mark.parametrize("path", [SLURM, SKY], ids=lambda path: path.name)
def test_the_script_is_sound(path: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(_script(path), encoding="utf-8")
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"for verb in {' '.join(stage.name for stage in STAGES if stage.together)}; do" in _script(path)


STAND_INS = {
    "scontrol": "printf 'node1\\nnode2\\n'",
    "srun": 'shift; exec "$@"',
    "torchrun": 'printf "%s\\n" "$*"',
}
PLACES = {
    SLURM: {
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "41", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8",
    },
    SKY: {
        "SKYPILOT_NODE_IPS": "node1\nnode2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "SKYPILOT_TASK_ID": "41", "PROJECT": "/shared/my film",
    },
}  # fmt: skip


@pytest.mark.parametrize("path", [SLURM, SKY], ids=lambda path: path.name)
def test_what_is_started(path: Path, tmp_path: Path) -> None:
    """Run with stand-ins for the cluster's own commands; torchrun's own parser reads what it was given."""
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "script.sh"
    script.write_text(_script(path), encoding="utf-8")
    words = ["/shared/my-film", "--set", "parallel.data=hsdp"] if path == SLURM else []
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **PLACES[path]}
    done = subprocess.run(["bash", str(script), *words], env=environment, capture_output=True, text=True, check=True)
    started = [get_args_parser().parse_args(shlex.split(line)) for line in done.stdout.splitlines()]
    assert [one.training_script_args[0] for one in started] == [stage.name for stage in STAGES if stage.together]
    for one in started:
        assert (one.nnodes, one.nproc_per_node, one.module, one.training_script) == ("2", "8", True, "cinetune")
        assert one.rdzv_backend == "c10d" and one.rdzv_endpoint.startswith("node1:")
        assert one.training_script_args[1] == "--project"
    assert len({one.rdzv_id for one in started}) == len(started)


def test_the_sky_recipe_has_what_sky_asks_for() -> None:
    recipe = yaml.safe_load(SKY.read_text(encoding="utf-8"))
    assert {"name", "num_nodes", "resources", "setup", "run"} <= recipe.keys()
    assert set(recipe["envs"]) == {"PROJECT", "BUCKET"}


def test_without_a_project_the_job_ends_at_once() -> None:
    done = subprocess.run(
        ["bash", str(SLURM)], capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode != 0 and "project folder is missing" in done.stderr


@pytest.mark.parametrize(
    ("recipe", "words", "settings"),
    [
        ("ray.sh", ["shoot", "/shared/my film"], {"executor": "ray"}),
        ("shoot_slurm.sh", ["/shared/my film", "8", "gpu"], {"executor": "slurm", "workers": 8}),
    ],
)
def test_recipes_of_shooting_ask_for_settings_there_are(
    recipe: str, words: list[str], settings: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "cinetune").write_text('#!/bin/bash\nprintf "%q\\n" "$@"\n', encoding="utf-8")
    (tmp_path / "cinetune").chmod(0o755)
    command = ["bash", str(LAUNCH / recipe), *words, "--until", "expand"]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    asked = shlex.split(done.stdout)
    assert asked[:3] == ["run", "--project", "/shared/my film"] and asked[-2:] == ["--until", "expand"]
    overrides = tuple(word for word in asked if word.startswith("shoot."))
    (tmp_path / "cinetune.toml").write_text("", encoding="utf-8")
    shoot = load_config(tmp_path / "cinetune.toml", overrides=overrides)[0].shoot
    assert {name: getattr(shoot, name) for name in settings} == settings
    if recipe == "shoot_slurm.sh":
        assert shoot.options["slurm_partition"] == "gpu"
