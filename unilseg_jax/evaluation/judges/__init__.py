"""One judge for each task: what is asked, what is compared, what is counted."""

from unilseg_jax.evaluation.judges.base import Judge
from unilseg_jax.evaluation.judges.referring import GeneralizedJudge, ReferringJudge
from unilseg_jax.evaluation.judges.salient import SalientJudge
from unilseg_jax.evaluation.judges.semantic import PartJudge, SemanticJudge
from unilseg_jax.evaluation.judges.video import VideoJudge
from unilseg_jax.evaluation.judges.video_objects import VideoObjectsJudge

JUDGES: dict[str, type[Judge]] = {
    "referring": ReferringJudge,
    "generalized": GeneralizedJudge,
    "semantic": SemanticJudge,
    "parts": PartJudge,
    "salient": SalientJudge,
    "video": VideoJudge,
    "video_objects": VideoObjectsJudge,
}
"""By task."""
