"""Objectives written again in PyTorch, as one would there, to compare speeds with.

PyTorch is imported where it is needed: it is large, and nothing else in the package needs it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from randviz.descent import lbfgs
from randviz.networks.layers import Conv
from randviz.networks.network import Network
from randviz.tasks.inversion import Inversion
from randviz.tasks.texture import Texture
from randviz.types import Array, UserError

Evaluate = Callable[[Any], tuple[Any, Any]]  # image tensor → loss, gradient


def load_torch() -> ModuleType:
    """PyTorch, told to use as many threads as XLA does.

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


def make_twin(objective: lbfgs.Objective, *, channels_last: bool = False) -> Callable[[Any], Any]:
    """Writes an objective again in PyTorch, with the same numbers.

    Terms of weight zero are left out, as one would by hand; so are an inversion's α-norm and powers
    of the total variation other than 2, which nothing here uses.

    Args:
      objective: an `Inversion`, a `Texture` or a `Style` of convolutional layers of a network with
        average pooling and zero padding.
      channels_last: whether kernels and maps are laid out like that in memory.

    Returns:
      [1, 3, H, W] → scalar, both tensors.
    """
    torch = load_torch()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    kernel_of = lambda kernel: _to_tensor(kernel, (3, 2, 0, 1)).contiguous(memory_format=layout)
    weights = {
        layer: (kernel_of(leaves["kernel"]), _to_tensor(leaves["bias"]))
        for layer, leaves in objective.params.items()
    }
    contents, grams = _list_terms(objective)
    tv_weight = float(getattr(objective, "tv_weight", 0))
    offset = np.broadcast_to(np.float32(objective.network.input_offset), 3)
    offset = _to_tensor(offset.reshape(1, 3, 1, 1))

    def twin(image):
        x = (255 * image - offset).contiguous(memory_format=layout)
        maps = _compute_features(torch, objective.network, weights, x, {*contents, *grams})
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

    return twin


def _list_terms(objective: lbfgs.Objective) -> tuple[dict[str, Any], dict[str, Any]]:
    """{layer: (weight, target)} of what compares features, and of what compares Gram matrices."""
    weigh = lambda weights, factor: {name: float(factor * w) for name, w in weights.items()}
    style, style_weights = {}, {}
    if isinstance(objective, Inversion):
        content = {objective.layer: objective.target}
        content_weights = {objective.layer: float(objective.layer_weight)}
    elif isinstance(objective, Texture):
        content, content_weights = {}, {}
        style, style_weights = objective.targets, weigh(objective.layer_weights, 1)
    else:
        content, style = objective.content_targets, objective.style_targets
        content_weights = weigh(objective.content_layer_weights, objective.content_weight)
        style_weights = weigh(objective.style_layer_weights, objective.style_weight)
    return (
        {name: (content_weights[name], to_batch(target)) for name, target in content.items()},
        {name: (style_weights[name], _to_tensor(target)) for name, target in style.items()},
    )


def _compute_features(
    torch: ModuleType, network: Network, weights: Mapping[str, Any], x: Any, layers: set[str]
) -> dict[str, Any]:
    maps = {}
    for step in network.up_to(max(layers, key=network.layer_names.index)):
        if isinstance(step, Conv):
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


def make_ways(objective: lbfgs.Objective, start: Any) -> tuple[dict[str, Evaluate], str | None]:
    """Makes PyTorch's ways to evaluate an objective.

    Args:
      objective: as for `make_twin`.
      start: [1, 3, H, W], at which all are evaluated once, so that they are compiled.

    Returns:
      {"eager", "channels_last" or "compile": image → loss, gradient}, and why "compile" is missing
      if it is.
    """
    torch = load_torch()
    torch.compiler.reset()  # or what was compiled for another size would be generalised to both
    twin = make_twin(objective)
    ways = {
        "eager": _with_gradient(twin),
        "channels_last": _with_gradient(make_twin(objective, channels_last=True)),
        "compile": _with_gradient(torch.compile(twin, dynamic=False)),
    }
    failure = None
    try:
        ways["compile"](start)
    except Exception as error:  # what is raised depends on what is missing: compiler, headers, ...
        failure = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        del ways["compile"]
    for evaluate in ways.values():
        evaluate(start)
    return ways, failure
