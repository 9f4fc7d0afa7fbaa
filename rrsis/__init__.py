"""BTDNet: referring remote-sensing image segmentation on fused token–pixel kernels."""

import rrsis._torchvision  # noqa: F401 (before anything imports timm)
from rrsis.auto import register
from rrsis.config import BTDNetConfig, make_config
from rrsis.model import BTDNetForReferringSegmentation, BTDNetOutput
from rrsis.processing import BTDNetProcessor

__all__ = ["BTDNetConfig", "BTDNetForReferringSegmentation", "BTDNetOutput", "BTDNetProcessor", "make_config"]

# `import rrsis` is all that transformers' Auto classes and `pipeline` need.
register()
