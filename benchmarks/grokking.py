"""How fast full-batch grokking trains: the published perpGrad run of `edge_of_numerical_stability`, all 5,107 pairs at every step.

`python benchmarks/grokking.py [--pairs 9] [--seconds 2]` compares three in turns, each round with updates for about as many seconds:

- plain: the loop that a person writes who has PyTorch alone: one-hot inputs, autograd, perpGrad as its authors have it, torch.optim.AdamW
- engine, one-hot: the same model and inputs in this package
- engine: pairs given as integers, the first layer a gather

and then takes the time of the whole preset, 300 steps with all default probes, in two fresh processes: one that finds nothing compiled, and
the next. Nothing else should compute meanwhile.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench import noise
from workbench.bench import Asked
from workbench.bench.cases import Case
from workbench.bench.ours import Engine
from workbench.bench.rounds import rounds
from workbench.catalogue import find
from workbench.engine.threads import allowed, operations_on
from workbench.learners import Supervised, softmax_loss
from workbench.models import MLP
from workbench.places import CACHE_VARIABLE
from workbench.probes import train_loss
from workbench.study import Study
from workbench.tasks import Modular

STUDY, PRESET, STEPS = "edge_of_numerical_stability", "published perpGrad", 300
TRIED = 10
WHOLE = f"""
import time
import workbench as wb
from workbench.catalogue import find
find({STUDY!r})
began = time.perf_counter()
record = wb.run({STUDY!r}, preset={PRESET!r}, steps={STEPS}, seed=0, progress=False)
print(time.perf_counter() - began, float(record.wb["validation_accuracy"].sel(step=110).item()))
"""


class OneHots(Modular):
    """The pairs as two concatenated one-hot vectors: x float32 (pair, 2 modulus)."""

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        batch = super().__call__(knobs, key)
        return {"x": F.one_hot(batch["x"], knobs.modulus).flatten(1).float(), "y": batch["y"]}


class Plain:
    """The loop. Operations take one core or all, whichever makes the faster update."""

    runs = 1

    def __init__(self, knobs: Any) -> None:
        batch = OneHots()(knobs, noise.key_of(0))
        self.x, self.y = batch["x"], batch["y"]
        widths = (2 * knobs.modulus, knobs.width, knobs.width, knobs.modulus)
        layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
        self.model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=knobs.lr, weight_decay=0.0)
        self.threads = min(sorted({1, allowed()}), key=self._seconds)

    def update(self) -> Tensor:
        """One update; the loss before it."""
        loss = F.cross_entropy(self.model(self.x), self.y)
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in self.model.parameters():
                w, g = p.view(-1), p.grad.view(-1)
                across = g - torch.dot(w, g) / (torch.dot(w, w) + 1e-30) * w
                p.grad.copy_((across * (g.norm() / (across.norm() + 1e-30))).view_as(p))
        self.optimizer.step()
        return loss.detach()

    def train(self, steps: int) -> float:
        """Make so many updates; the seconds they took. Losses are read at the end."""
        began = time.perf_counter()
        with operations_on(self.threads):
            torch.stack([self.update() for _ in range(steps)]).tolist()
        return time.perf_counter() - began

    def _seconds(self, threads: int) -> float:
        with operations_on(threads):
            self.update()
            began = time.perf_counter()
            for _ in range(TRIED):
                self.update()
        return time.perf_counter() - began


def engine(study: Study, knobs: dict[str, Any]) -> Engine:
    """One run of a study with its loss as the only probe, as the engine trains it."""
    return Engine(Case("grokking", replace(study, probes=(train_loss,)), 1, knobs))


def whole(cache: str) -> str:
    """Seconds of the preset in a fresh process whose compiled steps lie in this folder, and its test accuracy at step 110."""
    environment = os.environ | {CACHE_VARIABLE: cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    said = subprocess.run([sys.executable, "-c", WHOLE], env=environment, capture_output=True, text=True, check=True).stdout
    seconds, accuracy = map(float, said.split())
    return f"{seconds:.1f} s, test accuracy at step 110: {accuracy:.3f}"


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9, help="rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contender in a round")
    given = parser.parse_args()
    study = find(STUDY)
    knobs = dict(study.preset(PRESET).knobs)
    one_hot = Supervised(lambda k: MLP(k, 2 * k.modulus, k.modulus), loss=softmax_loss)
    contenders = {
        "plain": Plain(study.knobs(**knobs)),
        "engine, one-hot": engine(replace(study, task=OneHots(), learner=one_hot), knobs),
        "engine": engine(study, knobs),
    }
    seconds, rates = rounds(contenders, Asked(pairs=given.pairs, seconds=given.seconds), STUDY)
    print(f"plain: threads {contenders['plain'].threads}; engine: {contenders['engine'].way}")
    for name, each in seconds.items():
        ratio = seconds["plain"] / each
        print(
            f"{name:16} {1e3 * np.median(each):5.1f} ms a step; {np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] times plain"
        )
    print(f"matrix product, {np.median(rates) / 1e9:.0f} GFLOP/s [{rates.min() / 1e9:.0f}, {rates.max() / 1e9:.0f}]")
    with tempfile.TemporaryDirectory() as cache:
        print(f"preset {PRESET!r}, {STEPS} steps, nothing compiled before: {whole(cache)}")
        print(f"preset {PRESET!r}, {STEPS} steps, in the next process:     {whole(cache)}")


if __name__ == "__main__":
    main()
