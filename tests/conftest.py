"""Every run of the tests is the same run: hypothesis draws its examples from the names of the tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
