"""The reading table: ATen operator → row. Everything that is not listed is read as opaque."""

from __future__ import annotations

from collections.abc import Mapping

from stabilize.frontends.fx_call import Row
from stabilize.frontends.fx_rows_index import INDEX_ROWS
from stabilize.frontends.fx_rows_layout import LAYOUT_ROWS
from stabilize.frontends.fx_rows_math import MATH_ROWS
from stabilize.frontends.fx_rows_reduce import REDUCE_ROWS

READ: Mapping[str, Row] = {**MATH_ROWS, **REDUCE_ROWS, **LAYOUT_ROWS, **INDEX_ROWS}

#: Operators whose result is always a view of their only tensor argument: it changes when that memory is written.
VIEWS = frozenset(
    (
        "view.default", "alias.default", "detach.default", "select.int", "slice.Tensor", "narrow.default",
        "unsqueeze.default", "squeeze.default", "squeeze.dim", "squeeze.dims", "transpose.int", "permute.default",
        "t.default", "mT.default", "numpy_T.default", "expand.default", "swapaxes.default", "movedim.int",
    )
)  # fmt: skip

#: Operators whose result may be their argument or a view of it although their schema does not say so.
MAYBE_VIEWS = frozenset(("type_as.default", "einsum.default", "dropout.default", "feature_dropout.default",
                         "alpha_dropout.default", "sum_to_size.default", "broadcast_tensors.default",
        "_unsafe_view.default"))  # fmt: skip

#: Prefixes of composite operators that always return memory of their own.
FRESH = (
    "batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "conv", "avg_pool", "max_pool",
    "adaptive_", "upsample", "lstm", "gru", "rnn", "embedding", "kl_div", "mse_loss", "l1_loss", "huber_loss",
    "smooth_l1", "margin_", "cosine_", "triplet_", "ctc_loss", "poisson_nll", "hinge_", "binary_cross",
    "pairwise_", "linalg_", "norm", "std", "var", "floor_divide", "outer", "kron", "isfinite", "cdist", "gumbel",
    "pixel_", "multilabel", "soft_margin", "prelu", "selu", "celu", "trace", "nan", "quantile", "median",
)  # fmt: skip

#: Assertions about tensors: they compute nothing and do not keep a value alive.
ASSERTIONS = frozenset(("_assert_tensor_metadata.default",))


def functional_key(key: str) -> str:
    """The out-of-place operator of an in-place one: `div_.Tensor` → `div.Tensor`."""
    name, _, overload = key.partition(".")
    return f"{name.removesuffix('_')}.{overload}"
