"""RT-DETRv2, one file per component (arXiv:2407.17140, arXiv:2304.08069)."""

from .criterion import RTDETRCriterionv2
from .decoder import RTDETRTransformerv2
from .hybrid_encoder import HybridEncoder
from .matcher import HungarianMatcher
from .postprocessor import RTDETRPostProcessor
from .rtdetr import RTDETR

__all__ = [
    "RTDETR",
    "HungarianMatcher",
    "HybridEncoder",
    "RTDETRCriterionv2",
    "RTDETRPostProcessor",
    "RTDETRTransformerv2",
]
