"""The model families: one flat folder, because every file here may travel to a Hub repository.

Files in this folder import the standard library, torch, transformers and `from .sibling import ...`,
nothing else. Start with `modeling_recurrent.py`.
"""
