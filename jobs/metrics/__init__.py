"""What is seen of the jobs from outside: metrics, and whether a process is alive and ready."""
