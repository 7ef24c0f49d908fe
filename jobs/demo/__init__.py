"""The demo's homes, their photo server and their database; `jobs.demo.run` runs the job on them."""
