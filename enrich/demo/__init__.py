"""The demo's homes, their photo server and their database; `jobs.demo` runs the job on them."""
