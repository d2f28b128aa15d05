"""Facts to Markdown, HTML and the model card."""
