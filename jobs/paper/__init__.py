"""What people read without a server: a run, some days or a listing as one HTML file with its pictures."""
