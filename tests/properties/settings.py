"""How properties are tried: the same examples every time, as many as take a second or two."""

from hypothesis import HealthCheck, settings


def examples(count: int) -> settings:
    """So many; no timing decides about anything."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
