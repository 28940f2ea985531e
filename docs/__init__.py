"""The documentation; `python -m docs.generate` writes the parts made from code."""
