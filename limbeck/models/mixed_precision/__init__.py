"""More bits for the layers that rounding costs most."""
