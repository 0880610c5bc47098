"""Golden cases, one file a task: made-up answers, and what the official scripts say of them (`tasks.bench.golden`).

Each file holds `CASES`. What `found` computes is what a cell or an `evaluate.Metric` would; no number in `official` was
computed by this code.
"""
