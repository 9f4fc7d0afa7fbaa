"""BTDNet: referring remote-sensing image segmentation on fused token–pixel kernels."""

from rrsis.config import BTDNetConfig, make_config
from rrsis.model import BTDNetForReferringSegmentation, BTDNetOutput
from rrsis.processing import BTDNetProcessor

__all__ = ["BTDNetConfig", "BTDNetForReferringSegmentation", "BTDNetOutput", "BTDNetProcessor", "make_config"]
