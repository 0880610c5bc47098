"""What `python -m tasks doctor` looks at, one file a subject; each holds `findings(request)`."""
