"""The other ways in which a model may be served, each verified within a tolerance of its own."""

from __future__ import annotations

from dataclasses import dataclass

from regraft_core.formats.manifests.saved_model import SavedModelManifest

# Bfloat16 has 8 bits of precision, which moves a probability by a few hundredths.
BFLOAT16_TOLERANCE = 0.05
# Sums in another order differ in the last digits of float32; 1e-6 and less was measured.
OPENVINO_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ServedVariant:
    """A way to serve a model.

    Attributes:
        name: As messages name it.
        flags: Flags of the server.
        tolerance: Maximum difference of probabilities that passes.
        server: The server that has it, "" for any.
        remedy: Option without which a run does not verify it.
    """

    name: str
    flags: tuple[str, ...]
    tolerance: float
    server: str
    remedy: str


BFLOAT16 = ServedVariant(
    "in bfloat16",
    ("--mixed_precision=bfloat16",),
    BFLOAT16_TOLERANCE,
    "",
    "--serving-precision bfloat16",
)
OPENVINO = ServedVariant(
    "with OpenVINO",
    ("--serving_engine=openvino",),
    OPENVINO_TOLERANCE,
    "embedded",
    "--serving-engine openvino",
)
OPENVINO_BFLOAT16 = ServedVariant(
    "with OpenVINO in bfloat16",
    (*OPENVINO.flags, *BFLOAT16.flags),
    BFLOAT16_TOLERANCE,
    "embedded",
    "--serving-engine openvino or --serving-precision bfloat16",
)


def served_variants(exported: SavedModelManifest) -> list[ServedVariant]:
    """Return the variants that an exported model has to be verified in."""
    in_bfloat16 = "bfloat16" in exported.serving_precisions
    with_openvino = "openvino" in exported.serving_engines
    wanted = {
        BFLOAT16: in_bfloat16,
        OPENVINO: with_openvino,
        OPENVINO_BFLOAT16: in_bfloat16 and with_openvino,
    }
    return [variant for variant, is_wanted in wanted.items() if is_wanted]
