"""The options of every step as typed values with defaults, for the CLI, recipes and KFP alike.

`option_parsing` builds them and reports an invalid value before any data is read.
"""
