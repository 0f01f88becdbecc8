"""Why an earlier attempt with random weights failed: what each choice of this program is worth.

Claim: with a weight of one for every layer, a random network's texture is what its first layer asks
for alone, because at σ = 0.015 the layers' natural weights μ lie sixteen orders of magnitude apart;
the automatic ω and μ make up for it, and for σ itself. The input's offset decides inversion from
deep layers, and how "absolute mean" is computed matters little. ω does not matter to one layer
alone, and average pooling serves inversion better than maximum pooling.
Expect: panel.jpg, textures with automatic μ and with μ = 1; spans.png, ω and μ over layers; and
table.md.

Example:
  python -m randviz.experiments.ablation --image_size=48 --num_steps=60
"""

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from randviz.commands.inputs import make_keys
from randviz.commands.network_choice import read_offset
from randviz.commands.trials import (
    compare_with_picture,
    descend_trial,
    describe_inputs,
    filter_records,
    find_record,
    find_untrained,
    load_pictures,
    load_result,
    make_noise,
)
from randviz.experiments.claims import Claim, Sentence, judge_together, log_ratio, pair_records
from randviz.experiments.figure import PICTURES, TEXTURES, FigureSettings
from randviz.experiments.held_out import measure_texture_error
from randviz.host.charts import format_markdown, save_figure
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.networks.extractor import Extractor
from randviz.networks.network import PAPER_SCALE, Network
from randviz.networks.rescaling import rescale_weights
from randviz.networks.weights import random_weights
from randviz.objectives.layer_weights import GRADIENT_REDUCTIONS, layer_weights
from randviz.objectives.objective import Objective
from randviz.objectives.statistics.features import Features
from randviz.objectives.statistics.gram import Gram
from randviz.tasks import texture
from randviz.tasks.inversion import NOISE_STD, Inversion
from randviz.tasks.texture import Texture
from randviz.types import Image, Params

OFFSETS = ("0", "mean")
SCALES = (0.001, PAPER_SCALE, 0.1, 1.0)

describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of the ablation."""

    network: str = "vgg19"
    image: tuple[str, ...] = setting(
        PICTURES,
        "The pictures inverted: paths or samples, with commas between.",
    )
    texture_image: tuple[str, ...] = setting(
        TEXTURES,
        "The textures: paths or samples, with commas between.",
    )
    layer: str = setting("pool4", "The layer inverted.")
    texture_layers: tuple[str, ...] = setting(
        texture.LAYERS, "The layers whose Gram matrices are matched."
    )
    span_layers: tuple[str, ...] = setting(
        ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"), "Layers whose ω and μ are shown."
    )
    num_networks: int = setting(8, "Networks whose ω and μ are shown.", lower_bound=1)
    out_dir: str = "out/ablation"


def list_trials(settings: Settings) -> list[Trial]:
    """All parts, each with places of its own."""
    images = list(load_pictures(settings, "image"))
    found: list[Trial] = [
        {"part": "mu", "image": name, "mu": mu}
        for name in load_pictures(settings, "texture_image")
        for mu in ("automatic", "one")
    ]
    found += [
        {"part": "offset", "image": name, "offset": offset} for offset in OFFSETS for name in images
    ]
    # Beside the un-centred network with average pooling and ω.
    found += [{"part": "pooling", "image": name, "pooling": "max"} for name in images]
    found += [{"part": "omega", "image": name, "weighting": "none"} for name in images]
    found += [
        {"part": "scale", "image": name, "scale": scale} for name in images for scale in SCALES
    ]
    return found + [{"part": "spans", "network": number} for number in range(settings.num_networks)]


@functools.lru_cache(maxsize=2)
def _draw(settings: Settings, number: int, scale: float, last_layer: str) -> Params:
    key = jax.random.fold_in(make_keys(settings.seed)[0], number)
    return random_weights(key, _network(settings, "0"), scale=scale, last_layer=last_layer)


def _network(settings: Settings, offset: str) -> Network:
    network = find_untrained(settings).network
    return dataclasses.replace(network, input_offset=read_offset(offset))


def measure(settings: Settings, trial: Trial) -> Record:
    """Measures one trial of its part."""
    parts = {
        "mu": _measure_texture,
        "offset": _measure_inversion,
        "pooling": _measure_inversion,
        "omega": _measure_inversion,
        "scale": _measure_inversion,
        "spans": _measure_spans,
    }
    return parts[trial["part"]](settings, trial)


def weigh_equally(source: Extractor, objective: Objective) -> Objective:
    """The same texture with μ = 1 in every layer, at the scale of the weights as drawn.

    Args:
      source: the extractor before it was prepared.
      objective: made of it.
    """
    exponents = source.scale_exponents(objective.extractor)
    part = objective.parts["style"]
    terms = tuple(
        term.replace(weight=jnp.ldexp(1.0, -term.statistic.degree * exponents[term.layer]))
        for term in part.terms
    )
    return objective.replace(parts={**objective.parts, "style": part.replace(terms=terms)})


def _measure_texture(settings: Settings, trial: Trial) -> Record:
    source = load_pictures(settings, "texture_image")[trial["image"]].image
    network = _network(settings, "mean")
    layers = network.canonical_names(settings.texture_layers)
    extractor = network.bind(_draw(settings, 0, settings.scale, layers[-1]))

    def make_objective() -> Objective:
        objective = Texture(layers).of(extractor, source)
        return weigh_equally(extractor, objective) if trial["mu"] == "one" else objective

    start = make_noise(settings, source, texture.NOISE_STD)
    image, metadata = descend_trial(settings, trial, make_objective, start)
    return {"error": measure_texture_error(image, source), **metadata}


def _make_inversion(settings: Settings, trial: Trial) -> tuple[Callable[[], Objective], Image]:
    picture = load_pictures(settings, "image")[trial["image"]].image
    params = _draw(settings, 0, trial.get("scale", settings.scale), settings.layer)
    network = _network(settings, trial.get("offset", "0"))
    network = dataclasses.replace(network, pooling=trial.get("pooling", network.pooling))
    task = Inversion(settings.layer, weighting=trial.get("weighting", "omega"))
    make = functools.partial(task.of, network.bind(params), picture)
    return make, make_noise(settings, picture, NOISE_STD)


def _measure_inversion(settings: Settings, trial: Trial) -> Record:
    image, metadata = descend_trial(settings, trial, *_make_inversion(settings, trial))
    return {**compare_with_picture(settings, {**trial, "weights": "random"}, image), **metadata}


def _measure_spans(settings: Settings, trial: Trial) -> Record:
    """ω and μ of one network as the paper states them, both offsets and both reductions."""
    image = next(iter(load_pictures(settings, "image").values())).image
    layers = _network(settings, "0").canonical_names(settings.span_layers)
    params = _draw(settings, trial["network"], settings.scale, layers[-1])
    found: Record = {}
    for offset in OFFSETS:
        network = _network(settings, offset)
        normalized, exponents = rescale_weights(network, params, layers[-1])
        for name, statistic in (("omega", Features()), ("mu", Gram())):
            for reduction in GRADIENT_REDUCTIONS:
                weights = layer_weights(
                    network.bind(normalized),
                    image,
                    dict.fromkeys(layers, statistic),
                    gradient_reduction=reduction,
                )
                found[f"{name}, {offset}, {reduction}"] = {
                    layer: math.ldexp(float(weight), statistic.degree * int(exponents[layer]))
                    for layer, weight in weights.items()
                }
    return found


def workload(settings: Settings) -> Workload:
    """An inversion; the textures are much alike."""
    descents = [trial for trial in list_trials(settings) if trial["part"] != "spans"]
    image = next(iter(load_pictures(settings, "image")))
    make, start = _make_inversion(settings, {"image": image})
    return Workload(make, start, len(descents) * settings.num_steps)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws textures, spans and the table."""
    sources = load_pictures(settings, "texture_image")
    pictures: list[list[Image | None]] = [[source.image for source in sources.values()]]
    captions: list[list[str | None]] = [[""] * len(sources)]
    for mu in ("automatic", "one"):
        found = [find_record(records, part="mu", image=name, mu=mu) for name in sources]
        pictures.append([load_result(folder, record) for record in found])
        captions.append([record and f"error {record['error']:.3f}" for record in found])
    panel = render_grid(
        pictures,
        row_labels=["the source", "μ automatic", "μ = 1"],
        column_labels=list(sources),
        captions=captions,
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)
    save_figure(folder / "spans.png", _draw_spans(filter_records(records, part="spans")))
    write_text(folder / "table.md", _format_table(settings, records) + "\n")


def _draw_spans(records: Sequence[Record]) -> matplotlib.figure.Figure:
    """ω, μ, and the one gradient reduction over the other, by layer; a point for each network."""
    figure = matplotlib.figure.Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for index, offset in enumerate(OFFSETS):
        for axis, factor in zip(axes, ("omega", "mu"), strict=False):
            for record in records:
                values = record[f"{factor}, {offset}, mean_abs"]
                axis.semilogy(list(values), list(values.values()), ".-", color=f"C{index}", lw=0.5)
            axis.set_title({"omega": "ω", "mu": "μ"}[factor] + f" at σ = {PAPER_SCALE}")
        for record in records:
            ratios = _ratio_of_reductions(record, offset)
            axes[2].semilogy(list(ratios), list(ratios.values()), ".-", color=f"C{index}", lw=0.5)
        axes[2].plot([], [], color=f"C{index}", label=f"offset {offset}")
    for axis in axes:
        axis.tick_params("x", rotation=60)
    axes[2].set_title("|mean g| / mean |g|, texture loss")
    axes[2].legend()
    return figure


def _ratio_of_reductions(record: Record, offset: str) -> dict[str, float]:
    """|mean g| / mean |g| by layer; weights are their reciprocals."""
    ours, letter = (record[f"mu, {offset}, {reduction}"] for reduction in GRADIENT_REDUCTIONS)
    return {layer: ours[layer] / letter[layer] for layer in ours}


def _span(record: Record, factor: str) -> float:
    """Orders of magnitude between the largest and the smallest weight of the layers."""
    values = record[f"{factor}, mean, mean_abs"].values()
    return math.log10(max(values) / min(values))


def _format_table(settings: Settings, records: Sequence[Record]) -> str:
    lines = []
    for record in filter_records(records, part="offset"):
        caption = f"{settings.layer}, offset {record['trial']['offset']}"
        lines.append([caption, record["trial"]["image"], *_write(record)])
    for part in ("pooling", "omega"):
        for record in filter_records(records, part=part):
            *_, (name, value) = record["trial"].items()
            caption = f"{settings.layer}, offset 0, {name} {value}"
            lines.append([caption, record["trial"]["image"], *_write(record)])
    for record in filter_records(records, part="scale"):
        caption = f"{settings.layer}, σ = {record['trial']['scale']:g}"
        lines.append([caption, record["trial"]["image"], *_write(record)])
    table = format_markdown(["inversion from", "picture", "distance", "PSNR, dB"], lines)
    networks = filter_records(records, part="spans")
    spans = [
        [factor, f"{np.mean([_span(record, factor) for record in networks]):.1f}"]
        for factor in ("omega", "mu")
    ]
    header = ["factor", f"orders of magnitude over {', '.join(settings.span_layers)}"]
    return f"{table}\n\n{format_markdown(header, spans)}"


def _write(record: Record) -> list[str]:
    return [f"{record['distance']:.2f}", f"{record['psnr']:.2f}"]


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say; a texture, a picture or a network is a unit."""
    textures = pair_records(
        filter_records(records, part="mu"),
        "mu",
        ("automatic", "one"),
        measure=lambda record: record["error"],
    )
    distance = lambda record: record["distance"]
    offsets = pair_records(
        filter_records(records, part="offset"), "offset", OFFSETS, measure=distance
    )
    # Pictures are the units: the scales were chosen, and reconstructions of one picture are alike.
    scales = [
        log_ratio(pair_records(records, "scale", (scale, PAPER_SCALE), measure=distance))
        for scale in SCALES
        if scale != PAPER_SCALE
    ]

    def compare_with_plain(part: str) -> list[float]:
        """log(distance in another part / of the plain network), by picture."""
        pairs = [
            (
                record,
                find_record(records, part="offset", image=record["trial"]["image"], offset="0"),
            )
            for record in filter_records(records, part=part)
        ]
        return [float(log_ratio([(a["distance"], b["distance"])])[0]) for a, b in pairs if b]

    spans = filter_records(records, part="spans")
    ratios = {
        offset: [
            float(np.mean(list(_ratio_of_reductions(record, offset).values()))) for record in spans
        ]
        for offset in OFFSETS
    }
    sentences = [
        Sentence(
            "Automatic layer weights bring textures nearer to their sources than weights of one.",
            log_ratio(textures),
            units="textures",
            measure="log(error in another network with automatic μ / with μ = 1)",
            groups=("μ automatic", "μ = 1"),
            below=0.0,
        ),
        Sentence(
            "The layers' automatic μ lie more than ten orders of magnitude apart.",
            [_span(record, "mu") for record in spans],
            units="networks",
            measure="log10 of the largest over the smallest μ of a network, centred input",
            groups=settings.span_layers,
            above=10.0,
        ),
        Sentence(
            f"From {settings.layer} inversion comes nearer on un-centred than on centred input.",
            log_ratio(offsets),
            units="pictures",
            measure="log(distance with offset 0 / with the ImageNet mean)",
            groups=("offset 0", "offset mean"),
            below=0.0,
        ),
        Sentence(
            "On un-centred input |mean g| and mean |g| are the same within a fifth.",
            ratios["0"],
            units="networks",
            measure="|mean g| / mean |g| of the texture loss, mean over layers, by network",
            groups=("abs_mean", "mean_abs"),
            above=0.8,
        ),
        Sentence(
            "On centred input |mean g| is less than half of mean |g|.",
            ratios["mean"],
            units="networks",
            measure="|mean g| / mean |g| of the texture loss, mean over layers, by network",
            groups=("abs_mean", "mean_abs"),
            below=0.5,
        ),
        Sentence(
            "σ does not matter: from 0.001 to 1 the reconstruction is as near.",
            np.max(np.abs(scales), axis=0),
            units="pictures",
            measure=f"|log(distance at σ / at σ = {PAPER_SCALE})| of the σ where it is largest, by"
            " picture; as near: within 5 %",
            groups=tuple(f"σ = {scale:g}" for scale in SCALES),
            below=math.log(1.05),
            post_hoc=True,
        ),
        Sentence(
            "The reconstruction from the activations of a single layer is not affected by ω.",
            compare_with_plain("omega"),
            units="pictures",
            measure="log(distance without ω / with it); not affected: within 5 %",
            groups=("weight 1", "ω"),
            below=math.log(1.05),
            above=-math.log(1.05),
        ),
        Sentence(
            "Average pooling lets representations be inverted better than maximum pooling.",
            compare_with_plain("pooling"),
            units="pictures",
            measure="log(distance with maximum pooling / with average pooling)",
            groups=("maximum pooling", "average pooling"),
            above=0.0,
        ),
    ]
    return judge_together("ablation", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
