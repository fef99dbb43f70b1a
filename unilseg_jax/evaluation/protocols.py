"""The two ways in which masks are made for a benchmark; both are judged in one pass."""

import dataclasses

from unilseg_jax.ops.geometry import RESIZES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """From a picture to a mask.

    Attributes:
        name: of the protocol.
        resize: a key of `geometry.RESIZES`.
        threshold: of the probability, at the picture's own size; above it a pixel belongs to the mask.
    """

    name: str
    resize: str
    threshold: float


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="paper", resize="stretch", threshold=RESIZES["stretch"].threshold),
        Protocol(name="released", resize="letterbox", threshold=RESIZES["letterbox"].threshold),
    )
}
"""As the paper says it (section 4.1), and as the released code does it."""
