"""The benchmark suite: one file a task, and the rooms every run passes through."""
