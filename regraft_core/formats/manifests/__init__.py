"""The manifest of each step: the formats in which the steps exchange folders.

A folder is written next to its final path and renamed, so a reader sees all of it or nothing.
Every manifest has a `digest`, a SHA-256 of the content that it describes (not of times or paths),
so that equal content is recognized however it was made.
"""
