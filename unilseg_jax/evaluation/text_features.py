"""Phrases behind the text encoder, each computed once and kept.

Differs: none; the released code encodes a phrase together with each picture.
"""

import collections
import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from unilseg_jax.models.unilseg import UniLSeg


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """Phrases behind the text encoder, in memory of the host; see `UniLSeg.decode_features`.

    Attributes:
        words: of every token, padding included.
        sentence: of the phrase.
        is_word: false on padding.
    """

    words: Float[np.ndarray, "p l d"]
    sentence: Float[np.ndarray, "p s"]
    is_word: Bool[np.ndarray, "p l"]

    def __len__(self) -> int:
        return len(self.words)

    def pick(self, index: Int[np.ndarray, " n"]) -> "TextFeatures":
        """Returns the phrases of these numbers."""
        return TextFeatures(words=self.words[index], sentence=self.sentence[index], is_word=self.is_word[index])


class TextCache:
    """The text encoder, which remembers the phrases last asked for.

    Phrases go through it one at a time. Together they would be rounded otherwise than alone, and a phrase's
    features would depend on what was asked before; the text encoder is a hundredth of the work of a prompt.

    Args:
        model: with the text encoder.
        variables: its weights, on the device.
        size: how many phrases are kept, at least 0; of the standard model each takes 37 kB of the host's memory.
    """

    def __init__(self, model: UniLSeg, variables: dict, size: int):
        self._model, self._variables, self._size = model, variables, size
        self._kept: collections.OrderedDict[bytes, tuple[np.ndarray, np.ndarray]] = collections.OrderedDict()
        self.computed = 0
        """How many phrases went through the text encoder so far."""

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forgets all phrases."""
        self._kept.clear()

    def features(self, tokens: Int[np.ndarray, "p l"]) -> TextFeatures:
        """Returns the features of tokenised phrases."""
        keys = [row.tobytes() for row in tokens]
        known = {key: self._kept[key] for key in keys if key in self._kept}
        # All are on their way before the first is waited for.
        new = {
            key: encode_text(self._model, self._variables, row[None, None])
            for key, row in dict(zip(keys, tokens, strict=True)).items()
            if key not in known
        }
        self.computed += len(new)
        known |= {key: (np.asarray(words)[0, 0], np.asarray(sentence)[0, 0]) for key, (words, sentence) in new.items()}
        for key in dict.fromkeys(keys):
            self._kept[key] = known[key]
            self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        words, sentences = zip(*(known[key] for key in keys), strict=True)
        return TextFeatures(words=np.stack(words), sentence=np.stack(sentences), is_word=tokens != 0)


# The model is a static argument: predictors of one architecture share what was compiled.
@functools.partial(jax.jit, static_argnums=0)
def encode_text(
    model: UniLSeg, variables: dict, tokens: Int[Array, "b p l"]
) -> tuple[Float[Array, "b p l d"], Float[Array, "b p s"]]:
    """Compiles `UniLSeg.encode_text`."""
    return model.apply(variables, tokens, method="encode_text")
