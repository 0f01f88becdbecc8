"""Random networks of growing width beside the infinitely wide one, which is computed, not drawn.

Claim: none of the paper's. The kernel that Gram matrices compare differs from that of infinite
width by width^-½; the texture loss tends to a maximum mean discrepancy of patches. Means of
features have the limit's loss on average at any width, Gram matrices up to a term in 1 / width. So
a descent that redraws its filters at each step descends a network of infinite width, however few
the filters are; with fixed ones it ends at a picture that only these take for the texture.
Expect: width.md, the error's slope over widths; loss.md, the loss of networks drawn over the
limit's; descents.md, pictures made with fixed and with redrawn filters, by Gram matrices and by the
means that paint (`ThresholdMeans`), judged at infinite width, beside the start, the mean colour and
block means; width.png, descents.png and panel.jpg.

Example:
  python -m randviz.experiments.infinite_width --image=brick,beach --image_size=16 --num_steps=50
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from randviz.commands.descent_settings import read_whole_numbers
from randviz.commands.inputs import (
    PictureSettings,
    SeedSettings,
    StepSettings,
    make_keys,
    make_statistics_key,
)
from randviz.commands.trials import (
    filter_records,
    find_record,
    list_values_of,
    load_pictures,
    load_result,
    make_noise,
    picture_path,
)
from randviz.descent.descent import minimize
from randviz.experiments.claims import Claim, Sentence, judge_together, tabulate
from randviz.host.baselines import average_blocks, fill_with_mean
from randviz.host.charts import format_estimate, format_markdown, save_figure
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.host.workers import WorkerSettings
from randviz.networks.filter_bank import single_layer
from randviz.networks.layers import Conv, Pool
from randviz.networks.network import IMAGENET_MEAN, Network
from randviz.networks.random_network import RandomNetwork
from randviz.networks.weights import random_weights
from randviz.objectives.objective import Objective, Redrawn
from randviz.objectives.statistics.gram import Gram, mean_gram, texture_loss
from randviz.objectives.statistics.random_features import ThresholdMeans
from randviz.search.intervals import estimate, jackknife
from randviz.tasks.infinite_width import (
    compute_kernels,
    expect_kernel_error,
    expect_texture_loss,
    squared_discrepancy,
)
from randviz.tasks.texture import NOISE_STD, Texture
from randviz.types import Array, Image, Key, Params, UserError

LAYERS = ("conv1_1", "conv1_2", "pool1", "conv2_1")
LOSSES = {"gram": "Gram matrices", "means": "means"}
BASELINES = {"start": "the start", "mean": "the mean colour", "blocks": "block means"}
DRAWS = ("fixed", "redrawn")
STATISTICS = {"gram": "Gram matrices", "thresholds": "means of clipped responses"}
# As many as a Gram matrix of 32 channels has.
_BLOCK_NUMBERS = 32 * 33 // 2
_KERNEL_SIZE = 7  # of the filters that paint
_NUM_JUDGES = 2048  # filters that stand for infinitely many where there is no closed form
_JUDGE = 2**31  # of the judges' key; no descent has this number


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings, PictureSettings, StepSettings, WorkerSettings):
    """Settings of the experiment."""

    image: tuple[str, ...] = setting(
        (
            "brick", "gravel", "grass", "immunohistochemistry", "hubble_deep_field", "coffee",
            "beach", "flowers", "starry_night", "great_wave",
        ),
        "The pictures: paths or samples, with commas between.",
    )  # fmt: skip
    image_size: int = setting(32, "Longest side in pixels.", lower_bound=16, upper_bound=64)
    square: bool = True  # kernels are between pictures of one size
    widths: tuple[str, ...] = setting(
        ("16", "32", "64", "128", "256"), "Channels of every layer, rising, two or more."
    )
    num_networks: int = setting(100, "Networks of each width.", lower_bound=3)
    descent_widths: tuple[str, ...] = setting(("4", "16", "64"), "Filters of the descents, rising.")
    num_descents: int = setting(3, "Descents of each picture and width.", lower_bound=1)
    num_steps: int = setting(400, "Steps of each descent.", lower_bound=1)
    out_dir: str = "out/infinite_width"


def describe(settings: Settings) -> dict[str, Any]:
    """What records depend on beside the settings: the pixels."""
    pictures = load_pictures(settings, "image")
    return {"pictures": {name: each.metadata["sha256"] for name, each in pictures.items()}}


def list_trials(settings: Settings) -> list[Trial]:
    """The networks of each width, then the descents and what they have to beat.

    Raises:
      UserError: as `load_pictures`, for fewer than two pictures, and for widths that are no whole
        numbers or do not rise.
    """
    names = list(load_pictures(settings, "image"))
    if len(names) < 2:
        raise UserError(f"--image={names[0]} is one picture; each is compared with another.")
    widths = _read_widths("widths", settings.widths)
    if len(widths) < 2:
        raise UserError(f"--widths={widths[0]} is one width, which has no slope; name two or more.")
    found: list[Trial] = [
        {"part": "width", "width": width, "network": number}
        for number in range(settings.num_networks)
        for width in widths
    ]
    for image in names:
        for statistic in STATISTICS:
            place = {"image": image, "statistic": statistic}
            found += [{"part": "baseline", **place, "baseline": name} for name in BASELINES]
            found += [
                {"part": "descent", **place, "draw": draw, "width": width, "network": number}
                for number in range(settings.num_descents)
                for width in _read_widths("descent_widths", settings.descent_widths)
                for draw in DRAWS
            ]
    return found


def _read_widths(flag: str, values: Sequence[str]) -> tuple[int, ...]:
    widths = read_whole_numbers(flag, values)
    if list(widths) != sorted(set(widths)):
        raise UserError(f"--{flag}={','.join(values)} must rise.")
    return widths


def measure(settings: Settings, trial: Trial) -> Record:
    """Measures one network, one descent or one baseline."""
    parts = {"width": _measure_network, "descent": _measure_descent, "baseline": _measure_baseline}
    return parts[trial["part"]](settings, trial)


def make_network(width: int) -> Network:
    """The beginning of VGG-19 with the same number of channels in every layer.

    Args:
      width: C.
    """
    layers = (
        Conv("conv1_1", width), Conv("conv1_2", width), Pool("pool1"), Conv("conv2_1", width),
    )  # fmt: skip
    return Network("wide", layers, initialization="he", input_offset=IMAGENET_MEAN)


def _make_filters(width: int) -> Network:
    """One rectified layer of large filters, whose Gram matrices are matched."""
    layers = (Conv("conv1", width, kernel_size=_KERNEL_SIZE, padding=_KERNEL_SIZE // 2),)
    return Network("patches", layers, initialization="he", input_offset=IMAGENET_MEAN)


def _make_baselines(settings: Settings, picture: Image) -> dict[str, Image]:
    return {
        "start": jnp.clip(make_noise(settings, picture, NOISE_STD), 0, 1),
        "mean": jnp.asarray(fill_with_mean(picture), jnp.float32),
        "blocks": jnp.asarray(average_blocks(picture, _BLOCK_NUMBERS), jnp.float32),
    }


@functools.cache
def _list_images(settings: Settings) -> dict[str, dict[str, Image]]:
    """{picture: {"picture": itself, and all that it is compared with}}."""
    pictures = load_pictures(settings, "image")
    names = list(pictures)
    found = {}
    for index, (name, picture) in enumerate(pictures.items()):
        other = pictures[names[(index + 1) % len(names)]].image
        baselines = _make_baselines(settings, picture.image)
        found[name] = {"picture": picture.image, **baselines, "other": other}
    return found


class Limits(NamedTuple):
    """One picture at infinite width.

    Attributes:
      kernels: {layer: [h, w, h, w], its own kernel, float32}.
      losses: {layer: {loss: {what it is compared with: value}}}.
      errors: {width: what is expected of a network's error}, of conv1_1.
      expected: {width: {what it is compared with: mean texture loss at this width}}, of conv1_1.
    """

    kernels: Mapping[str, np.ndarray]
    losses: Mapping[str, Mapping[str, Mapping[str, float]]]
    errors: Mapping[int, float]
    expected: Mapping[int, Mapping[str, float]]


@functools.cache
def compute_limits(settings: Settings) -> dict[str, Limits]:
    """All pictures at infinite width, by name; nothing is drawn."""
    return {
        name: _compute_limits(settings, images) for name, images in _list_images(settings).items()
    }


def _compute_limits(settings: Settings, images: Mapping[str, Image]) -> Limits:
    rivals = list(images)[1:]
    pairs = [(0, place) for place in range(1, len(images))]
    found = compute_kernels(make_network(1), list(images.values()), pairs, LAYERS)
    three = lambda place, layer: (
        found[0, 0][layer], found[place, place][layer], found[0, place][layer]
    )  # fmt: skip
    losses = {
        layer: {
            "gram": {
                name: expect_texture_loss(*three(place, layer))
                for place, name in enumerate(rivals, 1)
            },
            "means": {
                name: squared_discrepancy(*(kernel.second for kernel in three(place, layer)))
                for place, name in enumerate(rivals, 1)
            },
        }
        for layer in LAYERS
    }
    widths = _read_widths("widths", settings.widths)
    expected = {
        width: {
            name: expect_texture_loss(*three(place, LAYERS[0]), width)
            for place, name in enumerate(rivals, 1)
        }
        for width in widths
    }
    own = found[0, 0]
    errors = {width: expect_kernel_error(own[LAYERS[0]], width) for width in widths}
    kernels = {layer: kernel.second.astype(np.float32) for layer, kernel in own.items()}
    return Limits(kernels, losses, errors, expected)


def _measure_network(settings: Settings, trial: Trial) -> Record:
    """Draws a network and compares its kernels and losses with the limit, for all pictures."""
    key = jax.random.fold_in(make_keys(settings.seed)[0], trial["network"])
    key = jax.random.fold_in(key, trial["width"])
    network = make_network(trial["width"])
    params = random_weights(key, network, last_layer=LAYERS[-1])
    record: Record = {"error": {}, "loss": {}}
    for name, images in _list_images(settings).items():
        limits = compute_limits(settings)[name]
        errors, losses = jax.device_get(
            _compare_with_limit(params, jnp.stack(list(images.values())), limits.kernels, network)
        )
        record["error"][name] = {layer: float(errors[layer]) for layer in LAYERS}
        record["loss"][name] = {
            layer: {
                loss: dict(zip(list(images)[1:], losses[layer][loss].tolist(), strict=True))
                for loss in LOSSES
            }
            for layer in LAYERS
        }
    return record


@functools.partial(jax.jit, static_argnames="network")
def _compare_with_limit(
    params: Params, images: Array, kernels: Mapping[str, Array], network: Network
) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """‖K - k‖ / ‖k‖ of the first image, and its losses against the others, by layer."""
    extractor = network.for_one_evaluation().bind(params)
    maps = jax.vmap(lambda image: extractor(image, LAYERS))(images)
    errors, losses = {}, {}
    for layer, features in maps.items():
        own, kernel = features[0], kernels[layer]
        found = jnp.einsum("abc,dec->abde", own, own) / own.shape[-1]
        errors[layer] = jnp.linalg.norm(found - kernel) / jnp.linalg.norm(kernel)
        means = jnp.mean(features, (1, 2))
        losses[layer] = {
            "gram": jax.vmap(lambda x, own=own: texture_loss(x, mean_gram(own)))(features[1:]),
            "means": jnp.mean(jnp.square(means[1:] - means[0]), -1),
        }
    return errors, losses


def _make_objective(settings: Settings, trial: Trial) -> Objective | Redrawn:
    """A picture's texture through filters drawn once, or anew at each step."""
    picture = load_pictures(settings, "image")[trial["image"]].image
    if trial["statistic"] == "gram":
        network, statistic = _make_filters(trial["width"]), Gram()
    else:
        network, statistic = single_layer(channels=trial["width"]), ThresholdMeans("absolute")
    # Weighted by the gradient, each draw would have a weight of its own.
    task = Texture("conv1", statistic, weighting="none")
    key = jax.random.fold_in(make_statistics_key(settings.seed), trial["network"])
    redrawn = Redrawn(key, RandomNetwork(network=network), task, (picture,))
    # Fixed filters are those of the first step.
    return redrawn if trial["draw"] == "redrawn" else redrawn.at(0)


def _measure_descent(settings: Settings, trial: Trial) -> Record:
    picture = load_pictures(settings, "image")[trial["image"]].image
    objective = _make_objective(settings, trial)
    start = _make_baselines(settings, picture)["start"]
    result = minimize(objective, start, num_steps=settings.num_steps, solver="averaged_adam")
    image = jnp.clip(result.image, 0, 1)
    if trial["network"] == 0:
        save_image(picture_path(settings.out_dir, trial), image)
    return {"limit": judge_at_infinite_width(settings, trial["statistic"], image, picture)}


def _measure_baseline(settings: Settings, trial: Trial) -> Record:
    picture = load_pictures(settings, "image")[trial["image"]].image
    image = _make_baselines(settings, picture)[trial["baseline"]]
    if trial["statistic"] == "gram":
        save_image(picture_path(settings.out_dir, trial), image)
    return {"limit": judge_at_infinite_width(settings, trial["statistic"], image, picture)}


def judge_at_infinite_width(
    settings: Settings, statistic: str, image: Image, picture: Image
) -> float:
    """How far an image is from a picture to infinitely many filters.

    Args:
      settings: of the experiment.
      statistic: "gram", computed; or "thresholds", which has no closed form: the mean over 2048
        filters that took part in no descent.
      image, picture: [H, W, 3] each, of one size.
    """
    if statistic == "gram":
        found = compute_kernels(_make_filters(1), [picture, image], [(0, 1)], ("conv1",))
        return expect_texture_loss(*(found[pair]["conv1"] for pair in ((0, 0), (1, 1), (0, 1))))
    key = jax.random.fold_in(make_statistics_key(settings.seed), _JUDGE)
    return float(_ask_many_filters(key, image, picture))


@jax.jit
def _ask_many_filters(key: Key, image: Image, picture: Image) -> Array:
    network = single_layer(channels=_NUM_JUDGES)
    task = Texture("conv1", ThresholdMeans("absolute"), weighting="none")
    return Redrawn(key, RandomNetwork(network=network), task, (picture,)).at(0)(image)


def workload(settings: Settings) -> Workload:
    """A descent of the largest width; the drawing of networks takes no longer."""
    descents = [trial for trial in list_trials(settings) if trial["part"] == "descent"]
    largest = max(
        (trial for trial in descents if trial["draw"] == "fixed"), key=lambda trial: trial["width"]
    )
    picture = load_pictures(settings, "image")[largest["image"]].image
    make = functools.partial(_make_objective, settings, largest)
    return Workload(make, picture, len(descents) * settings.num_steps)


def tabulate_errors(records: Sequence[Record], layer: str) -> np.ndarray:
    """The errors of networks' kernels.

    Args:
      records: of the part "width".
      layer: one of `LAYERS`.

    Returns:
      [pictures, networks, widths], ‖K - k‖ / ‖k‖, of networks that have all widths.
    """
    widths = list_values_of(records, "width")
    found = []
    for number in list_values_of(records, "network"):
        own = [find_record(records, part="width", width=w, network=number) for w in widths]
        if None not in own:
            found.append([[each[layer] for each in x["error"].values()] for x in own])
    return np.transpose(found, (2, 0, 1))


def fit_slopes(records: Sequence[Record], layer: str) -> np.ndarray:
    """How fast networks approach the limit.

    The law is of the root mean square over networks: the logarithm of a single error is below its
    mean's, most so for narrow networks, which scatter most.

    Args:
      records: of the part "width".
      layer: one of `LAYERS`.

    Returns:
      [pictures, networks], jackknife values whose mean is the slope of log(root mean square of the
      error over networks) over log(width), by least squares.
    """
    log_widths = np.log(list_values_of(records, "width"))

    def fit(errors: np.ndarray) -> float:
        return float(np.polyfit(log_widths, np.log(np.mean(errors**2, axis=0)) / 2, 1)[0])

    return np.array([jackknife(errors, fit) for errors in tabulate_errors(records, layer)])


def tabulate_losses(
    settings: Settings, records: Sequence[Record], layer: str, loss: str, width: int
) -> np.ndarray:
    """The losses of networks drawn over those of the limit.

    Args:
      settings: of the experiment.
      records: of the part "width".
      layer: one of `LAYERS`.
      loss: one of `LOSSES`.
      width: C.

    Returns:
      [pictures, networks], the mean over what a picture is compared with.
    """
    limits = {name: own.losses[layer][loss] for name, own in compute_limits(settings).items()}

    def average(drawn: Mapping[str, float], limit: Mapping[str, float]) -> np.floating:
        return np.mean([drawn[rival] / limit[rival] for rival in limit])

    columns = [
        [average(record["loss"][name][layer][loss], limit) for name, limit in limits.items()]
        for record in filter_records(records, part="width", width=width)
    ]
    return np.transpose(columns)


def compare_draws(records: Sequence[Record], statistic: str, width: int) -> np.ndarray:
    """Redrawn filters beside fixed ones.

    Args:
      records: of the part "descent".
      statistic: one of `STATISTICS`.
      width: C.

    Returns:
      [pictures, descents], log(loss at infinite width with redrawn filters / with fixed ones).
    """
    redrawn, fixed = (
        tabulate(
            filter_records(records, part="descent", statistic=statistic, draw=draw, width=width),
            ("image", "network"),
            measure=lambda record: np.log(record["limit"]),
        )
        for draw in ("redrawn", "fixed")
    )
    return redrawn - fixed


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes the tables and draws the plots and the panel."""
    tables = {
        "width": _format_slopes(settings, records),
        "loss": _format_losses(settings, records),
        "descents": _format_descents(records),
    }
    for name, table in tables.items():
        write_text(folder / f"{name}.md", table + "\n")
    save_figure(folder / "width.png", _draw_widths(settings, records))
    save_figure(folder / "descents.png", _draw_descents(records))
    # Records travel without their pictures; the panel that was drawn of them stays.
    if (folder / "pictures").exists():
        save_image(folder / "panel.jpg", _draw_panel(settings, records, folder))
    print("\n\n".join(tables.values()))


def _format_slopes(settings: Settings, records: Sequence[Record]) -> str:
    found = filter_records(records, part="width")
    widths = list_values_of(found, "width")
    lines = []
    for layer in LAYERS:
        errors = _average_errors(found, layer)
        slope = format_estimate(estimate(fit_slopes(found, layer)), ".3f")
        constant = f"{_expect_constant(settings, layer):.3f}"
        lines.append([layer, *(f"{error:.3f}" for error in errors), slope, constant])
    header = ["layer", *(f"{width} channels" for width in widths), "slope, 95 % interval"]
    header.append("error of a constant")
    said = (
        "‖K - k‖ / ‖k‖ of a network's kernel K and the limit's k, root mean square over networks,"
        " mean over pictures, and the slope of its logarithm over that of the width; beside it the"
        " error of the best constant in the kernel's place."
    )
    return f"{said}\n\n{format_markdown(header, lines)}"


def _average_errors(records: Sequence[Record], layer: str) -> np.ndarray:
    """[widths], the root mean square over networks, averaged over pictures."""
    return np.sqrt(np.mean(tabulate_errors(records, layer) ** 2, axis=1)).mean(axis=0)


def _expect_constant(settings: Settings, layer: str) -> float:
    """‖c - k‖ / ‖k‖ of the best constant c, mean over pictures."""
    kernels = [own.kernels[layer] for own in compute_limits(settings).values()]
    return float(np.mean([np.std(x) / np.sqrt(np.mean(np.square(x))) for x in kernels]))


def _format_losses(settings: Settings, records: Sequence[Record]) -> str:
    found = filter_records(records, part="width")
    limits = compute_limits(settings)
    lines = []
    for layer in LAYERS:
        for width in list_values_of(found, "width"):
            line = [layer, width]
            for loss in LOSSES:
                table = tabulate_losses(settings, found, layer, loss, width)
                spread = np.mean(np.std(table, axis=1, ddof=1)) if table.shape[1] > 1 else np.nan
                line += [format_estimate(estimate(table), ".2f"), f"{spread:.2f}"]
            line.append(f"{_expect_ratio(limits, width):.2f}" if layer == LAYERS[0] else "")
            lines.append(line)
    header = ["layer", "channels"]
    for name in LOSSES.values():
        header += [f"{name}: drawn / limit", f"{name}: deviation between networks"]
    header.append("Gram matrices: expected / limit")
    rivals = ", ".join([*BASELINES.values(), "another picture"])
    said = f"Losses of networks drawn over the limit's; of each picture and {rivals}."
    values = [
        [name, loss, *(f"{value:.3g}" for value in own.losses[LAYERS[0]][loss].values())]
        for name, own in limits.items()
        for loss in LOSSES
    ]
    header_of_values = ["picture", "loss", *BASELINES.values(), "another picture"]
    return (
        f"{said}\n\n{format_markdown(header, lines)}\n\nThe limit's losses in {LAYERS[0]},"
        f" computed without drawing.\n\n{format_markdown(header_of_values, values)}"
    )


def _expect_ratio(limits: Mapping[str, Limits], width: int) -> float:
    """The expected texture loss in conv1_1 over the limit's, mean over all that is compared."""
    return float(
        np.mean(
            [
                value / own.losses[LAYERS[0]]["gram"][rival]
                for own in limits.values()
                for rival, value in own.expected[width].items()
            ]
        )
    )


def _relative_losses(records: Sequence[Record], statistic: str, **place: object) -> np.ndarray:
    """Losses at infinite width over the start's, one for each record that is found."""
    return np.array(
        [
            record["limit"] / start["limit"]
            for record in filter_records(records, statistic=statistic, **place)
            for start in filter_records(
                records, statistic=statistic, image=record["trial"]["image"], baseline="start"
            )
        ]
    )


def _format_descents(records: Sequence[Record]) -> str:
    lines = []
    for statistic, name in STATISTICS.items():
        for key, baseline in BASELINES.items():
            values = _relative_losses(records, statistic, baseline=key)
            lines.append([name, baseline, "", f"{_geometric_mean(values):.3g}", ""])
        for width in list_values_of(filter_records(records, part="descent"), "width"):
            for draw in DRAWS:
                values = _relative_losses(records, statistic, draw=draw, width=width)
                ratio = estimate(compare_draws(records, statistic, width))
                lines.append(
                    [
                        name,
                        f"{draw} filters",
                        width,
                        f"{_geometric_mean(values):.3g}",
                        format_estimate(ratio, ".2f") if draw == "redrawn" else "",
                    ]
                )
    header = ["statistic", "what", "filters", "loss at infinite width / the start's"]
    header.append("log(redrawn / fixed), 95 % interval")
    return format_markdown(header, lines)


def _geometric_mean(values: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values.size else float("nan")


def _draw_widths(settings: Settings, records: Sequence[Record]) -> matplotlib.figure.Figure:
    """Errors of kernels, and losses over the limit's, by width."""
    found, limits = filter_records(records, part="width"), compute_limits(settings)
    widths = np.array(list_values_of(found, "width"))
    figure = matplotlib.figure.Figure(figsize=(12, 4), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(LOSSES))
    for index, layer in enumerate(LAYERS):
        means = _average_errors(found, layer)
        left.loglog(widths, means, "o-", color=f"C{index}", label=layer)
        left.loglog(widths, means[-1] * np.sqrt(widths[-1] / widths), ":", color=f"C{index}")
    expected = [np.mean([own.errors[int(width)] for own in limits.values()]) for width in widths]
    left.loglog(widths, expected, "k--", label=f"{LAYERS[0]}, expected")
    constant = _expect_constant(settings, LAYERS[0])
    left.axhline(constant, color="grey", lw=1, label=f"{LAYERS[0]}, a constant")
    left.set(title="error of a network's kernel", xlabel="channels")
    left.set_xticks(widths, widths)
    left.xaxis.minorticks_off()
    left.legend(title="dotted: width^-½")
    for (loss, name), panel in zip(LOSSES.items(), others, strict=True):
        for index, layer in enumerate(LAYERS):
            tables = [tabulate_losses(settings, found, layer, loss, int(width)) for width in widths]
            means = [np.mean(table) for table in tables]
            spreads = [np.std(np.mean(table, axis=0)) for table in tables]
            shifted = widths * 1.04**index  # or bars would hide each other
            panel.errorbar(shifted, means, spreads, fmt="o-", color=f"C{index}", label=layer)
        if loss == "gram":
            ratios = [_expect_ratio(limits, int(width)) for width in widths]
            panel.plot(widths, ratios, "k--", label=f"{LAYERS[0]}, expected")
        panel.axhline(1, color="grey", lw=1)
        panel.set(title=f"{name}: loss drawn / limit", xlabel="channels", xscale="log")
        panel.set_xticks(widths, widths)
        panel.xaxis.minorticks_off()
    others[0].legend(title="bars: deviation between networks")
    return figure


def _draw_descents(records: Sequence[Record]) -> matplotlib.figure.Figure:
    """Losses at infinite width by number of filters; baselines as lines."""
    widths = list_values_of(filter_records(records, part="descent"), "width")
    figure = matplotlib.figure.Figure(figsize=(9, 4), layout="constrained")
    for (statistic, name), panel in zip(STATISTICS.items(), figure.subplots(1, 2), strict=True):
        for index, draw in enumerate(DRAWS):
            found = [_relative_losses(records, statistic, draw=draw, width=w) for w in widths]
            for width, values in zip(widths, found, strict=True):
                panel.plot([width] * len(values), values, ".", color=f"C{index}", alpha=0.3)
            means = [_geometric_mean(values) for values in found]
            panel.plot(widths, means, "o-", color=f"C{index}", label=f"{draw} filters")
        for (key, baseline), style in zip(BASELINES.items(), ("-", "--", "-."), strict=True):
            mean = _geometric_mean(_relative_losses(records, statistic, baseline=key))
            panel.axhline(mean, color="grey", ls=style, lw=1, label=baseline)
        panel.set(xscale="log", yscale="log", title=name, xlabel="filters")
        panel.set_xticks(widths, widths)
        panel.xaxis.minorticks_off()
    panel.figure.axes[0].set_ylabel("loss at infinite width / the start's")
    panel.legend()
    return figure


def _draw_panel(settings: Settings, records: Sequence[Record], folder: pathlib.Path) -> Image:
    """A row for each picture, a column for each way to make it."""
    descents = filter_records(records, part="descent")
    columns = [
        (statistic, draw, width)
        for statistic in STATISTICS
        for width in list_values_of(descents, "width")
        for draw in DRAWS
    ]
    pictures = load_pictures(settings, "image")
    rows = []
    for image, picture in pictures.items():
        place = {"part": "baseline", "image": image, "statistic": "gram"}
        made = [find_record(records, **place, baseline=name) for name in BASELINES]
        made += [
            find_record(
                records,
                part="descent", image=image, statistic=statistic, draw=draw, width=width, network=0,
            )
            for statistic, draw, width in columns
        ]  # fmt: skip
        rows.append([picture.image, *(load_result(folder, record) for record in made)])
    labels = [f"{STATISTICS[statistic]}, {width} {draw}" for statistic, draw, width in columns]
    return render_grid(
        rows,
        row_labels=list(pictures),
        column_labels=["the picture", *BASELINES.values(), *labels],
        cell=96,
    )


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say; pictures and networks are units, crossed."""
    found = filter_records(records, part="width")
    widest = max(list_values_of(found, "width"))
    sentences = [
        Sentence(
            f"The kernel of {layer} differs from infinite width's by width^-½.",
            fit_slopes(found, layer),
            units="pictures and networks",
            measure="slope of log(error of the kernel, root mean square over networks) over"
            " log(width); -½: within 0.1",
            groups=("widths",),
            below=-0.4,
            above=-0.6,
        )
        for layer in LAYERS
    ]
    sentences += [
        Sentence(
            f"With {widest} channels the loss by {name} in {LAYERS[0]} is that of infinite width.",
            tabulate_losses(settings, found, LAYERS[0], loss, widest),
            units="pictures and networks",
            measure="loss drawn / loss at infinite width; the same: within 15 %",
            groups=("drawn", "infinite width"),
            below=1.15,
            above=0.85,
        )
        for loss, name in LOSSES.items()
    ]
    sentences += [
        Sentence(
            f"By {name}, {width} filters redrawn at each step end nearer to the texture, at"
            " infinite width, than as many fixed ones.",
            compare_draws(records, statistic, width),
            units="pictures and networks",
            measure="log(loss at infinite width with redrawn filters / with fixed ones)",
            groups=DRAWS,
            below=0.0,
        )
        for statistic, name in STATISTICS.items()
        for width in list_values_of(filter_records(records, part="descent"), "width")
    ]
    return judge_together("infinite width", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
