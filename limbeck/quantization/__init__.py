"""Number formats: rounding that training can see, and conversion to what is stored."""

SCHEMES = {
    "int8": "limbeck.quantization.qat:Int8",
}
