"""What people and cron start: the enrich command, the nightly run, backfill, publish and the worker."""
