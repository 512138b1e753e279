"""Study of ratio levels, bands and off-policy doses with very small models: `python -m benchmarks.study --help`.

conditions/*.yaml fix what is run, results/*.jsonl hold what came out; docs/evidence.md says what that means.
"""
