"""A page to try a model on: ``python -m rrsis.app --model RUN`` (docs/app.md)."""
