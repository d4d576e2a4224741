"""What an exported graph is simplified by: onnxscript's own passes, with the rewrite rules that it is to apply.

`torch.onnx.export(optimize=True)` applies all of onnxscript's default rules, and has no way to leave one out. Left out
here, as of onnxscript 0.7.2: `slice_split_rule`, which searches the whole graph for every node, two fifths of an
export's time, and which rewrites nothing in these graphs; and the rules for matrix products, integer convolutions and
scattering, which these graphs have none of.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassManager, Sequential
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

RULES = (
    *rules.mul_by_1_rule.commute(),
    *rules.add_0_rule.commute(),
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.dropout_zero_rule,
    rules.dropout_inference_rule,
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.min_min_rule,
    rules.max_max_rule,
    rules.min_max_rule,
    rules.max_min_rule,
    rules.successive_clip_relu_rule,
    rules.successive_relu_clip_rule,
    rules.successive_relu_rule,
    rules.successive_clip_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
)
"""Of onnxscript's defaults, in their order."""
ITERATIONS = 2


def optimize(model: ir.Model) -> None:
    """Simplify a graph in place: fold its constants, apply RULES, and leave out what nothing uses or what is there
    twice; the passes of `onnxscript.optimizer.optimize_ir`."""
    Sequential(
        passes.InlinePass(),
        PassManager(
            [
                FoldConstants(),
                RewritePass(RULES),
                passes.RemoveUnusedNodesPass(),
                passes.RemoveUnusedFunctionsPass(),
                passes.RemoveUnusedOpsetsPass(),
            ],
            steps=ITERATIONS,
            early_stop=True,
        ),
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    )(model)


class FoldConstants(ir.passes.InPlacePass):
    """`onnxscript.optimizer.fold_constants_ir` as a pass."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, optimizer.fold_constants_ir(model, onnx_shape_inference=True).modified)
