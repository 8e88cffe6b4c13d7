"""How fast bundles and their peers are on this machine: measured in one run, each held against the
reference before its time counts.

Nothing is imported here: a contestant's process must hold what it needs and no more.
"""
