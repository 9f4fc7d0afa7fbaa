"""`python -m rrsis.ablate`: trains BTDNet without each of its parts, and a baseline; or diagnoses runs.

    python -m rrsis.ablate --out runs/ablation --seeds 0 1 2 --max_steps 1300 --jobs 2
    python -m rrsis.ablate --diagnose RUN [RUN ...]

Every variant is trained by `rrsis.train` with equal budget on SynthRRSIS at a difficulty where parts can differ, each
in a process of its own. A run that is complete is not repeated, so that an interrupted ablation goes on where it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import HfArgumentParser

from rrsis.comparison import Run, read_runs, render_comparison, save_comparison
from rrsis.data import DATASETS, build_dataset
from rrsis.data.synthetic.config import CONFIGS
from rrsis.diagnose import diagnose_run, render_diagnoses, trained_difficulty
from rrsis.evaluate import load_run, provenance
from rrsis.io import atomic_write
from rrsis.selection import selection_rate

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no pool direction": {"use_bsc_pool": False},
    "no BSC": {"use_bsc": False},
    "single stream": {"use_twin_stream": False},
    "no gate": {"use_gate": False},
    "no D-MOLS": {"use_reconstruction": False},
    "no correlation loss": {"correlation_weight": 0.0},
    "LAVT-style": {"architecture": "lavt"},
    # Words such as "upper left" mean nothing to pixels that do not know their place: the fairer peer where they occur.
    "LAVT-style with positions": {"architecture": "lavt", "lavt_positions": True},
}
"""What is trained: the fields of `BTDNetConfig` that a variant sets."""


@dataclass
class AblateArguments:
    """Command line of `python -m rrsis.ablate`."""

    diagnose: list[str] = field(
        default_factory=list, metadata={"help": "Run folders of rrsis.train to diagnose, instead of training anything."}
    )
    out: str = field(default="runs/ablation", metadata={"help": "Where the runs and the comparison go."})
    variants: list[str] = field(
        default_factory=lambda: list(VARIANTS), metadata={"help": f"Which of: {', '.join(VARIANTS)}."}
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "One run of each variant a seed."})
    max_steps: int = field(default=1300, metadata={"help": "Steps of each run."})
    difficulty: str = field(
        default="hard", metadata={"choices": list(CONFIGS), "help": "Of SynthRRSIS. Runs are diagnosed on their own."}
    )
    train_scenes: int = field(default=4000, metadata={"help": "Scenes to train on."})
    val_scenes: int = field(default=60, metadata={"help": "Scenes that choose the best weights."})
    test_scenes: int = field(default=250, metadata={"help": "Held-out scenes."})
    preset: str = field(default="tiny", metadata={"help": "Size of the model."})
    overrides: str = field(default="{}", metadata={"help": "JSON of BTDNetConfig fields that all variants share."})
    jobs: int = field(default=1, metadata={"help": "Runs at a time, each on its share of the processor's cores."})
    dataset: str = field(
        default="synthetic", metadata={"choices": DATASETS, "help": "With --diagnose: what to score on."}
    )
    split: str = field(default="test", metadata={"help": "With --diagnose: train, val or test."})
    data_root: str | None = field(default=None, metadata={"help": "With --diagnose: folder of the data set."})
    batch_size: int = field(default=50, metadata={"help": "Expressions a forward pass."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, …"})


def check(arguments: AblateArguments) -> dict[str, Any]:
    """Checks what the command line says of an ablation, and returns the shared overrides.

    Raises:
        ValueError: an argument does not hold; the message names it.
    """
    for name in arguments.variants:
        if name not in VARIANTS:
            raise ValueError(f"--variants: got {name!r}, due are some of {', '.join(map(repr, VARIANTS))}")
    for name in ("max_steps", "jobs", "train_scenes", "val_scenes", "test_scenes"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name}: got {getattr(arguments, name)}, due is at least 1")
    if not arguments.seeds:
        raise ValueError("--seeds: got none, due is at least one")
    try:
        overrides = json.loads(arguments.overrides)
    except ValueError as error:
        raise ValueError(f"--overrides: got {arguments.overrides!r}, due is JSON") from error
    if not isinstance(overrides, dict):
        raise ValueError(f"--overrides: got {arguments.overrides!r}, due is a JSON object")
    return overrides


def command_of(run: Run, arguments: AblateArguments, overrides: dict[str, Any]) -> list[str]:
    """The command that trains one run."""
    options = {
        "preset": arguments.preset,
        "difficulty": arguments.difficulty,
        "train_scenes": arguments.train_scenes,
        "val_scenes": arguments.val_scenes,
        "test_scenes": arguments.test_scenes,
        "max_steps": arguments.max_steps,
        "seed": run.seed,
        "config_overrides": json.dumps({**overrides, **VARIANTS[run.variant]}),
        "output_dir": run.folder,
        "disable_tqdm": True,
    }
    words = [sys.executable, "-m", "rrsis.train", "--overwrite_output_dir"]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words


def train_run(run: Run, command: list[str], threads: int) -> None:
    """Trains one run in a process of its own; what it prints goes to train.log in its folder.

    Raises:
        RuntimeError: the process failed; the message has the end of what it printed.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    log = run.folder / "train.log"
    with log.open("w", encoding="utf-8") as stream:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode != 0:
        end = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        raise RuntimeError(f"{run.variant}, seed {run.seed} failed with exit status {done.returncode}:\n{end}")


def train_all(runs: Sequence[Run], arguments: AblateArguments, overrides: dict[str, Any]) -> None:
    """Trains what is not complete yet, `jobs` at a time.

    Raises:
        RuntimeError: runs failed; the others are finished first.
    """
    # Seed by seed: what is there when an ablation is interrupted compares all variants.
    waiting = sorted((run for run in runs if not run.is_complete()), key=lambda run: arguments.seeds.index(run.seed))
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    failures = []
    with (
        ThreadPoolExecutor(arguments.jobs) as pool,
        tqdm(total=len(runs), desc="runs", initial=len(runs) - len(waiting)) as bar,
    ):
        futures = [pool.submit(train_run, run, command_of(run, arguments, overrides), threads) for run in waiting]
        for future in as_completed(futures):
            bar.update()
            if error := future.exception():
                failures.append(str(error))
    if failures:
        raise RuntimeError("\n".join(failures))


def select_all(runs: Sequence[Run], arguments: AblateArguments) -> None:
    """Adds each run's selection rate, where it is not there yet."""
    dataset = build_dataset("synthetic", "test", num_scenes=arguments.test_scenes, config=arguments.difficulty)
    for run in tqdm([run for run in runs if not run.selection_file.exists()], desc="selection rates"):
        found = selection_rate(*load_run(run.folder, arguments.device), dataset, arguments.batch_size, progress=False)
        with atomic_write(run.selection_file) as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def ablate(arguments: AblateArguments) -> Path:
    """Trains, scores and compares all variants.

    Args:
        arguments: the command line's.

    Returns:
        The folder with comparison.md, comparison.json and comparison.png.

    Raises:
        ValueError: an argument does not hold.
        RuntimeError: a run failed.
    """
    overrides = check(arguments)
    out = Path(arguments.out)
    # What makes runs comparable is part of their place: another budget does not meet them half-way.
    budget = out / f"{arguments.preset}-{arguments.difficulty}-{arguments.max_steps}"
    runs = [Run.of(budget, variant, seed) for variant in arguments.variants for seed in arguments.seeds]
    train_all(runs, arguments, overrides)
    select_all(runs, arguments)
    results = read_runs(runs)
    # Without the places on this machine: the comparison is published, and lies where it was asked for.
    told = {name: value for name, value in vars(arguments).items() if name not in ("out", "diagnose", "data_root")}
    facts = {"arguments": told, **provenance()}
    save_comparison(budget, results, facts)
    print(render_comparison(results))
    return budget


def diagnose_all(arguments: AblateArguments) -> str:
    """Diagnoses runs on what they were trained on, and returns one table of them all.

    Raises:
        FileNotFoundError: a folder or one of its files is not there.
        ValueError: the runs were trained on different difficulties of SynthRRSIS, or differ in their layers.
    """
    options = {}
    if arguments.dataset == "synthetic":
        difficulties = {folder: trained_difficulty(folder) for folder in arguments.diagnose}
        if len(set(difficulties.values())) > 1:
            got = ", ".join(f"{folder} ({difficulty})" for folder, difficulty in difficulties.items())
            raise ValueError(f"--diagnose: got {got}, due are runs of one difficulty, whose mean means something")
        options["config"] = difficulties[arguments.diagnose[0]]
    dataset = build_dataset(arguments.dataset, arguments.split, root=arguments.data_root, **options)
    diagnoses = [diagnose_run(folder, dataset, arguments.batch_size, arguments.device) for folder in arguments.diagnose]
    return f"{render_diagnoses(diagnoses)}\nwritten: diagnosis.json in each run folder"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    (arguments,) = HfArgumentParser(AblateArguments, prog="python -m rrsis.ablate").parse_args_into_dataclasses(argv)
    try:
        print(diagnose_all(arguments) if arguments.diagnose else f"written: {ablate(arguments)}")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"rrsis.ablate: {error}")


if __name__ == "__main__":
    main()
