"""Starting a student from the weights of its teacher."""
