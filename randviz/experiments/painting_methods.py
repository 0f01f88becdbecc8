"""How to paint by random filters: what each choice of the method is worth, and its rivals.

Claim: means of random features, drawn anew at each step, bring a photograph nearer to a painting
than the paper's method does, and than Gatys' method with a trained network, at equal nearness to
the photograph.
Expect: a panel of each photograph, with a row for each painting and a column for each variant; and
table.md, by judges that took part in no descent: patches of sizes that are not matched and, with
--trained_weights, features of the trained VGG-19 (Gatys' method descends on these itself). At 256
pixels about half a minute a picture on two cores.

Example:
  python -m randviz.experiments.painting_methods --variants=filters,relu --image_size=128
"""

import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

from randviz.commands.inputs import make_statistics_key
from randviz.commands.trials import (
    TRAINED,
    bind_network,
    choose_networks,
    describe_inputs,
    filter_records,
    find_record,
    find_untrained,
    identify_weights,
    list_values_of,
    load_pictures,
    load_result,
    picture_path,
)
from randviz.descent.descent import minimize
from randviz.experiments import gatys
from randviz.experiments.claims import Claim, Sentence, judge_together
from randviz.experiments.figure import FigureSettings
from randviz.experiments.painting_judges import JUDGES, STYLE_JUDGES, make_judge
from randviz.experiments.stylization import PRINTED_WEIGHTS, load_pair
from randviz.host.charts import format_markdown
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import run_module
from randviz.networks.network import IMAGENET_MEAN
from randviz.objectives.statistics.random_features import CosineMeans, ThresholdMeans
from randviz.objectives.statistics.sliced_wasserstein import SlicedWasserstein
from randviz.tasks.painting import Plan, plan_painting
from randviz.tasks.style import STYLE_LAYERS, Style
from randviz.types import Image, UserError

describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of the comparison."""

    network: str = "vgg19"
    square: bool = True
    image_size: int = 256
    num_steps: int = setting(
        300, "Steps of the rivals; random filters have their own.", lower_bound=1
    )
    content_image: tuple[str, ...] = setting(
        ("columns", "bridge"), "The photographs: paths or samples."
    )
    style_image: tuple[str, ...] = setting(
        ("starry_night", "woman_with_a_hat"), "The paintings: paths or samples."
    )
    variants: tuple[str, ...] = setting(
        (), "Which are made, all if not given; those with a trained network need its weights."
    )
    out_dir: str = "out/painting_methods"


def _with_source(plan: Plan, **options: object) -> Plan:
    source = plan.descent.source.replace(**options)
    layers = tuple(f"octave{number + 1}" for number in range(source.num_octaves))
    task = plan.descent.task.replace(style_layers=layers)
    return plan._replace(descent=plan.descent._replace(source=source, task=task))


def _with_statistic(plan: Plan, statistic: object) -> Plan:
    task = plan.descent.task.replace(style_statistic=statistic)
    return plan._replace(descent=plan.descent._replace(task=task))


def _with_solver(plan: Plan, **options: object) -> Plan:
    solver = dataclasses.replace(plan.descent.solver, **options)
    return plan._replace(descent=plan.descent._replace(solver=solver))


def _scale_steps(plan: Plan, factor: float) -> Plan:
    steps = tuple(round(factor * count) for count in plan.schedule.steps)
    return plan._replace(schedule=dataclasses.replace(plan.schedule, steps=steps))


# What is changed of the method's plan; more filters take fewer steps and the same time.
FILTER_VARIANTS: dict[str, Callable[[Plan], Plan]] = {
    "filters": lambda plan: plan,
    "one octave": lambda plan: _with_source(plan, num_octaves=1),
    "three octaves": lambda plan: _with_source(plan, num_octaves=3),
    "no envelopes": lambda plan: _with_source(plan, narrowest=1e3, widest=2e3),
    "32 filters": lambda plan: _scale_steps(_with_source(plan, num_filters=32), 0.5),
    "8 filters": lambda plan: _scale_steps(_with_source(plan, num_filters=8), 2),
    "half the steps": lambda plan: _scale_steps(plan, 0.5),
    "relu": lambda plan: _with_statistic(plan, ThresholdMeans("absolute", "relu", num_features=4)),
    "cosines": lambda plan: _with_statistic(plan, CosineMeans("absolute", num_features=4)),
    "sorted": lambda plan: _with_statistic(plan, SlicedWasserstein("absolute")),
    "squared distance": lambda plan: _with_statistic(plan, ThresholdMeans(num_features=4)),
    "no average": lambda plan: _with_solver(plan, average=0.0),
}
STRENGTHS = {"filters 0.3": 0.3, "filters 0.4": 0.4, "filters 0.6": 0.6, "filters 0.7": 0.7}
# By how much the style counts more than with Gatys' constants.
GATYS = {"gatys": 1.0, "gatys ×30": 30.0, "gatys ×300": 300.0}
_CELL = 160  # pixels of a picture in a panel, which has dozens
PAPER = "paper"
PRINTED = "paper as printed"
VARIANTS = (*FILTER_VARIANTS, *STRENGTHS, PAPER, PRINTED, *GATYS)


def list_trials(settings: Settings) -> list[Trial]:
    """Each photograph in each style, by each variant.

    As the paper prints its constants, each photograph in one style: nothing of it is to be seen.
    """
    wanted = settings.variants or VARIANTS
    unknown = [name for name in wanted if name not in VARIANTS]
    if unknown:
        raise UserError(f"--variants names {unknown[0]!r}; it has {', '.join(VARIANTS)}.")
    if TRAINED not in choose_networks(settings):
        wanted = [name for name in wanted if name not in GATYS]
    paintings = list(load_pictures(settings, "style_image"))
    return [
        {"content": content, "style": painting, "variant": variant}
        for variant in wanted
        for row, content in enumerate(load_pictures(settings, "content_image"))
        for column, painting in enumerate(paintings)
        if variant != PRINTED or column == row % len(paintings)
    ]


def _paint(settings: Settings, trial: Trial) -> Image:
    content, painting = load_pair(settings, trial)
    variant = trial["variant"]
    if variant in FILTER_VARIANTS or variant in STRENGTHS:
        key = make_statistics_key(settings.seed)
        options = {"strength": STRENGTHS[variant]} if variant in STRENGTHS else {}
        plan = plan_painting(key, content, [painting], **options)
        return FILTER_VARIANTS.get(variant, lambda plan: plan)(plan).run().image
    label = TRAINED if variant in GATYS else find_untrained(settings).label
    extractor = bind_network(settings, label, STYLE_LAYERS[-1], IMAGENET_MEAN)
    if variant in GATYS:
        objective = gatys.make_objective(extractor, content, painting, factor=GATYS[variant])
    else:
        weights = PRINTED_WEIGHTS if variant == PRINTED else {}
        objective = Style(**weights).of(extractor, content, painting)
    return minimize(objective, content, num_steps=settings.num_steps).image


def is_timed(trial: Trial) -> bool:
    """Whether a trial measures time: all do."""
    return True


def measure(settings: Settings, trial: Trial) -> Record:
    """Paints one picture and asks the judges."""
    content, painting = load_pair(settings, trial)
    began = time.monotonic()
    image = np.clip(np.asarray(_paint(settings, trial)), 0, 1)
    seconds = time.monotonic() - began
    save_image(picture_path(settings.out_dir, trial), image)
    record: Record = {"seconds": round(seconds, 1)}
    trained = None
    if TRAINED in choose_networks(settings):
        trained = bind_network(settings, TRAINED, STYLE_LAYERS[-1], IMAGENET_MEAN)
        record |= identify_weights(settings, TRAINED)
    return record | make_judge(content, painting, trained)(image)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws a panel of each photograph and writes the table of means over pairs."""
    variants = list_values_of(records, "variant")
    paintings = load_pictures(settings, "style_image")
    for content, photograph in load_pictures(settings, "content_image").items():
        pictures = []
        for painting, picture in paintings.items():
            pair = {"content": content, "style": painting}
            found = [find_record(records, **pair, variant=variant) for variant in variants]
            made = (load_result(folder, record) for record in found)
            pictures.append([photograph.image, picture.image, *made])
        labels = ["photograph", "painting", *variants]
        panel = render_grid(pictures, column_labels=labels, cell=min(settings.image_size, _CELL))
        save_image(folder / f"panel_{content}.jpg", panel, quality=80)
    lines = []
    for variant in variants:
        own = filter_records(records, variant=variant)
        means = (
            f"{np.mean([record[judge] for record in own]):.3f}" if judge in own[0] else ""
            for judge in JUDGES
        )
        seconds = f"{np.min([record['seconds'] for record in own]):.0f}"
        lines.append([variant, len(own), *means, seconds])
    table = format_markdown(["variant", "pairs", *JUDGES, "fastest, s"], lines)
    write_text(folder / "table.md", table + "\n")


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say; units are photographs and paintings, crossed."""
    sentences = []
    rivals = [name for name in (PAPER, *GATYS) if filter_records(records, variant=name)]
    if not filter_records(records, variant="filters"):
        return []
    for rival in rivals:
        for measure in (name for name in STYLE_JUDGES if name in records[0]):
            for nearness in (name for name in ("content", "edges") if name in records[0]):
                table = _compare_at_equal_nearness(records, rival, measure, nearness)
                sentences.append(
                    Sentence(
                        f"At equal {nearness}, random filters come nearer to the painting than"
                        f" {rival}.",
                        table,
                        units="photographs and paintings",
                        measure=f"log({measure} of random filters / of {rival})",
                        groups=("filters", rival),
                        below=0.0,
                    )
                )
    return judge_together("painting_methods", sentences)


def _compare_at_equal_nearness(
    records: list[Record], rival: str, measure: str, nearness: str
) -> np.ndarray:
    """log(distance by random filters / by the rival), [photographs, paintings].

    The distance of random filters is interpolated between strengths to the rival's nearness to the
    photograph. At strength 0 it is the photograph's own, 1. A rival farther from the photograph
    than all strengths is compared with the strongest, which is to the rival's advantage.
    """
    contents, paintings = (list_values_of(records, name) for name in ("content", "style"))
    table = np.empty((len(contents), len(paintings)))
    for place in np.ndindex(table.shape):
        pair = {"content": contents[place[0]], "style": paintings[place[1]]}
        points = [(0.0 if nearness == "content" else 1.0, 1.0)]
        for variant in ("filters", *STRENGTHS):
            found = find_record(records, **pair, variant=variant)
            if found is not None:
                points.append((found[nearness], found[measure]))
        theirs = find_record(records, **pair, variant=rival)
        places, distances = zip(*sorted(points), strict=True)
        ours = np.exp(np.interp(theirs[nearness], places, np.log(distances)))
        table[place] = np.log(ours / theirs[measure])
    return table


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
