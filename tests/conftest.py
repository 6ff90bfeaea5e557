"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

# The same examples every time, so that a failure is a change of the code. To search on:
# pytest --hypothesis-profile=explore
settings.register_profile(
    "default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "explore", settings.get_profile("default"), derandomize=False, max_examples=2000
)
settings.load_profile("default")
