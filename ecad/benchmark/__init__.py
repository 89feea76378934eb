"""One thin script for each job of the paper, runnable by path; the same jobs are `ecad` commands."""
