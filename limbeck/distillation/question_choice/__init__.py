"""Which questions a teacher is asked, where it is not asked all of them."""
