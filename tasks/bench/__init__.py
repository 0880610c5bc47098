"""The rooms every run passes: config, run, train, evaluate, store, tables."""
