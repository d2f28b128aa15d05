"""The trainer: drives MLX-LM. The only package that imports mlx."""
