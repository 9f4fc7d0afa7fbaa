"""Makes this package's classes known to transformers: Auto classes and the pipeline's task. Imported with `rrsis`."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from rrsis.architectures import MODELS
from rrsis.config import BTDNetConfig
from rrsis.pipeline import TASK, ReferringSegmentationPipeline
from rrsis.processing import BTDNetProcessor


def register() -> None:
    """Registers configuration, models, processor and task; once more changes nothing."""
    AutoConfig.register(BTDNetConfig.model_type, BTDNetConfig, exist_ok=True)
    # Of several models of one configuration, transformers takes the one that `config.architectures` names.
    AutoModel.register(BTDNetConfig, tuple(MODELS.values()), exist_ok=True)
    AutoProcessor.register(BTDNetConfig, BTDNetProcessor, exist_ok=True)
    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(TASK, pipeline_class=ReferringSegmentationPipeline, pt_model=AutoModel)
