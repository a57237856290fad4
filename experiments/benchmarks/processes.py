"""One training on two processes: does a process with cores of its own make it faster?"""

from __future__ import annotations

from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import our_model, scratch, short_dataset, training_rows


def train(*, data: str, batch_size: int, steps: int, processes: int) -> Workload:
    """Contrastive training with one thread per process; the seconds are those of the steps, without the start."""
    import torch

    from embedlab.engine import EngineParams
    from embedlab.training.contrastive.train import train_contrastive
    from embedlab.training.examples import number_rows
    from embedlab.training.fit import FitSettings

    torch.set_num_threads(processes)  # a group shares the threads of the process that starts it
    rows = training_rows(short_dataset(data), steps * batch_size)
    model = our_model()

    def run(count: int) -> dict[str, float]:
        engine = EngineParams(processes=processes if processes > 1 else 0)
        settings = FitSettings(epochs=1, batch_size=batch_size, learning_rate=5e-5, engine=engine)
        result = train_contrastive(
            model, number_rows(rows[: count * batch_size]), settings, output_dir=str(scratch()), stage="benchmark"
        )
        return {"seconds": result.seconds}

    return Workload(lambda: run(steps), warm_up=lambda: run(1))


BENCHMARKS = (
    Benchmark(
        name="train_processes",
        title="train on short pairs with two processes, one core each; the same batches and negatives",
        arms={
            "ours": Arm(f"{__name__}:train", "engine.processes=2, one thread each", {"processes": 2}),
            "one": Arm(f"{__name__}:train", "one process with one thread", {"processes": 1}),
        },
        figures=(Figure("seconds", 1.0, against="one"),),
        size={"data": "full", "batch_size": 128, "steps": 12},
        quick={"data": "smoke", "batch_size": 8, "steps": 1},
        spawns=True,
    ),
)
