"""The CPU kernel of the experts: C++ sources, their build, the torch operator."""
