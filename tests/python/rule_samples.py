"""Sample calls of every target in the table of split rules: `SAMPLES[target]`.

A letter in a shape is a size, and any of them may be the batch. `f` makes floats, `p` positive
ones, `i` integers below a bound, `m` a mask, `n` a size argument, `rows` row numbers, `blocks` a
tensor in which each block of the first dimension holds all rows.
"""

from __future__ import annotations

import torch
from rule_arguments import END, Sample, blocks, call, counted, f, i, m, n, p, rows

SAMPLES: dict[str, list[Sample]] = {}


def add(names: str, *samples: Sample) -> None:
    """The samples of all named targets: "mul.Tensor" is aten.mul.Tensor, "abs" aten.abs.default."""
    for name in names.split():
        target = f"aten.{name}" if "." in name else f"aten.{name}.default"
        SAMPLES.setdefault(target, []).extend(samples)


# Pointwise.

ABC, HALF = f("a b c"), torch.float16
add(
    """abs neg sign reciprocal sqrt rsqrt square exp exp2 expm1 log log2 log1p sin cos tan tanh
    sigmoid erf floor ceil round trunc isnan isinf isfinite nan_to_num logical_not relu silu gelu
    mish softplus log_sigmoid leaky_relu elu hardtanh hardswish hardsigmoid zeros_like ones_like
    empty_like clone contiguous alias detach lift_fresh_copy lift_fresh""",
    call(ABC),
    call(p("a*4 b")),
)
add("abs relu clone zeros_like", call(blocks(2, "2*a c")))
add("bitwise_not", call(i("a b", 9)))
add("full_like", call(ABC, 2.5))
add("threshold", call(ABC, 0.1, 2.0))
add("clone contiguous alias detach", counted(rows("a")))
add("zeros_like", call(rows("a")))
add(
    """add.Tensor sub.Tensor mul.Tensor div.Tensor true_divide.Tensor rsub.Tensor remainder.Tensor
    fmod.Tensor floor_divide pow.Tensor_Tensor maximum minimum atan2 clamp_min.Tensor
    clamp_max.Tensor eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor logical_and
    logical_or logical_xor""",
    call(ABC, ABC),
    call(ABC, f("c")),
    call(f("b c"), ABC),
    call(ABC, f("a 1 c")),
    call(f("1 b 1"), ABC),
    call(ABC, f("")),
)
add("eq.Tensor lt.Tensor ge.Tensor", call(i("a b", 3), i("a b", 3)), call(i("a b", 3), rows("b")))
add("add.Tensor mul.Tensor", call(blocks(2, "2*a c"), blocks(2, "2*a c")))
add("add.Tensor", call(ABC, f("a b c"), alpha=2), counted(rows("a"), 0), call(rows("a"), 1))
add("sub.Tensor", counted(rows("a"), 0))
add(
    """add.Scalar sub.Scalar mul.Scalar div.Scalar rsub.Scalar remainder.Scalar fmod.Scalar
    floor_divide.Scalar pow.Tensor_Scalar clamp_min clamp_max eq.Scalar ne.Scalar lt.Scalar
    le.Scalar gt.Scalar ge.Scalar""",
    call(ABC, 1.5),
)
add("div.Tensor_mode", call(ABC, f("c"), rounding_mode="floor"))
add("div.Scalar_mode", call(ABC, 1.5, rounding_mode="trunc"))
add("pow.Scalar", call(1.5, ABC))
add("clamp", call(ABC, -0.5, 0.5))
add("clamp.Tensor", call(ABC, f("c"), f("a b c")))
add("addcmul addcdiv lerp.Tensor", call(ABC, ABC, ABC), call(f("b c"), ABC, f("a 1 1")))
add("lerp.Scalar", call(ABC, f("a b c"), 0.3))
add(
    """bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor __and__.Tensor __or__.Tensor
    bitwise_left_shift.Tensor bitwise_right_shift.Tensor""",
    call(i("a b c", 9), i("a b c", 9)),
    call(i("a b c", 9), i("c", 9)),
)
add(
    """bitwise_and.Scalar bitwise_or.Scalar bitwise_xor.Scalar __and__.Scalar __or__.Scalar
    __lshift__.Scalar __rshift__.Scalar""",
    call(i("a b c", 9), 3),
)
add(
    "where.self",
    call(m("a b c"), ABC, ABC),
    call(m("a b c"), f("c"), f("")),
    call(m("a 1 1"), f("b c"), ABC),
)
add("where.ScalarSelf", call(m("a b"), 1.0, f("a b")))
add("where.ScalarOther", call(m("a b"), f("a b"), 1.0))
add("where.Scalar", call(m("a b"), 1.0, 2.0))
MASKED = [(ABC, m("a b c")), (ABC, m("b c")), (ABC, m("a 1 1"))]
add("masked_fill.Scalar", *(call(x, mask, -1.0) for x, mask in MASKED))
add("masked_fill.Tensor", *(call(x, mask, f("")) for x, mask in MASKED))
add("copy", call(ABC, ABC), call(ABC, f("c")))
add(
    "_to_copy to.dtype_layout",
    call(ABC, dtype=torch.float64),
    counted(rows("a"), dtype=torch.int32),
)
add("_to_copy", call(rows("a"), dtype=torch.float32))
add("to.dtype", call(ABC, torch.float64))
add("to.device", call(ABC, torch.device("cpu"), torch.float64))

# Shapes.

add(
    "view _unsafe_view reshape _reshape_copy view_copy",
    call(ABC, [n("a*b"), n("c")]),
    call(ABC, [n("a"), n("b*c")]),
    call(ABC, [n("a*b*c")]),
    call(ABC, [n("a"), 2, 4, n("c")]),
    call(ABC, [n("a"), -1]),
    call(ABC, [n("b"), n("a"), n("c")]),
    call(f("a*4 c"), [n("a"), 4, n("c")]),
    call(f("a*4 c"), [4, n("a"), n("c")]),
    call(f("4 a c"), [2, n("2*a"), n("c")]),
    call(blocks(2, "2*a c"), [2, n("a"), n("c")]),
    call(blocks(4, "4*a c"), [2, n("2*a"), n("c")]),
    counted(rows("a"), [n("a"), 1]),
)
add("flatten.using_ints", call(ABC, 0, 1), call(ABC, 1, 2), call(ABC, 0, -1))
add("unsqueeze", call(ABC, 0), call(ABC, 2), call(ABC, -1), counted(rows("a"), -1))
add("squeeze", call(f("a 1 b 1")))
add("squeeze.dim", call(f("a 1 b"), 1), call(f("a 1 b"), 0), call(f("1 a b"), -3))
add("squeeze.dims", call(f("a 1 b 1"), [1, 3]), call(f("a 1 b 1"), [0, -1]))
add("transpose.int swapaxes swapdims", call(ABC, 0, 1), call(ABC, 1, -1))
add("t", call(f("a b")))
add("permute", call(ABC, [2, 0, 1]), call(ABC, [0, -1, 1]))
add(
    "expand broadcast_to",
    call(f("1 b"), [n("a"), n("b")]),
    call(f("a 1 c"), [n("a"), n("b"), n("c")]),
    call(f("b c"), [n("a"), n("b"), n("c")]),
    call(ABC, [-1, n("b"), -1]),
)
add("zeros ones", call([n("a"), n("b*c")]))
add("empty.memory_format", call([n("a"), n("b")]))
add("full", call([n("a"), n("b")], 2.5), call([n("a"), n("b")], n("a")))
add("new_zeros new_ones new_empty", call(f("b c"), [n("a"), n("b")]))
add("new_full", call(f("b c"), [n("a"), n("b")], 2.5))
add("arange", counted(n("a")))
add("arange.start", counted(0, n("a")), call(1, n("a")))
add("arange.start_step", counted(0, n("a"), 1), call(0, n("a"), 2))

# Taking apart and putting together.

add(
    "slice.Tensor",
    call(ABC, 1, 2, 4, 1),
    call(ABC, 0, 0, END, 1),
    call(ABC, 0, 0, n("a"), 1),
    call(ABC, 0, 1, END, 1),
    call(ABC, -1, -3, END, 2),
    call(blocks(2, "2*a c"), 0, n("a"), END, 1),
)
add("select.int", call(ABC, 1, 3), call(ABC, 0, -1))
add("unbind.int", call(f("a 3 c"), 1), call(f("3 a c"), 0))
add("split.Tensor unsafe_split.Tensor", call(ABC, 3, 1), call(ABC, n("a"), 0))
add("split.Tensor unsafe_split.Tensor", call(blocks(2, "2*a c"), n("a"), 0))
add(
    "split_with_sizes unsafe_split_with_sizes",
    call(ABC, [3, 5], 1),
    call(ABC, [n("a")], 0),
    call(blocks(3, "3*a c"), [n("a"), n("2*a")], 0),
)
add("chunk unsafe_chunk", call(ABC, 2, 1), call(ABC, 2, 0), call(blocks(4, "4*a c"), 2, 0))
add(
    "cat",
    call([ABC, ABC], 1),
    call([ABC, ABC], 0),
    call([f("a b"), f("a c")], -1),
    call([f("0"), f("a b")], 1),
)
add("stack", call([ABC, ABC], 0), call([ABC, ABC], 1), call([ABC, ABC], -1))
add("constant_pad_nd", call(ABC, [1, 2], 0.5), call(ABC, [0, 0, 0, 0, 1, 1]))

# Products and attention.

add("mm", call(f("a b"), f("b c")), call(blocks(2, "2*a c"), f("c d")), call(f("a b"), f("b a")))
add("addmm", *(call(f(added), f("a b"), f("b c")) for added in ("c", "a c", "1 c", "a 1")))
add("bmm", call(f("a b c"), f("a c d")))
add("baddbmm", *(call(f(added), f("a b c"), f("a c d")) for added in ("a b d", "d", "1 b d")))
add("mv", call(f("a b"), f("b")))
add(
    "matmul",
    call(f("a b"), f("b c")),
    call(f("a b c"), f("c d")),
    call(f("a b c"), f("a c d")),
    call(f("b c"), f("a c d")),
    call(f("1 b c"), f("a c d")),
)
add("linear", call(f("a b c"), f("d c"), f("d")), call(f("a c"), f("d c")))
HEADS = (f("a 4 b 8"), f("a 4 c 8"), f("a 4 c 8"))
HALF_HEADS = (f("a 4 b 8", HALF), f("a 4 b 8", HALF), f("a 4 b 8", HALF))
ATTENTION_MASKS = (None, m("a 1 b c"), f("b c"))
add(
    "scaled_dot_product_attention _scaled_dot_product_attention_math",
    *(call(*HEADS, mask) for mask in ATTENTION_MASKS),
    call(f("a 4 b 8"), f("a 2 c 8"), f("a 2 c 8"), enable_gqa=True),
    call(f("a 4 b 8"), f("a 4 b 8"), f("a 4 b 8"), None, 0.0, True),
)
add(
    "_scaled_dot_product_flash_attention_for_cpu",
    *(call(*HEADS, attn_mask=mask) for mask in (None, f("a 1 b c"), f("b c"))),
)
add("_scaled_dot_product_flash_attention", call(*HALF_HEADS))
add("_scaled_dot_product_efficient_attention", call(*HEADS, None, True))
add("_scaled_dot_product_cudnn_attention", call(*HALF_HEADS, None, True))
add("embedding", call(f("20 c"), i("a b", 20)), call(f("b c"), i("a", 6)))

# Reductions, and what runs along a dimension.

DIMS, DIM = ([1], [-1], [0, 2], [0]), (1, -1, 0)
add(
    "mean.dim sum.dim_IntList amax amin logsumexp any.dims all.dims",
    *(call(ABC, dims, keep) for dims in DIMS for keep in (False, True)),
)
add("sum.dim_IntList", call(ABC, None), call(blocks(2, "2*a c"), [1]))
add(
    "prod.dim_int argmax argmin max.dim min.dim any.dim all.dim",
    *(call(ABC, dim, keep) for dim in DIM for keep in (False, True)),
)
add("argmax argmin", call(ABC))
add(
    "var.correction std.correction var_mean.correction std_mean.correction",
    *(call(ABC, dims, correction=1, keepdim=len(dims) == 1) for dims in DIMS),
)
add("var.dim std.dim", *(call(ABC, dims, True, len(dims) == 1) for dims in DIMS))
add("linalg_vector_norm norm.ScalarOpt_dim", *(call(ABC, 2, dims, True) for dims in DIMS))
add("_softmax _log_softmax", *(call(ABC, dim, False) for dim in DIM))
add(
    """softmax.int _safe_softmax log_softmax.int cumsum cumprod logcumsumexp cummax cummin sort
    argsort glu""",
    *(call(ABC, dim) for dim in DIM),
)
add("flip", call(ABC, [1]), call(ABC, [0, -1]))
add("sort.stable argsort.stable", *(call(ABC, stable=True, dim=dim) for dim in DIM))
add("topk", call(ABC, 2, 1), call(ABC, 2), call(ABC, 2, 0))
add("roll", call(ABC, [1], [1]), call(ABC, [1, 2], [0, 2]), call(ABC, [3]))
add("tril triu", call(ABC), call(ABC, 1))
for name, last in (("native_layer_norm", 1e-5), ("layer_norm", 1e-5)):
    add(
        name,
        call(ABC, [n("c")], f("c"), f("c"), last),
        call(ABC, [n("b"), n("c")], None, None, last),
    )
add("rms_norm _fused_rms_norm", call(ABC, [n("c")], f("c"), 1e-5), call(ABC, [n("c")], None, 1e-5))

# Images.

IMAGES = f("a b 8 8")
add(
    "convolution",
    call(f("a 4 8 8"), f("6 4 3 3"), f("6"), [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    call(f("a 4 8 8"), f("4 2 3 3"), None, [2, 2], [0, 0], [1, 1], False, [0, 0], 2),
    call(f("a 4 8"), f("4 6 3"), f("6"), [2], [1], [1], True, [1], 1),
    call(f("a b 8"), f("6 b 3"), None, [1], [1], [1], False, [0], 1),
)
add("max_pool1d avg_pool1d", call(f("a b 8"), [2]))
add("upsample_nearest1d.vec", call(f("a b 8"), None, [2.0]))
add("max_pool2d_with_indices max_pool2d avg_pool2d", call(IMAGES, [2, 2]), call(f("a 8 8"), [2, 2]))
add("_adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d", call(IMAGES, [3, 3]))
add("upsample_nearest2d", call(IMAGES, [12, 12]))
add("upsample_bilinear2d upsample_bicubic2d", call(IMAGES, [12, 12], False))
add("upsample_nearest2d.vec", call(IMAGES, None, [2.0, 2.0]))
add("upsample_bilinear2d.vec upsample_bicubic2d.vec", call(IMAGES, [12, 12], True, None))
add("pixel_shuffle pixel_unshuffle", call(f("a b 4 6 6"), 2))
CHANNELS = (IMAGES, f("b"), f("b"), f("b"), p("b"))
add("_native_batch_norm_legit_no_training", call(*CHANNELS, 0.1, 1e-5))
add(
    "native_batch_norm _native_batch_norm_legit",
    call(*CHANNELS, False, 0.1, 1e-5),
    call(*CHANNELS, True, 0.1, 1e-5),
)
add("native_group_norm", call(f("a 4 6 6"), f("4"), f("4"), n("a"), 4, 36, 2, 1e-5))

# Indexing.

add(
    "index.Tensor",
    call(f("4 b c"), [i("a", 4)]),
    call(ABC, [None, i("d", 2)]),
    call(ABC, [i("d", 2)]),
    call(ABC, [rows("a")]),
    call(ABC, [rows("a"), i("a", 2)]),
    call(ABC, [rows("a"), None, i("a", 2)]),
    call(f("4 c a"), [i("a", 4), i("a", 2)]),
    call(f("4 c"), [rows("a"), i("a", 2)]),
)
add(
    "index_put",
    call(ABC, [m("a b")], f("")),
    call(ABC, [m("a b c")], f("")),
    call(ABC, [m("a")], f("c")),
    call(ABC, [None, rows("b")], f("a b c")),
    call(ABC, [None, None, rows("c")], f("b 1")),
    call(ABC, [rows("a"), i("a", 2)], f("a c")),
    call(ABC, [rows("a"), None, i("a", 2)], f("a b"), True),
    call(f("4 b c"), [i("d", 4)], f("d b c"), True),
)
add("index_copy", call(ABC, 1, rows("b"), f("a b c")), call(f("a 4"), 1, i("1", 4), f("a 1")))
add("index_add", call(ABC, 1, i("d", 2), f("a d c")), call(f("4 b"), 0, i("d", 4), f("d b")))
add("index_fill.int_Scalar", call(ABC, 1, i("d", 2), 0.5))
add("index_fill.int_Tensor", call(ABC, 1, i("d", 2), f("")))
add("scatter.src scatter_add", call(ABC, 1, i("a 1 c", 2), f("a d c")))
add("scatter.value", call(ABC, 1, i("a d c", 2), 0.5), call(ABC, 1, i("1 d c", 2), 0.5))
add("scatter_reduce.two", call(ABC, 1, i("a d c", 2), f("a d c"), "amax"))
add(
    "slice_scatter",
    call(ABC, f("a 2 c"), 1, 1, 3),
    call(ABC, f("a b 4"), 2, 0, 8, 2),
    call(ABC, ABC, 0, 0, END),
)
add("select_scatter", call(ABC, f("a c"), 1, 3), call(ABC, f("a b"), -1, 0))
add(
    "gather",
    call(ABC, 1, i("a d c", 2)),
    call(f("d b"), 1, i("a c", 2)),
    call(ABC, 0, i("d b c", 2)),
)
add("index_select", call(ABC, 1, i("d", 2)), call(f("4 b"), 0, i("a", 4)))
