"""Healthy models, in which the lint must not find an error: `healthy()` lists them."""

from __future__ import annotations

from functools import cache

from lint_clean import forms, forms_of_models, modules, nodes
from lint_clean.entry import Healthy


@cache
def healthy() -> tuple[Healthy, ...]:
    """Those that need nothing but torch and onnx. Making the list takes seconds: the node tests compute their data."""
    return (*forms.forms.entries, *forms_of_models.forms.entries, *modules.entries(), *nodes.entries())
