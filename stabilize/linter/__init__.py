"""Lint: the engine with emission off, ranges of what is known, and an input that proves each defect."""
