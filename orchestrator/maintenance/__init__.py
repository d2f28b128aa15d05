"""Commands that delete or verify the files of jobs."""
