"""Finds JPEG files with a loss that decoders fill up in silence, such as a truncated one that ends in an end marker.

libjpeg only warns of it, and neither Pillow nor OpenCV passes its warnings on; simplejpeg does.
"""

import re

import simplejpeg

from unilseg_jax.errors import UserError

# libjpeg's words for lost picture data. Superfluous bytes before any other marker than a restart (0xd0 to 0xd7) are
# in many real pictures and harmless.
_LOSS = re.compile("premature end|bad (Huffman|arithmetic) code|before marker 0xd[0-7]|instead of RST", re.IGNORECASE)


def check_whole(encoded: bytes, what: str = "picture") -> None:
    """Refuses a JPEG file whose picture data end too early or make no sense.

    What is no JPEG file, or of a kind that simplejpeg does not decode, passes: its decoder judges it.

    Args:
        encoded: the file.
        what: names it in the message.

    Raises:
        UserError: a part of it is lost.
    """
    if not encoded.startswith(b"\xff\xd8\xff"):
        return
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
        colours = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        # At the smallest size all data are read and checked, but few pixels computed.
        simplejpeg.decode_jpeg(encoded, colours, min_height=1, min_width=1, strict=True)
    # A number of colours that it does not know: KeyError.
    except (ValueError, KeyError) as error:
        if _LOSS.search(str(error)):
            raise UserError(f"the {what} is broken: {error}") from None
