"""Study of ratio levels, bands and off-policy doses with very small models: `python -m benchmarks.study --help`.

conditions/*.yaml define the runs, results/*.jsonl contain the results; docs/evidence.md interprets them.
"""
