"""The official metrics, as plain rules and as `evaluate.Metric` subclasses."""
