"""What a model costs before it exists: parameters, bytes, arithmetic, memory, time.

`counting` reads parameters and arithmetic off a config, `formats` knows number formats, `memory`
says what training and serving hold, `hardware` what cards offer, `fitting` what fits on them.
"""

from limbeck.sizing.parameters import ModelSize, size_model

__all__ = ["ModelSize", "size_model"]
