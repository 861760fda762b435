"""The vocabulary that every layer shares: errors, configs, records, artifacts, recipes.

Nothing here imports torch.
"""
