"""Compares what theory predicts of random VGG-19s for one picture with networks really drawn.

Claim: at σ = 0.015 the features, losses and layer weights of a purely random network are fixed, up
to a spread that the channels' number explains, by σ and the picture alone: nothing need be drawn.
Expect: about a minute on two cores at the default size; theory.png, theory.md, records.jsonl, and
the table of ratios. Energies and texture losses agree within about two standard errors; ω comes
out about a tenth below its prediction, which takes gradients for positive everywhere. Networks
scatter much, and a layer inherits the scatter of those below, so the z of layers are no independent
tests.

Example:
  python -m randviz.experiments.theory_panel --out_dir=out/theory_panel
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from randviz.commands.inputs import SeedSettings, load_picture, make_keys
from randviz.commands.trials import estimate_random_inversion
from randviz.host.charts import format_markdown, save_figure
from randviz.host.images import write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.networks.catalog import NETWORKS
from randviz.networks.network import Network
from randviz.networks.rescaling import rescale_weights
from randviz.networks.weights import random_weights
from randviz.objectives.layer_weights import layer_weights
from randviz.objectives.statistics.features import Features, content_loss
from randviz.objectives.statistics.gram import Gram, texture_loss
from randviz.tasks.theory import Prediction, predict_layers
from randviz.types import Image, Key

# Each quantity with the power of the features that it is proportional to.
POWERS = {
    "energy": 2,
    "content_loss": 2,
    "texture_loss": 4,
    "content_layer_weight": -2,
    "texture_layer_weight": -4,
}
# What is compared, with its name in table and plot; the content loss is half the energy.
COMPARED = {
    "energy": "energy",
    "texture_loss": "E",
    "content_layer_weight": "ω",
    "texture_layer_weight": "μ",
}
PANELS = ("energy", "content_layer_weight", "texture_layer_weight")


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings):
    """Settings of the comparison."""

    network: str = setting("vgg19", "The architecture.", choices=tuple(NETWORKS))
    image: str = setting("astronaut", "The picture: a path or a sample.")
    layers: tuple[str, ...] = setting(
        (
            "conv1_1",
            "conv1_2",
            "pool1",
            "conv2_1",
            "pool2",
            "conv3_1",
            "conv3_4",
            "pool3",
            "conv4_1",
            "pool4",
            "conv5_1",
        ),
        "The layers predicted and measured.",
    )
    image_size: int = setting(32, "Longest side in pixels.", lower_bound=1, upper_bound=64)
    num_networks: int = setting(64, "Independent networks.", lower_bound=2)
    out_dir: str = "out/theory_panel"


def list_trials(settings: Settings) -> list[Trial]:
    """Each network."""
    return [{"network": number} for number in range(settings.num_networks)]


def _make_network(settings: Settings) -> Network:
    return NETWORKS[settings.network].with_offset(0.0)


@functools.cache
def predict(settings: Settings) -> dict[str, Prediction]:
    """What theory says of each layer."""
    return predict_layers(_make_network(settings), _load(settings), settings.layers)


@functools.cache
def _load(settings: Settings) -> Image:
    return load_picture("image", settings.image, settings.image_size).image


def workload(settings: Settings) -> Workload:
    """Nothing descends, but ω and μ take a gradient for each layer, as a step of a descent does."""
    layers = tuple(predict(settings))
    num_steps = settings.num_networks * 2 * len(layers)
    network, image = _make_network(settings), _load(settings)
    return estimate_random_inversion(settings, network, layers[-1], image, num_steps)


def measure(settings: Settings, trial: Trial) -> Record:
    """Draws a network and measures it, in numbers that float32 could not hold."""
    layers = tuple(predict(settings))
    key = jax.random.fold_in(make_keys(settings.seed)[0], trial["network"])
    found, exponents = jax.device_get(
        _measure_layers(key, _make_network(settings), _load(settings), layers)
    )
    return {
        name: {
            layer: float(found[name][layer]) * 2.0 ** (-power * int(exponents[layer]))
            for layer in layers
        }
        for name, power in POWERS.items()
    }


@functools.partial(jax.jit, static_argnames=("network", "layers"))
def _measure_layers(
    key: Key, network: Network, image: Image, layers: tuple[str, ...]
) -> tuple[dict[str, dict[str, jax.Array]], dict[str, jax.Array]]:
    """Each quantity of each layer, of features that have grown by 2^exponent, and the exponents."""
    params = random_weights(key, network, last_layer=layers[-1])
    params, exponents = rescale_weights(network, params, layers[-1])
    extractor = network.bind(params)
    maps = extractor.for_one_evaluation()(image, layers)
    state = lambda statistic: layer_weights(extractor, image, dict.fromkeys(layers, statistic))
    found = {
        "energy": {layer: jnp.mean(jnp.square(maps[layer])) for layer in layers},
        "content_loss": {layer: content_loss(maps[layer], 0.0) for layer in layers},
        "texture_loss": {layer: texture_loss(maps[layer], 0.0) for layer in layers},
        "content_layer_weight": state(Features()),
        "texture_layer_weight": state(Gram()),
    }
    return found, exponents


def compare(
    settings: Settings, records: Sequence[Record], name: str, layer: str
) -> tuple[float, ...]:
    """Compares a quantity of one layer with its prediction.

    Args:
      settings: of the experiment.
      records: [n], two or more.
      name: the quantity, a field of `Prediction`.
      layer: its layer.

    Returns:
      Measured over predicted: the mean over networks, its standard error, and by how many
      standard errors it differs from 1.
    """
    predicted = getattr(predict(settings)[layer], name)
    ratios = np.array([record[name][layer] for record in records]) / predicted
    mean, error = float(ratios.mean()), float(ratios.std(ddof=1) / len(ratios) ** 0.5)
    return mean, error, (mean - 1) / error


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes table and plot, and prints the table."""
    table = format_tables(settings, records)
    write_text(folder / "theory.md", table + "\n")
    save_figure(folder / "theory.png", draw_panels(settings, records))
    print(table)


def format_tables(settings: Settings, records: Sequence[Record]) -> str:
    """Ratios and their z, then the predictions and the spread of the energy, in Markdown."""
    ratios, values = [], []
    for layer, predicted in predict(settings).items():
        ratios.append([layer])
        for name in COMPARED:
            mean, error, z = compare(settings, records, name, layer)
            ratios[-1] += [f"{mean:.3f} ± {error:.3f}", f"{z:+.1f}"]
        energies = np.array([record["energy"][layer] for record in records])
        spread = energies.std(ddof=1) / predicted.energy
        numbers = [f"{getattr(predicted, name):.4g}" for name in COMPARED]
        values.append([layer, *numbers, f"{predicted.spread:.3f}", f"{spread:.3f}"])
    return "\n\n".join(
        [
            f"Measured / predicted, mean ± standard error over {len(records)} networks, and z.",
            format_markdown(
                ["layer", *(word for name in COMPARED.values() for word in (name, "z"))], ratios
            ),
            "Predicted, and the energy's relative standard deviation between networks.",
            format_markdown(
                ["layer", *COMPARED.values(), "spread predicted", "spread measured"], values
            ),
        ]
    )


def draw_panels(settings: Settings, records: Sequence[Record]) -> matplotlib.figure.Figure:
    """Draws each network as a point beside the predicted line: energy, ω and μ by layer."""
    predictions = predict(settings)
    figure = matplotlib.figure.Figure(figsize=(14, 4.5), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        measured = np.array([list(record[name].values()) for record in records])
        predicted = [getattr(prediction, name) for prediction in predictions.values()]
        panel.semilogy(measured.T, ".", color="C0", alpha=0.25, markersize=4)
        panel.semilogy(measured.mean(axis=0), "o", color="C0", label="measured, mean")
        panel.semilogy(predicted, "-", color="C1", label="predicted")
        panel.set_xticks(range(len(predictions)), predictions, rotation=60)
        panel.set_title(COMPARED[name])
        panel.legend()
    return figure


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
