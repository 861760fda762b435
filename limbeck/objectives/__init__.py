"""What training minimises: each objective turns a batch into a sum and a count."""
