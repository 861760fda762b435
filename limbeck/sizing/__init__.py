"""What a model costs before it exists: parameters, bytes, arithmetic, memory, time.

`parameters` and `attention` read sizes and arithmetic off a config, `number_formats` compares them
with a budget, `memory` computes what training and serving hold, `hardware` describes cards, `fit`
finds what fits on them.
"""
