"""Routers between tiers: fitted on held-out drafts, certified on others, measured on questions."""
