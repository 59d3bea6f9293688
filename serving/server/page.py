"""The page to try a model: one static document without external assets."""

from __future__ import annotations

PAGE = "<!doctype html><title>Regraft</title>"
