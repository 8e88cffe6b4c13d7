"""One proven identity a file; `pipeline.py` says in which order they are applied."""
