"""The loss detector (docs/explanation/policies.md, section 1)."""
