"""The store: what is true about every job. The only room that speaks SQL; values from jobs/model/job.py come and go."""
