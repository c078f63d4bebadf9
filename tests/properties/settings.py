"""Hypothesis settings: deterministic examples, one to two seconds per test."""

from hypothesis import HealthCheck, settings


def examples(count: int) -> settings:
    """Return settings for `count` examples without deadline."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
