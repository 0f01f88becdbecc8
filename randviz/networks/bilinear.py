"""Bilinear functions that define how they are transposed, in both modes of differentiation.

JAX transposes a function equation by equation, and the result is not always the fastest way to
compute an input gradient. `jax.custom_vjp` replaces it but excludes forward mode, and with it
`jvp` and Hessian-vector products. A primitive of our own excludes nothing: its tangent is itself,
its transpose is what we say, and under `vmap` it is the same primitive on batches.

References:
  JAX documentation, "How JAX primitives work" (docs.jax.dev/en/latest/jax-primitives.html).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from randviz.types import Array


def define_bilinear(
    name: str,
    *,
    compute: Callable[..., Array],
    reference: Callable[..., Array],
    transpose: Callable[..., Array],
) -> Callable[..., Array]:
    """Makes a function of x and y, linear in each, that can be differentiated to any order.

    Args:
      name: what the function is called in a jaxpr.
      compute: (x, y, prepared, **options) → array, the value. It may ignore y and use what was
        prepared from it.
      reference: (x, y, **options) → array, the same value in JAX's own operations; it gives the
        derivatives with respect to y.
      transpose: (cotangent, y, prepared, shape=..., **options) → the cotangent of x, of that
        shape. Where it calls the function being defined, all further derivatives do too.

    Returns:
      (x, y, prepared, **options) → array. `prepared` is a pytree of arrays computed from y; no
      derivative goes through it, because those with respect to y are complete without it. Options
      are hashable. Under `vmap` all three functions are vmapped.
    """
    primitive = Primitive(name)

    def apply(x: Array, y: Array, prepared: Any = (), **options: Any) -> Array:
        leaves, tree = jax.tree.flatten(prepared)
        return primitive.bind(x, y, *leaves, tree=tree, options=tuple(options.items()), axes=())

    # `axes` holds in_axes of each vmap that the function is under, the innermost first.
    def vmapped(function, axes):
        for in_axes in axes:
            function = jax.vmap(function, in_axes)
        return function

    def compute_flat(x, y, *leaves, tree, options, axes):
        own = lambda x, y, *leaves: compute(x, y, tree.unflatten(leaves), **dict(options))
        return vmapped(own, axes)(x, y, *leaves)

    def refer(x, y, *leaves, tree, options, axes):
        own = lambda x, y, *leaves: reference(x, y, **dict(options))
        return vmapped(own, axes)(x, y, *leaves)

    def differentiate(primals, tangents, **params):
        x, y, *leaves = primals
        x_tangent, y_tangent, *_ = tangents
        value, terms = primitive.bind(*primals, **params), []
        if type(x_tangent) is not ad.Zero:
            terms.append(primitive.bind(x_tangent, y, *leaves, **params))
        if type(y_tangent) is not ad.Zero:
            terms.append(refer(x, y_tangent, *leaves, **params))
        return value, sum(terms) if terms else jnp.zeros_like(value)

    def transpose_flat(cotangent, x, y, *leaves, tree, options, axes):
        if type(cotangent) is ad.Zero:
            return [None] * (2 + len(leaves))
        if not ad.is_undefined_primal(x):
            of_y = lambda y: refer(x, y, *leaves, tree=tree, options=options, axes=axes)
            (y_cotangent,) = jax.linear_transpose(of_y, y.aval)(cotangent)
            return [None, y_cotangent, *[None] * len(leaves)]
        batches = sum(in_axes[0] is not None for in_axes in axes)
        own = lambda cotangent, y, *leaves: transpose(
            cotangent, y, tree.unflatten(leaves), shape=x.aval.shape[batches:], **dict(options)
        )
        found = vmapped(own, [(0, *in_axes[1:]) for in_axes in axes])(cotangent, y, *leaves)
        # One x for a whole batch of results gets the sum of their cotangents.
        shared = [i for i, in_axes in enumerate(reversed(axes)) if in_axes[0] is None]
        return [jnp.sum(found, tuple(shared)) if shared else found, *[None] * (1 + len(leaves))]

    def batch(operands, dims, *, axes, **params):
        operands = [
            operand if dim is None else jnp.moveaxis(operand, dim, 0)
            for operand, dim in zip(operands, dims, strict=True)
        ]
        in_axes = tuple(None if dim is None else 0 for dim in dims)
        return primitive.bind(*operands, axes=(*axes, in_axes), **params), 0

    def find_type(*avals, **params):
        return jax.make_jaxpr(functools.partial(refer, **params))(*avals).out_avals[0]

    primitive.def_impl(jax.jit(compute_flat, static_argnames=("tree", "options", "axes")))
    primitive.def_abstract_eval(find_type)
    ad.primitive_jvps[primitive] = differentiate
    ad.primitive_transposes[primitive] = transpose_flat
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(compute_flat, multiple_results=False))
    return apply
