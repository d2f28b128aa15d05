"""The checks of lq doctor."""
