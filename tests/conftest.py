"""Hypothesis profiles; HYPOTHESIS_PROFILE chooses one, CI means that nothing is random."""

import os

from hypothesis import settings

settings.register_profile("dev", deadline=None, max_examples=75, stateful_step_count=30)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile(
    "thorough", settings.get_profile("dev"), max_examples=1000, stateful_step_count=60
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))
