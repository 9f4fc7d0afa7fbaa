"""What all tests share: the same examples in every run, and no time limits that a busy machine could break."""

from hypothesis import HealthCheck, settings

import rrsis._torchvision  # noqa: F401 (transformers' detectors import torchvision, which may need its help to load)

settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("deterministic")
