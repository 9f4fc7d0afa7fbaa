"""Runs many scenes, one after the other here or side by side on a Ray cluster; a bad one does not stop the rest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from rrsis.scenes import SceneOptions, SceneResult, SceneSegmenter


@dataclass(frozen=True)
class Outcome:
    """What became of one scene.

    Attributes:
        scene: The file.
        result: What was found; None if it failed.
        error: Why it failed, or None.
    """

    scene: str
    result: SceneResult | None
    error: str | None


@dataclass(frozen=True)
class SceneJob:
    """A scene and the folder of its outputs."""

    scene: str
    folder: str


def plan(scenes: Sequence[Path], out: Path) -> list[SceneJob]:
    """Gives each scene a folder of its own, named like the file, below `out`.

    Raises:
        ValueError: If two scenes would share a folder, or a file is in the way.
    """
    jobs: dict[Path, SceneJob] = {}
    for scene in scenes:
        folder = out / scene.stem
        if folder in jobs:
            raise ValueError(f"scenes: {jobs[folder].scene!r} and {str(scene)!r} would both write to {str(folder)!r}")
        for place in (folder, out):
            if place.exists() and not place.is_dir():
                raise ValueError(f"out: {str(place)!r} is a file, expected a folder or nothing")
        jobs[folder] = SceneJob(str(scene), str(folder))
    return list(jobs.values())


class SceneWorker:
    """Loads a model once and turns jobs into outcomes; what either engine runs.

    Args:
        model: Run folder.
        options: What to do.
        device: As `SceneSegmenter.from_run`.
        progress: Whether to show progress bars.
    """

    def __init__(self, model: str, options: SceneOptions, device: str, progress: bool) -> None:
        self.segmenter = SceneSegmenter.from_run(model, options, device)
        self.progress = progress

    def __call__(self, job: dict[str, str]) -> dict[str, str]:
        """Runs one job.

        Args:
            job: A `SceneJob` as a dictionary: Ray moves plain rows between machines.

        Returns:
            The job with its "outcome" as JSON: an `Outcome` as a dictionary.
        """
        result = error = None
        try:
            result = dataclasses.asdict(self.segmenter(job["scene"], job["folder"], progress=self.progress))
        except Exception as failure:  # whatever is wrong with one scene, the others are still wanted
            error = " ".join(str(failure).split()) or type(failure).__name__
        return {**job, "outcome": json.dumps({"scene": job["scene"], "result": result, "error": error})}


def run_local(jobs: Sequence[SceneJob], model: str, options: SceneOptions, device: str = "auto") -> Iterator[Outcome]:
    """Runs the jobs here, one after the other.

    Args:
        jobs: From `plan`.
        model: Run folder.
        options: What to do.
        device: As `SceneSegmenter.from_run`.

    Yields:
        One outcome for each job.

    Raises:
        FileNotFoundError: If the model is not there.
        ValueError: If model, device and options do not fit.
    """
    worker = SceneWorker(model, options, device, progress=True)
    for job in jobs:
        yield _outcome(worker(dataclasses.asdict(job)))


def run_ray(
    jobs: Sequence[SceneJob],
    model: str,
    options: SceneOptions,
    device: str = "auto",
    *,
    workers: int | None = None,
    address: str | None = None,
) -> Iterator[Outcome]:
    """Runs the jobs on Ray Data, each worker with a model of its own.

    Scenes, model and outputs are named by paths, which must lead to the same files on every machine of the cluster.

    Args:
        jobs: From `plan`.
        model: Run folder.
        options: What to do.
        device: As `SceneSegmenter.from_run`; a worker gets a GPU of its own unless this is "cpu".
        workers: How many work at a time; None for one on each GPU of the cluster, one where there is none.
        address: The cluster; None for the one that RAY_ADDRESS names, or a Ray on this machine for this run.

    Yields:
        One outcome for each job, as they end.

    Raises:
        ImportError: If Ray is not installed.
        FileNotFoundError: If the model is not there.
        ValueError: If model, device and options do not fit.
    """
    import ray

    # What is wrong with the model shall be one message here, not a stack of them from every worker.
    SceneSegmenter.from_run(model, options, "cpu")
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    gpus = int(ray.cluster_resources().get("GPU", 0)) if device != "cpu" else 0
    rows = [{name: str(Path(value).resolve()) for name, value in dataclasses.asdict(job).items()} for job in jobs]
    workers = min(workers or max(1, gpus), len(rows))
    # A worker that dies (out of memory, say) takes its scene with it and no other.
    ray.data.DataContext.get_current().max_errored_blocks = -1
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        SceneWorker,
        fn_constructor_args=(str(Path(model).resolve()), options, device, False),
        concurrency=workers,
        num_gpus=1 if gpus else 0,
    )
    missing = {row["scene"] for row in rows}
    with tqdm(total=len(rows), desc="scenes", unit="scene") as bar:
        for row in data.iter_rows():
            missing.discard(row["scene"])
            bar.update()
            yield _outcome(row)
    for scene in sorted(missing):
        yield Outcome(scene, None, "its worker died; see Ray's log")


def _outcome(row: dict[str, str]) -> Outcome:
    facts = json.loads(row["outcome"])
    result = None if facts["result"] is None else SceneResult.from_facts(facts["result"])
    return Outcome(facts["scene"], result, facts["error"])
