"""Why random weights invert better than trained ones: descent, distribution, or training?

Claim: none of the paper's. It compares Gaussian weights, the trained kernels with their numbers in
another order, the trained kernels without biases and the trained network, each with input offset 0
and the mean, each as a ReLU network, with its masks frozen at the picture, and without ReLU. With
frozen masks the problem is linear: what is missing then, the layer did not keep, or so many steps
did not reach. What is lost beyond that, the descent lost among the masks.
Expect: table.md with every kind beside the start, the mean colour and block means; steps.md, the
way from Gaussian to trained weights in steps, each divided into the linear problem's share and the
masks'; convergence.md, a longer descent; distances.png, flips.png and panel.jpg. Without
--trained_weights only the Gaussian rows.

Example:
  python -m randviz.experiments.why_random --image=beach,coffee --layers=pool3 --num_steps=50
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from randviz.commands.inputs import check_picture, make_keys, make_statistics_key
from randviz.commands.trials import BASELINES as SHARED_BASELINES
from randviz.commands.trials import (
    TRAINED,
    choose_networks,
    compare_with_picture,
    describe_inputs,
    filter_records,
    find_deepest,
    find_record,
    find_untrained,
    format_measure,
    list_values_of,
    load_pictures,
    load_result,
    make_baseline,
    make_noise,
    picture_path,
    sample_params,
)
from randviz.descent.descent import minimize
from randviz.experiments.claims import Claim, Sentence, judge_together, tabulate
from randviz.experiments.figure import PICTURES, FigureSettings
from randviz.experiments.frozen_masks import freeze_masks, measure_flips
from randviz.host.charts import format_estimate, format_markdown, save_figure
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.quality import compare_images, correlate_contours
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.networks.gaussian import same_draws
from randviz.networks.network import IMAGENET_MEAN, BoundNetwork
from randviz.networks.weights import random_weights
from randviz.objectives.objective import Objective
from randviz.search.intervals import estimate
from randviz.tasks.inversion import NOISE_STD, Inversion
from randviz.types import Image, Key, Params, UserError

GAUSSIAN, SHUFFLED, NO_BIAS = "gaussian", "trained-shuffled", "trained-no-bias"
WEIGHTS = (GAUSSIAN, SHUFFLED, NO_BIAS, TRAINED)
OFFSETS = ("0", "mean")
ACTIVATIONS = ("relu", "frozen", "none")
BASELINES = {**SHARED_BASELINES, "positions": "block means, a block for each position"}
# What changes from one kind of weights to the next.
STEPS = {
    "the distribution of the kernels' numbers": (GAUSSIAN, SHUFFLED),
    "their order": (SHUFFLED, NO_BIAS),
    "biases": (NO_BIAS, TRAINED),
}
describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of the experiment."""

    network: str = "vgg19"
    image: tuple[str, ...] = setting(
        PICTURES, "The pictures: paths or samples, with commas between."
    )
    layers: tuple[str, ...] = setting(
        ("pool3", "pool4", "pool5"), "The layers inverted, one at a time."
    )
    num_networks: int = setting(
        3, "Gaussian networks, and orders of the trained kernels.", lower_bound=1
    )
    long_layer: str = setting("pool4", "The layer with a longer descent.")
    long_steps: int = setting(2000, "Steps of the longer descent.", lower_bound=1)
    num_long_images: int = setting(
        3, "Pictures with a longer descent: the first ones.", lower_bound=0
    )
    out_dir: str = "out/why_random"


def list_trials(settings: Settings) -> list[Trial]:
    """All of a picture, then the next.

    Without a ReLU F(x) - F(x0) has neither offset nor bias in it: one of them stands for all.

    Raises:
      UserError: as `load_pictures`, for an unknown layer, a picture that does not reach it or that
        the trained filters are normalised on.
    """
    pictures = load_pictures(settings, "image")
    network = find_untrained(settings).network
    layers = network.canonical_names(tuple(settings.layers))
    (long_layer,) = network.canonical_names(settings.long_layer)
    if settings.num_long_images and long_layer not in layers:
        raise UserError(
            f"--long_layer={settings.long_layer} is not among --layers={','.join(settings.layers)};"
            " name one of them, or set --num_long_images=0."
        )
    if settings.num_long_images and settings.long_steps < settings.num_steps:
        raise UserError(
            f"--long_steps={settings.long_steps} is less than --num_steps={settings.num_steps};"
            " give more, or set --num_long_images=0."
        )
    for picture in pictures.values():
        check_picture(picture, network.with_offset(0.0), layers[-1])
    _check_untouched(settings)
    has_trained = TRAINED in choose_networks(settings)
    found = []
    for index, image in enumerate(pictures):
        for layer in layers:
            names = {"image": image, "layer": layer}
            found += [{**names, "baseline": baseline} for baseline in BASELINES]
            for weights in WEIGHTS if has_trained else WEIGHTS[:1]:
                count = settings.num_networks if weights in (GAUSSIAN, SHUFFLED) else 1
                cells = [
                    (offset, activation)
                    for activation in ACTIVATIONS
                    for offset in OFFSETS
                    if activation != "none" or (offset == "0" and weights != NO_BIAS)
                ]
                found += [
                    {
                        **names,
                        "weights": weights,
                        "offset": offset,
                        "activation": activation,
                        "network": number,
                        "num_steps": settings.num_steps,
                    }
                    for number in range(count)
                    for offset, activation in cells
                ]
        if index < settings.num_long_images and settings.long_steps != settings.num_steps:
            found += [
                {**trial, "num_steps": settings.long_steps}
                for trial in found
                if (trial["image"], trial["layer"]) == (image, long_layer)
                and trial.get("network") == 0
                and trial["offset"] == "mean"
                and trial["weights"] != NO_BIAS
            ]
    return found


def _check_untouched(settings: Settings) -> None:
    """Refuses pictures that the trained filters are normalised on: trained rows would gain."""
    seen = set(settings.image) & set(settings.normalization_images)
    if settings.trained_weights and seen:
        raise UserError(
            f"--image={sorted(seen)[0]} is among --normalization_images, over which the trained"
            " filters are normalised; take it out of one of them."
        )


def measure(settings: Settings, trial: Trial) -> Record:
    """Rebuilds one picture, or makes one of its baselines."""
    picture = load_pictures(settings, "image")[trial["image"]].image
    start = make_noise(settings, picture, NOISE_STD)
    if "baseline" in trial:
        shape = find_untrained(settings).network.feature_shape(picture.shape, trial["layer"])
        image = make_baseline(settings, trial, shape)
        if _is_shown(settings, trial):
            save_image(picture_path(settings.out_dir, trial), image)
        return {**compare_images(image, picture), "contours": correlate_contours(image, picture)}
    extractor = _bind(settings, trial)
    objective = _make_objective(trial, extractor, picture)
    result = minimize(objective, start, num_steps=trial["num_steps"])
    final_loss = float(result.trace.loss[-1])
    record = {
        **compare_with_picture(settings, trial, result.image),
        "final_loss": final_loss,
        "residual": final_loss / _measure_energy(objective),
        "evaluations": int(result.trace.evaluations.sum()),
    }
    if trial["activation"] != "none":
        record["flips_start"], record["flips"] = (
            measure_flips(extractor, x, picture, trial["layer"]) for x in (start, result.image)
        )
    if _is_shown(settings, trial):
        save_image(picture_path(settings.out_dir, trial), result.image)
    return record


def _is_shown(settings: Settings, trial: Trial) -> bool:
    """Whether the trial's picture stands in the panel."""
    first = next(iter(load_pictures(settings, "image")))
    place = trial["image"], trial.get("network", 0), trial.get("num_steps", settings.num_steps)
    return place == (first, 0, settings.num_steps)


def _bind(settings: Settings, trial: Trial) -> BoundNetwork:
    """The trial's network, with ReLU."""
    label = find_untrained(settings).label if trial["weights"] == GAUSSIAN else TRAINED
    # A trained network has a mean of its own.
    network = choose_networks(settings)[label].network.with_offset(IMAGENET_MEAN)
    if trial["offset"] == "0":
        network = dataclasses.replace(network, input_offset=0.0)
    return network.bind(_sample(settings, trial["weights"], trial["network"]))


# Of the default's three networks all are kept: to shuffle twenty million numbers takes long.
@functools.lru_cache(maxsize=8)
def _sample(settings: Settings, weights: str, number: int) -> Params:
    """Weights down to the deepest layer, as one of `WEIGHTS` says."""
    deepest = find_deepest(settings, settings.layers)
    if weights == GAUSSIAN:
        key = jax.random.fold_in(make_keys(settings.seed)[0], number)
        network = find_untrained(settings).network
        return random_weights(key, network, scale=settings.scale, last_layer=deepest)
    params = sample_params(settings, TRAINED, deepest)
    if weights == SHUFFLED:
        key = jax.random.fold_in(make_statistics_key(settings.seed), number)
        return shuffle_kernels(key, params)
    return drop_biases(params) if weights == NO_BIAS else params


def drop_biases(params: Params) -> Params:
    """The same kernels with biases of zero."""
    return {
        layer: {"kernel": weights["kernel"], "bias": jnp.zeros_like(weights["bias"])}
        for layer, weights in params.items()
    }


@jax.jit
def shuffle_kernels(key: Key, params: Params) -> Params:
    """Puts the numbers of each kernel into another order, at random.

    Args:
      key: consumed.
      params: {layer: {"kernel": ..., "bias": ...}}.

    Returns:
      Kernels of the same numbers, and biases of zero.
    """
    found = drop_biases(params)
    with same_draws():
        for index, (layer, weights) in enumerate(found.items()):
            kernel = weights["kernel"]
            layer_key = jax.random.fold_in(key, index)
            shuffled = jax.random.permutation(layer_key, kernel.ravel(), independent=True)
            found[layer] = {**weights, "kernel": shuffled.reshape(kernel.shape)}
    return found


def _make_objective(trial: Trial, extractor: BoundNetwork, picture: Image) -> Objective:
    if trial["activation"] == "frozen":
        extractor = freeze_masks(extractor, picture, trial["layer"])
    elif trial["activation"] == "none":
        network = dataclasses.replace(extractor.network, activation="none")
        extractor = network.bind(extractor.params)
    return Inversion(trial["layer"]).of(extractor, picture)


def _measure_energy(objective: Objective) -> float:
    """The loss of features of zero: a loss over it is ‖F(x) - F(x0)‖² / ‖F(x0)‖²."""
    (term,) = objective.parts["content"].terms
    return float(term.weight * term.statistic.compare(jnp.zeros_like(term.target), term.target))


def workload(settings: Settings) -> Workload:
    """The deepest inversion; all others are less."""
    trials = list_trials(settings)
    deepest = find_deepest(settings, settings.layers)
    trial = next(
        trial
        for trial in trials
        if trial["layer"] == deepest and trial.get("activation") == "frozen"
    )
    picture = load_pictures(settings, "image")[trial["image"]].image
    make = functools.partial(_make_objective, trial, _bind(settings, trial), picture)
    num_steps = sum(trial.get("num_steps", 0) for trial in trials)
    return Workload(make, make_noise(settings, picture, NOISE_STD), num_steps)


def complete(records: Sequence[Record]) -> list[Record]:
    """The records of pictures of which everything was measured, and of one budget of steps.

    Args:
      records: of any trials.

    Returns:
      Those of the shorter descents, no baselines, of the pictures that have most of them.
    """
    budgets = [record["trial"]["num_steps"] for record in records if "weights" in record["trial"]]
    found = filter_records(records, num_steps=min(budgets, default=0))
    counts = {
        image: len(filter_records(found, image=image)) for image in list_values_of(found, "image")
    }
    most = max(counts.values(), default=0)
    return [record for record in found if counts[record["trial"]["image"]] == most]


def tabulate_distances(records: Sequence[Record], **place: str) -> np.ndarray:
    """Logarithms of the distances in one cell of the comparison.

    Args:
      records: from `complete`.
      place: layer, weights, offset and activation.

    Returns:
      [pictures, networks], natural logarithms of grey levels; [0] if there are none. There is one
      trained network.
    """
    found = filter_records(records, **place)
    if not found:
        return np.empty(0)
    log_distance = lambda record: np.log(record["distance"] + 1e-9)
    return tabulate(found, ("image", "network"), measure=log_distance)


def contrast(*parts: tuple[float, np.ndarray]) -> np.ndarray:
    """Adds tables with factors.

    Args:
      parts: (factor, [pictures, networks]) each; a table of one network counts for all.

    Returns:
      [pictures, networks]; [0] if one of the tables is empty.
    """
    if any(not table.size for _, table in parts):
        return np.empty(0)
    # Gaussian network n beside order n of the trained kernels: both were drawn, for any n.
    return np.asarray(sum(factor * table for factor, table in parts))


def divide_steps(
    records: Sequence[Record], layer: str
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The way from Gaussian to trained weights in steps, each in two parts.

    With frozen masks the problem is linear: d_frozen is what the layer did not keep, or what so
    many steps did not reach. log d = log d_frozen + log (d / d_frozen), and the second is what the
    descent loses among the masks.

    Args:
      records: from `complete`.
      layer: one of theirs.

    Returns:
      {step: (what it adds to log d, what to log d_frozen, what to the rest)}, [pictures, networks]
      each or [0]; the last is the sum of the second and the third.
    """

    def part(*cells: tuple[float, str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        relu, frozen = (
            contrast(
                *(
                    (
                        factor,
                        tabulate_distances(
                            records,
                            layer=layer,
                            weights=weights,
                            offset=offset,
                            activation=activation,
                        ),
                    )
                    for factor, weights, offset in cells
                )
            )
            for activation in ("relu", "frozen")
        )
        return relu, frozen, contrast((1, relu), (-1, frozen))

    found = {"Gaussian: the mean subtracted": part((1, GAUSSIAN, "mean"), (-1, GAUSSIAN, "0"))}
    for offset in reversed(OFFSETS):
        for step, (before, after) in STEPS.items():
            found[f"offset {offset}: {step}"] = part((1, after, offset), (-1, before, offset))
    for offset in OFFSETS:
        found[f"Gaussian at offset {offset} to trained at offset mean, all in all"] = part(
            (1, TRAINED, "mean"), (-1, GAUSSIAN, offset)
        )
    return found


def compare_with_baseline(records: Sequence[Record], baselines: Sequence[Record]) -> np.ndarray:
    """How far a baseline is beside reconstructions of the same pictures.

    Args:
      records: of one cell of the comparison.
      baselines: of one baseline, of these pictures and others.

    Returns:
      [pictures, networks], log(distance of the baseline / of the reconstruction), without pictures
      that the baseline is itself.
    """
    distances = {record["trial"]["image"]: record["distance"] for record in baselines}
    with np.errstate(divide="ignore"):
        return tabulate(
            records,
            ("image", "network"),
            measure=lambda record: np.log(distances[record["trial"]["image"]] / record["distance"]),
        )


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes the tables and draws distances, flips and the panel."""
    table = _format_table(records)
    steps = _format_steps(records)
    write_text(folder / "table.md", table + "\n")
    write_text(folder / "steps.md", steps + "\n")
    write_text(folder / "convergence.md", _format_convergence(records) + "\n")
    save_figure(folder / "distances.png", _draw_distances(records))
    save_figure(folder / "flips.png", _draw_flips(complete(records)))
    save_image(folder / "panel.jpg", _draw_panel(settings, records, folder))
    print(f"{table}\n\n{steps}")


def _list_cells(records: Sequence[Record]) -> list[dict[str, str]]:
    """Weights, offset and activation of the trials, each combination once."""
    names = ("weights", "offset", "activation")
    found = (
        tuple((name, record["trial"][name]) for name in names)
        for record in records
        if "weights" in record["trial"]
    )
    order = lambda cell: [
        known.index(value)
        for known, (_, value) in zip((WEIGHTS, OFFSETS, ACTIVATIONS), cell, strict=True)
    ]
    return [dict(cell) for cell in sorted(set(found), key=order)]


def _name_cell(cell: dict[str, str]) -> str:
    # Without a ReLU the offset does not matter.
    offset = "" if cell["activation"] == "none" else f", offset {cell['offset']}"
    activation = {"relu": "ReLU", "frozen": "frozen masks", "none": "no ReLU"}[cell["activation"]]
    return f"{cell['weights']}{offset}, {activation}"


def _write_measures(records: Sequence[Record]) -> list[str]:
    """The means of distance and PSNR, and the geometric mean of the residual, as they are written.

    Args:
      records: of one cell or one baseline; the latter have no residual.
    """
    if not records:
        return ["not run"] * 3
    found = []
    for measure in ("distance", "psnr"):
        values = [record[measure] for record in records]
        # None where a picture came back exactly.
        mean = None if None in values else float(np.mean(values))
        found.append(format_measure({measure: mean}, measure))
    residuals = [max(record["residual"], 1e-12) for record in records if "residual" in record]
    return [*found, f"{np.exp(np.mean(np.log(residuals))):.1e}" if residuals else ""]


_MEASURES = ("distance", "PSNR, dB", "residual")
_RESIDUAL = (
    "Residual: ‖F(x) - F(x0)‖² / ‖F(x0)‖² at the end. Small with frozen masks: what is missing the"
    " layer did not keep. Large: so many steps did not reach it."
)


def _format_table(records: Sequence[Record]) -> str:
    """Means over pictures and networks, the baselines below."""
    layers = list_values_of(records, "layer")
    found = complete(records)
    groups = [(_name_cell(cell), found, cell) for cell in _list_cells(found)]
    groups += [(name, records, {"baseline": key}) for key, name in BASELINES.items()]
    lines = []
    for name, those, place in groups:
        measures = (_write_measures(filter_records(those, layer=x, **place)) for x in layers)
        lines.append([name, *itertools.chain(*measures)])
    header = ["weights and network"]
    header += [f"{layer}, {measure}" for layer in layers for measure in _MEASURES]
    images = len(list_values_of(found, "image"))
    networks = len(list_values_of(found, "network"))
    said = f"Means over {images} pictures, and over {networks} networks where they were drawn."
    return f"{said} {_RESIDUAL}\n\n{format_markdown(header, lines)}"


def _format_steps(records: Sequence[Record]) -> str:
    """`divide_steps` of each layer with intervals, and how far the baselines are."""
    found, lines = complete(records), []
    write = lambda values: format_estimate(estimate(values), "+.2f")
    for layer in list_values_of(found, "layer"):
        for step, parts in divide_steps(found, layer).items():
            lines.append([layer, step, *map(write, parts)])
        gaussian = filter_records(found, layer=layer, weights=GAUSSIAN, offset="0")
        for baseline, name in BASELINES.items():
            values = compare_with_baseline(
                filter_records(gaussian, activation="relu"),
                filter_records(records, layer=layer, baseline=baseline),
            )
            written = write(values) if values.size else "the picture itself"
            lines.append([layer, f"Gaussian at offset 0 to {name}", written, "", ""])
    header = ["layer", "step", "log distance", "of it with frozen masks", "of it by the masks"]
    said = (
        "What each step adds to the logarithm of the distance, with 95 % intervals over pictures"
        " and networks (0.1 is about a tenth, 0.69 a factor of two; above 0: farther)."
    )
    return f"{said}\n\n{format_markdown(header, lines)}"


def _format_convergence(records: Sequence[Record]) -> str:
    """The shorter beside the longer descents, of the pictures that have both."""
    budgets = sorted(list_values_of(records, "num_steps"))
    long = filter_records(records, num_steps=budgets[-1])
    if len(budgets) < 2:
        return "Longer descents: not run."
    lines = []
    for layer in list_values_of(long, "layer"):
        images = list_values_of(filter_records(long, layer=layer), "image")
        for cell in _list_cells(filter_records(long, layer=layer)):
            longer = filter_records(long, layer=layer, **cell)
            shorter = [
                find_record(records, **{**record["trial"], "num_steps": budgets[0]})
                for record in longer
            ]
            line = [layer, _name_cell(cell), len(longer)]
            lines.append([*line, *_write_measures(shorter), *_write_measures(longer)])
        for baseline, name in BASELINES.items():
            own = [find_record(records, image=x, layer=layer, baseline=baseline) for x in images]
            lines.append([layer, name, len(images), *_write_measures(own) * 2])
    header = ["layer", "weights and network", "pictures"]
    header += [f"{measure}, {steps} steps" for steps in budgets for measure in _MEASURES]
    return f"{_RESIDUAL}\n\n{format_markdown(header, lines)}"


def _draw_distances(records: Sequence[Record]) -> matplotlib.figure.Figure:
    """A point for each picture, its networks averaged; baselines as lines of their means."""
    found = complete(records)
    layers, cells = list_values_of(records, "layer"), _list_cells(found)
    figure = matplotlib.figure.Figure(
        figsize=(4 * len(layers) + 2, 1 + 0.26 * len(cells)), layout="constrained"
    )
    panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for layer, panel in zip(layers, panels, strict=True):
        for place, cell in enumerate(cells):
            table = tabulate_distances(found, layer=layer, **cell)
            if table.size:
                values = np.exp(table.mean(axis=1))
                color = f"C{WEIGHTS.index(cell['weights'])}"
                panel.plot(values, [place] * len(values), ".", color=color, alpha=0.5)
                panel.plot(np.exp(table.mean()), place, "|", color=color, ms=14, mew=2)
        for index, (key, name) in enumerate(BASELINES.items()):
            own = filter_records(records, layer=layer, baseline=key)
            distances = [record["distance"] for record in own]
            # Block means of as many numbers as pixels are the picture, at no distance.
            if distances and min(distances) > 0:
                mean = np.exp(np.mean(np.log(distances)))
                style = ("-", "--", "-.", ":")[index]
                panel.axvline(mean, color="grey", lw=1, ls=style, label=name)
        panel.set(xscale="log", title=layer, xlabel="distance, grey levels")
        # Fewer than two decades: powers of ten alone are too few, all multiples too many.
        panel.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
        panel.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    panels[0].set_yticks(range(len(cells)), [_name_cell(cell) for cell in cells])
    panels[0].invert_yaxis()
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_flips(records: Sequence[Record]) -> matplotlib.figure.Figure:
    """Shares of masks that differ from the picture's by layer, at the start and at the end."""
    layers = list_values_of(records, "layer")
    figure = matplotlib.figure.Figure(figsize=(2.4 + 4 * len(layers), 3.6), layout="constrained")
    panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for layer, panel in zip(layers, panels, strict=True):
        for cell in _list_cells(filter_records(records, activation="relu")):
            own = filter_records(records, layer=layer, **cell)
            color = f"C{WEIGHTS.index(cell['weights'])}"
            for flips, style in (("flips_start", ":"), ("flips", "-")):
                names = list(own[0][flips])
                means = [np.mean([record[flips][name] for record in own]) for name in names]
                panel.plot(
                    names,
                    means,
                    style,
                    color=color,
                    alpha=1 if cell["offset"] == "0" else 0.45,
                    label=f"{cell['weights']}, offset {cell['offset']}" if style == "-" else None,
                )
        panel.tick_params("x", rotation=70)
        panel.set_title(f"inverted: {layer}")
    panels[0].set_ylabel("masks unlike the picture's\n(dotted: at the start)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _draw_panel(settings: Settings, records: Sequence[Record], folder: pathlib.Path) -> Image:
    """The first picture: a row for weights and offset, columns for layers and activations."""
    image, picture = next(iter(load_pictures(settings, "image").items()))
    layers = list_values_of(records, "layer")
    columns = [(layer, activation) for layer in layers for activation in ACTIVATIONS]
    rows = [(weights, offset) for weights in WEIGHTS for offset in OFFSETS]
    pictures, captions = [], []
    for weights, offset in rows:
        found = [
            next(
                iter(
                    filter_records(
                        records,
                        image=image,
                        layer=layer,
                        # Without a ReLU neither biases nor the offset matter.
                        weights=TRAINED if (weights, activation) == (NO_BIAS, "none") else weights,
                        offset="0" if activation == "none" else offset,
                        activation=activation,
                        network=0,
                        num_steps=settings.num_steps,
                    )
                ),
                None,
            )
            for layer, activation in columns
        ]
        pictures.append([load_result(folder, record) for record in found])
        captions.append([record and f"{record['psnr']:.1f} dB" for record in found])
    chosen = [
        find_record(records, image=image, layer=layer, baseline=baseline)
        for layer, baseline in zip(
            [layer for layer in layers for _ in ACTIVATIONS],
            ["mean", "positions", "numbers"] * len(layers),
            strict=True,
        )
    ]
    pictures.append([load_result(folder, record) for record in chosen])
    captions.append(
        [
            record and f"{record['trial']['baseline']}\n{format_measure(record, 'psnr')} dB"
            for record in chosen
        ]
    )
    pictures.append([picture.image, make_noise(settings, picture.image, NOISE_STD)])
    captions.append(["the picture", "the start"])
    return render_grid(
        pictures,
        row_labels=[*(f"{weights}\noffset {offset}" for weights, offset in rows), "baselines", ""],
        column_labels=[f"{layer}, {activation}" for layer, activation in columns],
        captions=captions,
        cell=max(96, settings.image_size),
    )


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say; pictures and networks are units, crossed."""
    found = complete(records)
    sentences = []
    for layer in list_values_of(found, "layer"):
        cell = lambda weights, offset, activation, layer=layer: tabulate_distances(
            found, layer=layer, weights=weights, offset=offset, activation=activation
        )
        ratio = lambda first, second, cell=cell: contrast((1, cell(*first)), (-1, cell(*second)))
        cost = lambda weights, ratio=ratio: ratio(
            (weights, "mean", "relu"), (weights, "mean", "frozen")
        )
        both = (GAUSSIAN, TRAINED)
        # Statement, values, measure, groups, and the side on which the mean is said to lie.
        said = (
            (
                "each with its own input offset, Gaussian weights come nearer than trained ones",
                ratio((GAUSSIAN, "0", "relu"), (TRAINED, "mean", "relu")),
                "log(distance of Gaussian weights at offset 0 / of trained ones at the mean)",
                both,
                {"below": 0.0},
            ),
            (
                "on centred input alike, Gaussian weights come nearer than trained ones",
                ratio((GAUSSIAN, "mean", "relu"), (TRAINED, "mean", "relu")),
                "log(distance of Gaussian / of trained weights), both at the mean",
                both,
                {"below": 0.0},
            ),
            (
                "with masks frozen at the picture, a linear problem, Gaussian weights come nearer"
                " than trained ones",
                ratio((GAUSSIAN, "mean", "frozen"), (TRAINED, "mean", "frozen")),
                "log(distance of Gaussian / of trained weights), both at the mean, frozen masks",
                both,
                {"below": 0.0},
            ),
            (
                "on centred input Gaussian weights lose distance among the masks",
                cost(GAUSSIAN),
                "log(distance with ReLU / with frozen masks), Gaussian weights at the mean",
                ("ReLU", "frozen masks"),
                {"above": 0.0},
            ),
            (
                "on centred input trained weights lose more among the masks than Gaussian ones",
                contrast((1, cost(TRAINED)), (-1, cost(GAUSSIAN))),
                "log(distance with ReLU / with frozen masks), trained less Gaussian, at the mean",
                both,
                {"above": 0.0},
            ),
            (
                "the distribution of the trained kernels alone makes results farther",
                ratio((SHUFFLED, "mean", "relu"), (GAUSSIAN, "mean", "relu")),
                "log(distance of shuffled trained kernels / of Gaussian ones), both at the mean",
                (SHUFFLED, GAUSSIAN),
                {"above": 0.0},
            ),
            (
                "what training adds to that distribution makes results farther",
                ratio((TRAINED, "mean", "relu"), (SHUFFLED, "mean", "relu")),
                "log(distance of trained weights / of their kernels shuffled), both at the mean",
                (TRAINED, SHUFFLED),
                {"above": 0.0},
            ),
        )
        sentences += [
            Sentence(
                f"From {layer}, {statement}.",
                values,
                units="pictures and networks",
                measure=measure,
                groups=groups,
                **limits,
            )
            for statement, values, measure, groups, limits in said
        ]
    return judge_together("why random", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
