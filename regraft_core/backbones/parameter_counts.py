"""Numbers of parameters of the backbones of the table, without classification head.

Building a large one to count them takes seconds.
"""

PARAMETERS = {}
