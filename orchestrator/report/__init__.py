"""The report: store and job folder -> facts -> Markdown, JSON and pictures. Only collect and make do I/O."""
