"""Compares the solvers on one inversion, one texture and one style problem with a random VGG-19.

Claim: the default solver, jaxopt's L-BFGS with a line search that tries the unit step first, needs
little more than one evaluation a step and ends where scipy's L-BFGS-B ends.
Expect: about eight minutes on two cores at the default size; curves.png, records.jsonl, and as the
last line a JSON object with evaluations a step and losses relative to scipy's.

Example:
  python -m benchmarks.solvers --out_dir=out/solvers
"""

import dataclasses
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from flax import struct

from randviz.commands.inputs import SeedSettings, make_keys
from randviz.descent import descent
from randviz.descent.solver import Objective, Solver
from randviz.host.images import load_image, replace_atomically
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.vgg import VGG19
from randviz.networks.weights import random_weights
from randviz.tasks import inversion, texture
from randviz.tasks.inversion import Inversion
from randviz.tasks.style import Style
from randviz.tasks.texture import Texture
from randviz.types import Array, Image

PROBLEMS = ("inversion", "texture", "style")
SOLVERS = (*descent.SOLVERS, "scipy")
MEMORY = 20


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings):
    """Settings of the comparison."""

    image: str = setting("chelsea", "The picture inverted and stylised: a path or a sample.")
    texture_image: str = setting("gravel", "The texture.")
    style_image: str = setting("coffee", "The style.")
    layer: str = setting("conv3_1", "The layer inverted.")
    image_size: int = setting(64, "Longest side in pixels.", lower_bound=8)
    num_steps: int = setting(300, "Steps of each descent, 300 or more.", lower_bound=300)
    out_dir: str = "out/solvers"


@struct.dataclass
class Counted:
    """An objective that reports each evaluation of its gradient to the host.

    jaxopt's counters count forward passes that XLA removes, so nothing but a callback in the
    backward pass, which is what costs, says how often an objective was really evaluated.

    Attributes:
      objective: image → scalar.
    """

    objective: Objective

    def __call__(self, image: Image) -> Array:
        return _count(self.objective(image))


evaluations: list[None] = []  # one entry for each evaluation of a counted objective


@jax.custom_vjp
def _count(loss: Array) -> Array:
    return loss


def _count_backward(_, cotangent):
    jax.debug.callback(lambda: evaluations.append(None))
    return (cotangent,)


_count.defvjp(lambda loss: (loss, None), _count_backward)


def list_trials(settings: Settings) -> list[Trial]:
    """Each problem with each solver."""
    del settings
    return [{"problem": problem, "solver": solver} for problem in PROBLEMS for solver in SOLVERS]


def make_problem(settings: Settings, problem: str) -> tuple[Callable[[], Objective], Image]:
    """What makes the objective of one of the three problems, and where its descent starts."""
    size = settings.image_size
    weights_key, noise_key = make_keys(settings.seed)
    network = VGG19.bind(random_weights(weights_key, VGG19))
    image = jnp.asarray(load_image(settings.image, image_size=size))
    if problem == "inversion":
        make = functools.partial(Inversion(layer=settings.layer).of, network, image)
        return make, sample_noise_image(noise_key, image.shape[:2], std=inversion.NOISE_STD)
    if problem == "texture":
        source = jnp.asarray(load_image(settings.texture_image, image_size=size))
        make = functools.partial(Texture().of, network, source)
        return make, sample_noise_image(noise_key, source.shape[:2], std=texture.NOISE_STD)
    painting = jnp.asarray(load_image(settings.style_image, image_size=size))
    return functools.partial(Style().of, network, image, painting), image


def workload(settings: Settings) -> Workload:
    """A style; each descent is made twice."""
    num_steps = 2 * len(list_trials(settings)) * settings.num_steps
    return Workload(*make_problem(settings, "style"), num_steps)


def measure(settings: Settings, trial: Trial) -> Record:
    """Descends twice: once on the clock, and once counting evaluations."""
    make_objective, start = make_problem(settings, trial["problem"])
    objective = make_objective()
    descend = descend_with_scipy
    if trial["solver"] != "scipy":
        descend = _descend_with(descent.find_solver(trial["solver"], memory=MEMORY))
    descend(objective, start, 2)  # compiles
    began = time.perf_counter()
    losses = descend(objective, start, settings.num_steps)
    seconds = time.perf_counter() - began
    counted = Counted(objective)
    evaluations.clear()
    descend(counted, start, settings.num_steps)
    jax.effects_barrier()
    return {
        "start_loss": float(objective(start)),
        "loss_100": losses[99],
        "loss_300": losses[299],
        "evaluations_per_step": len(evaluations) / settings.num_steps,
        "seconds": round(seconds, 2),
        "losses": [float(f"{loss:.5g}") for loss in losses],
    }


def _descend_with(solver: Solver) -> Callable[[Objective, Image, int], list[float]]:
    def descend(objective: Objective, start: Image, num_steps: int) -> list[float]:
        state = descent.init(objective, start, num_steps=num_steps, solver=solver)
        losses = []
        # In chunks, so that two steps compile the program that three hundred run.
        while len(losses) < num_steps:
            count = min(50, num_steps - len(losses))
            state, trace = descent.advance(objective, state, num_steps=count, solver=solver)
            losses += np.asarray(trace.loss).tolist()
        return losses

    return descend


def descend_with_scipy(objective: Objective, start: Image, num_steps: int) -> list[float]:
    """The loss after each step of scipy's L-BFGS-B with the same memory and no tolerance."""
    losses = []

    def fun(x):
        image = jnp.asarray(x.reshape(start.shape), jnp.float32)
        loss, grad = _value_and_grad(objective, image)
        return float(loss), np.asarray(grad, np.float64).ravel()

    scipy.optimize.minimize(
        fun,
        np.asarray(start, np.float64).ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=lambda intermediate_result: losses.append(float(intermediate_result.fun)),
        options={"maxiter": num_steps, "maxcor": MEMORY, "maxfun": 10**6, "ftol": 0, "gtol": 0},
    )
    # Where scipy gives up early its last loss stands for the steps it did not take.
    return losses + losses[-1:] * (num_steps - len(losses))


@jax.jit
def _value_and_grad(objective: Objective, image: Image):
    return jax.value_and_grad(objective)(image)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the curves, prints the table, and ends with the JSON line."""
    import matplotlib.pyplot as plt

    found = {(record["trial"]["problem"], record["trial"]["solver"]): record for record in records}
    figure, axes = plt.subplots(1, len(PROBLEMS), figsize=(12, 4), layout="constrained")
    for axis, problem in zip(axes, PROBLEMS, strict=True):
        for solver in SOLVERS:
            axis.semilogy(found[problem, solver]["losses"], label=solver)
        axis.set(title=problem, xlabel="step")
    axes[0].set_ylabel("loss")
    axes[-1].legend()
    with replace_atomically(folder / "curves.png") as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)

    print(
        f"{'problem':10} {'solver':8} {'loss 100':>10} {'loss 300':>10} {'eval/step':>9} {'s':>7}"
    )
    for (problem, solver), record in found.items():
        print(
            f"{problem:10} {solver:8} {record['loss_100']:10.4g} {record['loss_300']:10.4g}"
            f" {record['evaluations_per_step']:9.3f} {record['seconds']:7.1f}"
        )
    ratio = lambda problem, key: round(
        found[problem, "jaxopt"][key] / found[problem, "scipy"][key], 4
    )
    print(
        json.dumps(
            {
                "evaluations_per_step": {
                    problem: round(found[problem, "jaxopt"]["evaluations_per_step"], 4)
                    for problem in PROBLEMS
                },
                "loss_vs_scipy": {
                    problem: {
                        "100": ratio(problem, "loss_100"),
                        "300": ratio(problem, "loss_300"),
                    }
                    for problem in PROBLEMS
                },
            }
        )
    )


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
