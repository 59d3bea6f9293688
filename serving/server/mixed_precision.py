"""Half precision of served models: TensorFlow rewrites their float32 graphs when it loads them."""

from __future__ import annotations

from regraft_core.formats.serving_precision import check_processor


def use_mixed_precision(precision: str) -> None:
    """Let models that are loaded from now on compute convolutions and products in bfloat16.

    It is the rewrite that TF Serving applies for the same flag (`saved_model_bundle_factory.cc` of
    2.20). Inputs, outputs and weights stay float32.

    Args:
        precision: `bfloat16`, or "" for float32.

    Raises:
        InputError: the processor does not compute in bfloat16.
    """
    if not precision:
        return
    check_processor("--mixed_precision")
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
