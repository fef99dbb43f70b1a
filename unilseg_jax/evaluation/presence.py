"""Whether anything of a phrase is in a picture: a probability from the statistics of its map.

UniLSeg has no output for this. A logistic regression on a few statistics of the probability map is fitted on a split
with known truths, which must not be the one that is reported.

Differs: in no paper; the rule of 50 pixels of GRES is reported beside it.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.optimize import minimize
from scipy.special import expit

from unilseg_jax.errors import UserError

FEATURES = ("highest", "mean_inside", "log_area", "undecided")
"""Statistics of a map: its highest probability; the mean over the mask; the logarithm of the mask's share of the
picture; the share of pixels between a quarter and three quarters, of all above a quarter."""
SCHEMA_VERSION = 1
_PENALTY = 1e-3  # on the squared weights per sample: keeps them finite where the statistics separate the samples
_LEAST_SHARE = 1e-6


def features_of(probs: Float32[np.ndarray, "h w"], threshold: float) -> Float64[np.ndarray, " 4"]:
    """Returns the statistics of one map, see `FEATURES`.

    Args:
        probs: 0 to 1.
        threshold: above it a pixel belongs to the mask.
    """
    mask, seen = probs > threshold, probs > 0.25
    inside = float(probs[mask].mean(dtype=np.float64)) if mask.any() else 0.0
    undecided = float((probs[seen] < 0.75).mean()) if seen.any() else 1.0
    return np.array([probs.max(), inside, np.log(mask.mean() + _LEAST_SHARE), undecided], np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresenceModel:
    """A fitted regression for each protocol.

    Attributes:
        coefficients: by name of the protocol the intercept, then a weight for each statistic.
        fitted_on: benchmark and split, such as `grefcoco:train`.
        weights_sha256: of the model whose maps it was fitted on.
    """

    coefficients: Mapping[str, Float64[np.ndarray, " 5"]]
    fitted_on: str
    weights_sha256: str

    def score(self, statistics: Float64[np.ndarray, "n 4"], protocol: str) -> Float64[np.ndarray, " n"]:
        """Returns the probability that something is there, 0 to 1.

        Args:
            statistics: a row of `features_of` per map.
            protocol: by which the maps were made.
        """
        intercept, *weights = self.coefficients[protocol]
        return expit(intercept + statistics @ np.array(weights))

    def check_protocol(self, name: str) -> None:
        """Refuses a protocol by which no map was made when the score was fitted.

        Raises:
            UserError: it is one.
        """
        if name not in self.coefficients:
            raise UserError(
                f"the presence score was fitted for the protocol {', '.join(self.coefficients)}, not for {name}; fit "
                "it for both"
            )

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, under a temporary name first."""
        text = json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "fitted_on": self.fitted_on,
                "weights_sha256": self.weights_sha256,
                "features": FEATURES,
                "coefficients": {name: list(values) for name, values in self.coefficients.items()},
            },
            indent=2,
        )
        partial = Path(f"{os.fspath(path)}.partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def of_weights(cls, path: str | os.PathLike, weights_sha256: str) -> "PresenceModel":
        """Reads what `save` wrote, for a model of these weights.

        Raises:
            UserError: there is no such file, it is none of these, or it was fitted for other weights.
        """
        model = cls.load(path)
        if model.weights_sha256 != weights_sha256:
            raise UserError(f"--presence {str(path)!r} was fitted for other weights; fit it again with --fit-presence")
        return model

    @classmethod
    def load(cls, path: str | os.PathLike) -> "PresenceModel":
        """Reads what `save` wrote.

        Raises:
            UserError: there is no such file, or it is none of these.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["schema_version"] != SCHEMA_VERSION or tuple(content["features"]) != FEATURES:
                raise ValueError("another version")
            coefficients = {name: np.array(row, np.float64) for name, row in content["coefficients"].items()}
            if any(row.shape != (len(FEATURES) + 1,) for row in coefficients.values()):
                raise ValueError("another number of coefficients")
            return cls(
                coefficients=coefficients,
                fitted_on=str(content["fitted_on"]),
                weights_sha256=str(content["weights_sha256"]),
            )
        except FileNotFoundError:
            raise UserError(f"no such presence file: {str(path)!r}; make it with --fit-presence") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{str(path)!r} is no presence file ({error}); make it with --fit-presence") from None


def fit(statistics: Float64[np.ndarray, "n 4"], present: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " 5"]:
    """Returns intercept and weights of the logistic regression.

    Args:
        statistics: a row of `features_of` per map.
        present: whether something of the phrase is in the picture.

    Raises:
        UserError: the samples are all of one kind.
    """
    if present.all() or not present.any():
        what = "have a target" if present.all() else "have none"
        raise UserError(f"all {len(present)} expressions {what}; to fit a presence score, both kinds are wanted")
    centre, spread = statistics.mean(0), statistics.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    scaled = np.concatenate([np.ones((len(statistics), 1)), (statistics - centre) / spread], axis=1)
    signs = np.where(present, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (scaled @ weights)
        slope = -(signs * expit(-margins)) @ scaled / len(signs)
        penalty = np.r_[0.0, weights[1:]]
        value = np.logaddexp(0, -margins).mean() + 0.5 * _PENALTY * penalty @ penalty
        return float(value), slope + _PENALTY * penalty

    weights = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B").x
    return np.r_[weights[0] - (weights[1:] * centre / spread).sum(), weights[1:] / spread]


def quality(
    model: PresenceModel, statistics: Float64[np.ndarray, "n 4"], present: Bool[np.ndarray, " n"], protocol: str
) -> tuple[float, float]:
    """Returns how many of those with a target and of those without are told right, at a probability of one half.

    Args:
        model: what tells.
        statistics: a row of `features_of` per map.
        present: whether something of the phrase is in the picture; both kinds must occur.
        protocol: by which the maps were made.

    Returns:
        (T-acc, N-acc), 0 to 1.
    """
    told = model.score(statistics, protocol) > 0.5
    return float(told[present].mean()), float((~told[~present]).mean())
