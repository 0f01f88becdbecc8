"""Objectives written again in PyTorch, as one would there, to compare speeds with.

PyTorch is imported where it is needed: it is large, and nothing else needs it.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from randviz.networks.network import BoundNetwork
from randviz.objectives.objective import Objective, Term
from randviz.objectives.statistics.features import Features
from randviz.objectives.statistics.gram import Gram
from randviz.types import Array, UserError

Evaluate = Callable[[Any], tuple[Any, Any]]  # image tensor → loss, gradient


def load_torch() -> ModuleType:
    """PyTorch, set to use as many threads as XLA does.

    Raises:
      UserError: if it is not installed.
    """
    try:
        import torch  # here, because it is large and nothing else needs it
    except ImportError as error:
        raise UserError(
            "the comparison needs PyTorch, which is not installed; run pip install"
            " 'randviz[bench]', or measure without it with --parts=start."
        ) from error
    torch.set_num_threads(count_threads())
    return torch


def count_threads() -> int:
    """How many cores this process may use; XLA uses them all."""
    return len(os.sched_getaffinity(0))


def make_reference(objective: Objective, *, channels_last: bool = False) -> Callable[[Any], Any]:
    """Writes an objective again in PyTorch, with the same numbers.

    Terms of weight zero are left out, as one would by hand.

    Args:
      objective: of features, Gram matrices and the total variation, on convolutional layers of a
        network of this package with average pooling and zero padding.
      channels_last: whether kernels and maps are laid out like that in memory.

    Returns:
      [1, 3, H, W] → scalar, both tensors.
    """
    torch = load_torch()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    kernel_of = lambda kernel: _to_tensor(kernel, (3, 2, 0, 1)).contiguous(memory_format=layout)
    extractor = objective.extractor
    weights = {
        layer: (kernel_of(leaves["kernel"]), _to_tensor(leaves["bias"]))
        for layer, leaves in extractor.params.items()
    }
    terms = _list_terms(objective, Features)
    contents = {layer: (weight, to_batch(target)) for layer, weight, target in terms}
    terms = _list_terms(objective, Gram)
    grams = {layer: (weight, _to_tensor(target)) for layer, weight, target in terms}
    tv_weight = float(objective.parts["tv"].weight) if "tv" in objective.parts else 0.0
    offset = np.broadcast_to(np.float32(extractor.network.input_offset), 3)
    offset = _to_tensor(offset.reshape(1, 3, 1, 1))

    def reference(image):
        x = 255 * image - offset
        x = x if extractor.network.channel_order == "RGB" else x.flip(1)
        x = x.contiguous(memory_format=layout)
        maps = _compute_features(torch, extractor, weights, x, {*contents, *grams})
        loss = 0
        for layer, (weight, target) in contents.items():
            loss = loss + weight / 2 * (maps[layer] - target).square().mean()
        for layer, (weight, target) in grams.items():
            rows = maps[layer][0].flatten(1)
            gram = rows @ rows.T / rows.shape[1]
            loss = loss + weight / (4 * rows.shape[0] ** 2) * (gram - target).square().sum()
        if tv_weight:
            down, right = image[..., 1:, :] - image[..., :-1, :], image[..., 1:] - image[..., :-1]
            loss = loss + tv_weight * (down.square().sum() + right.square().sum())
        return loss

    return reference


def _list_terms(objective: Objective, kind: type) -> list[tuple[str, float, Array]]:
    """(layer, weight, target) of the terms that compare this kind of statistic."""
    return [
        (term.layer, float(part.weight * term.weight), term.target)
        for part in objective.parts.values()
        for term in part.terms
        if isinstance(term, Term) and isinstance(term.statistic, kind)
    ]


def _compute_features(
    torch: ModuleType,
    extractor: BoundNetwork,
    weights: Mapping[str, Any],
    x: Any,
    layers: set[str],
) -> dict[str, Any]:
    maps = {}
    for step in extractor.network.up_to(extractor.canonical_names(tuple(layers))[-1]):
        if step.name in weights:
            x = torch.nn.functional.conv2d(x, *weights[step.name], padding=step.padding).relu()
        else:
            x = torch.nn.functional.avg_pool2d(x, step.window_size, step.stride)
        if step.name in layers:
            maps[step.name] = x
    return maps


def _to_tensor(array: Array, axes: Sequence[int] | None = None) -> Any:
    array = np.asarray(array)
    return load_torch().tensor(array if axes is None else array.transpose(axes))


def to_batch(image: Array) -> Any:
    """[H, W, C] → [1, C, H, W]."""
    return _to_tensor(image, (2, 0, 1))[None].contiguous()


def _with_gradient(loss: Callable[[Any], Any]) -> Evaluate:
    torch = load_torch()

    def evaluate(image):
        image = image.detach().requires_grad_()
        value = loss(image)
        (gradient,) = torch.autograd.grad(value, image)
        return value.detach(), gradient.contiguous()

    return evaluate


class Enough(Exception):
    """A descent has got as far as was wanted."""


def descend_in_torch(
    evaluate: Evaluate,
    start: Any,
    *,
    watch: Callable[[Any, float], None],
    num_steps: int,
    line_search: str | None = None,
) -> None:
    """Descends with PyTorch's L-BFGS, until the watch raises `Enough` or the steps are used up.

    Args:
      evaluate: image → loss, gradient.
      start: [1, 3, H, W].
      watch: called after each evaluation with the image and its loss.
      num_steps: at most.
      line_search: None, or "strong_wolfe".
    """
    image = start.clone().requires_grad_()
    # With PyTorch's own memory, 100 steps. One call for all steps, because each call begins with an
    # evaluation of its own; and no tolerance, because a descent that stops early would not reach
    # the target.
    optimizer = load_torch().optim.LBFGS(
        [image],
        lr=1,
        max_iter=num_steps,
        max_eval=10**6,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn=line_search,
    )

    def closure():
        loss, image.grad = evaluate(image)
        watch(image, float(loss))
        return loss

    with contextlib.suppress(Enough):
        optimizer.step(closure)


def make_backends(objective: Objective, start: Any) -> tuple[dict[str, Evaluate], str | None]:
    """Makes PyTorch's backends of an objective.

    Args:
      objective: as for `make_reference`.
      start: [1, 3, H, W], at which all are evaluated once, so that they are compiled.

    Returns:
      {"eager", "channels_last" or "compile": image → loss, gradient}, and why "compile" is missing
      if it is.
    """
    torch = load_torch()
    torch.compiler.reset()  # or what was compiled for another size would be generalised to both
    reference = make_reference(objective)
    backends = {
        "eager": _with_gradient(reference),
        "channels_last": _with_gradient(make_reference(objective, channels_last=True)),
        "compile": _with_gradient(torch.compile(reference, dynamic=False)),
    }
    failure = None
    try:
        backends["compile"](start)
    except Exception as error:  # what is raised depends on what is missing: compiler, headers, ...
        failure = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        del backends["compile"]
    for evaluate in backends.values():
        evaluate(start)
    return backends, failure
